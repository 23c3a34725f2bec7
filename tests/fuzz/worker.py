"""The process that fuzz cases run in: it may crash, hang or be killed, and has written what it was at.

    python worker.py FOLDER RESULTS SEED CASES [DONE [TARGET ...]]

``FOLDER`` is empty and its own. ``RESULTS`` gets a JSON line per target: how many cases were run, taken and
refused, and one example of each fault; before every case the state is in ``FOLDER/state.json``. ``CASES`` of each
reader of images or labels are run, a fifth of all others; ``DONE`` is a JSON of those that were, by target.
"""

import json
import os
import random
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from targets import READERS, TARGETS, files_of
from watch import Watch

STATE, CASE = "state.json", "case"


@dataclass
class Tally:
    """Of one target: ``faults`` holds, by kind, how often, and the first example's file (or words)."""

    target: str
    kind: str
    cases: int = 0
    taken: int = 0
    refused: int = 0
    faults: dict[str, list] = field(default_factory=dict)


def fuzz(name: str, cases: int, number: int, folder: Path, watch: Watch) -> Tally:
    target, tally = TARGETS[name], Tally(name, TARGETS[name].kind)
    sound = folder / name.replace("/", " ") / "sound"
    sound.mkdir(parents=True)
    target.made(sound)
    wholes = {path: path.read_bytes() for path in files_of(target, sound)}
    files = list(wholes)
    there, state = set(sound.rglob("*")), folder / STATE

    def keep(outcome, example: str | Path) -> None:
        tally.cases += 1
        if outcome.fault is None:
            tally.taken, tally.refused = tally.taken + (not outcome.refused), tally.refused + outcome.refused
            return
        if outcome.fault not in tally.faults:
            shown = example
            if isinstance(example, Path):
                shown = str(folder / f"fault {name} {len(tally.faults)}{example.suffix}".replace(" ", "_"))
                shutil.copy(example, shown)
            tally.faults[outcome.fault] = [0, shown, outcome.message]
        tally.faults[outcome.fault][0] += 1

    def one_file(data) -> None:
        path = files[data.draw(st.integers(0, len(files) - 1))]
        path.write_bytes(target.change(wholes[path], data))
        state.write_text(json.dumps({**asdict(tally), "at": str(path)}))
        try:
            keep(watch.run(lambda: target.read(path), sound), path)
        finally:
            for one, whole in wholes.items():  # a reader may mend a file, or fill a cache
                one.write_bytes(whole)
            for new in sorted(set(sound.rglob("*")) - there, reverse=True):
                shutil.rmtree(new) if new.is_dir() and not new.is_symlink() else new.unlink(missing_ok=True)

    def one_line(data) -> None:
        words = data.draw(target.words)
        state.write_text(json.dumps({**asdict(tally), "at": words}))
        os.chdir(sound)
        keep(watch.run(lambda: target.read(words), sound), " ".join(words)[:300])

    case = one_line if target.words is not None else one_file
    drawn = given(st.data())(case)
    quiet = settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(quiet(drawn))()
    os.chdir(folder)
    shutil.rmtree(sound.parent)
    return tally


def main() -> None:
    folder, results, number, cases = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    done = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}
    random.seed(0)
    watch = Watch()
    for name in sys.argv[6:] or TARGETS:
        wanted = cases if TARGETS[name].kind == READERS else -(-cases // 5)
        if (left := wanted - done.get(name, 0)) > 0:
            tally = fuzz(name, left, number, folder, watch)
            with results.open("a") as file:
                print(json.dumps(asdict(tally)), file=file, flush=True)


if __name__ == "__main__":
    main()
