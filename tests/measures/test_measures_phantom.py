"""Every measure from true corners against what the phantom was generated from."""

from itertools import pairwise

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.measures import Spine, measure

FILMS = [40, pytest.param(1000, marks=pytest.mark.slow)]
SIZE = {"la_lumbar": (160, 80), "ap_lumbar": (160, 80), "ap_whole_spine": (200, 80), "la_whole_spine": (200, 80)}


def endplates_deg(level: dict) -> tuple[float, float]:
    """Slopes on the screen, clockwise positive, of a generated body's superior and inferior endplate."""
    lean = (level["left_height_mm"] - level["right_height_mm"]) / 2
    return (
        level["tilt_deg"] + np.degrees(np.arctan2(lean, level["superior_width_mm"])),
        level["tilt_deg"] - np.degrees(np.arctan2(lean, level["inferior_width_mm"])),
    )


def endplate_mm(level: dict, which: str) -> float:
    """The generated width is that across the body; the endplate of a wedge leans."""
    return float(np.hypot(level[f"{which}_width_mm"], (level["left_height_mm"] - level["right_height_mm"]) / 2))


def corners_mm(level: dict, spacing_mm: float) -> np.ndarray:
    """``[4, 2]`` from the generated centre, tilt, widths and heights."""
    ws, wi = level["superior_width_mm"] / 2, level["inferior_width_mm"] / 2
    hl, hr = level["left_height_mm"] / 2, level["right_height_mm"] / 2
    turn = np.exp(1j * np.deg2rad(level["tilt_deg"]))
    flat = (np.array([-ws - 1j * hl, ws - 1j * hr, -wi + 1j * hl, wi + 1j * hr])) * turn
    centre = np.array(level["centre_xy_image"]) * spacing_mm
    return np.stack([flat.real, flat.imag], axis=-1) + centre


def wall_mm(level: dict, side: str) -> float:
    """The generated height is that across the body; a wall between endplates of two widths leans."""
    lean = (level["inferior_width_mm"] - level["superior_width_mm"]) / 2
    return float(np.hypot(level[f"{side}_height_mm"], lean))


def compare(found: dict, name: str, at: str, expected: float, tolerance: float) -> int:
    """1 if measured (and right), 0 if the film does not show it."""
    measurement = found[name, at]
    if measurement.value is None:
        assert "visible" in measurement.reason
        return 0
    assert measurement.value == pytest.approx(expected, abs=tolerance), (name, at)
    return 1


@pytest.mark.parametrize("films", FILMS)
@pytest.mark.parametrize("preset", ["standard", "hard"])
def test_lateral_measures_are_those_that_the_spine_was_generated_from(preset, films):
    schema, counted = SCHEMAS["la_lumbar"], 0
    for index in range(films):
        film = draw_film(schema, preset, 11, index, SIZE[schema.name])
        spine = Spine(schema, film.points_xy_image, film.image.shape, film.spacing_mm, film.anterior_side)
        found = {m.key: m for m in measure(spine)}
        truth, front = film.truth["levels"], film.anterior_side
        back = {"left": "right", "right": "left"}[front]
        forward = 1 if front == "left" else -1
        counted += compare(found, "sacral_slope", "S1", film.truth["sacral_slope_deg"], 0.05)
        counted += compare(found, "lumbar_lordosis", "L1-S1", film.truth["lordosis_deg"], 0.05)
        for upper, lower in pairwise(schema.levels):
            above, below, at = truth[upper], truth[lower], f"{upper}/{lower}"
            if above is None or below is None:  # missing: nothing stands there
                assert found["slip_percent", at].value is None
                continue
            disc = forward * (endplates_deg(above)[1] - endplates_deg(below)[0])
            counted += compare(found, "disc_angle", at, disc, 0.05)
            last = endplates_deg(below)[0 if lower == "S1" else 1]
            counted += compare(found, "segmental_angle", at, forward * (endplates_deg(above)[0] - last), 0.05)
            percent = 100 * above["slip_fraction"]
            counted += compare(found, "slip_percent", at, percent, 0.1)
            counted += compare(found, "slip_mm", at, percent / 100 * endplate_mm(below, "superior"), 0.05)
            bodies = corners_mm(above, film.spacing_mm), corners_mm(below, film.spacing_mm)
            left, right = (float(np.linalg.norm(bodies[1][k] - bodies[0][2 + k])) for k in (0, 1))
            heights = (left, right) if front == "left" else (right, left)
            for name, height in zip(("anterior_disc_height", "posterior_disc_height"), heights, strict=True):
                counted += compare(found, name, at, height, 0.05)
            depths = endplate_mm(above, "inferior") + endplate_mm(below, "superior")
            counted += compare(found, "disc_height_index_depth", at, sum(heights) / depths, 0.001)
            diameter = endplate_mm(above, "inferior") + endplate_mm(above, "superior")
            counted += compare(found, "disc_height_index_body", at, sum(heights) / diameter, 0.001)
        bodies = {level: truth[level] for level in schema.levels if level != "S1" and truth[level]}
        for level, body in bodies.items():
            anterior, posterior = wall_mm(body, front), wall_mm(body, back)
            counted += compare(found, "anterior_height", level, anterior, 0.05)
            counted += compare(found, "posterior_height", level, posterior, 0.05)
            counted += compare(found, "wedge_ratio", level, anterior / posterior, 0.001)
            i = schema.levels.index(level)
            neighbours = [
                schema.levels[j]
                for j in (i - 1, i + 1)
                if schema.levels[j] in bodies and np.isfinite(film.points_xy_image[j]).all()
            ]
            if not neighbours:
                continue
            ratios = [wall_mm(bodies[n], front) / wall_mm(bodies[n], back) for n in neighbours]
            crushed = [wall_mm(bodies[n], back) for n in neighbours]
            loss = 100 * (1 - anterior / posterior / np.mean(ratios))
            counted += compare(found, "wedge_loss", level, loss, 0.1)
            counted += compare(found, "crush_loss", level, 100 * (1 - posterior / np.mean(crushed)), 0.1)
    assert counted > 30 * films


