"""Errors and distrust on films that are made worse step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import OTHER_VIEW
from vertebra_kp.core.files import write_csv
from vertebra_kp.data.disturb import DISTURBANCES, DisturbedFilms
from vertebra_kp.data.films import Films, PhantomFilms
from vertebra_kp.evaluation.agreement import auc
from vertebra_kp.evaluation.metrics import film_errors
from vertebra_kp.evaluation.runner import Evaluated, evaluate_films
from vertebra_kp.evaluation.uncertainty.store import Calibrated
from vertebra_kp.inference.predictor import Predictor

FILE = "robustness.csv"  # beside an evaluation: its report shows it
WRONG_VIEW = "wrong_view"


@dataclass(frozen=True)
class Row:
    """``network`` is the mark of what was measured. ``median_px`` and ``level_shift_rate`` are nan where no corner
    has a place; ``distrust_auc`` is how often a disturbed film is trusted less than a clean one, nan without a
    calibration."""

    network: str
    kind: str
    strength: float
    unit: str
    films: int
    median_px: float
    mre_px: float
    level_shift_rate: float
    distrust_auc: float


def measure_robustness(
    predictor: Predictor,
    films: Films,
    calibrated: Calibrated | None,
    kinds: Sequence[str] = tuple(DISTURBANCES),
) -> Iterator[Row]:
    """A row per kind and strength; phantom films are also shown from the wrong side."""
    network, config, refiner = predictor.network, predictor.config, predictor.refiner
    mark = predictor.mark
    clean = evaluate_films(network, config, films, refiner)
    good = _distrust(clean, calibrated)
    for kind in kinds:
        disturbance = DISTURBANCES[kind]
        for strength in disturbance.strengths:
            if strength == 0:
                evaluated = clean
            else:
                evaluated = evaluate_films(network, config, DisturbedFilms(films, kind, strength), refiner)
            yield _row(mark, kind, strength, disturbance.unit, evaluated, good, calibrated)
    if isinstance(films, PhantomFilms) and films.schema.name in OTHER_VIEW and calibrated is not None:
        about = films.schema, films.preset, films.seed, len(films), films.size
        others = PhantomFilms(*about, fresh=False, other_view=1.0)
        yield _row(mark, WRONG_VIEW, 1, "", evaluate_films(network, config, others, refiner), good, calibrated)


def _row(
    mark: str,
    kind: str,
    strength: float,
    unit: str,
    evaluated: list[Evaluated],
    good: np.ndarray | None,
    calibrated: Calibrated | None,
) -> Row:
    rows = [film_errors(item.result) for item in evaluated]
    corners = [item.result.errors_px[item.result.labelled] for item in evaluated]
    errors = np.concatenate(corners) if corners else np.array([])
    shifted = [row["shifted"] for row in rows if row["shifted"] is not None]
    distrust = _distrust(evaluated, calibrated)
    return Row(
        mark,
        kind,
        strength,
        unit,
        len(evaluated),
        float(np.median(errors)) if errors.size else float("nan"),
        float(errors.mean()) if errors.size else float("nan"),
        float(np.mean(shifted)) if shifted else float("nan"),
        float("nan") if distrust is None or good is None else auc(distrust, good),
    )


def _distrust(evaluated: list[Evaluated], calibrated: Calibrated | None) -> np.ndarray | None:
    return None if calibrated is None else np.array([calibrated.distrust(item.prediction) for item in evaluated])


def write_rows(rows: Sequence[Row], path: Path) -> None:
    write_csv([field.name for field in fields(Row)], (asdict(row) for row in rows), path)
