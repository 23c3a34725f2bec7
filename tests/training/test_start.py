"""What a training begins with: published weights by name and file, state dicts, and parts of a network."""

import pytest
import torch

from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.section import StartSection
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.inference.network_file import COMMITTED, FILE
from vertebra_kp.inference.weights import Stage, load_weights, save_weights
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork
from vertebra_kp.training.start import begins_anew, load_start

PUBLISHED = COMMITTED / "ap-spine" / FILE
THIN = NetworkConfig(
    backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
    neck=NeckConfig(depth=1, width=16, heads=2),
    decoder=DecoderConfig(channels=[8, 8, 8], output_stride=4),
)


def network_of(anatomy="la_lumbar", seed=1):
    torch.manual_seed(seed)
    return VertebraNetwork(THIN, SCHEMAS[anatomy])


def equal(network, other, parts):
    """Whether the tensors of these parts are the same, and those of no other part with weights are."""
    ours, theirs = network.state_dict(), dict(other)
    weights = [name for name in ours if name.endswith("weight") and ours[name].ndim > 1 and name in theirs]
    return all(
        (ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name]))
        == (name.partition(".")[0] in parts)
        for name in weights
    )


@pytest.mark.parametrize("named", ["ap-spine", "aasce-ap", str(PUBLISHED)])
def test_a_spine_network_starts_from_published_weights_by_name_and_by_file(named):
    stage = load_weights(PUBLISHED)[0]
    network = SpineNetwork(NetworkConfig.model_validate(stage.config["network"]), load_weights=False)
    load_start(network, StartSection(start_from=named))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, stage.weights[name], rtol=0, atol=0)


def test_a_file_of_two_stages_gives_the_one_that_fits():
    stage = load_weights(PUBLISHED)[1]  # the crop refinement
    schema = SCHEMAS["ap_whole_spine"]
    config = NetworkConfig.model_validate(stage.config["network"])
    with pytest.raises(UserError, match="is of another network"):
        load_start(VertebraNetwork(config, schema, load_weights=False), StartSection(start_from="ap-spine"))
    network = VertebraNetwork(config, schema, load_weights=False)
    load_start(network, StartSection(start_from="ap-spine", start_parts=["backbone", "neck", "decoder"]))
    assert equal(network, stage.weights, ["backbone", "neck", "decoder"])


@pytest.mark.parametrize("wrap", ["state_dict", "module", "weights"])
def test_a_network_starts_from_a_state_dict_and_from_exported_weights(tmp_path, wrap):
    other = network_of(seed=2)
    path = tmp_path / "weights.safetensors"
    given = other.state_dict()
    if wrap == "weights":
        save_weights([Stage({"data": {"anatomy": "la_lumbar"}}, given, 7)], path, {})
        given = load_weights(path)[0].weights
    elif wrap == "module":
        torch.save({f"module.{name}": value for name, value in given.items()}, tmp_path / "net.pth")
    else:
        torch.save({"state_dict": given}, tmp_path / "net.pth")
    network = network_of()
    load_start(network, StartSection(start_from=path if wrap == "weights" else tmp_path / "net.pth"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, given[name]), name


def test_another_anatomy_starts_without_the_heads_when_asked(tmp_path):
    other = network_of("ap_whole_spine", seed=2)
    save_weights(
        [
            Stage(
                {"data": {"anatomy": "ap_whole_spine"}, "network": THIN.model_dump(mode="json")},
                other.state_dict(),
                7,
            )
        ],
        tmp_path / "weights.safetensors",
        {},
    )
    start = StartSection(start_from=tmp_path / "weights.safetensors")
    with pytest.raises(UserError) as refused:
        load_start(network_of(), start)
    said = str(refused.value)
    assert "it was trained for ap_whole_spine with the backbone timm/tf_efficientnet_lite0" in said
    assert "train.start_parts to what fits: [backbone, neck, decoder]" in said
    network, start = network_of(), start.model_copy(update={"start_parts": ["backbone", "neck", "decoder"]})
    load_start(network, start)
    given = load_weights(tmp_path / "weights.safetensors")[0].weights
    assert equal(network, given, ["backbone", "neck", "decoder"])
    assert not begins_anew(start, "backbone")
    assert begins_anew(start, "presence_head")


def test_a_network_of_another_kind_says_so_and_may_give_its_backbone():
    network = network_of()
    with pytest.raises(
        UserError, match="it is a spine network, this config is of a network with a channel"
    ) as said:
        load_start(network, StartSection(start_from="la-spine"))
    assert "start_parts to what fits: [backbone]" in str(said.value)
    load_start(network, StartSection(start_from="la-spine", start_parts=["backbone"]))
    given = load_weights(COMMITTED / "la-spine" / FILE)[0].weights
    assert equal(network, given, ["backbone"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start_parts": ["backbone"]}, "start_from names no network"),
        ({"start_from": "ap-spine", "start_parts": []}, "at least 1 item"),
    ],
)
def test_parts_need_a_network(values, message):
    with pytest.raises(ValueError, match=message):
        StartSection.model_validate(values)


def test_unknown_parts_files_and_names_are_refused_in_one_line(tmp_path):
    network = network_of()
    (tmp_path / "text.pt").write_text("no weights")
    for start, message in (
        (
            {"start_from": "ap-spine", "start_parts": ["heads"]},
            "heads is no part of this network; take of backbone",
        ),
        ({"start_from": "no-such"}, "no weights of that name come along"),
        ({"start_from": str(tmp_path / "text.pt")}, "holds more than tensors"),
    ):
        with pytest.raises(UserError, match=message) as said:
            load_start(network, StartSection.model_validate(start, strict=False))
        assert "\n" not in str(said.value)
