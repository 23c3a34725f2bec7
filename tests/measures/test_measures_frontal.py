"""Frontal measures: curves whose end vertebrae are known, films that show a part, bodies that are none."""

import warnings

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.measures import Measurement, Spine, measure
from vertebra_kp.measures.frontal import find_curves

WHOLE, LUMBAR = SCHEMAS["ap_whole_spine"], SCHEMAS["ap_lumbar"]
LEVELS = WHOLE.levels


def spine(tilts_deg, *, width=90.0, height=70.0, step=100.0) -> np.ndarray:
    """Rectangular bodies ``[levels, 4, 2]`` with the given tilts, one under the other."""
    tilt = np.deg2rad(np.asarray(tilts_deg, dtype=np.float64))
    right = np.stack([np.cos(tilt), np.sin(tilt)], axis=-1)
    down = np.stack([-np.sin(tilt), np.cos(tilt)], axis=-1)
    centre = np.stack([np.full(len(tilt), 500.0), 200 + step * np.arange(len(tilt))], axis=-1)
    return np.stack(
        [centre + a * width / 2 * right + b * height / 2 * down for b in (-1, 1) for a in (-1, 1)], axis=1
    )


def tilts(**at: float) -> np.ndarray:
    """Tilts ``[17]`` that run straight between the levels that are given."""
    return np.interp(range(17), [LEVELS.index(level) for level in at], list(at.values()))


def found(points, *, spacing_mm=0.2, schema=WHOLE) -> dict[str, Measurement]:
    return {
        f"{m.name} {m.at}" if "/" in m.at else m.name: m
        for m in measure(Spine(schema, points, (2200, 1000), spacing_mm))
    }


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        # main thoracic, with what compensates it above and below
        (dict(T1=-5, T5=20, T11=-25, L5=5), {"pt": ("T1-T5", 25), "mt": ("T5-T11", 45), "tl": ("T11-L5", 30)}),
        # the largest curve is lumbar: the two above it are MT and PT
        (dict(T1=0, T6=12, T11=-18, L4=30), {"pt": ("T1-T6", 12), "mt": ("T6-T11", 30), "tl": ("T11-L4", 48)}),
        # the largest is the upper one
        (dict(T1=-15, T5=20, T10=0, L5=8), {"pt": ("T1-T5", 35), "mt": ("T5-T10", 20), "tl": ("T10-L5", 8)}),
    ],
)  # fmt: skip
def test_curves_have_the_end_vertebrae_between_which_they_were_bent(turns, expected, sign):
    measured = found(spine(sign * tilts(**turns)))
    for name, (at, angle) in expected.items():
        cobb = measured[f"cobb_{name}"]
        assert (cobb.at, cobb.value) == (at, pytest.approx(angle)), name
    assert measured["cobb_main"].value == pytest.approx(max(angle for _, angle in expected.values()))
    assert measured["cobb_main"].value == pytest.approx(measured["cobb_aasce_1"].value)


def test_one_bow_has_one_curve_and_says_that_there_are_no_others():
    measured = found(spine(tilts(T1=20, L5=-20)))
    assert (measured["cobb_main"].at, measured["cobb_main"].value) == ("T1-L5", pytest.approx(40))
    assert measured["cobb_mt"].value == pytest.approx(40)  # its apex is T9
    assert measured["cobb_pt"].reason == measured["cobb_tl"].reason == "no curve there turns that way"


def test_cobb_angles_are_between_outer_endplates_not_mid_lines():
    points = spine(tilts(T1=0, T5=20, T11=-20, L5=0))
    upper = LEVELS.index("T5")
    points[upper, 1, 1] += 90 * np.tan(np.deg2rad(6.0))  # its superior endplate alone is steeper
    assert found(points)["cobb_mt"].value == pytest.approx(
        np.degrees(np.arctan2(*np.flip(points[upper, 1] - points[upper, 0]))) + 20
    )


