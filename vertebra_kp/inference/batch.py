"""A trained network on a batch of films: corners and covariances in each film's own pixels, presence, classes."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import FLIPPED_SLIP, PRESENT_FROM, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.loader import Batch
from vertebra_kp.inference.doubts import UNMEASURED, Doubt
from vertebra_kp.inference.level_decoding import chained
from vertebra_kp.inference.level_names import Names
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.losses import to_heatmaps
from vertebra_kp.models.network import VertebraNetwork


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


def codec_of(config: Config) -> HeatmapCodec:
    stride, codec = config.network.decoder.output_stride, config.codec
    return HeatmapCodec(stride, codec.sigma, codec.decode, codec.dark_blur)


@torch.inference_mode()
def predict_batch(
    network: VertebraNetwork | Ensemble,
    batch: Batch,
    config: Config,
    *,
    with_maps: bool = False,
    with_attention: bool = False,
) -> list[Prediction]:
    """The network must be in eval mode; films go to its device, only points and small maps come back.

    Attention is for a few films: it takes the square of a map's cells.
    """
    schema = config.data.keypoint_schema
    device = next(network.parameters()).device
    image = batch.to(device).image
    output = network(image, return_attention=with_attention)
    heatmaps = to_heatmaps(output.heatmap_logits, config.loss.heatmap)
    classes = _probabilities(output.class_logits)
    if config.inference.flip:
        of_mirrored = network(image.flip(-1))
        mirrored = to_heatmaps(of_mirrored.heatmap_logits, config.loss.heatmap)
        # Mirrored back, the map of a left corner is that of the right one, and a left slip is one to the right.
        heatmaps = (heatmaps + mirrored.flip(-1)[:, list(schema.flip_permutation)]) / 2
        for target, other in _probabilities(of_mirrored.class_logits).items():
            swapped = other[..., list(FLIPPED_SLIP)] if target == "slip" else other
            classes[target] = (classes[target] + swapped) / 2
    codec = codec_of(config)
    decoded = codec.decode(heatmaps)
    if config.inference.chain:
        heatmaps = chained(heatmaps, decoded.points_xy, schema, codec.stride)
        # What is sure of a corner stays what its own map says: the placed ones show one peak whatever happens.
        decoded = replace(codec.decode(heatmaps), peak=decoded.peak)
    points, scores, covariances = (_numpy(t) for t in (decoded.points_xy, decoded.peak, decoded.covariance))
    view, slips, free = (
        _numpy(classes[name]) if name in classes else None for name in ("view", "slip", "image_class")
    )
    presence = _numpy(output.presence_logits.float().sigmoid())
    maps = _numpy(heatmaps) if with_maps else None
    attention = {name: [_numpy(w.float()) for w in layers] for name, layers in output.attention.items()}
    predictions = []
    for i, (matrix, labels) in enumerate(zip(batch.matrix.numpy(), batch.labels, strict=True)):
        back = np.linalg.inv(matrix)
        linear = back[:2, :2]
        predictions.append(
            Prediction(
                labels.file,
                labels.size,
                schema.scatter(apply_affine(back, points[i])),
                schema.scatter(linear @ covariances[i] @ linear.T),
                schema.scatter(scores[i]),
                presence[i],
                matrix,
                view_probabilities=None if view is None else view[i],
                slip_probabilities=None if slips is None else slips[i],
                image_class=None
                if free is None
                else dict(zip(config.network.image_classes, free[i].tolist(), strict=True)),
                image=_picture(batch, i) if with_maps or with_attention else None,
                heatmaps=None if maps is None else maps[i].copy(),
                attention={name: [w[i] for w in layers] for name, layers in attention.items()}
                if with_attention
                else None,
            )
        )
    return predictions


def _picture(batch: Batch, i: int) -> np.ndarray:
    return (batch.image[i, 0].numpy() * 255).round().astype(np.uint8)


def _probabilities(class_logits: dict[str, Tensor]) -> dict[str, Tensor]:
    return {target: logits.float().softmax(dim=-1) for target, logits in class_logits.items()}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
