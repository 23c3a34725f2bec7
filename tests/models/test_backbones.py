"""Backbones: stages by name, weights of their own libraries, errors that name the field."""

import socket
import threading
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
import timm
import torch
import torchvision
from tiny_job import tiny_config

from vertebra_kp.config.network import BackboneConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.models import library
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.library import BackboneError, WeightsError
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.schedule import check_phases

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


@pytest.fixture(scope="module")
def resnet():
    return Backbone(BackboneConfig(name="resnet34"))


@pytest.mark.parametrize(
    ("stages", "chosen"),
    [
        (0, []),
        (1, ["stem", "stage1"]),
        (4, list(STAGES)),
        (-3, ["stem", "stage1"]),
        (-5, []),
        ([], []),
        (["stage2"], ["stage2"]),
        (["stem", "stage3..stage4"], ["stem", "stage3", "stage4"]),
        (["stem..stage4"], list(STAGES)),
        (["stage4..stage3"], []),
        ("all", list(STAGES)),
    ],
    ids=str,
)
def test_stages_are_chosen_by_number_name_or_range(resnet, stages, chosen):
    assert [STAGES[i] for i in sorted(resnet.select(stages))] == chosen


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (5, "freeze_stages is 5, the backbone has stages 1 to 4 after its stem"),
        (-6, "freeze_stages is -6, the backbone has stages 1 to 4 after its stem"),
        (["layer1"], "layer1 is no stage of the backbone; it has stem, stage1, stage2, stage3, stage4"),
        (["stem..stage9"], "stage9 is no stage of the backbone"),
    ],
    ids=str,
)
def test_stages_that_are_not_there_are_named(resnet, stages, message):
    with pytest.raises(BackboneError, match=message):
        resnet.select(stages)


def test_a_backbone_freezes_what_it_is_told_and_nothing_else():
    backbone = Backbone(BackboneConfig(name="resnet34"))
    backbone.freeze(2)
    backbone.freeze(["stem", "stage2", "stage4"])
    frozen = ["stem", "stage2", "stage4"]
    for name, block in zip(backbone.stage_names, backbone.blocks, strict=True):
        assert {p.requires_grad for p in block.parameters()} == {name not in frozen}
        assert {module.training for module in block.modules()} == {name not in frozen}
    assert backbone.num_leading_frozen == 1  # only the stem lies before everything that learns


def test_a_frozen_stage_behind_a_learning_one_lets_the_gradient_through():
    backbone = Backbone(BackboneConfig(name="resnet34"))
    backbone.freeze(["stage3"])
    backbone(torch.randn(2, 3, 64, 64))["F4"].sum().backward()
    have = [all((p.grad is not None) for p in block.parameters()) for block in backbone.blocks]
    assert have == [True, True, True, False, True]


