"""Studies: what is planned, what is missing, what the table says."""

import json

import pytest

from vertebra_kp.ablation import read_study, table
from vertebra_kp.errors import UserError

STUDY = """
base: {base}
overrides: [data.phantom.films=8]
seeds: [0, 1, 5]
baseline: plain
variants:
  plain: ["codec.sigma=1.5"]
  wide: ["codec.sigma={wide}"]
"""
BASE = "name: base\ntrain: {phases: [{name: all, epochs: 1}]}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY.format(base="base.yaml", wide=2.5))
    return tmp_path


def finish(study, run, error, seconds=10.0):
    run.run_dir.mkdir(parents=True)
    report = {
        "steps": 4,
        "training_seconds": seconds,
        "validation": {"mre_px": error, "median_px": error / 2, "level_shift_rate": 0.25},
    }
    (run.run_dir / "metrics.json").write_text(json.dumps(report))
    study.record(run)


def test_a_study_plans_every_variant_with_every_seed_and_its_own_overrides(folder):
    study = read_study(folder)
    planned = list(study.planned())
    assert [(run.variant, run.seed) for run in planned] == [
        (variant, seed) for seed in (0, 1, 5) for variant in ("plain", "wide")
    ]
    config = planned[-1].config(study.base)
    assert (config.codec.sigma, config.train.seed, config.data.phantom.films) == (2.5, 5, 8)


def test_a_finished_run_is_recorded_once_and_no_longer_missing(folder):
    study = read_study(folder)
    first = study.missing()[0]
    finish(study, first, 0.5, seconds=16.0)
    assert (first.variant, first.seed) not in [(run.variant, run.seed) for run in study.missing()]
    assert len(study.missing()) == 5
    (row,) = study.finished()
    assert float(row["images_per_second"]) == 4 * 8 / 16.0


def test_the_table_pairs_differences_by_seed(folder):
    study = read_study(folder)
    errors = {("plain", 0): 1.0, ("plain", 1): 2.0, ("plain", 5): 3.0}
    errors |= {("wide", 0): 1.4, ("wide", 1): 2.5, ("wide", 5): 3.6}
    for run in study.planned():
        finish(study, run, errors[(run.variant, run.seed)])
    lines = table(study).splitlines()
    # Differences 0.4, 0.5, 0.6: mean 0.5, standard error 0.1 / sqrt(3), t(0.975, 2) = 4.303.
    half = 4.303 * 0.1 / 3**0.5
    assert f"+0.500 ({0.5 - half:+.3f} to {0.5 + half:+.3f})" in lines[3]
    assert "2.000 ± 1.000 | baseline" in lines[2]


def test_a_variant_that_equals_the_baseline_is_refused(folder):
    (folder / "study.yaml").write_text(STUDY.format(base="base.yaml", wide=1.5))
    with pytest.raises(UserError, match="wide equals the baseline"):
        read_study(folder)


def test_mistakes_in_a_study_file_are_named(folder):
    text = STUDY.format(base="base.yaml", wide=2.5)
    (folder / "study.yaml").write_text(text.replace("seeds", "sedes"))
    with pytest.raises(UserError, match="sedes"):
        read_study(folder)
    (folder / "study.yaml").write_text(text.replace("baseline: plain", "baseline: other"))
    with pytest.raises(UserError, match="other is none of the variants"):
        read_study(folder)
