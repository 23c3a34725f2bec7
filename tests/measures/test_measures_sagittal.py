"""Sagittal alignment of a lateral whole spine against closed forms, from either side, and where corners miss."""

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.geometry import apply_affine, rotate
from vertebra_kp.measures import Measurement, Spine, measure

WHOLE = SCHEMAS["la_whole_spine"]
LEVELS = WHOLE.levels
SIZE, WIDTH, SPACING_MM = (1300, 700), 700, 0.43
# Turns of bodies, clockwise on the screen: the front, at the left, goes up.
TURNS_DEG = {"C2": 4.0, "C7": -19.0, "T1": -23.0, "T4": -15.0, "T12": 14.0, "L1": 17.0, "S1": -38.0}
EXPECTED_DEG = {
    ("cervical_lordosis", "C2-C7"): 4 + 19,
    ("thoracic_kyphosis_t1_t12", "T1-T12"): 23 + 14,
    ("thoracic_kyphosis_t4_t12", "T4-T12"): 15 + 14,
    ("lumbar_lordosis", "L1-S1"): 17 + 38,
    ("t1_slope", "T1"): 23,
    ("sacral_slope", "S1"): 38,
}
SVA = [("c7_sva_mm", "C7-S1"), ("c7_sva_percent", "C7-S1")]


def spine_points(*, c7_forwards: float = 0.0) -> np.ndarray:
    """Bodies of 40 x 30 px under each other, the front at the left, some of them turned about their centre.

    C7's centre lies ``c7_forwards`` px in front of S1's postero-superior corner.
    """
    points = np.empty((len(LEVELS), 4, 2))
    for i, level in enumerate(LEVELS):
        centre = np.array((300.0, 100 + 44 * i))
        body = centre + np.array([(-20, -15), (20, -15), (-20, 15), (20, 15)])
        points[i] = apply_affine(rotate(TURNS_DEG.get(level, 0.0), tuple(centre)), body)
    points[~WHOLE.exists] = np.nan
    c7, s1 = LEVELS.index("C7"), LEVELS.index("S1")
    points[c7, :, 0] += points[s1, 1, 0] - c7_forwards - points[c7, :, 0].mean()
    return points


def mirrored(points: np.ndarray) -> np.ndarray:
    return points[:, [1, 0, 3, 2]] * (-1, 1) + (WIDTH, 0)


def found(points, *, spacing_mm=SPACING_MM, anterior_side="left") -> dict[tuple[str, str], Measurement]:
    return {m.key: m for m in measure(Spine(WHOLE, points, SIZE, spacing_mm, anterior_side))}


@pytest.mark.parametrize("side", ["left", "right"])
def test_angles_and_slopes_are_the_turns_of_their_endplates(side):
    points = spine_points()
    measured = found(points if side == "left" else mirrored(points), anterior_side=side)
    for key, expected in EXPECTED_DEG.items():
        assert measured[key].value == pytest.approx(expected, abs=1e-9), key
        assert measured[key].unit == "deg"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("forwards", [-31.0, 0.0, 57.5])
def test_the_sagittal_vertical_axis_is_positive_where_c7_lies_in_front_of_the_sacrum(forwards, side):
    points = spine_points(c7_forwards=forwards)
    measured = found(points if side == "left" else mirrored(points), anterior_side=side)
    assert measured["c7_sva_mm", "C7-S1"].value == pytest.approx(forwards * SPACING_MM)
    assert measured["c7_sva_percent", "C7-S1"].value == pytest.approx(100 * forwards / 40)


def test_a_turned_film_changes_slopes_and_no_angles():
    turned = apply_affine(rotate(9.0, (300, 600)), spine_points())
    measured = found(turned)
    for key, expected in EXPECTED_DEG.items():
        turn = 9.0 if key[0].endswith("slope") else 0.0
        assert measured[key].value == pytest.approx(expected - turn, abs=1e-9), key


def test_the_axis_is_given_in_percent_where_the_size_of_a_pixel_is_unknown():
    measured = found(spine_points(c7_forwards=20), spacing_mm=None)
    assert measured["c7_sva_mm", "C7-S1"].value is None
    assert "size of a pixel" in measured["c7_sva_mm", "C7-S1"].reason
    assert measured["c7_sva_percent", "C7-S1"].value == pytest.approx(50)


@pytest.mark.parametrize(
    ("corner", "lost"),
    [
        ("C2.BL", {"cervical_lordosis"}),
        ("C7.TR", {"c7_sva_mm", "c7_sva_percent"}),
        ("C7.BL", {"cervical_lordosis", "c7_sva_mm", "c7_sva_percent"}),
        ("T1.TL", {"thoracic_kyphosis_t1_t12", "t1_slope"}),
        ("T1.BL", set()),
        ("T4.TR", {"thoracic_kyphosis_t4_t12"}),
        ("T12.BR", {"thoracic_kyphosis_t1_t12", "thoracic_kyphosis_t4_t12"}),
        ("S1.TR", {"lumbar_lordosis", "sacral_slope", "c7_sva_mm", "c7_sva_percent"}),
    ],
)
def test_a_missing_corner_takes_what_needs_it_and_says_so(corner, lost):
    points, (level, name) = spine_points(), corner.split(".")
    points[LEVELS.index(level), ["TL", "TR", "BL", "BR"].index(name)] = np.nan
    measured = found(points)
    for key in [*EXPECTED_DEG, *SVA]:
        if key[0] in lost:
            assert (measured[key].value, measured[key].reason) == (None, f"{corner} is not visible")
        else:
            assert measured[key].value is not None, measured[key]


def test_without_the_anterior_side_there_is_no_alignment():
    measured = found(spine_points(), anterior_side=None)
    assert {measured[key].value for key in [*EXPECTED_DEG, *SVA]} == {None}
    assert {measured[key].reason for key in [*EXPECTED_DEG, *SVA]} == {"the anterior side is not known"}


@pytest.mark.parametrize("name", ["la_lumbar", "la_cervical"])
def test_a_schema_has_the_measures_of_its_levels_only(name):
    schema = SCHEMAS[name]
    names = {m.name for m in measure(Spine(schema, np.full((schema.num_levels, 4, 2), np.nan)))}
    expected = {"la_lumbar": {"lumbar_lordosis", "sacral_slope"}, "la_cervical": {"cervical_lordosis"}}[name]
    assert names & ({key[0] for key in [*EXPECTED_DEG, *SVA]}) == expected
