"""A study's figures by variant, and the Markdown table of them."""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.experiments.collect import stale_rows
from vertebra_kp.experiments.comparison import Interval, interval_of
from vertebra_kp.experiments.ledger import Entry, Ledger
from vertebra_kp.experiments.study import Study

LEVEL = 0.95  # of all intervals of a study together
OVER_BUDGET = "\\*"
HEADER = (
    *("variant", "seeds", "mean error, px", "median, px", "level shifts"),
    *("difference, px", "verdict", "parameters, M", "GMACs", "minutes", "images/s", "memory, MB"),
)


@dataclass(frozen=True)
class Variant:
    """What is known of one variant, by finished seed in ascending order."""

    name: str
    entries: dict[int, Entry]
    is_baseline: bool
    difference: Interval | None
    """To the baseline; None where nothing can be compared."""

    def figures(self, column: str) -> list[float]:
        """Those of the rows that have one."""
        return [float(entry.row[column]) for entry in self.entries.values() if entry.row.get(column)]


def interval_level(study: Study) -> float:
    """Of each interval, so that all of a study hold together with LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / study.comparisons


def variants_of(study: Study) -> list[Variant]:
    """The variants of which a run is finished, in the order of ``study.yaml``."""
    by_key = {entry.key: entry for entry in Ledger(study.folder).entries()}
    found, seeds, baseline = [], sorted(study.file.seeds), study.file.baseline
    for name in study.names:
        entries = {seed: by_key[name, seed] for seed in seeds if (name, seed) in by_key}
        pairs = [(by_key[baseline, seed], entries[seed]) for seed in entries if (baseline, seed) in by_key]
        is_baseline = name == baseline
        interval = None if is_baseline or not pairs else interval_of(_differences(pairs), interval_level(study))
        if entries:
            found.append(Variant(name, entries, is_baseline, interval))
    return found


def _differences(pairs: list[tuple[Entry, Entry]]) -> np.ndarray:
    """``[seeds, films]`` of (baseline, variant): of the films that all runs have measured.

    ``[seeds, 1]`` of the runs' own mean errors where a row has no films.
    """
    both = [entry for pair in pairs for entry in pair]
    films = [name for name in both[0].films if all(entry.films.get(name) is not None for entry in both)]
    if not films:
        return np.array([[float(one.row["mre_px"]) - float(base.row["mre_px"])] for base, one in pairs])
    errors = np.array([[entry.films[name] for name in films] for entry in both], float)  # base, one, base, ...
    return errors[1::2] - errors[::2]


def table(study: Study) -> str:
    """Markdown: a row per variant, then what there is to know about the figures.

    All but the last three columns are the same however often the study was interrupted.
    """
    variants = variants_of(study)
    rows = [HEADER, ("---",) * len(HEADER), *(_cells(study, variant) for variant in variants)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {note}" for note in _notes(study, variants)]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cells(study: Study, variant: Variant) -> tuple[str, ...]:
    errors, minutes = variant.figures("mre_px"), [seconds / 60 for seconds in variant.figures("seconds")]
    budget, interval = study.file.budget, variant.difference
    difference, verdict = "baseline" if variant.is_baseline else "–", "–"
    if interval is not None:
        difference = f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
        verdict = interval.verdict
    over = budget is not None and any(value > budget.minutes for value in minutes)
    return (
        f"`{variant.name}`",
        str(len(variant.entries)),
        _mean(errors, "{:.3f}") + (f" ± {np.std(errors, ddof=1):.3f}" if len(errors) > 1 else ""),
        _mean(variant.figures("median_px"), "{:.3f}"),
        _mean(variant.figures("level_shift_rate"), "{:.3f}"),
        difference,
        verdict,
        _mean([count / 1e6 for count in variant.figures("parameters")], "{:.2f}"),
        _mean(variant.figures("gmacs"), "{:.2f}"),
        _mean(minutes, "{:.1f}") + (OVER_BUDGET if over else ""),
        _mean(variant.figures("images_per_second"), "{:.1f}"),
        _mean(variant.figures("peak_memory_mb"), "{:.0f}"),
    )


def _mean(values: list[float], form: str) -> str:
    return form.format(np.mean(values)) if values else "–"


def _notes(study: Study, variants: list[Variant]) -> list[str]:
    shown = [entry for variant in variants for entry in variant.entries.values()]
    notes = [
        "Mean error: of all corners, mean over seeds ± standard deviation. Differences: of the films' own means, "
        "every film counting the same; variant minus " + _how(study, variants)
    ]
    if budget := study.file.budget:
        marked = f"{OVER_BUDGET} a run trained longer than the budget"
        notes.append(f"Budget: {budget.minutes:g} minutes of training a run on {budget.hardware} ({marked}).")
    if study.file.measured:
        names = ", ".join(f"`{name}`" for name in study.file.measured)
        notes.append(f"Measured on the baseline's checkpoints, nothing was trained: {names}.")
    if lacking := len(study.planned) - len(shown):
        notes.append(f"Not finished: {lacking} of {len(study.planned)} runs.")
    if stale := stale_rows(study):
        runs = "; ".join(f"{name}, seed {seed} ({what})" for (name, seed), what in stale.items())
        notes.append(f"Of other settings than `study.yaml` and the defaults now say: {runs}.")
    for column, what in (("version", "versions of the code"), ("hardware", "machines")):
        if len(values := sorted({str(entry.row[column]) for entry in shown if entry.row.get(column)})) > 1:
            notes.append(f"Runs of {len(values)} {what}: {', '.join(values)}.")
    return notes


def _how(study: Study, variants: list[Variant]) -> str:
    """How the differences were made, as the end of a sentence."""
    level = f"{100 * interval_level(study):.4g} % intervals"
    if study.comparisons > 1:
        level += f", so that all {study.comparisons} hold together with {100 * LEVEL:.0f} % (Bonferroni)"
    ways = {variant.difference.over for variant in variants if variant.difference}
    samples = {
        "films and seeds": "paired by film and seed, intervals over films and seeds (crossed random effects)",
        "films": "paired by film, intervals over films only: one seed says nothing about other seeds",
        "seeds": "paired by seed, intervals over seeds only, as there are no errors by film",
    }
    how = " / ".join(samples[way] for way in sorted(ways)) or "nothing to compare yet"
    return f"`{study.file.baseline}`, {how}; {level}. Less is better."
