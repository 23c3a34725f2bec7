"""Studies: what is planned, recorded, taken over and out of date, and what the table says."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from vertebra_kp.config.io import save_config
from vertebra_kp.core.errors import UserError
from vertebra_kp.experiments.collect import (
    adopt,
    collect,
    missing,
    move_stale,
    record,
    refuse_stale,
    stale_rows,
    to_run,
)
from vertebra_kp.experiments.ledger import COLUMNS, Ledger
from vertebra_kp.experiments.plots import draw_plots
from vertebra_kp.experiments.study import Settings, read_study
from vertebra_kp.experiments.table import table, variants_of

STUDY = """
base: ../base.yaml
overrides: [data.phantom.films=8]
seeds: [0, 1, 5]
budget: {minutes: 3, hardware: 2 cores}
baseline: plain
variants:
  plain: ["codec.sigma=1.5"]
  wide: ["codec.sigma=2.5"]
measured:
  argmax: ["codec.decode=argmax"]
"""
BASE = "name: base\ntrain: {phases: [{name: all, epochs: 1}], batch_size: 4, accumulate: 2}\n"
FILMS = ("a", "b, with a comma", "c")


@pytest.fixture(autouse=True)
def no_network_is_built(monkeypatch):
    monkeypatch.setattr("vertebra_kp.experiments.collect._cost", lambda *_: (25_316_000, 1_234_567_000))


@pytest.fixture
def folder(tmp_path):
    return new_study(tmp_path / "01_first")


def new_study(folder, text=STUDY):
    folder.mkdir()
    (folder.parent / "base.yaml").write_text(BASE)
    (folder / "study.yaml").write_text(text)
    return folder


def finish(run, errors=(1.0, 2.0, 3.0), *, seconds=10.0, old=False):
    """What a finished run leaves; ``old`` leaves what runs left before films, versions and memory were kept."""
    run.run_dir.mkdir(parents=True, exist_ok=True)
    figures = {"mre_px": float(np.mean(errors)), "median_px": errors[0] / 2, "level_shift_rate": 0.25}
    report = {"steps": 4, "training_seconds": seconds, "validation": figures}
    if not old:
        report |= {
            "peak_memory_mb": 812,
            "version": "0123456789ab",
            "hardware": {"device": "cpu", "name": "Some CPU", "threads": 2},
        }
        rows = "".join(f'"{name}",{error!r}\n' for name, error in zip(FILMS, errors, strict=True))
        (run.run_dir / "films.csv").write_text(f"id,mre_px\n{rows}")
    if run.trains:
        save_config(run.settings.config, run.run_dir / "config.yaml")
    (run.run_dir / "metrics.json").write_text(json.dumps(report if run.trains else figures))


def finish_all(study, errors_of):
    for run in study.planned:
        finish(run, errors_of(run))
        record(study, run)


def test_a_study_plans_every_variant_with_every_seed_and_measures_last(folder):
    study = read_study(folder)
    trained = [(variant, seed) for seed in (0, 1, 5) for variant in ("plain", "wide")]
    assert [run.key for run in study.planned] == [*trained, *(("argmax", seed) for seed in (0, 1, 5))]
    config = study.run("wide", 5).settings.config
    assert (config.codec.sigma, config.train.seed, config.data.phantom.films) == (2.5, 5, 8)
    measured = study.run("argmax", 1)
    assert measured.checkpoint == folder / "runs" / "plain-1" / "checkpoints" / "best.pt"
    assert measured.settings.config.codec.decode == "argmax"
    assert measured.settings.trained == study.run("plain", 1).settings.config
    with pytest.raises(UserError, match="no run of variant wide with seed 2; variants: plain, wide, argmax"):
        study.run("wide", 2)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds:", "sedes:", "sedes"),
        ("baseline: plain", "baseline: other", "other is none of the variants"),
        ("sigma=2.5", "sigma=1.5", "variant wide equals the baseline plain"),
        ("argmax: [", "wide: [", "wide is in variants and in measured"),
        ("codec.decode=argmax", "codec.decode=soft_argmax", "variant argmax equals the baseline plain"),
        (
            "codec.decode=argmax",
            "codec.sigma=3",
            "measured.argmax: codec.sigma: the network was trained",
        ),
        ("codec.decode=argmax", "codec.deocde=dark", "did you mean codec.decode"),
        ("[0, 1, 5]", "[0, 1, 0]", "names one twice"),
        ("minutes: 3", "minutes: 0", "budget.minutes"),
        ('  wide: ["codec.sigma=2.5"]\nmeasured:\n  argmax: ["codec.decode=argmax"]\n', "", "the only variant"),
    ],
)
def test_mistakes_in_a_study_file_are_named(folder, old, new, told):
    assert old in STUDY
    (folder / "study.yaml").write_text(STUDY.replace(old, new))
    with pytest.raises(UserError, match=told):
        read_study(folder)


def test_settings_keep_their_hash_under_another_name_and_on_another_machine(folder):
    config = read_study(folder).run("plain", 0).settings.config
    data = config.data.model_copy(update={"workers": 7})
    moved = config.model_copy(update={"name": "other", "data": data})
    assert Settings(moved).hash == Settings(config).hash
    reseeded = config.model_copy(update={"train": config.train.model_copy(update={"seed": 9})})
    assert Settings(reseeded).hash != Settings(config).hash
    assert Settings(config, trained=config).hash != Settings(config).hash  # measured is not trained
    assert Settings.from_json(Settings(config, trained=reseeded).to_json()).hash == Settings(config, reseeded).hash


def test_a_finished_run_is_collected_from_its_folder_once(folder):
    study = read_study(folder)
    finish(study.run("plain", 1), (1.0, 2.0, 4.5), seconds=16.0)
    assert [run.key for run in collect(study)] == [("plain", 1)]
    assert collect(study) == []
    assert ("plain", 1) not in [run.key for run in missing(study)]
    assert len(missing(study)) == 8
    (entry,) = Ledger(folder).entries()
    assert entry.films == {"a": 1.0, "b, with a comma": 2.0, "c": 4.5}
    assert entry.row["images_per_second"] == "2.0"  # 4 steps of 2 batches of 4 films in 16 s
    assert entry.row["hardware"] == "Some CPU, 2 threads"
    assert (entry.row["parameters"], entry.row["gmacs"]) == ("25316000", "1.2346")
    assert entry.row["config"] == study.run("plain", 1).settings.hash == entry.settings.hash


def test_a_run_of_an_earlier_version_is_collected_with_empty_cells(folder):
    study = read_study(folder)
    finish(study.run("wide", 0), old=True)
    collect(study)
    (entry,) = Ledger(folder).entries()
    assert (entry.row["version"], entry.row["peak_memory_mb"], entry.row["hardware"], entry.films) == (
        "",
        "",
        "",
        {},
    )
    assert entry.row["config"]


def test_a_row_of_before_settings_were_kept_is_completed_from_its_folder(folder):
    (folder / "results.csv").write_text("variant,seed,mre_px,median_px\nwide,0,2.0,0.5\n")
    study = read_study(folder)
    finish(study.run("wide", 0))
    assert [run.key for run in collect(study)] == [("wide", 0)]
    (entry,) = Ledger(folder).entries()
    assert entry.settings.hash == study.run("wide", 0).settings.hash
    assert list(entry.films) == list(FILMS)


def test_rows_of_before_the_ledger_had_more_columns_stay_and_give_a_table(folder):
    rows = ["variant,seed,mre_px,median_px,level_shift_rate,steps,seconds,images_per_second"]
    errors = {("plain", 0): 1.0, ("plain", 1): 2.0, ("plain", 5): 3.0}
    errors |= {("wide", 0): 1.4, ("wide", 1): 2.5, ("wide", 5): 3.6}
    rows += [f"{variant},{seed},{error},1,0.0,4,10.0,3.2" for (variant, seed), error in errors.items()]
    (folder / "results.csv").write_text("\n".join(rows) + "\n")
    study = read_study(folder)
    refuse_stale(study)  # nobody can tell: they count as right
    # Differences 0.4, 0.5, 0.6: mean 0.5, standard error 0.1 / sqrt(3); two comparisons share 5 %.
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 2) * 0.1 / 3**0.5
    text = table(study)
    assert f"| +0.500 ({0.5 - half:+.3f} to {0.5 + half:+.3f}) | worse |" in text
    assert "| `plain` | 3 | 2.000 ± 1.000 | 1.000 | 0.000 | baseline |" in text
    assert "intervals over seeds only" in text
    finish(study.run("argmax", 0))
    record(study, study.run("argmax", 0))
    with (folder / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == list(COLUMNS)
        assert [float(row["mre_px"]) for row in reader] == [*errors.values(), 2.0]


def test_the_table_compares_by_film_and_seed_and_shares_out_five_percent(folder):
    study = read_study(folder)
    seed_part, film_part = {0: -0.1, 1: 0.0, 5: 0.1}, (0.2, 0.5, 0.8)
    plain = (1.0, 2.0, 3.0)
    by_variant = {"plain": 0.0, "wide": 1.0, "argmax": 1.0}

    def errors_of(run):
        factor = by_variant[run.variant]
        return [
            error + factor * (part + seed_part[run.seed]) for error, part in zip(plain, film_part, strict=True)
        ]

    finish_all(study, errors_of)
    _, wide, _ = variants_of(study)
    # No rest at all: mean squares of three seeds and of three films, over 9.
    seeds, films = 3 * 2 * 0.1**2 / 2, 3 * 2 * 0.3**2 / 2
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 2) * ((seeds + films) / 9) ** 0.5
    assert (wide.difference.mean, wide.difference.low) == pytest.approx((0.5, 0.5 - half), abs=1e-3)
    text = table(study)
    assert "97.5 % intervals, so that all 2 hold together with 95 % (Bonferroni)" in text
    assert "intervals over films and seeds (crossed random effects)" in text
    assert "Measured on the baseline's checkpoints, nothing was trained: `argmax`." in text
    assert "| `argmax` | 3 |" in text
    assert text.count("\\*") == 1  # the note on the budget; no run was over it


def test_one_seed_says_that_it_tells_nothing_of_other_seeds(folder):
    (folder / "study.yaml").write_text(STUDY.replace("[0, 1, 5]", "[3]"))
    study = read_study(folder)
    finish_all(study, lambda run: (1.0, 2.0, 3.0) if run.variant == "plain" else (1.2, 2.3, 3.1))
    text = table(study)
    assert "films only: one seed says nothing about other seeds" in text
    assert "| `plain` | 1 | 2.000 |" in text


def test_a_film_that_one_run_could_not_measure_is_left_out_everywhere(folder):
    study = read_study(folder)
    finish_all(study, lambda run: (1.0, 2.0, 3.0) if run.variant == "plain" else (1.5, 2.5, 90.0))
    films = folder / "films.csv"
    films.write_text(films.read_text().replace("90.0", "", 1))
    wide = variants_of(study)[1]
    assert wide.difference.mean == pytest.approx(0.5)


def test_a_run_over_its_budget_is_marked(folder):
    study = read_study(folder)
    for run in study.planned:
        finish(run, seconds=190.0 if run.key == ("wide", 1) else 60.0)
        record(study, run)
    lines = table(study).splitlines()
    assert "| 1.7\\* |" in lines[3]  # (60 + 190 + 60) / 3 seconds
    assert "| 1.0 |" in lines[2]


def test_the_table_is_the_same_whatever_the_order_in_which_runs_ended(folder, tmp_path):
    other = new_study(tmp_path / "02_other")
    texts = []
    for place, order in ((folder, 1), (other, -1)):
        study = read_study(place)
        for run in study.planned[::order]:
            finish(run, [run.seed + len(run.variant) * error for error in (1.0, 1.1, 1.3)])
            record(study, run)
        texts.append(table(study))
    assert texts[0] == texts[1]


def test_an_edited_study_refuses_its_old_rows_and_moves_them_out_when_asked(folder):
    study = read_study(folder)
    finish_all(study, lambda run: (1.0, 2.0, 3.0))
    (folder / "study.yaml").write_text(STUDY.replace("sigma=2.5", "sigma=3.5"))
    study = read_study(folder)
    with pytest.raises(UserError) as refused:
        refuse_stale(study)
    assert "wide, seed 5: codec.sigma 2.5 in the row, 3.5 now" in str(refused.value)
    assert all(way in str(refused.value) for way in ("move stale results to", "keep stale rows"))
    refuse_stale(study, keep_rows=True)
    assert "Of other settings" in table(study)
    assert move_stale(study) == [("wide", 0), ("wide", 1), ("wide", 5)]
    refuse_stale(study)
    assert {run.key for run in missing(study)} == {("wide", 0), ("wide", 1), ("wide", 5)}
    assert [entry.key for entry in Ledger(folder / "stale").entries()] == [("wide", 0), ("wide", 1), ("wide", 5)]
    assert (folder / "stale" / "runs" / "wide-5" / "metrics.json").is_file()
    assert not (folder / "runs" / "wide-5").exists()


def test_what_was_measured_is_stale_with_the_checkpoint_that_it_measured(folder):
    finish_all(read_study(folder), lambda run: (1.0, 2.0, 3.0))
    (folder / "study.yaml").write_text(STUDY.replace("sigma=1.5", "sigma=1.7"))
    assert {variant for variant, _ in stale_rows(read_study(folder))} == {"plain", "argmax"}


def test_a_setting_that_is_new_with_its_default_makes_no_row_stale(folder):
    study = read_study(folder)
    finish_all(study, lambda run: (1.0, 2.0, 3.0))
    configs = folder / "configs.json"
    documents = json.loads(configs.read_text())
    for document in documents.values():
        for config in (document.get("trained", document), document.get("measured", document)):
            config["augment"].pop("cutout", None)  # as if written before there was any
    configs.write_text(json.dumps(documents))
    assert stale_rows(study) == {}


def test_a_run_folder_of_other_settings_without_a_row_is_refused_too(folder):
    finish(read_study(folder).run("wide", 1))
    (folder / "study.yaml").write_text(STUDY.replace("sigma=2.5", "sigma=3.5"))
    study = read_study(folder)
    assert collect(study) == []
    with pytest.raises(UserError, match=r"wide, seed 1: .*wide-1 holds a run of other settings"):
        refuse_stale(study, keep_rows=True)
    assert move_stale(study) == [("wide", 1)]
    refuse_stale(study)


def test_runs_that_a_study_beside_this_one_has_finished_are_taken_over(folder, tmp_path):
    first = read_study(folder)
    for run in first.planned:
        if run.seed < 5:
            finish(run, (1.0, 2.0, 3.0 + run.seed))
            record(first, run)
    text = STUDY.replace("plain", "reference").replace("sigma=2.5", "sigma=9")
    second = read_study(new_study(tmp_path / "02_second", text))
    taken = {(run.key, source) for run, source in adopt(second)}
    keys = [("reference", 0), ("reference", 1), ("argmax", 0), ("argmax", 1)]
    assert taken == {(key, folder) for key in keys}
    entries = {entry.key: entry for entry in Ledger(second.folder).entries()}
    assert entries["reference", 1].films == {"a": 1.0, "b, with a comma": 2.0, "c": 4.0}
    assert entries["reference", 1].row["version"] == "0123456789ab"
    link = second.run("reference", 1).run_dir
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert (link / "metrics.json").samefile(folder / "runs" / "plain-1" / "metrics.json")
    assert stale_rows(second) == {}
    assert adopt(second) == []


def test_moving_out_a_run_that_was_taken_over_leaves_it_to_its_own_study(folder, tmp_path):
    finish_all(read_study(folder), lambda run: (1.0, 2.0, 3.0))
    other = new_study(tmp_path / "02_second")
    adopt(read_study(other))
    (other / "study.yaml").write_text(STUDY.replace("sigma=2.5", "sigma=9"))
    move_stale(read_study(other))
    assert not (other / "runs" / "wide-0").exists()
    assert (folder / "runs" / "wide-0" / "metrics.json").is_file()


def test_plots_are_drawn_small_and_only_of_what_is_there(folder):
    study = read_study(folder)
    assert draw_plots(study) == []
    finish_all(study, lambda run: [error + 0.1 * run.seed + len(run.variant) / 10 for error in (1.0, 2.0, 3.0)])
    pictures = draw_plots(study)
    assert [path.name for path in pictures] == ["differences.png", "errors.png"]
    assert all(2_000 < path.stat().st_size < 60_000 for path in pictures)


def test_a_checkpoint_that_is_to_be_measured_and_is_not_there_is_trained_again(folder):
    study = read_study(folder)
    finish_all(study, lambda run: (1.0, 2.0, 3.0))
    assert to_run(study) == []
    Ledger(folder).take_out([("argmax", 1)])  # as when the committed rows lack a new way of measuring
    assert [run.key for run in to_run(study)] == [("plain", 1), ("argmax", 1)]
    checkpoint = study.run("argmax", 1).checkpoint
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert [run.key for run in to_run(study)] == [("argmax", 1)]
