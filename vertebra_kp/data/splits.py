"""Which films train and which are kept apart: committed files of ids, by group, never by film.

A split file is JSON: ``splits`` (name -> ids), ``groups`` (id -> patient or case, may be empty) and
``left_out`` (reason -> ids).
"""

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import fault_of, read_json
from vertebra_kp.data.committed import committed_or_own
from vertebra_kp.data.record import Record
from vertebra_kp.data.strata import stratum

COMMITTED = Path(__file__).parent / "split_files"
NAMED = 3  # ids that an error names before it says how many more there are


class SplitError(UserError):
    """A split file that cannot be used; the message names file or split, fault and remedy."""


class SplitFile(BaseModel):
    """Ids of every split. ``hash`` (SHA-256 of the content) tells two versions apart in a run's results."""

    model_config = ConfigDict(frozen=True)

    source: str
    splits: dict[str, list[str]]
    groups: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    hash: str


def load_split_file(name_or_path: str) -> SplitFile:
    """A committed split file by its name (``aasce``), or any by its path.

    Raises SplitError when there is none, when an id stands twice, or a group in two splits; UserError for a file
    that is no JSON.
    """
    try:
        path = committed_or_own(COMMITTED, name_or_path)
    except FileNotFoundError as error:
        raise SplitError(f"split_file {error}; make one (make_splits)") from error
    content = read_json(path, dict[str, Any], remedy="make the split file anew")
    try:
        return split_file_from(content)
    except ValueError as error:
        raise SplitError(f"{path}: not a usable split file: {fault_of(error)}") from error


def split_hash(name_or_path: str | None) -> str | None:
    """Which version of a split file a result rests on."""
    return None if name_or_path is None else load_split_file(name_or_path).hash


def split_file_from(content: Mapping) -> SplitFile:
    """A split file from its JSON content, checked."""
    text = json.dumps(content, sort_keys=True)  # the same hash whatever the layout of the file
    split_file = SplitFile.model_validate({**content, "hash": hashlib.sha256(text.encode()).hexdigest()})
    parts = {**split_file.splits, **{f"left_out {why}": ids for why, ids in split_file.left_out.items()}}
    if empty := [name for name, ids in split_file.splits.items() if not ids]:
        raise SplitError(f"{_some(empty)} without a film; give it some, or take it out")
    times = Counter(id for ids in parts.values() for id in ids)
    if twice := [id for id, count in times.items() if count > 1]:
        raise SplitError(f"{_some(twice)} listed more than once; keep each id in one split")
    if split_file.groups and (alone := [id for id in times if id not in split_file.groups]):
        raise SplitError(f"{_some(alone)} without a group; give every id one under groups")
    _check_groups(split_file.splits, split_file.groups)
    return split_file


def select(records: list[Record], split_file: SplitFile, names: list[str]) -> list[Record]:
    """The records of the named splits, in their order, with the split file's groups where it has any.

    Raises SplitError for an unknown split, for ids without a record or without a film on disk, and for a
    group that stands in two splits of the file.
    """
    if unknown := [name for name in names if name not in split_file.splits]:
        raise SplitError(f"no split {', '.join(unknown)}; the file has {', '.join(split_file.splits)}")
    records = [replace(record, group=split_file.groups.get(record.id, record.group)) for record in records]
    _check_groups(split_file.splits, {record.id: record.group for record in records})
    by_id = {record.id: record for record in records}
    wanted = {id for name in names for id in split_file.splits[name]}
    if missing := sorted(wanted - by_id.keys()):
        raise SplitError(
            f"splits {', '.join(names)} name films that the data set does not hold: {_some(missing)}; "
            "check data.root, or complete the data set"
        )
    if gone := sorted(id for id in wanted if not by_id[id].image_path.is_file()):
        raise SplitError(f"films of splits {', '.join(names)} are not on disk: {_some(gone)}; restore them")
    return [record for record in records if record.id in wanted]