def test_frozen_batch_norms_stand_still_while_everything_else_learns():
    backbone = Backbone(BackboneConfig(name="resnet34", frozen_batch_norm=True)).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    optimiser = torch.optim.AdamW(p for p in backbone.parameters() if p.requires_grad)
    backbone(torch.randn(2, 3, 64, 64))["F4"].sum().backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    learning = {name for name, p in backbone.named_parameters() if p.requires_grad}
    norms = {name for name, m in backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert learning == {name for name, _ in backbone.named_parameters() if name.rpartition(".")[0] not in norms}


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet34", "convnext_small"])
def test_a_local_file_gives_the_maps_of_torchvisions_network(tmp_path, name):
    torch.manual_seed(1)
    original = torchvision.models.get_model(name, weights=None).eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(BackboneConfig(name=name, weights=tmp_path / "weights.pth")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        if name == "resnet34":
            y = original.maxpool(original.relu(original.bn1(original.conv1(x))))
            deepest = original.layer4(original.layer3(original.layer2(original.layer1(y))))
        else:
            deepest = original.features(x)
        torch.testing.assert_close(backbone(x)["F4"], deepest, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "swin_tiny_patch4_window7_224"])
def test_a_local_file_gives_the_maps_of_timms_network(tmp_path, name):
    torch.manual_seed(1)
    whole = timm.create_model(name, pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(BackboneConfig(name=f"timm/{name}", weights=tmp_path / "weights.pth")).eval()
    features = timm.create_model(name, pretrained=False, features_only=True).eval()
    own = features.state_dict()
    given = {
        key if key in own else key.replace("layers.", "layers_", 1): v for key, v in whole.state_dict().items()
    }
    features.load_state_dict({key: given[key] for key in own})
    x = torch.randn(1, 3, 224, 224)  # the one size that all of them take as they come
    with torch.no_grad():
        *_, expected = features(x)
        expected = expected.permute(0, 3, 1, 2) if name.startswith("swin") else expected
        torch.testing.assert_close(backbone(x)["F4"], expected, rtol=0, atol=1e-5)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"lacks \d+ of \d+ tensors of resnet50, the first is layer1"):
        Backbone(BackboneConfig(name="resnet50", weights=tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/no_such_net", "timm has no encoder no_such_net"),
        ("timm/vit_tiny_patch16_224", "does not take films of any size|does not go down to stride 32"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(name, message):
    with pytest.raises(BackboneError, match=message):
        Backbone(BackboneConfig(name=name))


def test_a_projection_of_a_map_that_is_not_there_is_refused():
    with pytest.raises(BackboneError, match="projection: convnext_small has no map F1, only F2, F3, S16, F4"):
        Backbone(BackboneConfig(name="convnext_small", projection={"F1": 8}))


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"freeze_stages": 7}, "train.phases, two: freeze_stages is 7, the backbone has stages 1 to 6"),
        ({"freeze_stages": ["neck"]}, "train.phases, two: freeze_stages: neck is no stage"),
        (
            {"freeze": ["classification_head"]},
            "two: freeze: classification_head is no part of the network",
        ),
        (
            {"freeze_stages": 6, "freeze": ["neck", "decoder", "heatmap_head", "presence_head"]},
            "train.phases, two: everything is frozen, nothing learns",
        ),
    ],
    ids=str,
)
def test_a_phase_that_cannot_be_entered_is_told_before_the_first_step(phase, message):
    config = tiny_config(phases=({"name": "one", "epochs": 1}, {"name": "two", "epochs": 1} | phase))
    with torch.device("meta"):
        network = VertebraNetwork(config.network, config.data.keypoint_schema)
    with pytest.raises(UserError, match=message):
        check_phases(network, config.train, config.data.input_size)


def test_layers_behind_maps_that_nobody_reads_do_not_ask_for_a_gradient():
    backbone = Backbone(BackboneConfig(name="timm/hrnet_w18_small"))
    assert backbone.unread == []
    backbone.return_only(["S16", "F4"])
    assert backbone.unread
    trained = [p for p in backbone.parameters() if p.requires_grad]
    sum(feature.sum() for feature in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in trained)
    backbone.freeze("all")
    backbone.freeze(0)
    assert [p for p in backbone.parameters() if p.requires_grad] == trained


def test_films_are_normalised_as_the_published_weights_expect():
    assert Backbone(BackboneConfig(name="timm/tf_efficientnetv2_b0")).input_statistics == (
        timm.get_pretrained_cfg("tf_efficientnetv2_b0").mean,
        timm.get_pretrained_cfg("tf_efficientnetv2_b0").std,
    )
    assert Backbone(BackboneConfig(name="resnet34")).input_statistics[0] == (0.485, 0.456, 0.406)


