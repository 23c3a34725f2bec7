"""How often calibrated regions and intervals hold the truth, on films that they were not calibrated on."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.evaluation.metrics import GroupedSample
from vertebra_kp.evaluation.schema import Coverage, Held
from vertebra_kp.evaluation.uncertainty.calibration import Calibration, FilmErrors, calibrate

RESAMPLES = 1000
PARTS = 5
TOO_FEW = "too few patients to promise it"


def coverage(films: Sequence[FilmErrors], schema: Schema, calibration: Calibration) -> Coverage:
    """Shares of true corners in their regions and of true measures in their intervals, ready for JSON."""
    return _summary([_hits(film, schema, calibration) for film in films], films, calibration.coverage)


def cross_coverage(
    films: Sequence[FilmErrors], schema: Schema, *, promised: float, part_of: Sequence[Hashable] | None = None
) -> Coverage:
    """As ``coverage``, each part of the films judged by a calibration on all the others.

    ``part_of`` says which part each film belongs to, such as the fold whose network has predicted it; a patient is
    in one part only. None makes five parts of patients at random.
    """
    if part_of is None:
        patients = np.random.default_rng(0).permutation(sorted({film.group for film in films}))
        of_patient = {patient: i % PARTS for i, patient in enumerate(patients)}
        part_of = [of_patient[film.group] for film in films]
    calibrations = {}
    for part in set(part_of):
        others = [film for film, own in zip(films, part_of, strict=True) if own != part]
        calibrations[part] = calibrate(others, schema, promised)
    hits = [_hits(film, schema, calibrations[part]) for film, part in zip(films, part_of, strict=True)]
    return _summary(hits, films, promised)


# (kind, name, held, width of the interval)
_Hit = tuple[str, str, bool, float]


def _hits(film: FilmErrors, schema: Schema, calibration: Calibration) -> list[_Hit]:
    found: list[_Hit] = []
    for level, distances in zip(schema.levels, film.distances, strict=True):
        of_all = calibration.corner_factor
        of_level = calibration.level_factors.get(level, of_all)
        for kind, name, factor in (("level", level, of_level), ("corner", "corners", of_all)):
            if np.isfinite(factor):
                found += [(kind, name, bool(d <= factor), np.nan) for d in distances[np.isfinite(distances)]]
    for pair in film.measures:
        interval = calibration.interval(pair.measurement, pair.standard_error)
        if interval is not None:
            held = interval.low <= pair.true <= interval.high
            found.append(("measure", pair.measurement.name, held, interval.high - interval.low))
    return found


def _summary(hits: list[list[_Hit]], films: Sequence[FilmErrors], promised: float) -> Coverage:
    sample = GroupedSample([film.group for film in films], RESAMPLES)
    parts: dict[tuple[str, str], list[tuple[bool, int, float]]] = defaultdict(list)
    for film, found in enumerate(hits):
        for kind, name, held, width in found:
            parts[kind, name].append((held, film, width))
            if kind == "measure":
                parts["measure", "all"].append((held, film, np.nan))

    def figures(part: list[tuple[bool, int, float]]) -> Held:
        held, films, widths = np.array(part).reshape(-1, 3).T
        share, interval = sample.mean(held, films.astype(int))
        found: Held = {"coverage": share, "interval": interval, "count": len(part)}
        return {**found, "median_width": float(np.nanmedian(widths))} if np.isfinite(widths).any() else found

    named = {kind: {n: figures(p) for (k, n), p in parts.items() if k == kind} for kind in ("level", "measure")}
    return {
        "promised": promised,
        "films": len(films),
        "corners": figures(parts["corner", "corners"]),
        "levels": named["level"],
        "all_measures": named["measure"].pop("all", None),
        "measures": named["measure"],
    }


def coverage_lines(found: Coverage, *, each: bool) -> list[str]:
    """What ``coverage`` found, a line for corners and for all measures, and with ``each`` for every measure."""
    parts = [("corners held", found["corners"]), ("measures held", found["all_measures"])]
    parts += [(f"  {name}", figures) for name, figures in found["measures"].items()] if each else []
    lines = []
    for name, figures in parts:
        if not figures or figures["coverage"] is None:
            lines.append(f"  {name:<26}{TOO_FEW}")
            continue
        ends = [f"{100 * end:.1f}" for end in figures["interval"] or ()]
        interval = f" (95 %: {' to '.join(ends)})" if ends else ""
        width = f", median width {figures['median_width']:.3g}" if "median_width" in figures else ""
        promised = f", {100 * found['promised']:g} % promised" if not name.startswith(" ") else ""
        lines.append(
            f"  {name:<26}{100 * figures['coverage']:.1f} %{interval} of {figures['count']}{width}{promised}"
        )
    return lines
