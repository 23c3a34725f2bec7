"""A run's log: what TensorBoard reads back, and a metrics.csv that survives resuming."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_job import tiny_config

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.inference.overlays import FilmView
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.training import tracking
from vertebra_kp.training.run_folder import RunFolder
from vertebra_kp.training.tracking import Tracker

CONFIG = tiny_config()
SCHEMA = SCHEMAS["la_lumbar"]


def rows_of(run_dir: Path) -> list[dict]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events_of(run_dir: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def a_view() -> FilmView:
    rng = np.random.default_rng(1)
    points = rng.uniform(10, 50, (6, 4, 2))
    points[~SCHEMA.exists] = np.nan
    predicted = Prediction(
        file="film",
        size=(64, 64),
        points_xy_image=points,
        covariances=np.zeros((6, 4, 2, 2)),
        scores=np.ones((6, 4)),
        presence=np.ones(6),
        matrix=np.eye(3),
        image=np.zeros((64, 64), np.uint8),
        attention={"F4": [rng.random((2, 4, 4))]},
    )
    return FilmView("film", predicted, error_px=1.0)


def evaluate(tracker: Tracker, step: int, row: dict, views: list[FilmView] | None = None) -> None:
    summary = {
        "mre_px": 2.5,
        "mre_mm": None,
        "sdr_px": {"2": 40.0, "5": 90.0},
        "sdr_mm": None,
        "per_level": {level: {"mre_px": 2.5} for level in SCHEMA.levels},
        "view": {"top1": 0.75, "macro_f1": 0.5, "roc_auc": None},
    }
    tracker.evaluation(step, row, summary, views or [], views or [], SCHEMA)


@pytest.fixture
def no_plot(monkeypatch):
    """Bars take half a second; tests of the table do without."""
    monkeypatch.setattr(tracking, "plot_error_per_level", lambda *_: np.zeros((4, 4, 3), np.uint8))


def test_curves_and_pictures_can_be_read_back(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        tracker.scalars(3, {"train/total": 1.5, "lr/backbone_stage1": 1e-4})
        evaluate(tracker, 5, {"mre_px": 2.5}, [a_view()])
    events = events_of(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/total")] == [(3, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("val/sdr_px_5")] == [(5, 90.0)]
    assert set(events.Tags()["images"]) == {
        "films/heatmaps",
        "films/worst",
        "attention/F4_last_layer",
        "error/per_level",
    }
    assert [(e.step, e.value) for e in events.Scalars("val/view_top1")] == [(5, 0.75)]
    assert "val/view_roc_auc" not in events.Tags()["scalars"]
    assert "val/mre_mm" not in events.Tags()["scalars"]  # not measurable: no curve


@pytest.mark.usefixtures("no_plot")
def test_a_new_column_keeps_the_rows_that_did_not_have_it(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        evaluate(tracker, 10, {"mre_px": 9.0})
        evaluate(tracker, 20, {"mre_px": 7.0, "phase": "unfrozen, slowly"})
        evaluate(tracker, 30, {"mre_px": None})
    assert rows_of(tmp_path) == [
        {"step": "10", "mre_px": "9.0", "phase": ""},
        {"step": "20", "mre_px": "7.0", "phase": "unfrozen, slowly"},
        {"step": "30", "mre_px": "", "phase": ""},
    ]


@pytest.mark.usefixtures("no_plot")
def test_resuming_drops_what_the_run_will_write_again(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        for step in (10, 20, 30):
            tracker.scalars(step, {"train/total": 1.0})
            evaluate(tracker, step, {"mre_px": 100.0 / step})
    with Tracker(RunFolder(tmp_path), CONFIG, resume_step=20) as tracker:
        assert [row["step"] for row in rows_of(tmp_path)] == ["10", "20"]
        tracker.scalars(30, {"train/total": 0.5})
        evaluate(tracker, 30, {"mre_px": 3.0})
    assert [row["mre_px"] for row in rows_of(tmp_path)] == ["10.0", "5.0", "3.0"]
    curve = events_of(tmp_path).Scalars("train/total")
    assert [(e.step, e.value) for e in curve] == [(10, 1.0), (20, 1.0), (30, 0.5)]


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("torn", ["30", "30,1", "30,12.3"])
def test_a_line_torn_by_a_kill_is_dropped_when_the_run_resumes(tmp_path, torn):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        evaluate(tracker, 10, {"mre_px": 9.0})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    with Tracker(RunFolder(tmp_path), CONFIG, resume_step=40) as tracker:
        evaluate(tracker, 50, {"mre_px": 4.0})
    assert [row["step"] for row in rows_of(tmp_path)] == ["10", "50"]


@pytest.mark.usefixtures("no_plot")
def test_a_table_that_cannot_be_rewritten_stays_as_it_was(tmp_path, monkeypatch):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        evaluate(tracker, 10, {"mre_px": 9.0})
        before = (tmp_path / "metrics.csv").read_text()

        def full(_):
            raise OSError("no space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            evaluate(tracker, 20, {"mre_px": 7.0, "new": 1.0})
        assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.usefixtures("no_plot")
def test_resuming_before_the_first_evaluation_starts_a_table(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG, resume_step=7) as tracker:
        evaluate(tracker, 10, {"mre_px": 9.0})
    assert rows_of(tmp_path) == [{"step": "10", "mre_px": "9.0"}]


def test_the_phase_curve_is_a_step_not_a_ramp(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        tracker.phase(0, "frozen", "{}", index=0)
        tracker.phase(50, "unfrozen", "{}", index=1)
    curve = [(e.step, e.value) for e in events_of(tmp_path).Scalars("phase")]
    assert curve == [(0, 0.0), (49, 0.0), (50, 1.0)]


def test_a_resumed_phase_keeps_its_place_in_the_schedule(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG, resume_step=70) as tracker:
        tracker.phase(70, "unfrozen", "{}", index=1)
        tracker.phase(90, "last", "{}", index=2)
    curve = [(e.step, e.value) for e in events_of(tmp_path).Scalars("phase")]
    assert curve == [(70, 1.0), (89, 1.0), (90, 2.0)]


def test_hyperparameters_stand_in_the_run_itself_and_lists_do_not_stop_it(tmp_path):
    with Tracker(RunFolder(tmp_path), CONFIG) as tracker:
        tracker.scalars(8, {"train/total": 1.0})
        tracker.finish({"hparam/mre_px": 0.4})
    assert [path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []
    events = events_of(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("hparam/mre_px")] == [(8, pytest.approx(0.4))]
    assert "_hparams_/session_start_info" in events.summary_metadata
