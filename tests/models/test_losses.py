"""Losses: zero for a perfect map, blind to what is not labelled, the same in one batch or in pieces."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vertebra_kp.config.schema import LossConfig
from vertebra_kp.core.anatomy import UNKNOWN, State
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.losses import (
    AWING_EPSILON,
    AWING_OMEGA,
    AWING_THETA,
    AWING_WEIGHT,
    MSE_FOREGROUND_WEIGHT,
    KeypointLoss,
    Targets,
    adaptive_wing,
    to_heatmaps,
)

CODEC = HeatmapCodec(stride=2, sigma=2.7)
MAP_SIZE = (24, 31)
LOSSES = ("cross_entropy", "mse", "adaptive_wing")
EVERY_LOSS = pytest.mark.parametrize("heatmap", LOSSES)


def labels(seed=0, films=3, channels=5, levels=2) -> Targets:
    """Labelled corners at awkward places, all levels present."""
    generator = torch.Generator().manual_seed(seed)
    points = 12 + torch.rand(films, channels, 2, generator=generator) * torch.tensor([38.0, 24.0])
    states = torch.full((films, channels), State.LABELLED, dtype=torch.int8)
    return Targets(points, states, torch.ones(films, levels))


def half_labelled(films=3) -> Targets:
    """Corner 0 outside, 1 unlabelled, 2 nonexistent with nan for a place, 3 and 4 labelled; presence 1, ?, 0."""
    full = labels(films=films)
    states = full.states.clone()
    states[:, 0], states[:, 1], states[:, 2] = State.OUTSIDE, State.UNLABELLED, State.NONEXISTENT
    points = full.points_xy.clone()
    points[:, :3] = math.nan
    return Targets(points, states, torch.tensor([[1.0, math.nan, 0.0]]).repeat(films, 1))


def noise(*shape, seed=7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perfect_logits(targets: Targets, heatmap) -> Tensor:
    """The exponent of the Gaussian for cross-entropy (any offset will do), the Gaussian itself for the others."""
    gaussians = CODEC.encode(targets.points_xy, MAP_SIZE)
    if heatmap != "cross_entropy":
        return gaussians
    cells = targets.points_xy / CODEC.stride
    x = torch.arange(MAP_SIZE[1]) + 0.5 - cells[..., 0, None]
    y = torch.arange(MAP_SIZE[0]) + 0.5 - cells[..., 1, None]
    return 4.2 - (x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * CODEC.sigma**2)


def loss_of(heatmap="cross_entropy", **fields):
    """Unchecked: a config keeps the coordinate loss from heatmaps that are no probabilities."""
    return KeypointLoss(CODEC, LossConfig.model_construct(heatmap=heatmap, **fields))


def evaluate(loss, logits, presence_logits, targets, counts=None):
    return loss(logits, presence_logits, targets, targets.counts() if counts is None else counts)


@EVERY_LOSS
def test_a_perfect_answer_costs_nothing(heatmap):
    targets = labels()
    loss = loss_of(heatmap, coordinate_weight=1.0)
    terms = evaluate(loss, perfect_logits(targets, heatmap), torch.full((3, 2), 30.0), targets)
    assert abs(terms["heatmap"].item()) < 1e-5
    assert terms["coordinate"].item() < 1e-3  # cells squared: the window ends at 2.8 sigma
    assert terms["presence"].item() < 1e-6


@EVERY_LOSS
@pytest.mark.parametrize("sigma", [1.0, 2.7])
def test_every_other_answer_costs_something(heatmap, sigma):
    targets = labels()
    loss = KeypointLoss(HeatmapCodec(2, sigma), LossConfig(heatmap=heatmap))
    for wrong in (torch.zeros(3, 5, *MAP_SIZE), noise(3, 5, *MAP_SIZE)):
        assert evaluate(loss, wrong, torch.zeros(3, 2), targets)["heatmap"] > 1e-3


def test_cross_entropy_is_the_divergence_from_the_normalised_gaussian():
    """KL(target || softmax), summed by hand; a flat map costs log(cells) minus the Gaussian's entropy."""
    targets = labels()
    logits = noise(3, 5, *MAP_SIZE)
    p = CODEC.encode(targets.points_xy, MAP_SIZE).double().flatten(-2)
    p = p / p.sum(-1, keepdim=True)
    q = logits.double().flatten(-2).softmax(-1)
    expected = torch.where(p > 0, p * (p.clamp_min(1e-300).log() - q.log()), 0).sum(-1).mean()
    loss = loss_of("cross_entropy")
    heatmap = evaluate(loss, logits, torch.zeros(3, 2), targets)["heatmap"]
    assert heatmap.item() == pytest.approx(expected.item(), rel=1e-5)

    flat = evaluate(loss, torch.zeros(3, 5, *MAP_SIZE), torch.zeros(3, 2), targets)["heatmap"]
    entropy = math.log(2 * math.pi * math.e * CODEC.sigma**2)  # of a Gaussian in the plane, in cells
    assert flat.item() == pytest.approx(math.log(24 * 31) - entropy, abs=0.05)  # some are cut by the border


