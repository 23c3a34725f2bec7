"""What is predicted on one image, in its own pixels."""

from dataclasses import dataclass, replace

import numpy as np

from vertebra_kp.core.anatomy import PRESENT_FROM, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.inference.doubts import UNMEASURED, Doubt
from vertebra_kp.inference.level_names import Names


@dataclass(frozen=True)
class Prediction:
    """One image, ``file`` of ``size`` (height, width) px: what is predicted on it, in its own pixels.

    ``points_xy_image`` [levels, 4, 2] and ``covariances`` [levels, 4, 2, 2] px², ``scores`` [levels, 4] in 0..1
    (nan where the schema has no corner), ``presence`` [levels] in 0..1. ``matrix`` [3, 3] leads to the network's
    frame. ``view_probabilities`` [2] of ``VIEWS`` and ``slip_probabilities`` [levels, 5] of ``SLIP_CLASSES``
    are None where the network does not classify, and so is ``image_class``, probabilities by the name of a class.
    ``doubts`` are reasons for a second opinion (``inference.doubts``), ``names`` those of the vertebrae that were
    found, where a network names them by anatomy. Only when asked for: ``image`` [H, W] uint8 as the network saw
    it, ``heatmaps`` [K, h, w], ``attention`` by map one [heads, N, N] per layer.
    """

    file: str
    size: tuple[int, int]
    points_xy_image: np.ndarray
    covariances: np.ndarray
    scores: np.ndarray
    presence: np.ndarray
    matrix: np.ndarray
    view_probabilities: np.ndarray | None = None
    slip_probabilities: np.ndarray | None = None
    image_class: dict[str, float] | None = None
    image: np.ndarray | None = None
    heatmaps: np.ndarray | None = None
    attention: dict[str, list[np.ndarray]] | None = None
    doubts: tuple[Doubt, ...] = ()
    names: Names | None = None

    @property
    def points_xy(self) -> np.ndarray:
        """Corners [levels, 4, 2] in the network's frame."""
        return apply_affine(self.matrix, self.points_xy_image)

    def without_maps(self) -> "Prediction":
        """The same without what is large."""
        return replace(self, image=None, heatmaps=None, attention=None)


def check_finite(prediction: Prediction, schema: Schema) -> None:
    """Raises UserError, which names the image, where a number that would be reported is none.

    Of a network that finds vertebrae, and of an image that was refused, absent ones have no corners.
    """
    present = prediction.presence >= PRESENT_FROM
    finds = prediction.names is not None or not UNMEASURED.isdisjoint(prediction.doubts)
    corners = schema.exists & (present | (not finds))[:, None]
    for name, values in {
        "presence": prediction.presence,
        "corners": prediction.points_xy_image[corners],
        "scores": prediction.scores[corners],
        "covariances": prediction.covariances[corners],
        "probabilities of the view": prediction.view_probabilities,
        "probabilities of slips": prediction.slip_probabilities,
    }.items():
        if values is not None and not np.isfinite(values).all():
            told = f"the network gave no finite {name}; look at the image and the network"
            raise UserError(f"{prediction.file}: {told}")
