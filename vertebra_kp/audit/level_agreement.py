"""Whether the images of one patient name their vertebrae alike: what labels of levels are worth, without a truth.

Anatomy does not change between two images of a patient. Where their labels call the same vertebra by different
names, one of them is wrong, and no network can agree with both.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vertebra_kp.audit.curved_reformation import LevelOffset, Reformation, level_offset, reformat
from vertebra_kp.audit.labels import Finding
from vertebra_kp.core.anatomy import Schema, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import read_csv
from vertebra_kp.core.geometry import apply_affine, scale
from vertebra_kp.data.films import read_kept
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.record import Record
from vertebra_kp.evaluation.metrics import SHIFTED_ABOVE, GroupedSample

FILM_SIZE = (192, 96)  # height and width whose pixels are kept: a whole spine's level is a dozen of them
MOST_PAIRS = 12  # of a patient, unless said otherwise
LIKELY_WRONG = 0.6  # severity of a finding: of two images one is


def reformation_of(record: Record, schema: Schema) -> Reformation | None:
    """None where the image cannot be read, has no labels, or too few to define the spine's line."""
    if record.points_xy_image is None or record.states is None:
        return None
    try:
        image, size = read_kept(record.image_path, FILM_SIZE)
    except FilmError:
        return None
    to_kept = scale(image.shape[1] / size[1], image.shape[0] / size[0])
    labelled = (record.states == State.LABELLED)[..., None]
    return reformat(image, apply_affine(to_kept, np.where(labelled, record.points_xy_image, np.nan)))


def pairs_of(records: Sequence[Record], most: int) -> list[tuple[Record, Record]]:
    """Images of a patient two by two, at random: ``most`` pairs of each patient, or one for each image."""
    films = defaultdict(list)
    for record in records:
        films[record.group].append(record)
    chosen = []
    for group in films.values():
        n = len(group)
        # Neighbours on a ring come first, so that every image takes part.
        ring = np.random.default_rng(0).permutation(n).tolist()
        every = [(ring[i], ring[(i + step) % n]) for step in range(1, n // 2 + 1) for i in range(n)]
        pairs = dict.fromkeys((min(pair), max(pair)) for pair in every)
        chosen += [(group[i], group[j]) for i, j in sorted(list(pairs)[: max(most, n)])]
    return chosen


def compare_films(
    records: Sequence[Record], schema: Schema, most: int = MOST_PAIRS
) -> list[tuple[Record, Record, LevelOffset]]:
    """Images of one patient, two by two, ``most`` pairs of each; what cannot be read or compared is left out."""
    chosen = pairs_of(records, most)
    films = {record.id: record for pair in chosen for record in pair}
    with ThreadPoolExecutor() as pool:
        reformed = pool.map(lambda film: reformation_of(film, schema), films.values())
        found = dict(zip(films, tqdm(reformed, "reformatting", len(films), leave=False), strict=True))

        def offset_of(pair: tuple[Record, Record]) -> LevelOffset | None:
            one, other = (found[record.id] for record in pair)
            return None if one is None or other is None else level_offset(one, other)

        offsets = pool.map(offset_of, chosen)
        told = tqdm(offsets, "comparing names of levels", len(chosen), unit="pair", leave=False)
        pairs = zip(chosen, told, strict=True)
        return [(first, second, offset) for (first, second), offset in pairs if offset is not None]


def level_findings(records: Sequence[Record], schema: Schema) -> list[Finding]:
    """Images whose vertebrae another image of the patient clearly calls by other names: one of the two is wrong.

    What is clear was found on whole spines from the front; check elsewhere.
    """
    findings = []
    offsets: dict[str, dict[str, int]] = defaultdict(dict)
    for first, second, offset in compare_films(records, schema):
        if offset.clear:
            offsets[first.id][second.id] = round(offset.levels)
            offsets[second.id][first.id] = -round(offset.levels)
    middle = schema.num_levels // 2
    for film, others in offsets.items():
        names = [f"{schema.levels[middle - by]} in {other}" for other, by in others.items() if by]
        if names:
            differs = f"its {schema.levels[middle]} is {', '.join(names)}, of the same patient"
            proposal = f"{differs}; {len(others) - len(names)} more agree with it"
            findings.append(Finding(film, "levels_named_apart", "", LIKELY_WRONG, proposal))
    return findings


@dataclass(frozen=True)
class Pair:
    """Two images of a patient, a row of ``pairs.csv``. ``by_labels`` and ``by_network`` are ``LevelOffset.levels``
    by the names of each, the network's None where unknown; ``better`` is the margin."""

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


def pair_named(first: Record, second: Record, offset: LevelOffset, shifts: Mapping[str, float]) -> Pair:
    """``shifts`` of images by id: how many levels a network sits too low on them, by their labels."""
    by_network = None
    if first.id in shifts and second.id in shifts:
        # A network that sits d levels too low names every vertebra by the name d levels above its label's.
        by_network = round(offset.levels - shifts[first.id] + shifts[second.id], 3)
    found = offset.levels, round(offset.correlation, 4), round(offset.margin, 4), offset.clear
    return Pair(first.group, first.id, second.id, *found, by_network)


def read_shifts(path: Path) -> dict[str, float]:
    """``shift_levels`` of every film that has one, by id, from the ``films.csv`` of an evaluation.

    Raises UserError for a table of another kind.
    """
    rows = read_csv(path, dict[str, str], remedy="give films.csv of an evaluation")
    try:
        return {row["id"]: float(row["shift_levels"]) for row in rows if row["shift_levels"]}
    except KeyError as error:
        raise UserError(f"{path}: has no column {error}; give films.csv of an evaluation") from None
    except ValueError as error:
        raise UserError(f"{path}: shift_levels must be a number or empty ({error})") from None


@dataclass(frozen=True)
class Share:
    """``value`` in 0..1 of ``number`` pairs or images, with its 95 % ``interval`` over patients (None for one)."""

    name: str
    value: float
    interval: list[float] | None
    number: int


def shares_of(pairs: Sequence[Pair], shifts: Mapping[str, float]) -> list[Share]:
    """What clear pairs say of labels and, where ``shifts`` gives its names, of the network."""
    clear = [pair for pair in pairs if pair.clear]
    network = [(pair.group, abs(pair.by_network) > SHIFTED_ABOVE) for pair in clear if pair.by_network is not None]
    group_of = {film: pair.group for pair in clear for film in (pair.first, pair.second)}
    contradicted = {film for pair in clear if pair.named_apart for film in (pair.first, pair.second)}
    off = {film: abs(shifts[film]) > SHIFTED_ABOVE for film in group_of if film in shifts}
    agreeing = [(group_of[f], off[f]) for f in off if f not in contradicted]
    shares = []
    for name, cases in (
        ("pairs that the labels name a level or more apart", [(pair.group, pair.named_apart) for pair in clear]),
        ("pairs that the network names a level or more apart", network),
        ("images that the network names otherwise than their labels", [(group_of[f], off[f]) for f in off]),
        ("  of those that agree with every image clearly compared", agreeing),
        ("  of those that another image contradicts", [(group_of[f], off[f]) for f in off if f in contradicted]),
    ):
        sample = GroupedSample([group for group, _ in cases], resamples=1000)
        value, interval = sample.mean([so for _, so in cases], range(len(cases)))
        if value is not None:
            shares.append(Share(name, value, interval, len(cases)))
    return shares