@EVERY_LOSS
def test_a_step_against_the_gradient_moves_the_peak_to_the_corner(heatmap):
    targets = labels(films=1, channels=1)
    elsewhere = Targets(targets.points_xy + torch.tensor([6.0, -5.0]), targets.states, targets.presence)
    logits = perfect_logits(elsewhere, heatmap).requires_grad_()
    loss = loss_of(heatmap)
    evaluate(loss, logits, torch.zeros(1, 2), targets)["heatmap"].backward()
    column, row = (targets.points_xy[0, 0] / CODEC.stride).long().tolist()
    wrong_column, wrong_row = (elsewhere.points_xy[0, 0] / CODEC.stride).long().tolist()
    assert logits.grad[0, 0, row, column] < 0  # descent raises it
    assert logits.grad[0, 0, wrong_row, wrong_column] > 0


@EVERY_LOSS
def test_the_coordinate_term_pulls_the_mean_towards_the_corner(heatmap):
    targets = labels(films=1, channels=1)
    off = Targets(targets.points_xy + torch.tensor([3.0, 0.0]), targets.states, targets.presence)
    logits = perfect_logits(off, heatmap).requires_grad_()
    loss = loss_of(heatmap, coordinate_weight=1.0)
    term = evaluate(loss, logits, torch.zeros(1, 2), targets)["coordinate"]
    term.backward()
    # Smooth L1 of 1.5 cells along x is 1.0; the window around the true place cuts the far side off a little.
    assert term.item() == pytest.approx(1.0, abs=0.25)
    column, row = (targets.points_xy[0, 0] / CODEC.stride).long().tolist()
    assert logits.grad[0, 0, row, column + 4] > 0  # the far side is lowered ...
    assert logits.grad[0, 0, row, column - 4] < 0  # ... the near side raised


@EVERY_LOSS
def test_what_is_not_labelled_gives_no_loss_and_no_gradient(heatmap):
    targets = half_labelled()
    logits = noise(3, 5, *MAP_SIZE).requires_grad_()
    presence = noise(3, 3).requires_grad_()
    loss = loss_of(heatmap, coordinate_weight=0.7)
    terms = evaluate(loss, logits, presence, targets)
    terms["total"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert (logits.grad[:, :3] == 0).all()
    assert logits.grad[:, 3:].isfinite().all()
    assert (logits.grad[:, 3:] != 0).any(dim=-1).any(dim=-1).all()
    assert (presence.grad[:, 1] == 0).all()
    assert (presence.grad[:, 0] < 0).all()
    assert (presence.grad[:, 2] > 0).all()


@EVERY_LOSS
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30, 0.0])
def test_the_place_of_an_unlabelled_corner_is_never_looked_at(heatmap, garbage):
    targets = half_labelled()
    points = targets.points_xy.clone()
    points[:, :3] = garbage
    logits, presence = noise(3, 5, *MAP_SIZE), noise(3, 3)
    loss = loss_of(heatmap, coordinate_weight=0.7)
    expected = evaluate(loss, logits, presence, targets)
    found = evaluate(loss, logits, presence, Targets(points, targets.states, targets.presence))
    assert found == expected


@EVERY_LOSS
def test_masked_corners_do_not_dilute_the_mean(heatmap):
    targets = half_labelled()
    logits, presence = noise(3, 5, *MAP_SIZE), noise(3, 3)
    loss = loss_of(heatmap, coordinate_weight=0.7)
    only = Targets(targets.points_xy[:, 3:], targets.states[:, 3:], targets.presence[:, [0, 2]])
    torch.testing.assert_close(
        evaluate(loss, logits, presence, targets),
        evaluate(loss, logits[:, 3:], presence[:, [0, 2]], only),
    )


