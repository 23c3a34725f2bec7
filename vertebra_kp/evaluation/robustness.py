"""Errors and out-of-distribution scores on films that are made worse step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from vertebra_kp.core.anatomy import OTHER_VIEW
from vertebra_kp.core.files import write_csv
from vertebra_kp.data.disturb import DISTURBANCES, DisturbedFilms
from vertebra_kp.data.films import Films
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.evaluation.agreement import auc
from vertebra_kp.evaluation.metrics import film_errors
from vertebra_kp.evaluation.runner import Evaluated, evaluate_films
from vertebra_kp.evaluation.uncertainty.store import Calibrated
from vertebra_kp.inference.predictor import Predictor

FILE = "robustness.csv"  # beside an evaluation: its report shows it
WRONG_VIEW = "wrong_view"


@dataclass(frozen=True)
class Row:
    """``network`` is the fingerprint of what was measured. ``median_px``, ``mre_px`` and ``level_shift_rate`` are
    nan where no corner has a place. ``distrust_auc`` is how often a disturbed film has a higher
    out-of-distribution score than a clean one, nan without a calibration."""

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
    predictor: Predictor, films: Films, calibrated: Calibrated | None, kinds: Sequence[str]
) -> Iterator[Row]:
    """A row per kind and strength; phantom films are also shown from the wrong side."""
    clean = evaluate_films(predictor, films)
    good = _scores(clean, calibrated)

    def row(kind: str, strength: float, unit: str, evaluated: list[Evaluated]) -> Row:
        errors = np.concatenate([np.empty(0), *(item.errors_px[item.labelled] for item in evaluated)])
        shifted = [shift for item in evaluated if (shift := film_errors(item)["shifted"]) is not None]
        scores = _scores(evaluated, calibrated)
        return Row(
            predictor.fingerprint,
            kind,
            strength,
            unit,
            films=len(evaluated),
            median_px=float(np.median(errors)) if errors.size else np.nan,
            mre_px=float(errors.mean()) if errors.size else np.nan,
            level_shift_rate=float(np.mean(shifted)) if shifted else np.nan,
            distrust_auc=np.nan if scores is None or good is None else auc(scores, good),
        )

    for kind in kinds:
        for strength in DISTURBANCES[kind].strengths:
            disturbed = evaluate_films(predictor, DisturbedFilms(films, kind, strength)) if strength else clean
            yield row(kind, strength, DISTURBANCES[kind].unit, disturbed)
    if isinstance(films, PhantomFilms) and films.schema.name in OTHER_VIEW and calibrated is not None:
        about = films.schema, films.preset, films.seed, len(films), films.size
        yield row(WRONG_VIEW, 1, "", evaluate_films(predictor, PhantomFilms(*about, fresh=False, other_view=1.0)))


def _scores(evaluated: Sequence[Evaluated], calibrated: Calibrated | None) -> np.ndarray | None:
    return None if calibrated is None else np.array([calibrated.ood_score(item.prediction) for item in evaluated])


def write_rows(rows: Sequence[Row], path: Path) -> None:
    write_csv([field.name for field in fields(Row)], [asdict(row) for row in rows], path)
