"""Prediction by networks with a channel for every corner, one or several of them, and a crop refinement."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.films import Film, LooseFilms, shrunk
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.inference.batch import predict_batch
from vertebra_kp.inference.doubts import doubts_by_channel, is_blank
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.stages import Stage
from vertebra_kp.inference.torch_stages import TorchStage
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.network import VertebraNetwork

_PLACED = ("points_xy_image", "covariances", "scores")


class CornerPredictor(Predictor):
    """Of networks with a channel for every corner."""

    def __init__(
        self,
        network: VertebraNetwork | Ensemble,
        config: Config,
        step: int,
        refiner: Refiner | None = None,
        members: Sequence[Config] = (),
    ) -> None:
        """``members`` are the configs of an ensemble's other networks."""
        self.network, self.config, self.step, self.refiner = network.eval(), config, step, refiner
        self.members = members

    def with_config(self, config: Config) -> "CornerPredictor":
        return CornerPredictor(self.network, config, self.step, self.refiner, self.members)

    @property
    def configs(self) -> Sequence[Config | SpineConfig | LevelConfig]:
        refinement = [] if self.refiner is None else [self.refiner.config]
        return [self.config, *self.members, *refinement]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    @property
    def mirrors(self) -> bool:
        return self.config.inference.flip

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        stages: list[tuple[Stage, Config]] = [(TorchStage(self.network), self.config)]
        if self.refiner is not None:
            stages.append((self.refiner.stage, self.refiner.config))
        for stage, config in stages:
            for tensor in stage.tensors():
                digest.update(tensor)
            digest.update(f"{config.codec}{config.inference.flip}".encode())
            if config.inference.chain:  # nothing where it is off: the option is younger than some calibrations
                digest.update(b"chain")
        return digest.hexdigest()[:16]

    @property
    def film_size(self) -> tuple[int, int]:
        return self.config.data.input_size if self.refiner is None else self.refiner.film_size

    @property
    def device(self) -> str:
        return next(self.network.parameters()).device.type

    def _predicted(self, films: Sequence[Film], *, with_maps: bool, with_attention: bool) -> list[Prediction]:
        size = self.config.data.input_size
        small = films if self.refiner is None else [shrunk(film, size) for film in films]
        batch = FilmDataset(LooseFilms(small), self.schema, size).batch([(0, i) for i in range(len(small))])
        predictions = predict_batch(
            self.network, batch, self.config, with_maps=with_maps, with_attention=with_attention
        )
        if self.refiner is not None:
            predictions = self.refiner.refine(predictions, films, self.schema)
        return [_doubted(one, film, self.schema) for one, film in zip(predictions, films, strict=True)]


def _doubted(prediction: Prediction, film: Film, schema: Schema) -> Prediction:
    """With reasons for a second opinion; an image that shows nothing has no vertebra, whatever is predicted."""
    if is_blank(film.image):
        nothing = {name: np.full_like(getattr(prediction, name), np.nan) for name in _PLACED}
        absent = np.zeros_like(prediction.presence)
        return replace(prediction, **nothing, presence=absent, doubts=("spine not found",))
    about = prediction.points_xy_image, prediction.scores, prediction.presence, schema, prediction.size
    return replace(prediction, doubts=doubts_by_channel(*about))
