"""Phases, parameter groups and learning rates, against values derived by hand."""

import math

import pytest
import torch
from tiny_job import thin_efficientnet

from vertebra_kp.config.network import STRIDES, BackboneConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.schema import Config, PhaseConfig, TrainConfig
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.inference.checkpoint import moments_by_name
from vertebra_kp.models import library
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.distributed import Group
from vertebra_kp.training.schedule import Phase, lr_factor, make_plan, parameter_groups
from vertebra_kp.training.state import change_optimiser, start_state

LATERAL = SCHEMAS["la_lumbar"]
PROJECTION = (8, 8, 16, 16, 24)


@pytest.fixture
def network(monkeypatch) -> VertebraNetwork:
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    config = NetworkConfig(
        backbone=BackboneConfig(projection=dict(zip(STRIDES, PROJECTION, strict=True))),
        neck=NeckConfig(depth=2, width=32, heads=4, positions="learned"),
    )
    return VertebraNetwork(config, LATERAL)


def train_config(*epochs: int, **fields) -> TrainConfig:
    phases = [PhaseConfig(name=f"phase{i}", epochs=n) for i, n in enumerate(epochs)]
    return TrainConfig(phases=phases, **fields)


def phase_of(*, start: int = 0, end: int = 10, **fields) -> Phase:
    return Phase(PhaseConfig(name="phase", epochs=1, **fields), start, end)


# --- plan -----------------------------------------------------------------------------------------------


def test_a_plan_counts_whole_steps_and_phases_follow_each_other():
    # 53 films in steps of 3 x 2 processes x 2 accumulated = 12: 4 steps an epoch, 5 films left out.
    plan = make_plan(train_config(2, 1, 3, batch_size=3, accumulate=2), films=53, world_size=2)
    assert plan.steps_per_epoch == 4
    assert [(phase.start, phase.end) for phase in plan.phases] == [(0, 8), (8, 12), (12, 24)]
    assert (plan.total_steps, plan.steps_per_epoch) == (24, 4)


def test_the_step_at_a_boundary_belongs_to_the_next_phase():
    plan = make_plan(train_config(2, 1, batch_size=2), films=7)
    names = [plan.phase_at(step).config.name for step in range(plan.total_steps)]
    assert names == ["phase0"] * 6 + ["phase1"] * 3


def test_an_epoch_of_exactly_one_step_is_enough_and_one_film_less_is_told():
    assert make_plan(train_config(1, batch_size=4), films=4).total_steps == 1
    with pytest.raises(ValueError, match=r"3 films .*batch_size 4 x 1 processes .*lower train.batch_size"):
        make_plan(train_config(1, batch_size=4), films=3)


# --- learning rates -------------------------------------------------------------------------------------


def test_warm_up_rises_evenly_to_the_full_rate():
    # Three steps of warm-up: 1/4, 2/4, 3/4, then 1.
    factors = [lr_factor(phase_of(warmup_steps=3, final_lr=1.0), step) for step in range(5)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1], abs=1e-12)


def test_half_a_cosine_falls_to_the_final_rate_at_the_last_step():
    # Steps 20..28 of a phase, 4 of warm-up, so the cosine runs over 24..28: 0, 45, 90, 135, 180 degrees.
    phase = phase_of(start=20, end=29, warmup_steps=4, final_lr=0.1)
    root = math.sqrt(0.5)
    expected = [0.1 + 0.9 * (1 + c) / 2 for c in (1, root, 0, -root, -1)]
    assert [lr_factor(phase, step) for step in range(24, 29)] == pytest.approx(expected, abs=1e-12)
    assert lr_factor(phase, 28) == pytest.approx(0.1)


def test_a_final_rate_of_1_keeps_the_rate_constant():
    assert {lr_factor(phase_of(final_lr=1.0), step) for step in range(10)} == {1.0}


@pytest.mark.parametrize(("length", "warmup"), [(1, 0), (1, 5), (3, 3), (3, 2), (2, 1)])
def test_short_phases_and_long_warm_ups_stay_between_0_and_1(length, warmup):
    factors = [lr_factor(phase_of(end=length, warmup_steps=warmup), step) for step in range(length)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] == (1 / (warmup + 1) if warmup else 1)


