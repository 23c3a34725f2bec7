"""Labels that a trained network would have put elsewhere: a second opinion for the audit, never a repair."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.data.images import FilmError, film_size
from vertebra_kp.data.record import Record
from vertebra_kp.evaluation.metrics import SHIFTED_ABOVE, FilmResult, level_shift
from vertebra_kp.inference.predictor import Predictor

FAR = 0.5  # vertebra steps between label and prediction of a corner
MOST = 0.7  # severity: the network may be the one that is wrong


def disagreement_findings(records: Sequence[Record], predictor: Predictor) -> list[Finding]:
    """Images whose labels stand a level off the prediction, and single levels far from theirs.

    ``records`` have labels of the predictor's schema; images that cannot be read are left to other checks.
    """
    findings = []
    for record in tqdm(records, "predicting", unit="image", leave=False):
        if record.points_xy_image is None or record.states is None:
            continue
        try:
            found, size = predictor.predict(record.image_path), film_size(record.image_path)
        except FilmError:
            continue
        about = record.id, record.group, size, record.spacing_mm
        truth = record.points_xy_image, record.states
        findings += compare(FilmResult(*about, *truth, found.points_xy_image, found.presence), predictor.schema)
    return findings


def compare(result: FilmResult, schema: Schema) -> list[Finding]:
    """Where labels and prediction of an image differ; nothing when a step between vertebrae cannot be measured."""
    shift = level_shift(result)
    if shift is None:
        return []
    if abs(shift) > SHIFTED_ABOVE:
        where = "above" if shift > 0 else "below"  # towards the head from the prediction, or the feet
        proposal = f"labels stand {abs(shift):.1f} levels {where} what the network finds; count the vertebrae"
        return [Finding(result.id, "disagreement", "", MOST, proposal)]
    centres = result.true_points.mean(axis=1)
    step = np.nanmedian(np.linalg.norm(np.diff(centres, axis=0), axis=1))
    findings = []
    for level, errors in zip(schema.levels, result.errors_px, strict=True):
        distance = np.nanmax(errors) / step if np.isfinite(errors).any() else 0.0
        if distance >= FAR:
            proposal = f"a corner is {distance:.1f} vertebra steps from where the network finds it"
            findings.append(Finding(result.id, "disagreement", level, min(MOST, 0.5 * distance / FAR), proposal))
    return findings
