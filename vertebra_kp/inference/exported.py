"""Spine networks in ONNX: the stages of a prediction without torch, by ONNX Runtime or OpenVINO.

An exported network is a folder: ``network.json`` says what it is of, beside one graph for every stage. The command
export writes it; ``predict`` makes one for itself at its first call, and finds it again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import fault_of, parse_json
from vertebra_kp.inference.levels import LevelReader
from vertebra_kp.inference.network_file import ABOUT, CheckpointError
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.spine_maps import SpineArrays, SpineMaps, mean_of

Backend = Literal["onnx", "openvino"]
FORMAT = 1
SQUARES_AT_ONCE = 4  # as fast on a CPU as all of a spine, in less than half of the memory
MODULES = {"onnx": "onnxruntime", "openvino": "openvino"}


class StageFile(TypedDict):
    """One graph: the file's name, its SHA-256, and the config of its network."""

    file: str
    sha256: str
    config: dict[str, Any]


class About(TypedDict):
    """``network.json``; ``fingerprint`` is that of the network that was exported, ``step`` its training's."""

    format: int
    fingerprint: str
    step: int
    spine: StageFile
    vertebrae: StageFile | None
    levels: list[StageFile]


class Session(Protocol):
    def run(self, *inputs: np.ndarray) -> list[np.ndarray]: ...


class OnnxSession:
    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # beside other work it costs all
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self.session.get_inputs()]

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = self.session.run(None, dict(zip(self.names, inputs, strict=True)))
        return found


class OpenVinoSession:
    def __init__(self, graph: bytes) -> None:
        import openvino

        core = openvino.Core()
        self.model = core.compile_model(core.read_model(graph, b""), "CPU")

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        found = self.model.create_infer_request().infer(list(inputs))
        return [found[output] for output in self.model.outputs]


class _ExportedStage:
    device = "cpu"

    def __init__(self, graph: bytes, backend: Backend) -> None:
        self.graph, self.backend = graph, backend

    @cached_property
    def session(self) -> Session:
        """Built when first asked: an image that shows no spine needs no other stage."""
        return OnnxSession(self.graph) if self.backend == "onnx" else OpenVinoSession(self.graph)

    def tensors(self) -> Iterator[bytes]:
        yield self.graph


class ExportedSpine(_ExportedStage):
    def __init__(self, graph: bytes, backend: Backend, stride: int) -> None:
        super().__init__(graph, backend)
        self.stride = stride

    def maps(self, seen: np.ndarray, *, mirrored: bool) -> SpineMaps:
        arrays = self._arrays(seen)
        if mirrored:
            arrays = mean_of(arrays, self._arrays(np.ascontiguousarray(seen[:, ::-1])).unmirrored())
        return arrays.maps(self.stride)

    def _arrays(self, seen: np.ndarray) -> SpineArrays:
        return SpineArrays(*(one[0] for one in self.session.run(seen[None, None])))


class ExportedVertebrae(_ExportedStage):
    def corners(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [
            self.session.run(seen[i : i + SQUARES_AT_ONCE, None]) for i in range(0, len(seen), SQUARES_AT_ONCE)
        ]
        points, covariances, scores = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
        return points, covariances, scores


class ExportedLevels(_ExportedStage):
    def log_probabilities(self, seen: np.ndarray, found: np.ndarray) -> np.ndarray:
        (told,) = self.session.run(seen[None, None], found[None])
        return told[0]


class ExportedPredictor(SpinePredictor):
    """With the fingerprint of the network that was exported, whose calibration holds."""

    exported_fingerprint = ""

    @property
    def fingerprint(self) -> str:
        return self.exported_fingerprint


def load_exported(folder: Path, backend: Backend = "onnx") -> ExportedPredictor:
    """Raises CheckpointError for a folder that holds no whole exported network, UserError without the library."""
    check_backend(backend)
    path = folder / ABOUT
    try:
        about = TypeAdapter(About).validate_python(parse_json(path.read_bytes()))
        if about["format"] != FORMAT:
            raise CheckpointError(f"{path}: is of format {about['format']}, not {FORMAT}; export it again")
        spine = SpineConfig.model_validate(about["spine"]["config"], strict=False)
        refiner, levels = None, list[LevelReader]()
        if about["vertebrae"] is not None:
            config = Config.model_validate(about["vertebrae"]["config"], strict=False)
            refiner = Refiner(ExportedVertebrae(_graph(folder, about["vertebrae"]), backend), config)
        for one in about["levels"]:
            of_levels = LevelConfig.model_validate(one["config"], strict=False)
            levels.append(LevelReader(ExportedLevels(_graph(folder, one), backend), of_levels))
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path}: {fault_of(error)}; export it again") from None
    stride = spine.network.decoder.output_stride
    stage = ExportedSpine(_graph(folder, about["spine"]), backend, stride)
    predictor = ExportedPredictor(stage, spine, about["step"], refiner, levels)
    predictor.exported_fingerprint = about["fingerprint"]
    return predictor


def check_backend(backend: Backend) -> None:
    """Raises UserError where the library is not installed."""
    from importlib.util import find_spec

    if find_spec(MODULES[backend]) is None:
        raise UserError(f"backend {backend}: {MODULES[backend]} is not installed; pip install {MODULES[backend]}")


def _graph(folder: Path, stage: StageFile) -> bytes:
    path = folder / Path(stage["file"]).name
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != stage["sha256"]:
        raise CheckpointError(f"{path}: is damaged, its checksum differs; export the network again")
    return content


def cache_folder(files: Sequence[Path]) -> Path:
    """Where ``predict`` keeps the exported network of these files, by their content.

    In the folder that the environment variable ``VERTEBRA_KP_CACHE`` names, else under the user's cache.
    """
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return _cache() / digest.hexdigest()[:16]


def _cache() -> Path:
    if own := os.environ.get("VERTEBRA_KP_CACHE"):
        return Path(own)
    of_system = os.environ.get("XDG_CACHE_HOME")
    return (Path(of_system) if of_system else Path.home() / ".cache") / "vertebra_kp"
