"""Whether the films of one patient name their vertebrae alike: what labels of levels are worth, without a truth.

Anatomy does not change between two films of a patient. Where their labels call the same vertebra by different
names, one of them is wrong, and no network can agree with both.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vertebra_kp.audit.curved_reformation import Apart, Straightened, levels_apart, straighten
from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import apply_affine, scale
from vertebra_kp.data.films import read_kept
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.record import Record
from vertebra_kp.evaluation.metrics import SHIFTED_ABOVE, GroupedSample

FILM_SIZE = (192, 96)  # height and width whose pixels are kept: a whole spine's level is a dozen of them
MOST_PAIRS = 12  # of a patient, unless told otherwise
LIKELY_WRONG = 0.6  # severity of a finding: of two films one is


def straighten_film(record: Record, schema: Schema) -> Straightened | None:
    """None where the film has no labels, or too few vertebrae of it are labelled to tell the spine's line.

    Raises FilmError where it cannot be read.
    """
    if record.points_xy_image is None or record.states is None:
        return None
    image, size = read_kept(record.image_path, FILM_SIZE)
    to_kept = scale(image.shape[1] / size[1], image.shape[0] / size[0])
    labelled = (record.states == State.LABELLED)[..., None]
    return straighten(image, apply_affine(to_kept, np.where(labelled, record.points_xy_image, np.nan)))


def pairs_of(records: Sequence[Record], most: int) -> list[tuple[Record, Record]]:
    """Films of a patient two by two, drawn by lot: ``most`` pairs of each patient, or one for each film."""
    films = defaultdict(list)
    for record in records:
        films[record.group].append(record)
    chosen = []
    for group in films.values():
        n = len(group)
        # Neighbours on a ring come first, so that every film takes part.
        ring = np.random.default_rng(0).permutation(n)
        every = [(i, (i + step) % n) for step in range(1, n // 2 + 1) for i in range(n)]
        pairs = dict.fromkeys(tuple(sorted((int(ring[i]), int(ring[j])))) for i, j in every)
        chosen += [(group[i], group[j]) for i, j in sorted(list(pairs)[: max(most, n)])]
    return chosen


def compare_films(
    records: Sequence[Record], schema: Schema, most: int = MOST_PAIRS
) -> list[tuple[Record, Record, Apart]]:
    """Films of one patient, two by two, ``most`` pairs of each; what cannot be read or compared is left out."""

    def spine_of(record: Record) -> Straightened | None:
        try:
            return straighten_film(record, schema)
        except FilmError:
            return None

    chosen = pairs_of(records, most)
    films = {record.id: record for pair in chosen for record in pair}
    straight = {name: spine_of(film) for name, film in tqdm(films.items(), "straightening", leave=False)}
    compared = []
    for first, second in tqdm(chosen, "comparing names of levels", unit="pair", leave=False):
        one, other = straight[first.id], straight[second.id]
        if one is not None and other is not None and (apart := levels_apart(one, other)) is not None:
            compared.append((first, second, apart))
    return compared


def level_findings(records: Sequence[Record], schema: Schema) -> list[Finding]:
    """Films whose vertebrae another film of the patient clearly calls by other names: one of the two is wrong.

    What is clear was found on whole spines from the front; elsewhere look twice.
    """
    findings = []
    names_in: dict[str, dict[str, int]] = defaultdict(dict)
    for first, second, apart in compare_films(records, schema):
        if apart.clear:
            names_in[first.id][second.id] = round(apart.levels)
            names_in[second.id][first.id] = -round(apart.levels)
    middle = schema.num_levels // 2
    for film, others in names_in.items():
        apart_from = {other: levels for other, levels in others.items() if levels}
        if apart_from:
            names = ", ".join(
                f"{schema.levels[middle - levels]} in {other}" for other, levels in apart_from.items()
            )
            agree = len(others) - len(apart_from)
            told = f"its {schema.levels[middle]} is {names}, of the same patient; {agree} more agree with it"
            findings.append(Finding(film, "levels_named_apart", "", LIKELY_WRONG, told))
    return findings


@dataclass(frozen=True)
class Pair:
    """Two films of a patient. ``by_labels`` and ``by_network`` are ``Apart.levels`` by the names of each; None
    where the network's are not told."""

    group: str
    first: str
    second: str
    by_labels: float
    correlation: float
    better: float
    clear: bool
    by_network: float | None

    @property
    def named_apart(self) -> bool:
        return abs(self.by_labels) > SHIFTED_ABOVE


def pair_named(first: Record, second: Record, apart: Apart, shifts: Mapping[str, float]) -> Pair:
    """``shifts`` of films by id: how many levels a network sits too low on them, by their labels."""
    by_network = None
    if first.id in shifts and second.id in shifts:
        # A network that sits d levels too low names every vertebra by the name d levels above its label's.
        by_network = round(apart.levels - shifts[first.id] + shifts[second.id], 3)
    told = apart.levels, round(apart.correlation, 4), round(apart.better, 4), apart.clear
    return Pair(first.group, first.id, second.id, *told, by_network)


def read_shifts(path: Path) -> dict[str, float]:
    """``shift_levels`` of every film that has one, by id, from the ``films.csv`` of an evaluation.

    Raises UserError for a table of another kind.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"id", "shift_levels"} <= rows[0].keys():
        raise UserError(f"{path}: has no columns id and shift_levels; give films.csv of an evaluation")
    try:
        return {row["id"]: float(row["shift_levels"]) for row in rows if row["shift_levels"]}
    except ValueError as error:
        raise UserError(f"{path}: shift_levels must be a number or empty ({error})") from None


@dataclass(frozen=True)
class Share:
    """``value`` in 0..1 of ``number`` pairs or films, with its 95 % ``interval`` over patients (None for one)."""

    name: str
    value: float
    interval: list[float] | None
    number: int


def shares_of(pairs: Sequence[Pair], shifts: Mapping[str, float]) -> list[Share]:
    """What clear pairs tell of labels and, where ``shifts`` tells its names, of the network."""
    clear = [pair for pair in pairs if pair.clear]
    told = [(pair.group, abs(pair.by_network) > SHIFTED_ABOVE) for pair in clear if pair.by_network is not None]
    alike, unlike = ({} for _ in range(2))
    for pair in clear:
        films = dict.fromkeys((pair.first, pair.second), pair.group)
        (unlike if pair.named_apart else alike).update(films)
    confirmed = {film: group for film, group in alike.items() if film not in unlike}

    def off(films: Mapping[str, str]) -> list[tuple[str, bool]]:
        return [(group, abs(shifts[film]) > SHIFTED_ABOVE) for film, group in films.items() if film in shifts]

    found = [
        _share("pairs that the labels name a level or more apart", [(p.group, p.named_apart) for p in clear]),
        _share("pairs that the network names a level or more apart", told),
        _share("films that the network calls otherwise than their label", off(alike | unlike)),
        _share("  of those that agree with every film clearly compared", off(confirmed)),
        _share("  of those that another film contradicts", off(unlike)),
    ]
    return [share for share in found if share is not None]


def _share(name: str, cases: Sequence[tuple[str, bool]]) -> Share | None:
    """Of cases (patient, whether it is so)."""
    if not cases:
        return None
    sample = GroupedSample([group for group, _ in cases], resamples=1000, seed=0)
    value, interval = sample.mean([so for _, so in cases], range(len(cases)))
    assert value is not None
    return Share(name, value, interval, len(cases))
