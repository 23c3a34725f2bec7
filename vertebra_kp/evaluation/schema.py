"""``metrics.json``: what an evaluation found, in the layout of these types (docs/metrics.schema.json).

Floats, and None where nothing is measurable. Lengths are of the original image; px are its pixels.
"""

from pathlib import Path
from typing import Annotated, Any, NotRequired, cast, get_type_hints

from pydantic import Field
from typing_extensions import TypedDict  # of Python 3.11 pydantic takes no other

from vertebra_kp.config.schema import Names
from vertebra_kp.core.files import read_json

Figure = float | None
Ends = Annotated[list[float], Field(min_length=2, max_length=2)] | None
"""Low and high end of an interval."""
Rates = dict[str, float] | None
"""Percent of the corners within each threshold; the keys are the thresholds ("2.5")."""


class FilmFigures(TypedDict):
    """One image's figures, a row of ``films.csv``.

    ``corners``: how many are labelled; ``mre_px``, ``max_px``: mean and largest radial error of these.
    ``shift_levels``: signed, towards the feet, in vertebra steps. ``cobb_true_deg``, ``cobb_predicted_deg``: lists
    of three; only a fully labelled whole spine has them.
    """

    id: str
    group: str
    corners: int
    mre_px: Figure
    max_px: Figure
    mre_percent_diagonal: Figure
    mre_mm: Figure
    shift_levels: Figure
    shifted: bool | None
    cobb_true_deg: list[float] | None
    cobb_predicted_deg: list[float] | None


class PartFigures(TypedDict):
    """Figures of one level, or of one corner of a level."""

    mre_px: Figure
    median_px: Figure
    sdr_mm: Rates
    sdr_px: Rates


class Summary(TypedDict):
    """The figures of the corners.

    - ``mre_px``, ``median_px``: mean and median radial error over all labelled corners of all images (an image
      with more corners weighs more); ``_percent_diagonal``: each error over its own image's diagonal; ``_mm``:
      over the images whose spacing is known.
    - ``sdr_mm``, ``sdr_px``: percent of corners within each threshold.
    - ``level_shift_rate``: share of images shifted by more than half a vertebra step; ``shifted_films``: which.
    - ``presence_precision``, ``presence_recall`` of vertebrae at ``presence_threshold``; vertebrae of which
      nothing is labelled do not count.
    - ``cobb_mae_deg``: three mean absolute errors, AASCE protocol, over the ``cobb_films`` fully labelled
      images of a T1..L5 schema; true angles are recomputed from the true corners.
    - ``smape_published``: Yi et al. (ISBI 2020), mean over images of ``100 sum|t - p| / sum(t + p)``, each
      sum over the three angles. ``smape_per_angle``: mean over the angles of each angle's own SMAPE, which
      is the mean over images of ``100 |t - p| / (t + p)``. Neither has the factor 2 of the textbook form;
      0 / 0 counts as 0.
    - ``per_level``, ``per_corner`` (``L1.TL``).
    - ``NAME_ci95``: 95 % interval [low, high] of each number of NAME from resampled groups (patients).
    """

    films: int
    corners: int
    presence_threshold: float
    mre_px: Figure
    mre_px_ci95: Ends
    median_px: Figure
    median_px_ci95: Ends
    mre_percent_diagonal: Figure
    mre_percent_diagonal_ci95: Ends
    median_percent_diagonal: Figure
    median_percent_diagonal_ci95: Ends
    mre_mm: Figure
    mre_mm_ci95: Ends
    median_mm: Figure
    median_mm_ci95: Ends
    sdr_mm: Rates
    sdr_mm_ci95: dict[str, Ends] | None
    sdr_px: Rates
    sdr_px_ci95: dict[str, Ends] | None
    level_shift_rate: Figure
    level_shift_rate_ci95: Ends
    presence_precision: Figure
    presence_precision_ci95: Ends
    presence_recall: Figure
    presence_recall_ci95: Ends
    cobb_mae_deg: list[float] | None
    cobb_mae_deg_ci95: list[Ends] | None
    smape_published: Figure
    smape_published_ci95: Ends
    smape_per_angle: Figure
    smape_per_angle_ci95: Ends
    shifted_films: list[str]
    cobb_films: int
    per_level: dict[str, PartFigures]
    per_corner: dict[str, PartFigures]


class TopFew(TypedDict, total=False):
    top5: Figure
    top2: Figure


class ClassFigures(TopFew):
    """Figures of one kind of class over all labels of all images that are known.

    - ``labelled``: how many are known; ``counts``: of each class.
    - ``top1``: share whose most probable class is the true one. ``top5`` is there for more than five classes: of
      five it is 1 by definition. Of three to five ``top2`` stands in its place, of two neither.
    - ``macro_f1``, ``roc_auc``: mean over the classes that are measurable: those that occur, for the ROC curve not
      alone. A lateral image shows no left slip: a class without images would make every mean unmeasurable.
    - ``per_class``: ``f1`` and ``roc_auc`` of each.
    - ``confusion``: how often a true class (outer key) was called which (inner key).
    """

    labelled: int
    top1: Figure
    macro_f1: Figure
    roc_auc: Figure
    counts: dict[str, int]
    per_class: dict[str, dict[str, Figure]]
    confusion: dict[str, dict[str, int]]


class ClassSummary(TypedDict, total=False):
    """Figures of the classes that the network predicts beside the corners; empty where it predicts none."""

    view: ClassFigures
    slip: ClassFigures
    image_class: ClassFigures
    classification_reference: dict[str, float]


class Held(TypedDict):
    """``coverage``: share of true values in their regions or intervals, with its 95 % ``interval`` from resampled
    patients; ``median_width``: of the intervals, in the measure's unit."""

    coverage: Figure
    interval: Ends
    count: int
    median_width: NotRequired[float]


class Coverage(TypedDict):
    """Of regions and intervals that promise the share ``promised``; levels and measures by name."""

    promised: float
    films: int
    corners: Held
    levels: dict[str, Held]
    all_measures: Held | None
    measures: dict[str, Held]


class ShapeFigures(TypedDict):
    """What the shape model adds: ``mre_px`` and ``median_px`` are pairs [without, with] its correction.

    ``flagged`` counts corners that lie far from where the others expect them; the last two are median errors.
    """

    mre_px: list[float]
    median_px: list[float]
    flagged: int
    flagged_median_px: Figure
    other_median_px: Figure


class Metrics(Summary, ClassSummary, total=False):
    """All of ``metrics.json``: the figures, and what was measured on what.

    ``evaluation_sha256`` is the checksum of ``evaluation.npz`` beside it; ``training_images``, how many of the
    images have trained the network, as far as its config says.
    """

    collapsed_share: float
    coverage: Coverage
    coverage_by: str
    shape: ShapeFigures
    checkpoint: str
    ensemble: list[str]
    refine: str | dict[str, Any] | None
    mark: str
    step: int | None
    films_identity: str
    source: str
    split: list[str] | None
    split_file_sha256: str | None
    stored_order: bool
    codec: dict[str, Any]
    flip: bool
    repair_file: str | None
    names: Names
    seeds: list[int]
    config: dict[str, Any]
    hardware: dict[str, Any]
    version: str
    evaluation_sha256: str
    training_images: int


# Every figure as it must be, and none that must be there: earlier versions knew fewer.
_Known = TypedDict("_Known", get_type_hints(Metrics, include_extras=True), total=False)  # type: ignore[misc]


def read_metrics(path: Path) -> Metrics:
    """``metrics.json`` of an evaluation. Raises UserError for what is none."""
    return cast(Metrics, read_json(path, _Known, remedy="measure again"))
