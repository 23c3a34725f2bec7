"""The stages of a spine network's prediction, run by torch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vertebra_kp.config.schema import Config
from vertebra_kp.inference.batch import codec_of, heatmaps_of
from vertebra_kp.inference.spine_decoding import SpineMaps
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork, mean_output, mirror_output


class TorchStage:
    """A network, whichever it is."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    @property
    def device(self) -> str:
        return next(self.network.parameters()).device.type

    def tensors(self) -> Iterator[bytes]:
        for tensor in self.network.state_dict().values():
            yield tensor.detach().cpu().contiguous().numpy().tobytes()

    def _tensor(self, seen: np.ndarray) -> Tensor:
        """``[n, 1, H, W]`` where the network is."""
        return torch.from_numpy(seen)[:, None].to(self.device).contiguous(memory_format=torch.channels_last)


class TorchSpine(TorchStage):
    network: SpineNetwork

    @torch.inference_mode()
    def maps(self, seen: np.ndarray, *, mirrored: bool) -> SpineMaps:
        image = self._tensor(seen[None])
        output = self.network(image)
        if mirrored:
            output = mean_output(output, mirror_output(self.network(image.flip(-1))))
        points, offsets, log_step, down, levels, view = (
            one[0].float().cpu().numpy()
            for one in (
                output.points.sigmoid(),
                output.offsets,
                output.log_step,
                output.down,
                output.levels,
                output.view.float().softmax(dim=-1),
            )
        )
        return SpineMaps(points, offsets, log_step, down, levels, view, self.network.output_stride)


class TorchVertebrae(TorchStage):
    network: VertebraNetwork

    def __init__(self, network: VertebraNetwork, config: Config) -> None:
        super().__init__(network)
        self.config = config

    @torch.inference_mode()
    def corners(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        decoded = codec_of(self.config).decode(heatmaps_of(self.network, self._tensor(seen), self.config))
        points, covariances, scores = (
            one.cpu().numpy() for one in (decoded.points_xy, decoded.covariance, decoded.peak)
        )
        return points, covariances, scores


class TorchLevels(TorchStage):
    network: LevelNetwork

    @torch.inference_mode()
    def log_probabilities(self, seen: np.ndarray, found: np.ndarray, *, mirrored: bool) -> np.ndarray:
        image, is_found = self._tensor(seen[None]), torch.from_numpy(found)[None].to(self.device)
        told = self.network(image, is_found)
        if mirrored:
            told = (told + self.network(image.flip(-1), is_found)) / 2
        return told[0].float().cpu().numpy()
