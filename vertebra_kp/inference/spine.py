"""Prediction on any framing: find the spine, look at it at a constant size, name it, place its corners."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vertebra_kp.config.differences import differences
from vertebra_kp.config.network import STRIDE
from vertebra_kp.config.schema import Config, DataConfig, PhaseConfig, TrainConfig
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.anatomy import LEVELS, PRESENT_FROM, VIEWS, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine, compose, rotate, scale, scale_of, translate, warp_image
from vertebra_kp.data.borders import content_box
from vertebra_kp.data.films import Film
from vertebra_kp.inference.doubts import UNMEASURED, doubts_of
from vertebra_kp.inference.level_names import Names, name_levels
from vertebra_kp.inference.levels import LevelReader
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.spine_decoding import FoundSpine, SpineMaps, decode, place_corners
from vertebra_kp.inference.stages import SpineStage

# px at which the whole image is seen: vertebrae are large on a lumbar image, small on one of the whole body
FINDER_HEIGHTS = (192, 384, 768)
KEPT_SIZE = (2048, 1024)  # height and width whose pixels are kept of an image
AROUND = 4.0  # steps beyond the ends that were found which the corner network sees
BESIDE = 3.5  # steps to each side of the spine
LEAST_FOUND = 2  # vertebrae, for a crop
MOST_VERTEBRAE = 40  # that a crop is made for: no patient has more
TURNED_BY = 0.5  # by how much names must fit better to a turned image for a doubt
PIN_WITHIN = 0.75  # of a step: how far a pin may lie from the vertebra that it names
# Vertebrae from which on the crop refinement places corners: it was trained on whole spines. Corners on six lumbar
# images are 5.6 % of a step off when placed on larger vertebrae, 7.5 % with the refinement; AASCE 12.1, 9.3 %.
REFINED_FROM = 12
REFINED_WIDTH_PX = 55.0  # of a vertebra: what its images are kept in when the crop refinement is trained on AASCE
CORNER_SCALE = (
    1.75  # of the crop: how large vertebrae are where their corners are placed without a crop refinement
)
CORNER_SD = 0.1  # of a step: standard deviation of a corner before the crop refinement


Pin = tuple[str, np.ndarray]  # a level, and a point of the original image near its centre


@dataclass(frozen=True)
class Understood:
    """One image before the crop refinement.

    ``spine`` in the image's own pixels and its ``names``; ``view`` ``[2]``, probabilities of ``VIEWS``; ``crop``,
    the matrix from the image to what the corner network saw, of ``size``. ``upside_down`` where names fit better
    to the image turned by 180 degrees.
    """

    spine: FoundSpine
    names: Names
    view: np.ndarray
    crop: np.ndarray
    size: tuple[int, int]
    upside_down: bool


class SpinePredictor(Predictor):
    """A ``Predictor`` whose first stages are the finder and the corner network of one spine network."""

    def __init__(
        self,
        spine: SpineStage,
        spine_config: SpineConfig,
        step: int,
        refiner: Refiner | None = None,
        level_readers: Sequence[LevelReader] = (),
    ) -> None:
        self.spine, self.spine_config = spine, spine_config
        self.step, self.refiner, self.level_readers = step, refiner, level_readers
        self.config = _data_config(spine_config)
        self.pin: Pin | None = None

    def with_config(self, config: Config) -> "SpinePredictor":
        """The same; raises UserError for other settings of decoding and inference, which a spine network lacks."""
        if changed := differences(self.config, config):
            raise UserError(f"{', '.join(changed)}: a spine network has no such setting; leave it out")
        return self

    def with_pin(self, level: str, xy_image: tuple[float, float]) -> "SpinePredictor":
        """The same with one name fixed: the vertebra nearest to a point of the image is ``level``; others follow.

        Raises ValueError for a level that the schema lacks.
        """
        if level not in self.schema.levels:
            raise ValueError(f"level must be one of {', '.join(self.schema.levels)}, got {level!r}")
        other = copy(self)
        other.pin = level, np.array(xy_image, dtype=float)
        return other

    @property
    def recipe(self) -> dict[str, Any]:
        return self.spine_config.model_dump(mode="json")

    @property
    def configs(self) -> Sequence[Config | SpineConfig | LevelConfig]:
        return [self.spine_config, *(stage.config for stage in self._further_stages)]

    @property
    def _further_stages(self) -> list[Refiner | LevelReader]:
        return [*([] if self.refiner is None else [self.refiner]), *self.level_readers]

    @property
    def mirrors(self) -> bool:
        return self.spine_config.views.flip

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for stage in [self.spine, *(one.stage for one in self._further_stages)]:
            for tensor in stage.tensors():
                digest.update(tensor)
        return digest.hexdigest()[:16]

    @property
    def film_size(self) -> tuple[int, int]:
        return KEPT_SIZE

    @property
    def device(self) -> str:
        return self.spine.device

    @property
    def schema(self) -> Schema:
        return self.spine_config.keypoint_schema

    def _predicted(self, films: Sequence[Film], *, with_maps: bool, with_attention: bool) -> list[Prediction]:
        predictions, refined = list[Prediction](), list[int]()
        for place, film in enumerate(films):
            understood = self.understand(film, self.pin)
            if self._refines(understood.spine):
                refined.append(place)
            prediction = _prediction(film, understood, self.schema)
            if with_maps:
                to_crop = compose(np.linalg.inv(film.to_image), understood.crop)
                prediction = replace(prediction, image=warp_image(film.image, to_crop, understood.size))
            predictions.append(prediction)
        if self.refiner is not None:
            as_trained = [_for_refinement(films[place], predictions[place]) for place in refined]
            found = self.refiner.refine([predictions[place] for place in refined], as_trained, self.schema)
            for place, one in zip(refined, found, strict=True):
                predictions[place] = one
        return predictions

    def _refines(self, spine: FoundSpine) -> bool:
        """Whether the crop refinement places the corners of a spine."""
        return self.refiner is not None and len(spine) >= REFINED_FROM

    def understand(self, film: Film, pin: Pin | None = None) -> Understood:
        """Finder and corner network on one film. ``pin`` names the vertebra at a point (original pixels)."""
        found = self.find(film.image)
        crop, size, spine, view = np.eye(3), film.image.shape, found, np.full(len(VIEWS), 0.5)
        if len(found) >= LEAST_FOUND:
            crop, size = self.crop_of(found)
            maps = self._maps(film.image, crop, size, mirrored=self.spine_config.views.flip)
            spine, view = decode(maps), maps.view
            if not self._refines(spine):
                spine = self._with_close_corners(film.image, crop, size, spine)
            spine = spine.moved(np.linalg.inv(crop))
        evidence = self._evidence(film.image, spine)
        spine = spine.moved(np.linalg.inv(film.to_image))
        pinned = None if pin is None else (_pinned(spine, pin, film.file), LEVELS.index(pin[0]))
        names = name_levels(evidence, self.schema, pinned)
        upside_down = False
        if len(found) >= LEAST_FOUND:
            upright_fit = name_levels(spine.levels, self.schema, pinned).fit
            upside_down = self._fit_when_turned(film.image, crop, size) > upright_fit + TURNED_BY
        return Understood(spine, names, view, compose(film.to_image, crop), (size[0], size[1]), upside_down)

    def _evidence(self, image: np.ndarray, spine: FoundSpine) -> np.ndarray:
        """Log-probabilities ``[n, L]`` of the levels: by the level networks, else by the spine network."""
        if not self.level_readers or len(spine) < LEAST_FOUND:
            return spine.levels
        evidence: np.ndarray = np.mean([one.evidence(image, spine.centres) for one in self.level_readers], axis=0)
        return evidence

    def _with_close_corners(
        self, image: np.ndarray, crop: np.ndarray, size: tuple[int, int], spine: FoundSpine
    ) -> FoundSpine:
        """The spine of a crop with its corners as the network places them on larger vertebrae."""
        larger = scale(CORNER_SCALE)
        maps = self._maps(image, compose(crop, larger), _padded(size[0] * CORNER_SCALE, size[1] * CORNER_SCALE))
        return place_corners(maps, spine.moved(larger)).moved(np.linalg.inv(larger))

    def _fit_when_turned(self, image: np.ndarray, crop: np.ndarray, size: tuple[int, int]) -> float:
        """How well names fit the spine of the crop turned by 180 degrees."""
        turned = decode(self._maps(image, compose(crop, rotate(180, (size[1] / 2, size[0] / 2))), size))
        return name_levels(turned.levels, self.schema).fit if len(turned) >= LEAST_FOUND else -np.inf

    def find(self, image: np.ndarray) -> FoundSpine:
        """The finder: vertebrae on a whole image of any framing, in its pixels."""
        top, left, bottom, right = content_box(image)
        best: FoundSpine | None = None
        for height in FINDER_HEIGHTS:
            factor = height / max(bottom - top, 1.6 * (right - left))
            size = _padded((bottom - top) * factor, (right - left) * factor)
            placement = compose(translate(-left, -top), scale(factor))
            found = decode(self._maps(image, placement, size)).moved(np.linalg.inv(placement))
            if best is None or found.value > best.value:
                best = found
        assert best is not None
        return best

    def crop_of(self, found: FoundSpine) -> tuple[np.ndarray, tuple[int, int]]:
        """Matrix and size of the crop in which the spine stands upright and vertebrae have the constant size."""
        first, last = found.centres[0], found.centres[-1]
        across, along = last - first
        turned = np.rad2deg(np.arctan2(across, along))
        step = max(float(np.median(found.steps)), float(np.hypot(across, along)) / MOST_VERTEBRAE)
        factor = self.spine_config.views.step_px / step
        upright = compose(rotate(turned), scale(factor))
        low, high = (f(apply_affine(upright, found.centres), axis=0) for f in (np.min, np.max))
        margin = np.array([BESIDE, AROUND]) * self.spine_config.views.step_px
        size = _padded(*(high - low + 2 * margin)[::-1])
        middle = (low + high) / 2
        placed = translate(size[1] / 2 - middle[0], size[0] / 2 - middle[1])
        return compose(upright, placed), size

    def _maps(
        self, image: np.ndarray, placement: np.ndarray, size: tuple[int, int], *, mirrored: bool = False
    ) -> SpineMaps:
        """What the network says of an image under a placement; ``mirrored`` averages with its mirror image."""
        seen = warp_image(image, placement, size).astype(np.float32) / 255
        return self.spine.maps(seen, mirrored=mirrored)


def _for_refinement(film: Film, prediction: Prediction) -> Film:
    """The film in pixels in which vertebrae are as wide as those that the crop refinement was trained on."""
    across = prediction.points_xy_image[:, 1] - prediction.points_xy_image[:, 0]
    widths = np.linalg.norm(across[np.isfinite(across).all(axis=1)], axis=1)
    if not len(widths):
        return film
    factor = REFINED_WIDTH_PX / (float(np.median(widths)) * scale_of(film.to_image))
    if factor >= 1:
        return film
    height, width = film.image.shape
    size = max(1, round(height * factor)), max(1, round(width * factor))
    matrix = scale(size[1] / width, size[0] / height)
    return replace(film, image=warp_image(film.image, matrix, size), to_image=compose(film.to_image, matrix))


def _pinned(spine: FoundSpine, pin: Pin, file: str) -> int:
    """Place of the vertebra that a pin lies on; UserError where there is none."""
    distance = np.linalg.norm(spine.centres - pin[1], axis=1) / spine.steps
    if not len(distance) or distance.min() > PIN_WITHIN:
        raise UserError(
            f"{file}: no vertebra was found where {pin[0]} is pinned, at {pin[1][0]:g}, {pin[1][1]:g}; "
            "pin one that the overlay shows"
        )
    return int(distance.argmin())


def _padded(height: float, width: float) -> tuple[int, int]:
    """The next size that the network takes."""
    rows, columns = (max(2, -(-int(np.ceil(side)) // STRIDE)) * STRIDE for side in (height, width))
    return rows, columns


def _prediction(film: Film, understood: Understood, schema: Schema) -> Prediction:
    """The named vertebrae as the fixed array of a schema; levels that were not found are absent."""
    levels = schema.num_levels
    points, scores = np.full((levels, 4, 2), np.nan), np.full((levels, 4), np.nan)
    covariances, presence = np.full((levels, 4, 2, 2), np.nan), np.zeros(levels)
    spine, names = understood.spine, understood.names
    doubts = doubts_of(spine, names, understood.view, schema, film.size, upside_down=understood.upside_down)
    measured = UNMEASURED.isdisjoint(doubts)
    for i, place in enumerate(names.levels if measured else ()):
        name = LEVELS[place] if place >= 0 else None
        if name not in schema.levels:
            continue
        level = schema.levels.index(name)
        points[level], scores[level] = spine.corners[i], spine.corner_scores[i]
        presence[level] = PRESENT_FROM + (1 - PRESENT_FROM) * spine.scores[i]
        covariances[level] = np.eye(2) * (CORNER_SD * spine.steps[i]) ** 2
    for values in (points, scores, covariances):
        values[~schema.exists] = np.nan
    return Prediction(
        film.file,
        film.size,
        points,
        covariances,
        scores,
        presence,
        understood.crop,
        view_probabilities=understood.view,
        doubts=doubts,
        names=names,
    )


def _data_config(config: SpineConfig) -> Config:
    """What commands ask of a predictor that read data sets: the first source, if it has a split file."""
    data: dict[str, object] = {"anatomy": config.anatomy, "input_size": KEPT_SIZE}
    first = config.sources[0]
    if first.split_file is not None:
        keys = ("source", "root", "split_file", "train_splits", "validation_splits", "repair_file", "names")
        data |= {key: getattr(first, key) for key in keys}
    return Config(
        name=config.name,
        data=DataConfig.model_validate(data),
        train=TrainConfig(phases=[PhaseConfig(name="all", epochs=1)]),
    )
