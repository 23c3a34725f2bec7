"""What --describe says of a network, against figures worked out by hand."""

from pathlib import Path

import pytest
import torch

from vertebra_kp.config.io import load_job
from vertebra_kp.config.network import NetworkConfig
from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import SpineConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.models.describe import activation_bytes, count_macs, count_parameters, describe
from vertebra_kp.models.network import VertebraNetwork

SCHEMA = SCHEMAS["ap_lumbar"]
CONFIGS = Path(__file__).parents[2] / "configs"
JOBS = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem != "base")


def network():
    with torch.device("meta"):
        return VertebraNetwork(NetworkConfig.model_validate({"neck": {"depth": 0}}), SCHEMA)


def test_parameters_of_the_heads_are_those_of_their_layers():
    assert count_parameters(network().heatmap_head) == 32 * 20 + 20  # 1x1 convolution of 32 channels
    assert count_parameters(network().presence_head) == 256 * 5 + 5


def test_without_a_transformer_cost_grows_with_the_area_of_the_film():
    small, large = count_macs(network(), (64, 96)), count_macs(network(), (128, 192))
    # All but the presence head and squeeze-and-excitation, which see one vector a film.
    assert abs(large / small - 4) < 0.05


def test_kept_activations_grow_with_the_batch():
    two, four = (activation_bytes(network(), (64, 64), batch) for batch in (2, 4))
    assert four[1] == 2 * two[1] == 3 * 4 * (4 * 20 * 32 * 32)  # float32 maps at stride 2
    assert 1.9 < four[0] / two[0] < 2.1


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_shipped_config_can_be_described(path):
    assert "multiply-accumulates" in describe(load_job(path))


def test_a_spine_network_is_described_by_its_own_maps():
    config = SpineConfig.model_validate(
        {"name": "x", "sources": [{"source": "aasce"}], "views": {"size": [512, 256]}, "train": {"steps": 1}},
        strict=False,
    )
    page = " ".join(describe(config).split())
    # 5 kinds of points; 4 corners in x and y; the level of each vertebra: at the stride of the decoder, here 2
    for row in ("F1 24 256 x 128 2", "points 5 256 x 128 2", "offsets 8 256 x 128 2", "log_step 1 256 x 128 2"):
        assert row in page
    assert "view_head 0.00 M parameters" in page


def test_the_page_names_every_map_with_its_shape():
    config = Config.model_validate(
        {"name": "x", "data": {"input_size": (512, 512)}, "train": {"phases": [{"name": "a", "epochs": 1}]}}
    )
    page = " ".join(describe(config).split())
    rows = ("F1 24 256 x 256 2", "F2 48 128 x 128 4", "F3 64 64 x 64 8", "S16 160 32 x 32 16", "F4 256 16 x 16 32")
    for row in (*rows, "heatmaps 22 256 x 256 2"):
        assert row in page