@EVERY_LOSS
def test_a_batch_without_any_label_costs_nothing(heatmap):
    targets = half_labelled()
    nothing = Targets(
        torch.full_like(targets.points_xy, math.nan),
        torch.full_like(targets.states, State.UNLABELLED),
        torch.full_like(targets.presence, math.nan),
    )
    logits = noise(3, 5, *MAP_SIZE).requires_grad_()
    terms = evaluate(loss_of(heatmap, coordinate_weight=1.0), logits, noise(3, 3), nothing)
    terms["total"].backward()
    assert terms["total"] == 0
    assert (logits.grad == 0).all()


@EVERY_LOSS
def test_pieces_divided_by_the_global_counts_add_up_to_one_batch(heatmap):
    """Accumulation, and processes: films 0 | 1, 2 | 3, 4 with unequal numbers of labels."""
    full = labels(films=5)
    states, presence = full.states.clone(), full.presence.clone()
    states[0, 1:] = State.OUTSIDE
    states[3, 4] = State.UNLABELLED
    presence[1, 0] = math.nan
    targets = Targets(full.points_xy, states, presence)
    logits, presence_logits = noise(5, 5, *MAP_SIZE).requires_grad_(), noise(5, 2).requires_grad_()
    loss = loss_of(heatmap, coordinate_weight=0.3, presence_weight=0.2)
    whole = evaluate(loss, logits, presence_logits, targets)
    expected = torch.autograd.grad(whole["total"], (logits, presence_logits))

    pieces = [slice(0, 1), slice(1, 3), slice(3, 5)]
    parts = [Targets(targets.points_xy[i], targets.states[i], targets.presence[i]) for i in pieces]
    counts = torch.stack([part.counts() for part in parts]).sum(0)
    assert counts.tolist() == [25 - 4 - 1, 10 - 1]
    terms = [
        evaluate(loss, logits[i], presence_logits[i], part, counts) for i, part in zip(pieces, parts, strict=True)
    ]
    torch.testing.assert_close({name: sum(term[name] for term in terms) for name in whole}, whole)
    found = torch.autograd.grad(sum(term["total"] for term in terms), (logits, presence_logits))
    torch.testing.assert_close(found, expected)


def with_classes(films=3, levels=2) -> Targets:
    """Views known but of film 1; slips of all kinds, some unknown."""
    full = labels(films=films, levels=levels)
    view = (torch.arange(films) % 2).where(torch.arange(films) != 1, torch.tensor(UNKNOWN))
    slip = torch.arange(films * levels).view(films, levels) % 6 - 1  # UNKNOWN and every class in turn
    return replace(full, classes={"view": view, "slip": slip})


def class_logits(films=3, levels=2) -> dict[str, Tensor]:
    return {"view": 2 * noise(films, 2, seed=1), "slip": 2 * noise(films, levels, 5, seed=2)}


def evaluate_classes(loss, targets, logits, counts=None):
    films, levels = targets.presence.shape
    counts = targets.counts() if counts is None else counts
    return loss(noise(films, 5, *MAP_SIZE), noise(films, levels), targets, counts, logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.37])
def test_classes_cost_the_smoothed_cross_entropy_of_what_is_known(smoothing):
    """-sum q log p with q = 1 - s + s / C for the true class, s / C for the others, summed by hand."""
    targets, logits = with_classes(), class_logits()
    terms = evaluate_classes(loss_of(label_smoothing=smoothing), targets, logits)
    for name, classes in (("view", 2), ("slip", 5)):
        costs = []
        true_of, rows = targets.classes[name].flatten().tolist(), logits[name].reshape(-1, classes).tolist()
        for true, row in zip(true_of, rows, strict=True):
            if true != UNKNOWN:
                normaliser = math.log(sum(math.exp(x) for x in row))
                spread = smoothing / classes * sum(normaliser - x for x in row)
                costs.append((1 - smoothing) * (normaliser - row[true]) + spread)
        assert len(costs) == {"view": 2, "slip": 5}[name]
        assert terms[name].item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_an_unknown_class_gives_no_gradient_and_a_known_one_does():
    targets = with_classes(films=6, levels=3)
    logits = {name: value.requires_grad_() for name, value in class_logits(6, 3).items()}
    evaluate_classes(loss_of(), targets, logits)["total"].backward()
    for name, value in logits.items():
        assert ((value.grad != 0).all(dim=-1) == (targets.classes[name] != UNKNOWN)).all()
        assert ((value.grad == 0).all(dim=-1) == (targets.classes[name] == UNKNOWN)).all()


