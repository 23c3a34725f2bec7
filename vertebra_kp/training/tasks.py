"""What a training on several sources is of: its network, its views of the images, its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vertebra_kp.config.spine import USUAL_STEP, LevelConfig, SpineConfig
from vertebra_kp.data.reformation import random_reformation
from vertebra_kp.data.spine_films import SpineFilm
from vertebra_kp.data.spine_views import SpineTargets, random_view, targets_of
from vertebra_kp.models.level_network import LevelNetwork, LevelTargets, level_loss
from vertebra_kp.models.spine_loss import spine_loss
from vertebra_kp.models.spine_network import SpineNetwork


class Task(Protocol):
    @property
    def config(self) -> SpineConfig | LevelConfig: ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a view."""

    def network(self, *, load_weights: bool) -> SpineNetwork | LevelNetwork: ...

    def batch(self, films: Sequence[SpineFilm], rng: np.random.Generator) -> tuple[Tensor, Any]:
        """One random view ``[1, H, W]`` of each film, and their targets."""

    def loss(self, network: nn.Module, image: Tensor, targets: Any) -> dict[str, Tensor]:
        """Each term, and their weighted ``total``."""


@dataclass(frozen=True)
class SpineTask:
    config: SpineConfig

    @property
    def size(self) -> tuple[int, int]:
        return self.config.views.size

    def network(self, *, load_weights: bool) -> SpineNetwork:
        return SpineNetwork(self.config.network, load_weights=load_weights)

    def batch(self, films: Sequence[SpineFilm], rng: np.random.Generator) -> tuple[Tensor, SpineTargets]:
        views = [(random_view(film, self.config.views, rng), film.view) for film in films]
        images = torch.from_numpy(np.stack([image for (image, _), _ in views]))[:, None]
        stride = self.config.network.decoder.output_stride
        return images, targets_of([(marks, view) for (_, marks), view in views], self.size, stride)

    def loss(self, network: nn.Module, image: Tensor, targets: SpineTargets) -> dict[str, Tensor]:
        return spine_loss(network(image), targets, self.config.network.decoder.output_stride, USUAL_STEP)


@dataclass(frozen=True)
class LevelTask:
    config: LevelConfig

    @property
    def size(self) -> tuple[int, int]:
        return self.config.reformation.size

    def network(self, *, load_weights: bool) -> LevelNetwork:
        return LevelNetwork(self.config, load_weights=load_weights)

    def batch(self, films: Sequence[SpineFilm], rng: np.random.Generator) -> tuple[Tensor, LevelTargets]:
        views = [random_reformation(film, self.config.reformation, rng) for film in films]
        images, found, first = zip(*views, strict=True)
        targets = LevelTargets(torch.from_numpy(np.stack(found)), torch.tensor(first))
        return torch.from_numpy(np.stack(images))[:, None], targets

    def loss(self, network: nn.Module, image: Tensor, targets: LevelTargets) -> dict[str, Tensor]:
        return level_loss(network(image, targets.found), targets)


def task_of(config: SpineConfig | LevelConfig) -> SpineTask | LevelTask:
    return LevelTask(config) if isinstance(config, LevelConfig) else SpineTask(config)
