"""Lateral measures against closed forms, and on corners that nothing can be measured from."""

import dataclasses
import warnings

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.geometry import apply_affine, rotate, scale
from vertebra_kp.measures import Measurement, Spine, measure
from vertebra_kp.measures.grades import genant, meyerding
from vertebra_kp.measures.instability import Criterion, instability

LUMBAR = SCHEMAS["la_lumbar"]
LEVELS = LUMBAR.levels
SIGNED = ("lumbar_lordosis", "sacral_slope", "disc_angle", "segmental_angle", "slip_mm", "slip_percent")


def boxes(*, depth=40.0, anterior=30.0, posterior=30.0, disc=10.0) -> np.ndarray:
    """Six bodies under each other, the front at the left; walls upright, endplates as the heights make them."""
    points = np.empty((6, 4, 2))
    for i in range(6):
        middle = 100 + i * (30 + disc)
        for corner, (x, y) in enumerate(
            [(-depth, -anterior), (depth, -posterior), (-depth, anterior), (depth, posterior)]
        ):
            points[i, corner] = 300 + x / 2, middle + y / 2
    points[5, 2:] = np.nan
    return points


def found(points, *, spacing_mm=0.5, anterior_side="left", schema=LUMBAR) -> dict[tuple[str, str], Measurement]:
    return {m.key: m for m in measure(Spine(schema, points, (900, 600), spacing_mm, anterior_side))}


def mirrored(points: np.ndarray) -> np.ndarray:
    return points[:, [1, 0, 3, 2]] * (-1, 1) + (600, 0)


def test_a_straight_spine_has_no_angles_no_slips_and_no_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        all_of_it = found(boxes())
    for (name, _), measurement in all_of_it.items():
        assert measurement.reason is None, measurement
        if measurement.unit in ("deg", "%") or name == "slip_mm":
            assert measurement.value == pytest.approx(0, abs=1e-9)
    assert all_of_it["anterior_height", "L2"].value == pytest.approx(30 * 0.5)
    assert all_of_it["posterior_disc_height", "L5/S1"].value == pytest.approx(10 * 0.5)
    assert all_of_it["disc_height_index_depth", "L4/L5"].value == pytest.approx(10 / 40)
    assert all_of_it["disc_height_index_body", "L4/L5"].value == pytest.approx(10 / 40)
    assert all_of_it["wedge_ratio", "L3"].value == pytest.approx(1)


@pytest.mark.parametrize("turn_deg", [-30, 0, 25])
def test_lordosis_and_sacral_slope_are_the_turns_of_their_endplates(turn_deg):
    points = boxes()
    points[0] = apply_affine(rotate(21.0, tuple(points[0].mean(axis=0))), points[0])  # front up
    points[5] = apply_affine(rotate(-34.0, tuple(points[5, :2].mean(axis=0))), points[5])  # front down
    turned = apply_affine(rotate(turn_deg, (300, 300)), points)
    measured = found(turned)
    assert measured["sacral_slope", "S1"].value == pytest.approx(34 - turn_deg)
    assert measured["lumbar_lordosis", "L1-S1"].value == pytest.approx(55)
    assert measured["disc_angle", "L5/S1"].value == pytest.approx(34)
    assert measured["disc_angle", "L1/L2"].value == pytest.approx(21)
    assert measured["segmental_angle", "L1/L2"].value == pytest.approx(21)


@pytest.mark.parametrize("tilt_deg", [-5, 0, 20, 60])
@pytest.mark.parametrize("slip", [-6.0, 0.0, 12.0])
def test_a_slip_is_measured_along_the_lower_endplate_whatever_its_tilt(slip, tilt_deg):
    points = boxes()
    points[:5, :, 0] -= slip  # forwards is to the left
    points = apply_affine(rotate(-tilt_deg, (300, 300)), points)
    for measured in (found(points), found(mirrored(points), anterior_side="right")):
        assert measured["slip_percent", "L5/S1"].value == pytest.approx(100 * slip / 40)
        assert measured["slip_mm", "L5/S1"].value == pytest.approx(slip / 2)
        assert measured["slip_percent", "L5/S1"].grade == ("II" if slip == 12 else "I" if slip else "0")
        assert measured["slip_percent", "L2/L3"].value == pytest.approx(0, abs=1e-9)


