"""A second look: every vertebra that the first network has found, seen again from close by."""

from dataclasses import dataclass, replace

import numpy as np

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.films import Film, LooseFilms
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.data.patches import patch_of, windows
from vertebra_kp.inference.batch import Prediction, predict_batch
from vertebra_kp.models.network import VertebraNetwork

PASSES = 2  # the second looks through windows that the first has set right


@dataclass(frozen=True)
class Refiner:
    """A network of patches and its config."""

    network: VertebraNetwork
    config: Config

    @property
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels it asks for."""
        return self.config.data.film_size

    def refine(self, prediction: Prediction, film: Film, schema: Schema) -> Prediction:
        """Its corners, covariances and scores in place of the first network's; presence stays.

        ``film`` is kept in the pixels of ``film_size``. Vertebrae without four corners stay as they are.
        """
        data = self.config.data
        assert data.patch is not None
        for _ in range(PASSES):
            through = windows(apply_affine(film.to_image, prediction.points_xy_image), data.patch.widths)
            levels = np.flatnonzero(np.isfinite(through).all(axis=(1, 2)))
            if not len(levels):
                return prediction
            patches = LooseFilms([patch_of(film, schema, int(level), through[level]) for level in levels])
            batch = FilmDataset(patches, data.keypoint_schema, data.input_size).batch(
                [(0, i) for i in range(len(levels))]
            )
            seen = predict_batch(self.network, batch, self.config)
            prediction = replace(
                prediction,
                points_xy_image=_with(prediction.points_xy_image, levels, [one.points_xy_image for one in seen]),
                covariances=_with(prediction.covariances, levels, [one.covariances for one in seen]),
                scores=_with(prediction.scores, levels, [one.scores for one in seen]),
            )
        return prediction


def _with(values: np.ndarray, levels: np.ndarray, new: list[np.ndarray]) -> np.ndarray:
    values = values.copy()
    values[levels] = np.concatenate(new)
    return values
