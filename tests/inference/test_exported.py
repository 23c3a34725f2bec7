"""An exported network predicts what torch predicts, without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.models.test_level_network import CONFIG as LEVEL_CONFIG
from vertebra_kp.cli.main import main
from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.spine import SourcesTrainConfig, SpineConfig, SpineSourceConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.inference.export import export_onnx
from vertebra_kp.inference.exported import load_exported
from vertebra_kp.inference.levels import LevelReader
from vertebra_kp.inference.network_file import CheckpointError, names_sources
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.torch_stages import TorchLevels, TorchSpine
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.spine_network import SpineNetwork

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SPINE_CONFIG = SpineConfig(
    name="test",
    sources=[SpineSourceConfig(source="centres")],
    network=NetworkConfig(
        backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
        neck=NeckConfig(depth=1, width=16, heads=2),
        decoder=DecoderConfig(channels=[8, 8, 8], output_stride=4),
    ),
    train=SourcesTrainConfig(steps=1),
)


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    reader = LevelReader(TorchLevels(LevelNetwork(LEVEL_CONFIG), LEVEL_CONFIG), LEVEL_CONFIG)
    return SpinePredictor(TorchSpine(SpineNetwork(SPINE_CONFIG.network)), SPINE_CONFIG, 3, None, [reader])


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "network"
    export_onnx(predictor, folder)
    return folder


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_stage_says_what_torch_says_at_any_size(predictor, exported, mirrored):
    again = load_exported(exported)
    rng = np.random.default_rng(0)
    for size in ((64, 96), (256, 128)):
        seen = rng.random(size, dtype=np.float32)
        ours, theirs = (vars(one.spine.maps(seen, mirrored=mirrored)) for one in (predictor, again))
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, atol=1e-3, err_msg=name)
    for rows in (24, 28):
        seen, found = rng.random((rows * 24, 192), dtype=np.float32), np.arange(rows) > 4
        ours, theirs = (one.level_readers[0].stage.log_probabilities(seen, found) for one in (predictor, again))
        np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_it_keeps_the_fingerprint_and_the_step(predictor, exported):
    again = load_exported(exported)
    assert again.fingerprint == predictor.fingerprint
    assert (again.step, again.schema, again.configs) == (3, predictor.schema, predictor.configs)


def test_a_folder_that_exists_is_not_overwritten(predictor, exported):
    before = sorted(exported.iterdir())
    with pytest.raises(UserError, match="exists already"):
        export_onnx(predictor, exported)
    assert sorted(exported.iterdir()) == before
    assert [path.name for path in exported.parent.iterdir()] == ["network"]


def test_a_damaged_graph_or_description_is_refused_in_one_line(exported, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    graph = folder / "spine.onnx"
    content = bytearray(graph.read_bytes())
    content[5000] ^= 4
    graph.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"spine\.onnx: is damaged"):
        load_exported(folder)
    about = json.loads((folder / "network.json").read_text())
    for broken in ({**about, "format": 7}, {**about, "spine": {}}, [], {**about, "levels": [{"file": "x"}]}):
        (folder / "network.json").write_text(json.dumps(broken))
        with pytest.raises(CheckpointError, match="export it again") as refused:
            load_exported(folder)
        assert "\n" not in str(refused.value)


def test_only_the_weights_of_spine_networks_name_sources(tmp_path):
    from vertebra_kp.inference.network_file import find_network

    assert names_sources(find_network("ap-spine"))
    for content in (b"", b"\x05" * 40, b"\x02\0\0\0\0\0\0\0{}"):
        (tmp_path / "x").write_bytes(content)
        assert not names_sources(tmp_path / "x")


@pytest.mark.slow
def test_predict_exports_once_and_then_imports_no_torch(tmp_path, monkeypatch):
    phantoms = ["phantom", "--anatomy", "ap_whole_spine", "--num-images", "1", "--out", str(tmp_path / "phantom")]
    assert main(phantoms) == 0
    film = next((tmp_path / "phantom").rglob("*.png"))
    monkeypatch.setenv("VERTEBRA_KP_CACHE", str(tmp_path / "cache"))

    def words(backend: str, name: str) -> list[str]:
        network = ["predict", "--network", "ap-spine", "--backend", backend]
        return [*network, "--out", str(tmp_path / name), str(film)]

    assert main(words("torch", "torch")) == 0
    assert main(words("onnx", "first")) == 0
    code = "import sys; from vertebra_kp.cli.main import main; done = main(sys.argv[1:])"
    code += "; sys.exit(done or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, *words("onnx", "second")], check=True)
    corners = []
    for name in ("torch", "first", "second"):
        (image,) = json.loads((tmp_path / name / "predictions.json").read_text())["films"]
        corners.append([xy for level in image["levels"].values() for xy in level["corners"].values()])
    assert len(corners[0]) > 40
    assert np.median(np.abs(np.subtract(corners[1], corners[0]))) < 0.05
    assert corners[1] == corners[2]
