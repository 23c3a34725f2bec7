"""Figures of the classes that a network predicts beside the corners: top-1, macro F1, ROC AUC, confusion.

F1 and the area under the ROC curve, one class against the rest, are those of scikit-learn.
"""

from typing import Literal, get_args

import numpy as np

from vertebra_kp.core.anatomy import UNKNOWN
from vertebra_kp.evaluation.schema import ClassFigures, ClassSummary, Figure, TopFew

Target = Literal["view", "slip", "image_class"]
HEADLINES: tuple[Literal["top1", "macro_f1", "roc_auc"], ...] = ("top1", "macro_f1", "roc_auc")
TARGETS: tuple[Target, ...] = get_args(Target)
# Stated for a classifier of medication images, another task: for orientation, not for comparison.
REFERENCE = {"top1": 0.953, "top5": 0.991, "macro_f1": 0.943, "roc_auc": 0.982}
REFERENCE_FROM = "(stated for a classifier of medication images, another task)"


def classification_figures(truth: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> ClassFigures:
    """``truth`` ``[...]`` are classes or ``UNKNOWN``, ``probabilities`` ``[..., classes]``."""
    from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score  # here: it takes a second

    known = truth != UNKNOWN
    truth, probabilities = truth[known], probabilities[known]
    classes = range(len(names))
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    counts = np.bincount(truth, minlength=len(names))
    confusion = np.zeros((len(names), len(names)), int)
    if truth.size:
        f1 = f1_score(truth, order[:, 0], labels=classes, average=None, zero_division=0)
        confusion = confusion_matrix(truth, order[:, 0], labels=classes)
    f1_of = [float(f1[k]) if counts[k] else None for k in classes]
    auc_of = [
        float(roc_auc_score(truth == k, probabilities[:, k])) if 0 < counts[k] < len(truth) else None
        for k in classes
    ]

    def top(k: int) -> Figure:
        return _mean((order[:, :k] == truth[:, None]).any(axis=1))

    few: TopFew = {"top5": top(5)} if len(names) > 5 else {"top2": top(2)} if len(names) > 2 else {}
    return {
        "labelled": len(truth),
        "top1": top(1),
        **few,
        "macro_f1": _mean([value for value in f1_of if value is not None]),
        "roc_auc": _mean([value for value in auc_of if value is not None]),
        "counts": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "per_class": {name: {"f1": f1_of[k], "roc_auc": auc_of[k]} for k, name in enumerate(names)},
        "confusion": {
            name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(names, confusion, strict=True)
        },
    }


def class_headlines(summary: ClassSummary) -> dict[str, Figure]:
    """``view_top1`` and so on of a summary that has figures by target."""
    found = [(target, figures) for target in TARGETS if (figures := summary.get(target))]
    return {f"{target}_{name}": figures[name] for target, figures in found for name in HEADLINES}


def _mean(values: np.ndarray | list[float]) -> Figure:
    return float(np.mean(values)) if len(values) else None
