"""A frozen part stands still: weights, statistics, outputs, and no cost on the way back."""

import copy
from itertools import pairwise

import pytest
import torch
from tiny_job import FROZEN, make_run, thin_efficientnet, tiny_config, train_all
from torch import Tensor, nn

from vertebra_kp.config.network import BackboneConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.schema import PhaseConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.models import library
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.loop import begin_phase
from vertebra_kp.training.schedule import parameter_groups

STEPS = 20
TAPPED_STAGES = (1, 2, 3, 5, 6)


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


def new_network() -> VertebraNetwork:
    torch.manual_seed(3)
    config = NetworkConfig(
        backbone=BackboneConfig(stochastic_depth=0.5),
        neck=NeckConfig(depth=1, width=32, heads=4, dropout=0.2),
        presence_dropout=0.2,
    )
    return VertebraNetwork(config, SCHEMAS["la_lumbar"]).train()


def films(seed: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


def optimise(network: VertebraNetwork, *, steps: int, freeze_stages: int = 0, parts: tuple[str, ...] = ()) -> None:
    """Enter a phase and take steps as the loop does, weight decay and all."""
    phase = PhaseConfig(name="phase", epochs=1, freeze_stages=freeze_stages, freeze=list(parts), lr=1e-2)
    network.freeze(phase.freeze_stages, phase.freeze)
    optimiser = torch.optim.AdamW(parameter_groups(network, phase, weight_decay=0.1))
    for step in range(steps):
        network.train()
        output = network(films(step))
        (output.heatmap_logits.square().mean() + output.presence_logits.square().mean()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def state_of(network: VertebraNetwork) -> dict[str, Tensor]:
    return copy.deepcopy(dict(network.state_dict()))


def moved(before: dict[str, Tensor], network: VertebraNetwork) -> set[str]:
    after = network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def frozen_names(network: VertebraNetwork, stages: int, parts: tuple[str, ...]) -> set[str]:
    """freeze_stages n: the stem (block 0) and stages 1..n; 0: nothing."""
    prefixes = [f"backbone.blocks.{block}." for block in range(stages + 1 if stages else 0)]
    prefixes += [f"{part}." for part in parts]
    return {name for name in network.state_dict() if name.startswith(tuple(prefixes))}


# --- weights and statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        (0, ()),
        (1, ()),
        (4, ()),
        (6, ()),
        (0, ("neck",)),
        (0, ("decoder", "heatmap_head")),
        (6, ("decoder", "presence_head")),
        (6, ("neck", "decoder", "presence_head")),
    ],
    ids=str,
)
def test_frozen_weights_and_batch_norm_buffers_are_bit_equal_after_20_steps_and_all_else_moves(
    thin, stages, parts
):
    network = new_network()
    before = state_of(network)
    optimise(network, steps=STEPS, freeze_stages=stages, parts=parts)
    frozen = frozen_names(network, stages, parts)
    assert moved(before, network) == before.keys() - frozen


def test_the_whole_backbone_stands_still_through_a_frozen_phase_of_the_loop(thin):
    run, state = make_run(tiny_config(phases=(FROZEN | {"freeze_stages": 6},), batch_norm_calibration=0))
    before = state_of(state.network)
    train_all(run, state)
    assert state.step == 4
    changed = moved(before, state.network)
    assert not {name for name in changed if name.startswith("backbone.")}
    assert {name.split(".")[0] for name in changed} == state.network.parts.keys() - {"backbone"}


def test_unfreezing_lets_everything_move_again(thin):
    network = new_network()
    optimise(network, steps=1, freeze_stages=6, parts=("neck", "decoder"))
    before = state_of(network)
    optimise(network, steps=2)
    assert moved(before, network) == before.keys()
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_freezing_less_than_before_unfreezes_the_stages_between(thin):
    network = new_network()
    optimise(network, steps=1, freeze_stages=6)
    before = state_of(network)
    optimise(network, steps=2, freeze_stages=2)
    assert moved(before, network) == before.keys() - frozen_names(network, 2, ())


def test_a_part_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="freeze: head is no part of the network"):
        new_network().freeze(0, frozenset({"head"}))


# --- outputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", range(7))
def test_in_train_mode_frozen_maps_are_deterministic_and_what_follows_is_not(stages):
    network = new_network()
    network.freeze(stages)
    network.train()
    x = network.normalise(films(1, batch=4))
    first, second = network.backbone(x), network.backbone(x)
    same = [torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True)]
    assert all(equal for stage, equal in zip(TAPPED_STAGES, same, strict=True) if stage <= stages)
    assert same[-1] == (stages == 6)  # 40 residual layers, half of the deepest dropped at a time


