"""Crop refinement: a second network places the corners of every vertebra that the first one has found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.films import Film
from vertebra_kp.data.patches import patch_of, windows
from vertebra_kp.data.transforms import place
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.inference.stages import VertebraStage
from vertebra_kp.inference.streams import in_batches

PASSES = 2  # the second crops where the first has found the vertebra
PATCHES_AT_ONCE = 34


class _Corners(NamedTuple):
    """Of one vertebra, in the original image's pixels."""

    points: np.ndarray
    covariances: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Refiner:
    """A network of patches and its config."""

    stage: VertebraStage
    config: Config

    @property
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels it asks for."""
        return self.config.data.film_size

    def refine(self, predictions: Sequence[Prediction], films: Sequence[Film], schema: Schema) -> list[Prediction]:
        """Its corners, covariances and scores in place of the first network's; presence stays.

        ``films`` are kept in the pixels of ``film_size``. Vertebrae without four corners stay as they are.
        """
        data = self.config.data
        assert data.patch is not None
        refined = list(predictions)
        for _ in range(PASSES):
            owners, patches = [], []
            for i, film in enumerate(films):
                through = windows(apply_affine(film.to_image, refined[i].points_xy_image), data.patch.widths)
                for level in map(int, np.flatnonzero(np.isfinite(through).all(axis=(1, 2)))):
                    owners.append((i, level))
                    patches.append(patch_of(film, schema, level, through[level]))
            found = [one for batch in in_batches(patches, PATCHES_AT_ONCE) for one in self._corners(batch)]
            for i in range(len(films)):
                of_film = {level: one for (owner, level), one in zip(owners, found, strict=True) if owner == i}
                refined[i] = _with(refined[i], of_film)
        return refined

    def _corners(self, patches: Sequence[Film]) -> list[_Corners]:
        samples = [place(patch, self.config.data.input_size) for patch in patches]
        points, covariances, scores = self.stage.corners(np.stack([sample.image for sample in samples]))
        found = []
        for i, sample in enumerate(samples):
            back = np.linalg.inv(sample.matrix)
            linear = back[:2, :2]
            found.append(_Corners(apply_affine(back, points[i]), linear @ covariances[i] @ linear.T, scores[i]))
        return found


def _with(prediction: Prediction, by_level: dict[int, _Corners]) -> Prediction:
    """The prediction with the corners of these levels in place of its own."""
    points, covariances, scores = (
        values.copy() for values in (prediction.points_xy_image, prediction.covariances, prediction.scores)
    )
    for level, one in by_level.items():
        points[level], covariances[level], scores[level] = one
    return replace(prediction, points_xy_image=points, covariances=covariances, scores=scores)
