"""Figures of the classes that a network tells beside the corners: top-1, macro F1, ROC AUC, confusion.

F1 and the area under the ROC curve, one class against the rest, are those of scikit-learn.
"""

from typing import Any

import numpy as np

from vertebra_kp.core.anatomy import SLIP_CLASSES, UNKNOWN, VIEWS

TARGETS: dict[str, tuple[str, ...]] = {"view": VIEWS, "slip": SLIP_CLASSES}
HEADLINES = ("top1", "macro_f1", "roc_auc")
# Stated for a classifier of radiographs with other classes and other films: a mark beside the figures, no rival.
REFERENCE = {"top1": 0.953, "top5": 0.991, "macro_f1": 0.943, "roc_auc": 0.982}
REFERENCE_FROM = "(stated for a classifier of radiographs with other classes and other films)"


def classification_figures(truth: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Figures over all labels of all films that are known, as a JSON-ready dict; None where nothing is measurable.

    ``truth`` ``[...]`` are classes or ``UNKNOWN``, ``probabilities`` ``[..., classes]``.

    - ``labelled``: how many are known; ``counts``: of each class.
    - ``top1``: share whose most probable class is the true one. ``top5`` is told of more than five classes: of
      five it is 1 by definition. Of three to five ``top2`` stands in its place, of two neither.
    - ``macro_f1``, ``roc_auc``: mean over the classes that are measurable: those that occur, for the ROC curve not
      alone. A lateral film shows no left slip: a class without films would make every mean unmeasurable.
    - ``per_class``: ``f1`` and ``roc_auc`` of each.
    - ``confusion``: how often a true class (outer key) was called which (inner key).
    """
    from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score  # here: it takes a second

    known = truth != UNKNOWN
    truth, probabilities = truth[known], probabilities[known]
    classes = range(len(names))
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    counts = np.bincount(truth, minlength=len(names))
    occurs = [count > 0 for count in counts]
    against_rest = [0 < count < len(truth) for count in counts]
    f1, confusion = np.zeros(len(names)), np.zeros((len(names), len(names)), int)
    if truth.size:
        f1 = f1_score(truth, order[:, 0], labels=classes, average=None, zero_division=0)
        confusion = confusion_matrix(truth, order[:, 0], labels=classes)
    f1_of = [float(f1[k]) if occurs[k] else None for k in classes]
    auc_of = [float(roc_auc_score(truth == k, probabilities[:, k])) if against_rest[k] else None for k in classes]
    figures: dict[str, Any] = {"labelled": len(truth), "top1": _mean(order[:, 0] == truth)}
    for k in [k for k in (5, 2) if k < len(names)][:1]:
        figures[f"top{k}"] = _mean((order[:, :k] == truth[:, None]).any(axis=1))
    return figures | {
        "macro_f1": _mean([value for value in f1_of if value is not None]),
        "roc_auc": _mean([value for value in auc_of if value is not None]),
        "counts": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "per_class": {name: {"f1": f1_of[k], "roc_auc": auc_of[k]} for k, name in enumerate(names)},
        "confusion": {
            name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(names, confusion, strict=True)
        },
    }


def class_headlines(summary: dict[str, Any]) -> dict[str, float | None]:
    """``view_top1`` and so on of a summary that has figures by target."""
    targets = [target for target in TARGETS if target in summary]
    return {f"{target}_{name}": summary[target][name] for target in targets for name in HEADLINES}


def _mean(values: np.ndarray | list[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