# --- parameter groups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", range(7))
@pytest.mark.parametrize("parts", [(), ("neck",), ("decoder", "presence_head")], ids="+".join)
def test_groups_hold_every_trainable_parameter_exactly_once(network, stages, parts):
    phase = PhaseConfig(name="phase", epochs=1, freeze_stages=stages, freeze=list(parts))
    network.freeze(phase.freeze_stages, phase.freeze)
    held = [id(p) for group in parameter_groups(network, phase, 0.01) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    assert len(set(held)) == len(held) > 0


def test_group_names_are_unique_and_no_group_is_empty(network):
    groups = parameter_groups(network, PhaseConfig(name="phase", epochs=1), 0.01)
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert all(group["params"] for group in groups)


def test_a_stage_learns_slower_by_the_decay_for_every_stage_between_it_and_the_output(network):
    phase = PhaseConfig(name="phase", epochs=1, lr=4e-3, backbone_lr=2e-3, layer_decay=0.5)
    rates = {group["name"]: group["lr"] for group in parameter_groups(network, phase, 0.01)}
    # Stage 6 is nearest to the output: 2e-3; the stem is six stages further: 2e-3 / 64.
    expected = {f"backbone_{block}": 2e-3 / 2 ** (6 - block) for block in range(7)}
    expected |= {"backbone_projections": 2e-3}
    expected |= {part: 4e-3 for part in ("neck", "decoder", "heatmap_head", "presence_head")}
    assert {name.removesuffix("_undecayed") for name in rates} == expected.keys()
    for name, rate in rates.items():
        assert rate == pytest.approx(expected[name.removesuffix("_undecayed")], rel=1e-12), name


def test_the_backbone_learns_like_the_rest_unless_told_otherwise(network):
    groups = parameter_groups(network, PhaseConfig(name="phase", epochs=1, lr=3e-4), 0.01)
    assert {group["lr"] for group in groups} == {group["base_lr"] for group in groups} == {3e-4}


def test_norms_biases_and_positions_are_not_decayed_and_all_else_is(network):
    norms = (torch.nn.BatchNorm2d, torch.nn.LayerNorm)
    undecayed = {id(p) for module in network.modules() if isinstance(module, norms) for p in module.parameters()}
    undecayed |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    undecayed.add(id(network.neck.encoders["F4"].positions))
    for group in parameter_groups(network, PhaseConfig(name="phase", epochs=1), 0.03):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0 if id(parameter) in undecayed else 0.03), group["name"]


# --- moments across phases ------------------------------------------------------------------------------


def test_moments_carry_over_by_name_and_those_of_frozen_parameters_wait(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    phases = [{"name": "a", "epochs": 1, "freeze_stages": 2}, {"name": "b", "epochs": 1, "freeze_stages": 5}]
    neck = {"depth": 1, "width": 32}
    config = Config.model_validate({"name": "x", "network": {"neck": neck}, "train": {"phases": phases}})
    plan = make_plan(config.train, films=8)
    state = start_state(config, LATERAL, Group(0, 1, torch.device("cpu")), plan.phases[0])
    state.network.freeze(plan.phases[0].config.freeze_stages, plan.phases[0].config.freeze)
    change_optimiser(state, config, plan.phases[0])
    trained = {name: p for name, p in state.network.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.grad = torch.full_like(parameter, 0.5)
    state.optimiser.step()
    before = moments_by_name(state.optimiser, state.network)
    assert before.keys() == trained.keys()
    assert not any(name.startswith(("backbone.blocks.0.", "backbone.blocks.2.")) for name in before)

    state.network.freeze(plan.phases[1].config.freeze_stages, plan.phases[1].config.freeze)
    change_optimiser(state, config, plan.phases[1])
    after = moments_by_name(state.optimiser, state.network)
    still_trained = {name for name, p in state.network.named_parameters() if p.requires_grad}
    assert after.keys() == still_trained < before.keys()
    for name, moments in after.items():
        # AdamW after one step with gradient 0.5: (1 - 0.9) x 0.5 and (1 - 0.999) x 0.25.
        assert float(moments["step"]) == 1
        torch.testing.assert_close(moments["exp_avg"], torch.full_like(moments["exp_avg"], 0.05), msg=name)
        torch.testing.assert_close(
            moments["exp_avg_sq"], torch.full_like(moments["exp_avg_sq"], 0.00025), msg=name
        )

    # Back to the first phase: what was frozen in between goes on where it stopped.
    state.network.freeze(plan.phases[0].config.freeze_stages, plan.phases[0].config.freeze)
    change_optimiser(state, config, plan.phases[0])
    again = moments_by_name(state.optimiser, state.network)
    assert again.keys() == before.keys()
    for name, moments in again.items():
        torch.testing.assert_close(moments["exp_avg"], torch.full_like(moments["exp_avg"], 0.05), msg=name)