def test_classes_that_nobody_told_cost_nothing_and_still_reach_their_parameters():
    targets = labels()
    unknown = {"view": torch.full((3,), UNKNOWN), "slip": torch.full((3, 2), UNKNOWN)}
    logits = {name: value.requires_grad_() for name, value in class_logits().items()}
    terms = evaluate_classes(loss_of(), replace(targets, classes=unknown), logits)
    terms["total"].backward()
    assert terms["view"] == terms["slip"] == 0
    assert all((value.grad == 0).all() for value in logits.values())


def test_the_total_has_the_weighted_classes_and_they_are_there_at_weight_zero():
    targets = with_classes()
    for weight in (0.0, 1.0, 0.7):
        logits = {name: value.requires_grad_() for name, value in class_logits().items()}
        terms = evaluate_classes(loss_of(classification_weight=weight), targets, logits)
        expected = terms["heatmap"] + 0.1 * terms["presence"] + weight * (terms["view"] + terms["slip"])
        torch.testing.assert_close(terms["total"], expected)
        terms["total"].backward()
        assert all(value.grad is not None for value in logits.values())
    only_view = evaluate_classes(loss_of(), targets, {"view": class_logits()["view"]})
    assert only_view.keys() == {"heatmap", "presence", "view", "total"}


def test_pieces_of_a_batch_with_unequal_classes_add_up_to_one_batch():
    targets = with_classes(films=5, levels=3)
    logits = {name: value.requires_grad_() for name, value in class_logits(5, 3).items()}
    maps, presence = noise(5, 5, *MAP_SIZE), noise(5, 3)
    loss = loss_of(classification_weight=0.4)
    whole = loss(maps, presence, targets, targets.counts(), logits)
    expected = torch.autograd.grad(whole["total"], tuple(logits.values()))
    pieces = [slice(0, 1), slice(1, 2), slice(2, 5)]  # the view of the second is unknown
    parts = [
        Targets(
            targets.points_xy[i],
            targets.states[i],
            targets.presence[i],
            {n: c[i] for n, c in targets.classes.items()},
        )
        for i in pieces
    ]
    counts = torch.stack([part.counts() for part in parts]).sum(0)
    assert counts.tolist() == [25, 15, 4, 12]
    terms = [
        loss(maps[i], presence[i], part, counts, {name: value[i] for name, value in logits.items()})
        for i, part in zip(pieces, parts, strict=True)
    ]
    torch.testing.assert_close({name: sum(term[name] for term in terms) for name in whole}, whole)
    found = torch.autograd.grad(sum(term["total"] for term in terms), tuple(logits.values()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_classes_are_computed_in_float32(dtype):
    targets = with_classes()
    low = {name: (30 * value).to(dtype) for name, value in class_logits().items()}
    found = evaluate_classes(loss_of(), targets, low)
    with torch.autocast("cpu", dtype):
        assert found == evaluate_classes(loss_of(), targets, {n: v.float() for n, v in low.items()})
    assert {found["view"].dtype, found["slip"].dtype} == {torch.float32}


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_outputs_are_computed_in_float32(heatmap, dtype):
    targets = half_labelled()
    # 25 and more: exp or a square of it summed over the map would not fit float16.
    logits, presence = (30 * noise(3, 5, *MAP_SIZE)).to(dtype), noise(3, 3).to(dtype)
    loss = loss_of(heatmap, coordinate_weight=0.7)
    low = evaluate(loss, logits, presence, targets)
    assert {term.dtype for term in low.values()} == {torch.float32}
    assert low == evaluate(loss, logits.float(), presence.float(), targets)


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_lower_the_precision(heatmap, dtype):
    targets = half_labelled()
    logits, presence = noise(3, 5, *MAP_SIZE), noise(3, 3)
    loss = loss_of(heatmap, coordinate_weight=0.7)
    expected = evaluate(loss, logits, presence, targets)
    with torch.autocast("cpu", dtype):
        assert evaluate(loss, logits, presence, targets) == expected


def test_the_presence_term_is_there_at_weight_zero():
    """DistributedDataParallel wants a gradient, be it zero, for every parameter."""
    targets, presence = labels(), noise(3, 2).requires_grad_()
    terms = evaluate(loss_of(presence_weight=0.0), noise(3, 5, *MAP_SIZE), presence, targets)
    terms["total"].backward()
    assert (presence.grad == 0).all()
    assert terms["total"] == terms["heatmap"]


def test_the_total_is_the_weighted_sum_of_the_terms():
    targets = labels()
    loss = loss_of(coordinate_weight=0.7, presence_weight=0.3)
    terms = evaluate(loss, noise(3, 5, *MAP_SIZE), noise(3, 2), targets)
    expected = terms["heatmap"] + 0.7 * terms["coordinate"] + 0.3 * terms["presence"]
    torch.testing.assert_close(terms["total"], expected)


def test_presence_is_the_binary_cross_entropy_of_what_is_known():
    targets = half_labelled(films=1)  # 1, unknown, 0
    terms = evaluate(loss_of(), noise(1, 5, *MAP_SIZE), torch.tensor([[2.0, 9.0, -1.0]]), targets)
    sigmoid = [1 / (1 + math.exp(-logit)) for logit in (2.0, -1.0)]
    expected = -(math.log(sigmoid[0]) + math.log(1 - sigmoid[1])) / 2
    assert terms["presence"].item() == pytest.approx(expected, rel=1e-6)


def test_weighted_mse_counts_an_error_on_the_peak_more_than_one_beside_it():
    targets = labels(films=1, channels=1)
    targets.points_xy[:] = torch.tensor([25.0, 21.0])  # the centre of cell (row 10, column 12)
    loss, perfect = loss_of("mse"), perfect_logits(targets, "mse")

    def cost(row, column):
        wrong = perfect.clone()
        wrong[0, 0, row, column] -= 0.1
        return evaluate(loss, wrong, torch.zeros(1, 2), targets)["heatmap"].item()

    cells = MAP_SIZE[0] * MAP_SIZE[1]
    assert cost(10, 12) == pytest.approx(0.01 * (1 + MSE_FOREGROUND_WEIGHT) / cells, rel=1e-4)
    beside = math.exp(-(3**2) / (2 * CODEC.sigma**2))
    assert cost(10, 15) == pytest.approx(0.01 * (1 + MSE_FOREGROUND_WEIGHT * beside) / cells, rel=1e-4)


@pytest.mark.parametrize("target", [0.0, 0.13, 0.5, 0.87, 1.0])
def test_adaptive_wing_is_continuous_and_smooth_where_its_pieces_meet(target):
    step = 1e-4
    error = torch.tensor([-step, -1e-7, 1e-7, step], dtype=torch.float64) + AWING_THETA
    target = torch.full_like(error, target)
    value = adaptive_wing(target + error, target)
    assert value[2] - value[1] == pytest.approx(0, abs=1e-4)
    left, right = (value[1] - value[0]) / step, (value[3] - value[2]) / step
    assert left.item() == pytest.approx(right.item(), rel=1e-2)


@pytest.mark.parametrize("sign", [-1, 1])
def test_adaptive_wing_follows_the_formula_of_the_paper(sign):
    """AWing(y, p) = w ln(1 + |(y - p) / e| ^ (a - y)) near the target, times 1 + W on the foreground."""
    for target, weight in ((0.0, 1.0), (0.9, 1 + AWING_WEIGHT)):
        expected = AWING_OMEGA * math.log(1 + (0.3 / AWING_EPSILON) ** (2.1 - target)) * weight
        value = adaptive_wing(torch.tensor(target + sign * 0.3), torch.tensor(target))
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_adaptive_wing_has_a_finite_gradient_everywhere():
    target = torch.linspace(0, 1, 11).repeat(201, 1)
    prediction = (target + torch.linspace(-2, 2, 201)[:, None]).requires_grad_()
    adaptive_wing(prediction, target).sum().backward()
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[:100] < 0).all()
    assert (prediction.grad[101:] > 0).all()


def test_heatmaps_are_probabilities_or_gaussians():
    logits = 3 * noise(2, 5, *MAP_SIZE).half()
    probabilities = to_heatmaps(logits, "cross_entropy")
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=(-2, -1)), torch.ones(2, 5))
    for loss in ("mse", "adaptive_wing"):
        torch.testing.assert_close(to_heatmaps(logits, loss), logits.float().relu())
