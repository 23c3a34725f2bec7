"""``metrics.json`` and its table: every key is typed and documented, every consumer finds its metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from vertebra_kp.core.anatomy import SCHEMAS, SLIP_CLASSES, State
from vertebra_kp.evaluation.classification import classification_figures
from vertebra_kp.evaluation.metric_table import METRICS, figures_for, metrics_for
from vertebra_kp.evaluation.metrics import FilmResult, film_errors, summarise
from vertebra_kp.evaluation.schema import ClassFigures, FilmFigures, Metrics, Summary

REPOSITORY = Path(__file__).parents[2]


def film(i: int, *, spacing_mm: float | None, labelled: bool = True) -> FilmResult:
    """A whole spine whose corners are off by ``i + 1`` px."""
    schema = SCHEMAS["ap_whole_spine"]
    grid = np.stack(np.meshgrid([0.0, 1.0, 2.0, 3.0], np.arange(schema.num_levels) * 40.0), axis=-1)
    states = np.full((schema.num_levels, 4), State.LABELLED if labelled else State.UNLABELLED)
    presence = np.ones(schema.num_levels)
    moved = grid + np.array([i + 1.0, 0.0])
    return FilmResult(f"{i}", f"p{i}", (800, 300), spacing_mm, grid, states, moved, presence)


def strictly(kind: type, value: object) -> None:
    """No key is missing, every value is of its type, and no key is unknown: validation drops those."""
    assert TypeAdapter(kind).validate_python(value, strict=True) == value


@pytest.mark.parametrize("spacing_mm", [0.2, None])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_summary_has_exactly_the_keys_of_its_type(spacing_mm, labelled):
    films = [film(i, spacing_mm=spacing_mm, labelled=labelled) for i in range(3)]
    summary = summarise(films, SCHEMAS["ap_whole_spine"], bootstrap=20)
    strictly(Summary, summary)
    assert list(summary) == list(Summary.__annotations__)  # in this order in the file, as ever
    strictly(FilmFigures, film_errors(films[0]))


@pytest.mark.parametrize("names", [("a", "b"), SLIP_CLASSES, tuple("abcdef")])
def test_figures_of_classes_have_exactly_the_keys_of_their_type(names):
    probabilities = np.eye(len(names))
    strictly(ClassFigures, classification_figures(np.arange(len(names)), probabilities, names))


def test_the_documented_schema_of_metrics_is_the_one_that_is_written():
    """Remedy: write TypeAdapter(Metrics).json_schema() to the file, indented by 2."""
    documented = json.loads((REPOSITORY / "docs" / "metrics.schema.json").read_text(encoding="utf-8"))
    assert documented == TypeAdapter(Metrics).json_schema()


def test_every_metric_of_the_table_is_a_key_of_metrics_json():
    assert {metric.name for metric in METRICS} <= Metrics.__annotations__.keys()
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_columns_of_runs_and_studies_keep_their_names_and_order():
    """Files of earlier versions have these: appending to them and reading them depends on it."""
    assert [metric.name for metric in metrics_for("run_csv")] == [
        *("mre_px", "median_px", "mre_percent_diagonal", "level_shift_rate", "presence_precision"),
        *("presence_recall", "collapsed_share", "smape_published"),
    ]
    assert [metric.name for metric in metrics_for("study")] == [
        *("mre_px", "median_px", "level_shift_rate", "presence_precision", "presence_recall"),
    ]


def test_a_rate_by_threshold_becomes_a_figure_per_threshold():
    figures = figures_for("tracker", {"mre_px": 1.5, "sdr_mm": {"2": 50.0, "2.5": 75.0}, "sdr_px": None})
    assert {name: value for name, value in figures.items() if value is not None} == {
        "mre_px": 1.5,
        "sdr_mm_2": 50.0,
        "sdr_mm_2.5": 75.0,
    }
    assert figures["median_px"] is None
