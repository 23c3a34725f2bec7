"""A trained network as one object: ``load(checkpoint).predict(film)``."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import UNKNOWN, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.films import Film, LooseFilms, shrink, shrunk
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.data.record import label_arrays, unknown_slips
from vertebra_kp.inference.batch import Prediction, predict_batch
from vertebra_kp.inference.checkpoint import CheckpointError, load_checkpoint
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.weights import find_network, is_weights, load_weights
from vertebra_kp.models.device import choose_device
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.initialise import WithoutFirstWeights
from vertebra_kp.models.network import VertebraNetwork, build_network


class Predictor:
    """Predicts films of any size; ``schema`` says which levels and corners it knows, ``step`` its training."""

    def __init__(
        self, network: VertebraNetwork | Ensemble, config: Config, step: int, refiner: Refiner | None = None
    ) -> None:
        self.network, self.config, self.step, self.refiner = network.eval(), config, step, refiner

    @property
    def mark(self) -> str:
        """The same text, the same predictions: weights, decoding and flip. A calibration holds for one mark."""
        digest = hashlib.sha256()
        looks = [(self.network, self.config)]
        if self.refiner is not None:
            looks.append((self.refiner.network, self.refiner.config))
        for network, config in looks:
            for tensor in network.state_dict().values():
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            digest.update(f"{config.codec}{config.inference.flip}".encode())
            if config.inference.chain:  # without it the mark is that of calibrations made before it could be on
                digest.update(b"chain")
        return digest.hexdigest()[:16]

    @property
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels it asks for."""
        return self.config.data.input_size if self.refiner is None else self.refiner.film_size

    @property
    def schema(self) -> Schema:
        return self.config.data.keypoint_schema

    def predict(self, film: np.ndarray | str | Path, *, with_attention: bool = False) -> Prediction:
        """Corners of one film: a path, or an array ``[H, W]`` of uint8 or uint16 as displayed.

        Raises FilmError for a file that is no readable film, ValueError for an array of another kind, UserError
        where the network is one of single vertebrae.
        """
        if self.config.data.patch is not None:
            raise UserError("the network looks at single vertebrae; load it as ``refine`` of one of whole images")
        if isinstance(film, (str, Path)):
            film = read_film(Path(film))
        if film.ndim != 2 or film.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"film must be [H, W] of uint8 or uint16, got {film.shape} of {film.dtype}; "
                "take one channel, and scale floats to 0..255 first"
            )
        size = (film.shape[0], film.shape[1])
        image, to_image = shrink(to_uint8(film), self.film_size)
        points, states = label_arrays(self.schema)
        unlabelled = Film(
            id="film",
            file="film",
            group="film",
            image=image,
            points_xy=points,
            states=states,
            slips=unknown_slips(self.schema),
            view=UNKNOWN,
            to_image=to_image,
            size=size,
        )
        first_look = unlabelled if self.refiner is None else shrunk(unlabelled, self.config.data.input_size)
        dataset = FilmDataset(LooseFilms([first_look]), self.schema, self.config.data.input_size)
        batch = dataset.batch([(0, 0)])
        (prediction,) = predict_batch(self.network, batch, self.config, with_attention=with_attention)
        return prediction if self.refiner is None else self.refiner.refine(prediction, unlabelled, self.schema)


def load(
    path: str | Path,
    device: str | None = None,
    *,
    members: Sequence[str | Path] = (),
    refine: str | Path | None = None,
) -> Predictor:
    """The network of a ``last.pt`` or ``best.pt``, with the weights that were evaluated, or of a file of weights.

    ``path`` may also be the name of weights that come with the package (``aasce-ap``).

    Checkpoints of further ``members`` make an ensemble with it: heatmaps are averaged. That of ``refine``, trained
    on vertebrae (``data.patch``), looks again at each one that was found. ``device`` None takes a GPU where there
    is one. Raises CheckpointError for an unusable file and for networks that do not go together.
    """
    looks = _looks(path)
    (network, config, step), others = looks[0], [_looks(one)[0] for one in members]
    for (_, other, _), name in zip(others, members, strict=True):
        if different := [key for key, value in _frame(config).items() if _frame(other)[key] != value]:
            raise CheckpointError(f"{name}: {different[0]} is not that of {path}; such networks make no ensemble")
    if others:
        network = Ensemble([network, *(one for one, _, _ in others)], config.loss.heatmap)
    where = choose_device(device)
    second = looks[1:] if refine is None else _looks(refine)
    refiner = _refiner(*second[0], of=config, device=where) if second else None
    return Predictor(network.to(where, memory_format=torch.channels_last), config, step, refiner)


def _refiner(network: VertebraNetwork, config: Config, _step: int, *, of: Config, device: torch.device) -> Refiner:
    if config.data.patch is None or config.data.film_schema.view != of.data.film_schema.view:
        raise CheckpointError(
            f"refine: {config.name} does not look at single vertebrae of {of.data.film_schema.view} films; "
            "train one with data.patch, as the config aasce_vertebra does"
        )
    return Refiner(network.eval().to(device, memory_format=torch.channels_last), config)


def _looks(name_or_path: str | Path) -> list[tuple[VertebraNetwork, Config, int]]:
    """The network of a checkpoint, or those of a file of weights: of whole films, then perhaps of vertebrae."""
    path = find_network(name_or_path)
    if is_weights(path):
        return [_built(look.config, look.weights, look.step, path) for look in load_weights(path)]
    checkpoint = load_checkpoint(path)
    return [_built(checkpoint.config, checkpoint.weights, checkpoint.step, path)]


def _built(
    content: dict[str, Any], weights: dict[str, Tensor], step: int, path: Path
) -> tuple[VertebraNetwork, Config, int]:
    try:
        config = Config.model_validate(content, strict=False)
    except ValueError as error:
        raise CheckpointError(f"{path}: its config is of another version of vertebra_kp: {error}") from error
    with WithoutFirstWeights():
        network = build_network(config.network, config.data.keypoint_schema, load_weights=False)
    network.load_state_dict(weights)
    return network, config, step


def _frame(config: Config) -> dict[str, object]:
    """What the members of an ensemble must have in common."""
    return {
        "data.anatomy": config.data.anatomy,
        "data.input_size": config.data.input_size,
        "network.decoder.output_stride": config.network.decoder.output_stride,
        "network.classification": config.network.classification,
        "loss.heatmap": config.loss.heatmap,
    }
