"""The stages of a spine network's prediction, run by torch."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig
from vertebra_kp.inference.batch import codec_of, heatmaps_of
from vertebra_kp.inference.spine_maps import SpineArrays, SpineMaps, mean_of
from vertebra_kp.models.level_network import LevelNetwork
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.models.spine_network import SpineNetwork


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

    def maps(self, seen: np.ndarray, *, mirrored: bool) -> SpineMaps:
        arrays = self._arrays(seen)
        if mirrored:
            arrays = mean_of(arrays, self._arrays(np.ascontiguousarray(seen[:, ::-1])).unmirrored())
        return arrays.maps(self.network.output_stride)

    @torch.inference_mode()
    def _arrays(self, seen: np.ndarray) -> SpineArrays:
        output = self.network(self._tensor(seen[None]))
        return SpineArrays(
            *(getattr(output, field.name)[0].float().cpu().numpy() for field in fields(SpineArrays))
        )


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

    def __init__(self, network: LevelNetwork, config: LevelConfig) -> None:
        super().__init__(network)
        self.mirrors = config.reformation.flip

    @torch.inference_mode()
    def log_probabilities(self, seen: np.ndarray, found: np.ndarray) -> np.ndarray:
        image, is_found = self._tensor(seen[None]), torch.from_numpy(found)[None].to(self.device)
        told = self.network(image, is_found)
        if self.mirrors:
            told = (told + self.network(image.flip(-1), is_found)) / 2
        return told[0].float().cpu().numpy()