def test_a_straight_spine_has_no_curve_and_no_step():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = found(spine(np.zeros(17)))
    assert measured["cobb_main"].reason == "no curve there turns that way"
    assert measured["cobb_aasce_1"].value == 0
    assert measured["laterolisthesis_mm L4/L5"].value == pytest.approx(0)


@pytest.mark.parametrize("hidden", ["T1", "L5"])
def test_a_curve_that_may_go_on_beyond_the_film_is_not_measured(hidden):
    points = spine(tilts(T1=-20, T6=20, T12=-20, L5=20))
    points[LEVELS.index(hidden)] = np.nan
    measured = found(points)
    beyond, whole = ("cobb_pt", "cobb_tl") if hidden == "T1" else ("cobb_tl", "cobb_pt")
    assert measured[beyond].reason == f"the curve may go on where {hidden}.TL is not visible"
    assert measured[whole].value == pytest.approx(40)
    assert measured["cobb_mt"].value == pytest.approx(40)
    assert measured["cobb_aasce_1"].value is None


def test_in_a_spine_with_a_gap_the_largest_curve_of_all_parts_is_found_and_no_region_is_named():
    points = spine(tilts(T1=0, T7=30, T12=-15, L3=15, L5=10))
    points[LEVELS.index("T3")] = np.nan
    measured = found(points)
    assert (measured["cobb_main"].at, measured["cobb_main"].value) == ("T7-T12", pytest.approx(45))
    assert measured["cobb_mt"].reason == measured["cobb_tl"].reason == "T3.TL is not visible"
    points[LEVELS.index("T8")] = np.nan
    assert found(points)["cobb_main"].at == "T12-L3"


def test_bodies_on_each_other_or_out_of_order_have_no_step():
    points = spine([0.0] * 5)
    points[3] = points[2] + (3, 1)
    measured = found(points, schema=LUMBAR)
    assert measured["laterolisthesis_mm L3/L4"].reason == "L3 and L4 lie on each other or in the wrong order"
    assert measured["laterolisthesis_mm L4/L5"].reason == "L4 and L5 lie too far apart for neighbours"
    assert measured["laterolisthesis_mm L1/L2"].value == pytest.approx(0)


@pytest.mark.parametrize("step", [-15.0, 0.0, 8.0])
def test_a_step_to_the_side_is_that_of_the_endplates_middles_positive_to_the_left(step):
    points = spine([10.0] * 5)
    lower = points[4]
    along = (lower[1] - lower[0]) / 90
    points[3] = lower - 100 * np.array([-along[1], along[0]]) - step * along
    measured = found(points, schema=LUMBAR)
    assert measured["laterolisthesis_mm L4/L5"].value == pytest.approx(step * 0.2)
    assert measured["laterolisthesis_percent L4/L5"].value == pytest.approx(100 * step / 90)


def test_steps_need_a_spacing_only_for_mm():
    measured = found(spine([0.0] * 5), spacing_mm=None, schema=LUMBAR)
    assert measured["laterolisthesis_mm L4/L5"].reason == "the size of a pixel is not known"
    assert measured["laterolisthesis_percent L4/L5"].value == pytest.approx(0)


@pytest.mark.parametrize("seen", [0, 1])
def test_nothing_or_one_vertebra_has_no_angles(seen):
    points = np.full((17, 4, 2), np.nan)
    points[:seen] = spine(np.zeros(17))[:seen]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = found(points)
    assert all(m.value is None and m.reason for m in measured.values())


def test_mirrored_labels_are_told():
    measured = found(spine(tilts(T1=20, L5=-20))[:, [1, 0, 3, 2]])
    assert all("mirrored" in m.reason for m in measured.values())


def test_two_levels_have_one_angle():
    (curve,) = find_curves(np.array([10.0, -4.0]), np.array([9.0, -7.0]), first_level=3)
    assert (curve.upper, curve.lower, curve.angle_deg) == (3, 4, 17.0)
