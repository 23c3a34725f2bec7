"""Vertebrae found and named on images of any framing, against labels that need not be complete."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vertebra_kp.core.anatomy import LEVELS, PRESENT_FROM, UNKNOWN, Schema
from vertebra_kp.data.spine_films import Vertebrae, middle_of
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.measures.aasce import largest_curve_deg

FOUND_WITHIN = 0.5  # of a vertebra step, between predicted and true centre
USABLE_FROM = 0.9  # share of an image's vertebrae that must be found


@dataclass(frozen=True)
class FramingResult:
    """One image: ``vertebrae`` marked, of them ``with_name``; ``found`` and ``named`` right of these.

    ``shift`` is the median number of levels that the found ones are named too low, None without names.
    ``corner_errors`` in steps, of the found ones; ``curve_error_deg`` of the largest Cobb angle by mid-lines, None
    unless all were found and marked with corners. ``view_right`` is None where the network tells no view.
    """

    id: str
    vertebrae: int
    with_name: int
    found: int
    named: int
    shift: float | None
    corner_errors: tuple[float, ...]
    curve_error_deg: float | None
    view_right: bool | None
    doubts: tuple[str, ...]

    @property
    def usable(self) -> bool:
        return self.found >= USABLE_FROM * self.vertebrae

    @property
    def wrong(self) -> bool:
        """Not usable, or named off by a level."""
        return not self.usable or bool(self.shift)


def framing_result(id: str, true: Vertebrae, view: int, prediction: Prediction, schema: Schema) -> FramingResult:
    """A prediction against what is marked, both in the original image's pixels."""
    present = (prediction.presence >= PRESENT_FROM) & np.isfinite(prediction.points_xy_image).any(axis=(1, 2))
    levels = np.flatnonzero(present)
    corners = prediction.points_xy_image[levels]
    middles = vertebra_middles(corners, schema, levels)
    names = [LEVELS.index(schema.levels[level]) for level in levels]
    shifts, errors, matched = list[int](), list[float](), list[int]()
    for centre, true_corners, level, step in zip(true.centres, true.corners, true.levels, true.steps, strict=True):
        distance = np.linalg.norm(middles - centre, axis=1)
        if not len(distance) or distance.min() > FOUND_WITHIN * step:
            continue
        nearest = int(distance.argmin())
        matched.append(nearest)
        if level != UNKNOWN:
            shifts.append(names[nearest] - int(level))
        off = np.linalg.norm(corners[nearest] - true_corners, axis=1) / step
        errors += off[np.isfinite(off)].tolist()
    comparable = 2 < len(true.centres) == len(matched) and np.isfinite(true.corners).all()
    curve = largest_curve_deg(corners[matched]) - largest_curve_deg(true.corners) if comparable else np.nan
    probabilities = prediction.view_probabilities
    return FramingResult(
        id=id,
        vertebrae=len(true.centres),
        with_name=int((true.levels != UNKNOWN).sum()),
        found=len(matched),
        named=sum(shift == 0 for shift in shifts),
        shift=float(np.median(shifts)) if shifts else None,
        corner_errors=tuple(errors),
        curve_error_deg=None if np.isnan(curve) else abs(curve),
        view_right=None if probabilities is None else bool(probabilities.argmax() == view),
        doubts=prediction.doubts,
    )


def vertebra_middles(corners: np.ndarray, schema: Schema, levels: np.ndarray) -> np.ndarray:
    """Middles ``[n, 2]`` of vertebrae ``[n, 4, 2]``; of an endplate alone as marked vertebrae have theirs."""
    return np.array(
        [middle_of(one, schema.exists[level]) for one, level in zip(corners, levels, strict=True)]
    ).reshape(-1, 2)


def framing_figures(results: Sequence[FramingResult]) -> dict[str, float | int | None]:
    """Figures over the images of one source; None where nothing is measurable."""
    vertebrae, with_name = (sum(getattr(r, key) for r in results) for key in ("vertebrae", "with_name"))
    errors = np.concatenate([np.empty(0), *(np.array(r.corner_errors) for r in results)])
    curves = [r.curve_error_deg for r in results if r.curve_error_deg is not None]
    shifts = [r.shift for r in results if r.shift is not None]
    views = [r.view_right for r in results if r.view_right is not None]
    return {
        "images": len(results),
        "vertebrae": vertebrae,
        "found": sum(r.found for r in results) / vertebrae if vertebrae else None,
        "named": sum(r.named for r in results) / with_name if with_name else None,
        "usable_images": sum(r.usable for r in results),
        "shifted_images": float(np.mean([shift != 0 for shift in shifts])) if shifts else None,
        "wrong_without_doubt": sum(r.wrong and not r.doubts for r in results),
        "right_with_doubt": sum(bool(r.doubts) and not r.wrong for r in results),
        "median_corner_error_percent_step": 100 * float(np.median(errors)) if len(errors) else None,
        "main_angle_mae_deg": float(np.mean(curves)) if curves else None,
        "view_right": float(np.mean(views)) if views else None,
    }


def framing_rows(results: Sequence[FramingResult]) -> list[dict[str, object]]:
    """A row per image for a table."""
    rows = []
    for result in results:
        row: dict[str, object] = asdict(result)
        del row["corner_errors"]
        errors = result.corner_errors
        row["median_corner_error_steps"] = f"{np.median(errors):.4f}" if errors else ""
        rows.append(row | {"doubts": "; ".join(result.doubts)})
    return rows
