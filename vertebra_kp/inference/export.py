"""A spine network to ONNX: one graph for every stage, of any batch and size, checked against torch."""

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_json
from vertebra_kp.inference.batch import codec_of, heatmaps_of
from vertebra_kp.inference.exported import FORMAT, About, OnnxSession, StageFile, check_backend
from vertebra_kp.inference.network_file import ABOUT
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.spine_maps import SpineArrays
from vertebra_kp.inference.torch_stages import TorchLevels, TorchSpine, TorchVertebrae
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork

OPSET = 17
MOST_OFF = 2e-3  # of a logit or a pixel: float32 sums in another order
SPINE_SIZES = ((384, 160), (192, 96))  # the first is traced, the second tried
BATCHES = (2, 3)


class _SpineGraph(nn.Module):
    def __init__(self, network: SpineNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        output = self.network(image)
        return tuple(getattr(output, field.name) for field in fields(SpineArrays))


class _VertebraGraph(nn.Module):
    """With the mirror image's mean and the decoding: an image in; points, covariances, scores out."""

    def __init__(self, network: VertebraNetwork, config: Config) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoded = codec_of(self.config).decode(heatmaps_of(self.network, image, self.config))
        return decoded.points_xy, decoded.covariance, decoded.peak


class _LevelGraph(nn.Module):
    def __init__(self, network: LevelNetwork, config: LevelConfig) -> None:
        super().__init__()
        self.network, self.mirrors = network, config.reformation.flip

    def forward(self, image: Tensor, found: Tensor) -> Tensor:
        told: Tensor = self.network(image, found)
        if self.mirrors:
            told = (told + self.network(image.flip(-1), found)) / 2
        return told


def export_onnx(predictor: SpinePredictor, folder: Path) -> None:
    """Write the network as ``exported.load_exported`` reads it; ``folder`` appears whole or not at all.

    Raises UserError where a library is missing, the folder exists, or a graph does not say what torch says.
    """
    check_backend("onnx")
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        write_json(_written(predictor, partial), partial / ABOUT)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written(predictor: SpinePredictor, folder: Path) -> About:
    spine = predictor.spine
    assert isinstance(spine, TorchSpine)
    height, width = SPINE_SIZES[0]
    images = [torch.rand(1, 1, *size) for size in SPINE_SIZES]
    axes = {"image": {0: "n", 2: "height", 3: "width"}}
    about: About = {
        "format": FORMAT,
        "fingerprint": predictor.fingerprint,
        "step": predictor.step,
        "spine": _stage(
            _SpineGraph(spine.network), [(one,) for one in images], axes, folder / "spine.onnx", predictor.recipe
        ),
        "vertebrae": None,
        "levels": [],
    }
    if predictor.refiner is not None:
        stage, config = predictor.refiner.stage, predictor.refiner.config
        assert isinstance(stage, TorchVertebrae)
        patches = [(torch.rand(n, 1, *config.data.input_size),) for n in BATCHES]
        graph = _VertebraGraph(stage.network, config)
        recipe = config.model_dump(mode="json")
        about["vertebrae"] = _stage(graph, patches, {"image": {0: "n"}}, folder / "vertebrae.onnx", recipe)
    for i, reader in enumerate(predictor.level_readers):
        levels, reformation = reader.stage, reader.config.reformation
        assert isinstance(levels, TorchLevels)
        height, width = reformation.size
        rows = reformation.rows
        seen = [(torch.rand(1, 1, r * height // rows, width), torch.arange(r)[None] > 3) for r in (rows, rows + 4)]
        axes = {"image": {0: "n", 2: "height"}, "found": {0: "n", 1: "rows"}}
        graph_of_levels = _LevelGraph(levels.network, reader.config)
        recipe = reader.config.model_dump(mode="json")
        about["levels"].append(_stage(graph_of_levels, seen, axes, folder / f"levels{i}.onnx", recipe))
    return about


def _stage(
    graph: nn.Module,
    samples: Sequence[tuple[Tensor, ...]],
    axes: dict[str, dict[int, str]],
    path: Path,
    config: dict[str, object],
) -> StageFile:
    """Trace the graph with the first of the samples, compare it on all, write it."""
    graph.eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing: sizes are multiples of 32, for which constants hold
        torch.onnx.export(
            graph,
            samples[0],
            path,
            input_names=list(axes),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,  # torch.export fixes sizes that are multiples of 32
        )
    content = path.read_bytes()
    _check(graph, OnnxSession(content).run, samples, path)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "config": config}


def _check(
    graph: nn.Module,
    run: Callable[..., list[np.ndarray]],
    samples: Sequence[tuple[Tensor, ...]],
    path: Path,
) -> None:
    for sample in samples:
        with torch.inference_mode():
            output = graph(*sample)
        eager = [output] if isinstance(output, Tensor) else list(output)
        found = run(*(one.numpy() for one in sample))
        off = max(float(np.abs(one.numpy() - other).max()) for one, other in zip(eager, found, strict=True))
        if off > MOST_OFF:
            raise UserError(
                f"{path.name}: the graph is off by {off:g} from torch on a random image; report it as a bug"
            )