def test_layers_freeze_in_their_order_beside_stages():
    backbone = Backbone(BackboneConfig(name="resnet34"))
    backbone.freeze(
        ["stage4"], layers=5
    )  # the stem's convolution and norm; of stage 1 two convolutions and a norm
    assert [backbone.stage_names[i] for i in sorted(backbone.frozen)] == ["stem", "stage4"]
    assert {p.requires_grad for i in (0, 4) for p in backbone.blocks[i].parameters()} == {False}
    first = backbone.blocks[1][1][0]  # after the pooling, the first block of the stage
    for layer, frozen in ((first.conv1, True), (first.bn1, True), (first.conv2, True), (first.bn2, False)):
        assert {p.requires_grad for p in layer.parameters()} == {not frozen}
        assert layer.training != frozen
    assert all(p.requires_grad for p in backbone.blocks[2].parameters())
    mean = first.bn1.running_mean.clone(), first.bn2.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    assert torch.equal(first.bn1.running_mean, mean[0])
    assert not torch.equal(first.bn2.running_mean, mean[1])
    backbone.freeze(0)
    assert all(p.requires_grad for p in backbone.parameters())
    assert first.bn1.training


def test_layers_are_counted_from_the_end_too(resnet):
    count = sum(len(of_stage) for of_stage in resnet.layers_of)
    # 33 convolutions of 16 blocks and the stem, 3 that fit a block's input, each with its norm.
    assert count == 2 * (33 + 3)
    resnet.freeze(0, layers=-1)
    assert [name for name, p in resnet.named_parameters() if p.requires_grad] == [
        "blocks.4.2.bn2.weight",
        "blocks.4.2.bn2.bias",
    ]
    with pytest.raises(BackboneError, match="freeze_layers is 73, the backbone has 72 layers"):
        resnet.freeze(0, layers=73)
    resnet.freeze(0)


@pytest.mark.parametrize(
    ("chosen", "anew"), [(2, ["stage3", "stage4"]), (["stem", "stage2..stage3"], ["stem", "stage2", "stage3"])]
)
def test_reinitialised_stages_begin_with_the_weights_that_they_would_have_without_a_file(tmp_path, chosen, anew):
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(2)
    random = Backbone(BackboneConfig(name="resnet34"))
    given = Backbone(BackboneConfig(name="resnet34", weights=tmp_path / "weights.pth"))
    torch.manual_seed(2)
    mixed = Backbone(BackboneConfig(name="resnet34", weights=tmp_path / "weights.pth", reinitialise=chosen))
    for i, name in enumerate(STAGES):
        expected = (random if name in anew else given).blocks[i].state_dict()
        other = (given if name in anew else random).blocks[i].state_dict()
        found = mixed.blocks[i].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
        assert not all(torch.equal(value, other[key]) for key, value in found.items())


@pytest.mark.parametrize(
    ("chosen", "message"),
    [(6, "reinitialise is 6, resnet34 has 5 stages"), (["layer4"], "reinitialise: layer4 is no stage")],
    ids=str,
)
def test_stages_to_reinitialise_that_are_not_there_are_named(tmp_path, chosen, message):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match=f"network.backbone.{message}"):
        Backbone(BackboneConfig(name="resnet34", weights=tmp_path / "weights.pth", reinitialise=chosen))


def test_random_weights_cannot_be_reinitialised():
    with pytest.raises(ValueError, match="reinitialise is set, but weights is none"):
        BackboneConfig(reinitialise=1)


def test_a_server_that_is_silent_ends_a_download_with_a_remedy(monkeypatch):
    monkeypatch.setattr(library, "SILENCE_LIMIT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"
        weights = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=lambda progress: urlopen(url)))
        monkeypatch.setattr(library, "get_model_weights", lambda name: weights)
        with pytest.raises(WeightsError, match=r"no answer in 0.3 s.*network.backbone.weights=FILE.*weights=none"):
            Backbone(BackboneConfig(name="resnet34", weights="imagenet"))
    assert socket.getdefaulttimeout() is None


def test_a_download_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(library, "DOWNLOAD_LIMIT_S", 0.2)
    going_on = threading.Event()
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=lambda progress: going_on.wait(30)))
    monkeypatch.setattr(library, "get_model_weights", lambda name: weights)
    with pytest.raises(WeightsError, match=r"not done in 0.2 s.*network.backbone.weights=FILE"):
        Backbone(BackboneConfig(name="resnet34", weights="imagenet"))
    going_on.set()