def test_a_slip_needs_three_corners_only():
    points = boxes()
    points[4, [0, 1, 2]] = np.nan  # of L5 only the postero-inferior corner is left
    measured = found(points)
    assert measured["slip_percent", "L5/S1"].value == pytest.approx(0)
    assert measured["disc_angle", "L5/S1"].reason == "L5.BL is not visible"
    points[4, 3] = np.nan
    assert found(points)["slip_percent", "L5/S1"].reason == "L5.BR is not visible"


def test_a_mirrored_film_gives_the_same_measures_from_the_other_side():
    points = boxes(anterior=27)
    points[1:3] += (3, 2)
    here, there = found(points), found(mirrored(points), anterior_side="right")
    for key, measurement in here.items():
        assert there[key].value == pytest.approx(measurement.value, abs=1e-9), key


def test_a_mirrored_film_that_says_it_is_none_gives_no_silent_numbers():
    points = boxes()
    points[5] = apply_affine(rotate(-34.0, tuple(points[5, :2].mean(axis=0))), points[5])
    for (name, _), measurement in found(mirrored(points), anterior_side="left").items():
        if name in SIGNED:
            assert measurement.value is None
            assert "mirrored" in measurement.reason


def test_wedges_and_crushes_are_lost_height_against_the_neighbours():
    points = boxes()
    points[2, 0, 1] += 9  # L3's anterior wall is 21 of 30
    measured = found(points)
    assert measured["wedge_ratio", "L3"].value == pytest.approx(0.7)
    assert (measured["wedge_loss", "L3"].value, measured["wedge_loss", "L3"].grade) == (pytest.approx(30), "2")
    assert measured["crush_loss", "L3"].value == pytest.approx(0)
    points[2, 1, 1] += 15  # and its posterior wall 15
    crush = found(points)["crush_loss", "L3"]
    assert (crush.value, crush.grade) == (pytest.approx(50), "3")
    points[[0, 2]] = np.nan
    assert found(points)["wedge_loss", "L2"].reason == "no neighbour is visible to compare with"


@pytest.mark.parametrize("spacing_mm", [None, 0.0, -0.2, float("nan"), float("inf"), 143.0])
def test_without_a_size_of_a_pixel_nothing_is_in_mm(spacing_mm):
    for measurement in found(boxes(), spacing_mm=spacing_mm).values():
        assert (measurement.value is None) == (measurement.unit == "mm"), measurement
        if measurement.unit == "mm":
            assert "size of a pixel" in measurement.reason


def test_without_the_anterior_side_only_what_has_none_is_measured():
    values = {key: m.value for key, m in found(boxes(), anterior_side=None).items()}
    assert {name for (name, _), value in values.items() if value is not None} == {
        "disc_height_index_depth",
        "disc_height_index_body",
    }


def broken(kind: str) -> np.ndarray:
    points = boxes()
    if kind == "coincident":
        points[3] = points[3, 0]
    elif kind == "collinear":
        points[3, :, 1] = 250
    elif kind == "mirrored":
        points = points[:, [1, 0, 3, 2]]
    elif kind == "upside down":
        points[3] = points[3, [2, 3, 0, 1]]
    elif kind == "crossed":
        points[3] = points[3, [0, 1, 3, 2]]
    return points