@pytest.mark.parametrize("films", FILMS)
@pytest.mark.parametrize("preset", ["standard", "hard"])
def test_sagittal_measures_are_those_that_the_spine_was_generated_from(preset, films):
    schema, counted = SCHEMAS["la_whole_spine"], 0
    for index in range(films):
        film = draw_film(schema, preset, 13, index, SIZE[schema.name])
        spine = Spine(schema, film.points_xy_image, film.image.shape, film.spacing_mm, film.anterior_side)
        found = {m.key: m for m in measure(spine)}
        for name, at, drawn in (
            ("cervical_lordosis", "C2-C7", "cervical_lordosis_deg"),
            ("thoracic_kyphosis_t1_t12", "T1-T12", "thoracic_kyphosis_t1_t12_deg"),
            ("thoracic_kyphosis_t4_t12", "T4-T12", "thoracic_kyphosis_t4_t12_deg"),
            ("lumbar_lordosis", "L1-S1", "lordosis_deg"),
            ("t1_slope", "T1", "t1_slope_deg"),
            ("sacral_slope", "S1", "sacral_slope_deg"),
        ):
            counted += compare(found, name, at, film.truth[drawn], 0.01)
        c7, s1 = film.truth["levels"]["C7"], film.truth["levels"]["S1"]
        back, forward = (1, 1) if film.anterior_side == "left" else (0, -1)
        foot = corners_mm(s1, film.spacing_mm)[back]
        sva = forward * (foot[0] - c7["centre_xy_image"][0] * film.spacing_mm)
        counted += compare(found, "c7_sva_mm", "C7-S1", sva, 0.01)
        counted += compare(found, "c7_sva_percent", "C7-S1", 100 * sva / endplate_mm(s1, "superior"), 0.05)
    assert counted > 4 * films


@pytest.mark.parametrize("films", FILMS)
@pytest.mark.parametrize("preset", ["standard", "hard"])
@pytest.mark.parametrize("name", ["ap_lumbar", "ap_whole_spine"])
def test_frontal_measures_are_those_that_the_spine_was_generated_from(name, preset, films):
    schema, counted = SCHEMAS[name], 0
    for index in range(films):
        film = draw_film(schema, preset, 12, index, SIZE[name])
        found = {m.key: m for m in measure(Spine(schema, film.points_xy_image, film.image.shape, film.spacing_mm))}
        truth = film.truth["levels"]
        whole = np.isfinite(film.points_xy_image).all()
        (cobb,) = [m for m in found.values() if m.name == "cobb_main"]
        if whole:
            slopes = [endplates_deg(truth[level]) for level in schema.levels]
            largest = max(abs(a[0] - b[1]) for i, a in enumerate(slopes) for b in slopes[i + 1 :])
            assert cobb.value == pytest.approx(largest, abs=0.05)
            counted += 1
        if whole and name == "ap_whole_spine":
            assert found["cobb_aasce_1", ""].value == pytest.approx(film.truth["main_cobb_deg"], abs=0.05)
        for upper, lower in pairwise(schema.levels):
            if truth[upper] is None or truth[lower] is None:
                continue
            percent, at = 100 * truth[upper]["slip_fraction"], f"{upper}/{lower}"
            counted += compare(found, "laterolisthesis_percent", at, percent, 0.1)
            mm = percent / 100 * endplate_mm(truth[lower], "superior")
            counted += compare(found, "laterolisthesis_mm", at, mm, 0.05)
    assert counted > 4 * films