def test_in_train_mode_a_frozen_map_equals_that_of_eval_mode():
    network = new_network()
    network.freeze(6)
    x = network.normalise(films(1))
    in_train_mode = network.train().backbone(x)
    in_eval_mode = network.eval().backbone(x)
    assert all(torch.equal(a, b) for a, b in zip(in_train_mode.values(), in_eval_mode.values(), strict=True))


def test_a_frozen_neck_and_head_drop_nothing_out(thin):
    network = new_network()
    network.freeze(6, frozenset({"neck", "presence_head"}))
    network.train()
    film = films(2)
    assert torch.equal(network(film).presence_logits, network(film).presence_logits)


@pytest.mark.parametrize("mode", [True, False])
def test_train_and_eval_of_the_whole_network_leave_frozen_modules_in_eval_mode(thin, mode):
    network = new_network()
    network.freeze(3, frozenset({"decoder"}))
    network.train(mode)
    frozen = [*network.backbone.blocks[:4].modules(), *network.decoder.modules()][1:]
    assert not any(module.training for module in frozen)
    free = [*network.backbone.blocks[4:].modules(), *network.neck.modules(), *network.heatmap_head.modules()][1:]
    assert {module.training for module in free} == {mode}


# --- cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", range(7))
def test_frozen_maps_carry_no_graph_and_the_others_do(stages):
    network = new_network()
    network.freeze(stages)
    maps = list(network.backbone(network.normalise(films(1))).values())
    assert [m.requires_grad for m in maps] == [not 0 < stage <= stages for stage in TAPPED_STAGES]
    sum(m.sum() for m in [*maps, network(films(1)).heatmap_logits] if m.requires_grad).backward()
    for block, module in enumerate(network.backbone.blocks):
        frozen = bool(stages) and block <= stages
        assert all((p.grad is None) == frozen for p in module.parameters()), block


def saved_bytes(network: VertebraNetwork, call) -> int:
    """Bytes of activations (not parameters) that autograd keeps for the way back."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}
    alive = []  # or an address could be used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result is not None
    return sum(kept.values())


def test_a_frozen_backbone_saves_no_activation_and_every_stage_that_is_freed_adds_some(thin):
    network = new_network()
    x = network.normalise(films(1))
    saved = []
    for stages in range(6, -1, -1):
        network.freeze(stages)
        saved.append(saved_bytes(network, lambda: network.backbone(x)))
    assert saved[0] == 0
    assert all(fewer < more for fewer, more in pairwise(saved))


def graph_leaves(output: Tensor) -> set[int]:
    """Ids of the tensors that a backward pass from here would reach."""
    leaves, seen, queue = set(), set(), [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        queue += [following for following, _ in node.next_functions]
    return leaves


@pytest.mark.parametrize(
    ("stages", "parts"), [(0, ()), (3, ()), (6, ("neck",)), (6, ("neck", "decoder"))], ids=str
)
def test_the_way_back_reaches_exactly_the_trainable_parameters(thin, stages, parts):
    network = new_network()
    network.freeze(stages, frozenset(parts))
    output = network(films(1))
    reached = graph_leaves(output.heatmap_logits.sum() + output.presence_logits.sum())
    assert reached == {id(p) for p in network.parameters() if p.requires_grad}


# --- statistics of frozen random layers -----------------------------------------------------------------


def test_calibration_gives_frozen_layers_the_statistics_of_the_films_and_leaves_the_others(thin):
    phases = (FROZEN | {"freeze_stages": 2},)
    run, state = make_run(tiny_config(phases=phases, batch_norm_calibration=4))
    before = state_of(state.network)
    inputs: list[Tensor] = []
    stem_norm = state.network.backbone.blocks[0][1]
    handle = stem_norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    begin_phase(run, state, run.plan.phases[0])
    handle.remove()
    # 8 films in 4 batches of 2: the mean over batches of the mean, and of the unbiased variance.
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(0)
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(0)
    assert len(inputs) == 4
    torch.testing.assert_close(stem_norm.running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem_norm.running_var, variances, rtol=1e-4, atol=1e-5)
    changed = moved(before, state.network)
    norms = {
        f"backbone.{name}.{buffer}"
        for name, module in state.network.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and int(name.split(".")[1]) <= 2
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert changed == norms
    assert stem_norm.momentum == state.network.backbone.blocks[6][0].block[0][1].momentum
    assert not stem_norm.training
