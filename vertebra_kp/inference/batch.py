"""A trained network on a batch of films: corners and covariances in each film's own pixels, presence, classes."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vertebra_kp.config.schema import Config
from vertebra_kp.core.anatomy import FLIPPED_SLIP
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.loader import Batch
from vertebra_kp.inference.level_decoding import chained
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.losses import to_heatmaps
from vertebra_kp.models.network import Output, VertebraNetwork


def codec_of(config: Config) -> HeatmapCodec:
    stride, codec = config.network.decoder.output_stride, config.codec
    return HeatmapCodec(stride, codec.sigma, codec.decode, codec.dark_blur)


def heatmaps_of(network: VertebraNetwork | Ensemble, image: Tensor, config: Config) -> Tensor:
    """Maps ``[B, K, h, w]`` of images ``[B, 1, H, W]``, with those of the mirror images where so asked."""
    heatmaps = to_heatmaps(network(image).heatmap_logits, config.loss.heatmap)
    if config.inference.flip:
        heatmaps = _mean_with_mirrored(heatmaps, network(image.flip(-1)), config)
    return heatmaps


def _mean_with_mirrored(heatmaps: Tensor, of_mirrored: Output, config: Config) -> Tensor:
    """Mirrored back, the map of a left corner is that of the right one."""
    mirrored = to_heatmaps(of_mirrored.heatmap_logits, config.loss.heatmap)
    return (heatmaps + mirrored.flip(-1)[:, list(config.data.keypoint_schema.flip_permutation)]) / 2


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
        heatmaps = _mean_with_mirrored(heatmaps, of_mirrored, config)
        for target, other in _probabilities(of_mirrored.class_logits).items():
            # Mirrored back, a left slip is one to the right.
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