def unite_groups(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group of every id after the groups of each pair of ids became one, named by all that it unites."""
    from scipy.cluster.hierarchy import DisjointSet  # here: it takes long to import

    pairs = list(pairs)
    if unknown := sorted({id for pair in pairs for id in pair} - groups.keys()):
        raise SplitError(f"pairs name films that the data set does not hold: {_some(unknown)}; correct them")
    united = DisjointSet(groups.values())
    for first, second in pairs:
        united.merge(groups[first], groups[second])
    return {id: "+".join(sorted(united.subset(group))) for id, group in groups.items()}


def make_splits(
    source: str,
    records: Sequence[Record],
    schema: Schema,
    *,
    pairs: Iterable[tuple[str, str]] = (),
    left_out: Path | None = None,
    folds: int = 5,
    calibration: int | None = None,
) -> dict[str, Any]:
    """Content of a split file: ``folds`` of equal size and a part of ``calibration`` films.

    ``pairs`` of ids show the same patient; the file ``left_out`` has ids that stand in no split, one a line.
    Without ``calibration`` its part has 40 films, at most a tenth. Raises SplitError where films are too few.
    """
    groups = unite_groups({record.id: record.group for record in records}, pairs)
    out = set() if left_out is None else set(left_out.read_text(encoding="utf-8").split("\n")) - {""}
    used = {id: group for id, group in groups.items() if id not in out}
    strata = {record.id: stratum(record, schema) for record in records if record.id in used}
    if calibration is None:
        calibration = min(40, len(used) // 10)
    fold_size = (len(used) - calibration) / folds
    if fold_size < 1:
        raise SplitError(
            f"{len(used)} images: too few for {folds} folds and {calibration} images of calibration; lower them"
        )
    sizes = {f"fold{i}": fold_size for i in range(folds)} | ({"calibration": calibration} if calibration else {})
    content = {
        "source": source,
        "splits": deal(used, strata, sizes),
        "left_out": {left_out.stem: sorted(out)} if left_out and out else {},
        "groups": groups,
    }
    split_file_from(content)  # what cannot be loaded is not written
    return content


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Ids in the first two columns of a CSV file with a header; raises SplitError that names a line without."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))[1:]
    except (ValueError, csv.Error) as error:
        raise SplitError(f"{path}: not readable as CSV in UTF-8 ({error}); save it as such") from error
    for number, line in enumerate(lines, start=2):
        if line and len(line) < 2:
            raise SplitError(f"{path}: line {number} has one column, {line[0]!r}; name two images in each")
    return [(line[0], line[1]) for line in lines if line]


def deal(groups: Mapping[str, str], strata: Mapping[str, int], sizes: Mapping[str, float]) -> dict[str, list]:
    """Ids of each split: whole groups, dealt so that every split gets its share of every stratum.

    ``sizes`` are the wanted numbers of films. Groups go, largest first, to the split whose lack of their
    strata is greatest (iterative stratification, Sechidis et al. 2011). No draws: same in, same out.
    """
    members = defaultdict(list)
    for id in sorted(groups):
        members[groups[id]].append(id)
    films = Counter(strata[id] for id in groups)
    lack = {
        name: {stratum: count * size / sum(sizes.values()) for stratum, count in films.items()}
        for name, size in sizes.items()
    }
    splits: dict[str, list[str]] = {name: [] for name in sizes}
    for group in sorted(members, key=lambda group: (-len(members[group]), group)):
        counts = Counter(strata[id] for id in members[group])
        name = max(splits, key=lambda name: _gain(lack[name], counts))
        splits[name] += members[group]
        for band, count in counts.items():
            lack[name][band] -= count
    return {name: sorted(ids) for name, ids in splits.items()}


def _gain(lack: Mapping[int, float], counts: Mapping[int, int]) -> float:
    """Fall of the squared lack, per stratum and of the split as a whole, when ``counts`` films come in."""
    total, size = sum(lack.values()), sum(counts.values())
    by_stratum = sum(2 * lack[stratum] * count - count**2 for stratum, count in counts.items())
    return by_stratum + 2 * total * size - size**2


def _check_groups(splits: Mapping[str, list[str]], groups: Mapping[str, str]) -> None:
    places = defaultdict(set)
    for name, ids in splits.items():
        for id in ids:
            if id in groups:
                places[groups[id]].add(name)
    if shared := [
        f"{group} in {' and '.join(sorted(names))}" for group, names in places.items() if len(names) > 1
    ]:
        raise SplitError(
            f"groups in two splits: {_some(shared)}; move each to one, films of a patient stay together"
        )


def _some(items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more