@pytest.mark.parametrize("kind", ["coincident", "collinear", "mirrored", "upside down", "crossed"])
def test_bodies_that_are_none_are_told_and_never_measured(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = found(broken(kind))
    for (_, at), measurement in measured.items():
        if "L4" in at or kind == "mirrored":
            assert measurement.value is None, measurement
            assert measurement.reason
    for measurement in measured.values():
        assert measurement.value is None or np.isfinite(measurement.value)


@pytest.mark.parametrize("kind", ["on each other", "swapped"])
def test_vertebrae_on_each_other_or_out_of_order_have_nothing_between_them(kind):
    points = boxes()
    points[[2, 3]] = points[[2, 2]] + [[[0, 0]], [[2, 1]]] if kind == "on each other" else points[[3, 2]]
    measured = found(points)
    for name in ("slip_percent", "disc_angle", "anterior_disc_height", "disc_height_index_body"):
        assert measured[name, "L3/L4"].reason == "L3 and L4 lie on each other or in the wrong order"
        assert "neighbours" in measured[name, "L4/L5"].reason
        assert measured[name, "L1/L2"].value is not None


def test_a_vertebra_that_has_fallen_in_front_of_its_neighbour_still_has_a_slip():
    points = boxes()
    points[:5] += (-46, 12)  # more than its depth forwards, and sunk beside the sacrum
    slipped = found(points)["slip_percent", "L5/S1"]
    assert (slipped.value, slipped.grade) == (pytest.approx(115), "V")


@pytest.mark.parametrize("turn_deg", [-10, 0, 13, 25])
@pytest.mark.parametrize("height", [0.0, 0.01, 1.0])
def test_a_body_without_height_is_told_whatever_its_tilt(height, turn_deg):
    points = boxes()
    points[3, [0, 1, 2, 3]] = [(280, 250), (320, 250), (280, 250 + height), (320, 250 + height)]
    points[3] = apply_affine(rotate(turn_deg, (300, 250)), points[3])
    measured = found(points)
    assert measured["wedge_loss", "L4"].value is None
    assert measured["anterior_height", "L4"].value is None


def test_one_vertebra_alone_has_heights_and_nothing_between_vertebrae():
    points = np.full((6, 4, 2), np.nan)
    points[2] = boxes()[2]
    values = {key for key, m in found(points).items() if m.value is not None}
    assert values == {(name, "L3") for name in ("anterior_height", "posterior_height", "wedge_ratio")}


def test_the_neck_has_its_own_lordosis():
    points = boxes()
    points[0, :2] = np.nan  # C2 has its lower corners only
    points[5, 2:] = points[5, :2] + (0, 30)
    points[5] = apply_affine(rotate(-15.0, tuple(points[5].mean(axis=0))), points[5])
    measured = found(points, schema=SCHEMAS["la_cervical"])
    assert measured["cervical_lordosis", "C2-C7"].value == pytest.approx(15)
    assert measured["slip_percent", "C2/C3"].value == pytest.approx(0)
    assert not {"lumbar_lordosis", "sacral_slope"} & {name for name, _ in measured}


def test_points_of_another_schema_are_refused():
    with pytest.raises(ValueError, match=r"must be \[6, 4, 2\] for schema la_lumbar, got \[5, 4, 2\]"):
        Spine(LUMBAR, boxes()[:5], (900, 600))


@pytest.mark.parametrize(
    ("percent", "grade"),
    [(0, "0"), (-4.9, "0"), (5, "I"), (25, "I"), (-25.1, "II"), (50, "II"), (75, "III"), (100, "IV"), (101, "V")],
)
def test_meyerding_grades(percent, grade):
    assert meyerding(percent) == grade


def test_the_threshold_of_grade_0_can_be_given():
    assert meyerding(8, slip_from=10) == "0"


@pytest.mark.parametrize(("loss", "grade"), [(-5, "0"), (19.9, "0"), (20, "1"), (25, "2"), (39, "2"), (40, "3")])
def test_genant_grades(loss, grade):
    assert genant(loss) == grade


def flexed(slip_px=0.0, turn_deg=0.0) -> list[Measurement]:
    points = boxes()
    points[:5] = apply_affine(rotate(turn_deg, tuple(points[4, 3])), points[:5])
    points[:5, :, 0] -= slip_px
    return list(found(points).values())


@pytest.mark.parametrize(
    ("slip_px", "turn_deg", "unstable"), [(0, 0, False), (7, 0, True), (0, 13, True), (5.9, 0, False)]
)
def test_instability_is_what_a_segment_changes_between_flexion_and_extension(slip_px, turn_deg, unstable):
    segments = {s.at: s for s in instability(flexed(slip_px, turn_deg), flexed())}
    assert segments["L5/S1"].unstable is unstable
    assert segments["L5/S1"].translation_mm == pytest.approx(slip_px / 2, abs=1e-9)
    assert segments["L5/S1"].angle_deg == pytest.approx(turn_deg)
    assert segments["L2/L3"].unstable is False


def test_instability_without_spacing_rests_on_the_angle_and_is_open_without_one_beyond():
    def no_mm(film):
        return [dataclasses.replace(m, value=None, reason="unknown") if m.unit == "mm" else m for m in film]

    assert {s.unstable for s in instability(no_mm(flexed()), no_mm(flexed()))} == {None}
    turned = {s.at: s for s in instability(no_mm(flexed(0, 13)), no_mm(flexed()))}["L5/S1"]
    assert turned.unstable is True
    assert "slip_mm in flexion: unknown" in turned.reasons
    looser = instability(flexed(0, 13), flexed(), Criterion(angle_deg=15))
    assert {s.unstable for s in looser} == {False}


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_angles_and_shares_do_not_depend_on_the_resolution(factor):
    points = boxes(anterior=26)
    small = found(apply_affine(scale(factor), points), spacing_mm=0.5 / factor)
    for key, measurement in found(points).items():
        assert small[key].value == pytest.approx(measurement.value, abs=1e-6), key
