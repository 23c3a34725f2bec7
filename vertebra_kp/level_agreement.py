"""Whether two films of one patient name their vertebrae alike: what labels of levels are worth, without a truth.

Each spine is pulled straight along the line of its labels, and the two are slid along each other to where their
pictures correlate most (ribs, bodies, diaphragm, pelvis). Labels that name the same vertebra differently leave the
pictures a level or more apart.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from vertebra_kp.anatomy import Schema, State
from vertebra_kp.data.audit import Finding
from vertebra_kp.data.films import read_kept
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.record import Record
from vertebra_kp.geometry import apply_affine, scale
from vertebra_kp.metrics import SHIFTED_ABOVE, GroupedSample
from vertebra_kp.spine_line import BEYOND, LEAST_LEVELS, line_through

FILM_SIZE = (192, 96)  # height and width whose pixels are kept: a whole spine's level is a dozen of them
PIXELS = 8  # of a straightened spine in each level
HALF_WIDTH = 4.5  # levels to each side of the line: the width of the chest
# Labelled levels at either end that the line is not laid through where enough remain: its bends would show where
# they end.
LEFT_OUT = 2
# Standard deviations, in levels, of the kernels between which structures count, and of the one that evens out how
# strongly they show: bodies and ribs, then whatever is larger.
BANDS = ((0.0, 0.75, 1.0), (0.3, 2.5, 3.0))
FAINT = 4.0  # grey levels: what shows less than this is grain
MOST_LEVELS = 2.5  # that two films are slid along each other
STRETCHES = (0.96, 1.0, 1.04)
SIDEWAYS = (-3, 0, 3)  # pixels
LEAST_SHARED = 1500  # pixels that two spines must have in common
ELSEWHERE = 0.5  # levels: a match further off than this is another one
# By how much the best match must correlate better than any other. The shifts among three films of one patient must
# add up to nothing: on AASCE they do for 63 of 65 triples of clear pairs, for 159 of all 202.
CLEAR_FROM = 0.05
MOST_PAIRS = 12  # of a patient, unless told otherwise
LIKELY_WRONG = 0.6  # severity of a finding: of two films one is


@dataclass(frozen=True)
class Straightened:
    """A spine pulled straight: ``picture`` [h, w, bands] float32, locally normalised; ``seen`` [h, w] is film."""

    picture: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Apart:
    """``levels`` that the first film's name of a vertebra lies below (+) or above (-) the second film's name: L2
    in the first and L1 in the second is 1; ``correlation`` of the pictures there, and how much ``better`` it is
    than at any other place.
    """

    levels: float
    correlation: float
    better: float

    @property
    def clear(self) -> bool:
        return self.better > CLEAR_FROM


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


def straighten(image: np.ndarray, points_xy: np.ndarray) -> Straightened | None:
    """A film ``[H, W]`` uint8 along the line of its vertebrae ``[levels, 4, 2]``, nan where unknown.

    Its middle row is that of the middle level, whichever are labelled. None where they do not tell the line.
    """
    known = np.flatnonzero(np.isfinite(points_xy).all(axis=(1, 2)))
    out = max(0, min(LEFT_OUT, (len(known) - LEAST_LEVELS) // 2))
    inner = points_xy.copy()
    inner[known[:out]], inner[known[len(known) - out :]] = np.nan, np.nan
    line = line_through(inner)
    if line is None:
        return None
    u = np.arange(-BEYOND, len(points_xy) - 1 + BEYOND, 1 / PIXELS)
    xy, across, step = line.at(u)
    aside = np.arange(-HALF_WIDTH, HALF_WIDTH, 1 / PIXELS)
    step = (step + np.median(step)) / 2  # bodies grow towards the feet, the chest does not
    grid = xy[:, None] + aside[None, :, None] * (step[:, None] * across)[:, None]
    x, y = np.moveaxis(grid.astype(np.float32) - 0.5, -1, 0)  # continuous coordinates -> indices
    grey = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderValue=0).astype(np.float32)
    height, width = image.shape
    seen = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
    # The film's edge is none of the patient's structures: what lies beyond it has no weight.
    bands = [_normalised(grey, seen, *(PIXELS * sigma for sigma in band)) for band in BANDS]
    return Straightened(np.stack(bands, axis=-1), seen > 0)


def _normalised(grey: np.ndarray, seen: np.ndarray, finest: float, coarsest: float, evened: float) -> np.ndarray:
    fine = _blurred(grey, seen, finest) if finest else grey
    band = (fine - _blurred(grey, seen, coarsest)) * seen
    return band / (np.sqrt(_blurred(band * band, seen, evened)) + FAINT)


def _blurred(grey: np.ndarray, seen: np.ndarray, sigma: float) -> np.ndarray:
    """Mean of what is seen about each pixel."""
    sums, weights = (cv2.GaussianBlur(values, (0, 0), sigma) for values in (grey * seen, seen))
    return sums / np.maximum(weights, np.finfo(np.float32).eps)


def levels_apart(first: Straightened, second: Straightened) -> Apart | None:
    """Names further apart than ``MOST_LEVELS`` are told as fewer.

    None where too little of both is seen, or nothing of it is alike.
    """
    most = round(MOST_LEVELS * PIXELS)
    shifts = np.arange(-most, most + 1)
    found = np.full(len(shifts), -1.0)
    height, width = first.seen.shape
    for stretch in STRETCHES:
        for aside in SIDEWAYS:
            move = np.array([[1, 0, aside], [0, stretch, (1 - stretch) * height / 2]])
            picture = cv2.warpAffine(second.picture, move, (width, height))
            seen = cv2.warpAffine(second.seen.astype(np.uint8), move, (width, height), flags=cv2.INTER_NEAREST) > 0
            for i, down in enumerate(shifts):
                here = slice(max(0, down), height + min(0, down))
                there = slice(max(0, -down), height - max(0, down))
                shared = first.seen[here] & seen[there]
                if shared.sum() >= LEAST_SHARED:
                    found[i] = max(found[i], _correlation(first.picture[here][shared], picture[there][shared]))
    best = found.argmax()
    if found[best] < 0:
        return None
    other = found[np.abs(shifts - shifts[best]) > ELSEWHERE * PIXELS].max()
    return Apart(shifts[best] / PIXELS, float(found[best]), float(found[best] - other))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of values ``[N, bands]``, the mean over the bands."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    norm = np.sqrt((first * first).sum(axis=0) * (second * second).sum(axis=0))
    return float(((first * second).sum(axis=0) / np.maximum(norm, np.finfo(np.float32).tiny)).mean())


def pairs_of(records: Sequence[Record], most: int) -> list[tuple[Record, Record]]:
    """Films of a patient two by two, drawn by lot: ``most`` pairs of each patient, or one for each film."""
    films = defaultdict(list)
    for record in records:
        films[record.group].append(record)
    chosen = []
    for group in films.values():
        n = len(group)
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
            told = f"its {schema.levels[middle]} is {names}, of the same patient; {agree} others agree with it"
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
