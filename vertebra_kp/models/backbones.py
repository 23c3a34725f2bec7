"""Backbones: a film to feature maps by name, from ordered stages that freeze and unfreeze.

Maps are named by stride, whatever the network: F1, F2, F3, S16, F4 at strides 2, 4, 8, 16, 32.
"""

import copy
import re
from collections.abc import Iterable
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from vertebra_kp.config.network import BackboneConfig
from vertebra_kp.models.library import (
    BackboneError,
    input_statistics,
    library_stages,
    load_library_weights,
    maps_of,
)

RANGE = re.compile(r"(\w+)\.\.(\w+)")

Stages = int | list[str] | Literal["all"]


class Backbone(nn.Module):
    """``stages`` run one after the other; after some of them stands a map that is returned.

    Publishes ``stage_names``, and ``channels`` of its maps by name, finest first. Stages at the front that are
    frozen build no graph, so they cost no backward time and no activations.
    """

    def __init__(self, config: BackboneConfig, *, load_weights: bool = True) -> None:
        """With all maps that the network has, and its weights when the config names some.

        Raises BackboneError for an unknown network or a projection of a map that it lacks, WeightsError where
        weights cannot be had.
        """
        super().__init__()
        whole, stages = library_stages(config.name, config.stochastic_depth)
        maps, channels = maps_of(stages, config.name)  # the stage after which each map stands, its channels there
        projection: dict[str, int] = {str(name): width for name, width in (config.projection or {}).items()}
        if missing := [name for name in projection if name not in maps]:
            raise BackboneError(
                f"network.backbone.projection: {config.name} has no map {missing[0]}, only {', '.join(maps)}"
            )
        self.stage_names = tuple(stages)
        self.blocks = nn.ModuleList(stages.values())
        if load_weights and config.weights != "none":
            random = {i: copy.deepcopy(self.blocks[i].state_dict()) for i in self._reinitialised(config)}
            load_library_weights(whole, stages, config)
            for i, state in random.items():
                self.blocks[i].load_state_dict(state)
        self.maps_after = [[n for n in maps if maps[n] == stage] for stage in stages]
        self.projections = nn.ModuleDict(
            {name: nn.Conv2d(channels[name], width, 1) for name, width in projection.items()}
        )
        self.channels = channels | projection
        self.frozen_batch_norm = config.frozen_batch_norm
        self.input_statistics = input_statistics(config.name)
        self.unread: list[nn.Parameter] = []
        # What holds weights of its own, stage by stage: layers are counted through.
        self.layers_of = [
            [m for m in b.modules() if any(True for _ in m.parameters(recurse=False))] for b in self.blocks
        ]
        self.freeze(0)

    def forward(self, film: Tensor) -> dict[str, Tensor]:
        """Film ``[B, 3, H, W]`` to its maps ``[B, C, H/stride, W/stride]``, finest first."""
        maps = {}
        x = film
        for i, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= self.num_leading_frozen):
                x = block(x)
            # A stage after which no map stands gives one too, hence not strict.
            for name, feature in zip(self.maps_after[i], x if isinstance(x, list) else [x], strict=False):
                if name in self.channels:
                    maps[name] = self.projections[name](feature) if name in self.projections else feature
        return maps

    def return_only(self, names: Iterable[str]) -> None:
        """Return these maps only, and drop the projections of others; BackboneError for one that is not there."""
        wanted = set(names)
        if missing := sorted(wanted - self.channels.keys()):
            raise BackboneError(f"the backbone has no map {missing[0]}, only {', '.join(self.channels)}")
        self.channels = {name: width for name, width in self.channels.items() if name in wanted}
        # What nobody reads has no gradient, which DistributedDataParallel does not forgive.
        for name in set(self.projections) - wanted:
            del self.projections[name]
        if any(len(names) > 1 for names in self.maps_after):  # a network that gives all its maps at once
            self.unread = self._without_gradient()
            self.freeze([self.stage_names[i] for i in self.frozen])

    def _without_gradient(self) -> list[nn.Parameter]:
        """Parameters that no returned map depends on, found with a small film."""
        was_training, parameters = self.training, list(self.parameters())
        film = torch.zeros(1, 3, 64, 64, device=parameters[0].device)
        with torch.enable_grad():
            total = sum(feature.sum() for feature in self.eval()(film).values())
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        self.train(was_training)
        return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]

    @property
    def num_leading_frozen(self) -> int:
        return next((i for i in range(len(self.blocks)) if i not in self.frozen), len(self.blocks))

    def freeze(self, stages: Stages, *, layers: int = 0) -> None:
        """Freeze these stages and the first n layers (-n: all but the last n), and no others.

        No gradient; BatchNorm and, in whole stages, stochastic depth stand still. Raises BackboneError for what is
        not there.
        """
        ends = list(accumulate(len(of_stage) for of_stage in self.layers_of))
        if abs(layers) > ends[-1]:
            raise BackboneError(f"freeze_layers is {layers}, the backbone has {ends[-1]} layers")
        first = layers if layers >= 0 else ends[-1] + layers
        whole = {i for i, end in enumerate(ends) if end <= first} if first else set()
        self.frozen = self.select(stages) | whole
        self.frozen_layers = [layer for of_stage in self.layers_of for layer in of_stage][:first]
        for i, block in enumerate(self.blocks):
            block.requires_grad_(i not in self.frozen)
        for layer in self.frozen_layers:
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
        for norm in self._still_norms():
            norm.requires_grad_(False)
        for parameter in self.unread:
            parameter.requires_grad_(False)
        self.train(self.training)

    def _reinitialised(self, config: BackboneConfig) -> frozenset[int]:
        """Places of the stages that keep their random weights."""
        chosen, count = config.reinitialise, len(self.blocks)
        if not isinstance(chosen, int):
            return self.select(chosen, field="network.backbone.reinitialise")
        if chosen > count:
            raise BackboneError(f"network.backbone.reinitialise is {chosen}, {config.name} has {count} stages")
        return frozenset(range(count - chosen, count))

    def select(self, stages: Stages, *, field: str = "freeze_stages") -> frozenset[int]:
        """Places of stages: n is the stem and the first n, -n all but the last n; or names, ranges, ``all``."""
        count, last = len(self.blocks), len(self.blocks) - 1
        if stages == "all":
            return frozenset(range(count))
        if isinstance(stages, int):
            if not -count <= stages <= last:
                stages_there = f"stages 1 to {last} after its stem" if last else "a stem and nothing after it"
                raise BackboneError(f"freeze_stages is {stages}, the backbone has {stages_there}")
            return frozenset(range(stages + 1 if stages > 0 else count + stages if stages else 0))
        chosen: set[int] = set()
        for name in stages:
            ends = RANGE.fullmatch(name)
            first, end = ends.groups() if ends else (name, name)
            if unknown := {first, end} - set(self.stage_names):
                raise BackboneError(
                    f"{field}: {sorted(unknown)[0]} is no stage of the backbone; "
                    f"it has {', '.join(self.stage_names)}"
                )
            chosen.update(range(self.stage_names.index(first), self.stage_names.index(end) + 1))
        return frozenset(chosen)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for i in self.frozen:
            self.blocks[i].eval()
        for layer in self.frozen_layers:
            layer.training = False
        for norm in self._still_norms():
            norm.eval()
        return self

    def _still_norms(self) -> Iterable[nn.Module]:
        if not self.frozen_batch_norm:
            return ()
        return (module for module in self.blocks.modules() if isinstance(module, nn.BatchNorm2d))
