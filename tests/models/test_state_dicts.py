"""Weights as other programs save them: wrappers are undone, and what cannot fit is explained."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vertebra_kp.config.network import BackboneConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.models.backbones import Backbone
from vertebra_kp.models.library import WeightsError, timm_network
from vertebra_kp.models.state_dicts import OwnFileError, likely_cause, read_state_dict, without_prefix

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def published():
    """A state dict of timm's network, as timm names it."""
    torch.manual_seed(3)
    return timm_network(NAME).state_dict()


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


WRAPPERS = {
    "bare": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "module": lambda tensors: prefixed("module.", tensors),
    "lightning": lambda tensors: {
        "state_dict": prefixed("model.backbone.", tensors) | {"model.head.weight": torch.zeros(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    },
    "compiled and nested": lambda tensors: {"model": {"state_dict": prefixed("_orig_mod.module.", tensors)}},
}


@pytest.mark.parametrize("kind", [*WRAPPERS, "safetensors"])
def test_a_backbone_takes_its_weights_out_of_any_wrapper(tmp_path, published, kind):
    path = tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(published, path)
    else:
        torch.save(WRAPPERS[kind](published), path)
    backbone = Backbone(BackboneConfig(name=f"timm/{NAME}", weights=path))
    assert torch.equal(backbone.blocks[0][0].weight, published["conv_stem.weight"])


def test_weights_of_another_library_are_refused_with_both_names(tmp_path, published):
    renamed = {f"features.{i}": value for i, value in enumerate(published.values())}
    torch.save(renamed, tmp_path / "renamed.pth")
    with pytest.raises(
        WeightsError, match=r"\(features\.0, wanted conv_stem\.weight\).*another library's.* as timm"
    ):
        Backbone(BackboneConfig(name=f"timm/{NAME}", weights=tmp_path / "renamed.pth"))


def test_a_cause_is_named_for_another_size_and_for_a_part():
    own = nn.Linear(3, 4).state_dict()
    assert "weight has shape [4, 2], wanted [4, 3]" in likely_cause(nn.Linear(2, 4).state_dict(), own, "it")
    assert "of a part of it" in likely_cause({"bias": own["bias"]}, own, "it")


def test_a_prefix_is_that_of_most_names():
    given = {"a.x.weight": 1, "a.x.bias": 2, "b.weight": 3}
    assert without_prefix(given, {"weight", "bias"}) == {"weight": 1, "bias": 2}
    assert without_prefix(given, {"x.weight", "x.bias", "weight"}) == {"x.weight": 1, "x.bias": 2}
    assert without_prefix(given, {"nothing"}) == given


def test_files_that_hold_no_state_dict_say_why(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "names": ["a"]}, path)
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_state_dict(path)
    torch.save(nn.Linear(3, 4), path)  # a whole object, which would run code
    with pytest.raises(UserError, match="holds more than tensors"):
        read_state_dict(path)
    torch.save({"format": 2, "network": {}, "moments": {}}, path)
    with pytest.raises(OwnFileError, match=r"train\.start_from takes"):
        read_state_dict(path)
