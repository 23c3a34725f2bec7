"""Films that a config or a command line names, split into what trains and what measures."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from vertebra_kp.config.schema import Config, DataConfig, PhaseConfig
from vertebra_kp.core.anatomy import SCHEMAS, Schema, State
from vertebra_kp.data.cache import CachedFilms
from vertebra_kp.data.films import FilmList, Films, PhantomFilms
from vertebra_kp.data.patches import PatchFilms
from vertebra_kp.data.record import Record, take_levels
from vertebra_kp.data.repair import RepairError, apply_repairs, load_repair_file
from vertebra_kp.data.shards import ShardFilms, read_shards
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.splits import SplitError, SplitFile, load_split_file, select

log = logging.getLogger(__name__)


def training_films(config: Config) -> Films:
    if config.data.source == "phantom":
        phantom = config.data.phantom
        return _training_phantoms(config, phantom.films, fresh=phantom.fresh)
    data = config.data
    return _films_of_splits(config, data.train_splits, data.film_size, limit=data.train_films)


def films_of_phase(config: Config, phase: PhaseConfig, films: Films) -> Films:
    """What a phase trains on: the training ``films``, or as many phantoms."""
    if phase.films == "data":
        return films
    return _training_phantoms(config, len(films), fresh=True)


def _training_phantoms(config: Config, films: int, *, fresh: bool) -> PhantomFilms:
    data, phantom = config.data, config.data.phantom
    size = data.input_size
    return PhantomFilms(
        data.keypoint_schema,
        phantom.preset,
        phantom.seed,
        films,
        size,
        fresh=fresh,
        other_view=phantom.other_view,
    )


def validation_films(config: Config, film_size: tuple[int, int] | None = None) -> Films:
    """``film_size`` (height, width) whose pixels are kept; None keeps what the network itself needs."""
    data, phantom = config.data, config.data.phantom
    film_size = film_size or data.film_size
    if data.source == "phantom":
        return phantom_films(
            data.keypoint_schema,
            phantom.preset,
            phantom.validation_seed,
            phantom.validation_films,
            film_size,
            other_view=phantom.other_view,
        )
    return _films_of_splits(config, data.validation_splits, film_size)


def phantom_films(
    schema: Schema, preset: str, seed: int, films: int, size: tuple[int, int], *, other_view: float = 0.0
) -> PhantomFilms:
    """A fixed set of phantom films."""
    return PhantomFilms(schema, preset, seed, films, size, fresh=False, other_view=other_view)


def _films_of_splits(
    config: Config, names: list[str], film_size: tuple[int, int], limit: int | None = None
) -> Films:
    data = config.data
    _split_file_of(data)
    films = films_of_source(
        data.source,
        data.root,
        data.film_schema,
        film_size,
        split_file=data.split_file,
        splits=names,
        stored_order=data.stored_order,
        repair_file=data.repair_file,
        cache=data.cache,
        shards=data.shards,
        shard_window=data.shard_window,
        limit=limit,
    )
    return as_seen(films, data)


def as_seen(films: Films, data: DataConfig) -> Films:
    """What a network is shown of films: the whole, or single vertebrae."""
    return films if data.patch is None else PatchFilms(films, data)


def labelled_spines(config: Config, most: int = 500) -> list[np.ndarray]:
    """Corners ``[levels, 4, 2]`` of films that train the network, of ``most`` of them; nan where not labelled."""
    films = training_films(config)
    # Fresh phantoms do not end with the first epoch: index goes on from film to film.
    endless = config.data.source == "phantom" and config.data.phantom.fresh
    number = most if endless else min(len(films), most)
    labels = (films.at(0, i).labels() for i in range(number))
    return [np.where((of.states == State.LABELLED)[..., None], of.points_xy_image, np.nan) for of in labels]


def records_of(data: DataConfig, splits: list[str] | None) -> list[Record]:
    """Labelled films of named splits of a config's source, or of the whole source."""
    schema = data.film_schema
    stored_order, repair_file = data.stored_order, data.repair_file
    records = labelled_records(data.source, data.root, schema, stored_order=stored_order, repair_file=repair_file)
    return records if splits is None else select(records, _split_file_of(data), splits)


def _split_file_of(data: DataConfig) -> SplitFile:
    assert data.split_file is not None  # DataConfig checks it
    split_file = load_split_file(data.split_file)
    if split_file.source != data.source:
        raise SplitError(
            f"data.split_file {data.split_file} splits the films of {split_file.source}, data.source is "
            f"{data.source}; make a split file of this source"
        )
    return split_file


def labelled_records(
    source: str,
    root: Path | None,
    schema: Schema,
    *,
    part: str | None = None,
    stored_order: bool = False,
    repair_file: str | None = None,
) -> list[Record]:
    """Films of a source with the repairs of ``repair_file`` made; with ``stored_order`` no repair at all.

    A repair file speaks of the films it was made from, AASCE's training part; other parts are only read. It stands
    in place of what the reader mends by itself. Raises RepairError where it does not fit the source or the schema.
    """
    if repair_file is None or stored_order or part is not None:
        return read_records(source, root, schema, part, stored_order=stored_order)
    repair = load_repair_file(repair_file)
    if repair.source != source:
        raise RepairError(f"repair_file {repair_file} repairs films of {repair.source}, the source is {source}")
    whole = SCHEMAS[repair.anatomy]
    if schema.view != whole.view or not set(schema.levels) <= set(whole.levels):
        raise RepairError(
            f"repair_file {repair_file} is for labels of {whole.name}, the anatomy is {schema.name}; audit it anew"
        )
    # The places that a repair names are those of the stored labels.
    stored = read_records(source, root, whole, stored_order=True)
    if unknown := sorted(repair.films.keys() - {record.id for record in stored}):
        log.warning("repair_file %s names %d films that are not there: %s", repair_file, len(unknown), unknown[0])
    records = apply_repairs(stored, repair, whole)
    return [take_levels(record, whole, schema) for record in records]


def films_of_source(
    source: str,
    root: Path | None,
    schema: Schema,
    input_size: tuple[int, int],
    *,
    part: str | None = None,
    split_file: str | None = None,
    splits: list[str] | None = None,
    stored_order: bool = False,
    repair_file: str | None = None,
    cache: Path | None = None,
    shards: Path | None = None,
    shard_window: int | None = None,
    limit: int | None = None,
) -> Films:
    """A whole source, one of its own parts, or named splits of it; of those ``limit`` films, if so many are there.

    Pixels are held in memory, or stay in a ``cache`` of the films on disk, or in ``shards``, which have the labels
    too. Shards hold no ``part``: one is read from ``root``.
    """
    if part is not None:
        shards = None
    if shards is not None:
        records, places = read_shards(shards, source, schema, input_size)
    else:
        records = labelled_records(
            source, root, schema, part=part, stored_order=stored_order, repair_file=repair_file
        )
    if splits:
        assert split_file is not None
        records = select(records, load_split_file(split_file), splits)
    if limit is not None:
        chosen = {record.id for record in sorted(records, key=_lot)[:limit]}
        records = [record for record in records if record.id in chosen]
    if shards is not None:
        return ShardFilms(records, places, schema, input_size, window=shard_window)
    if cache is not None:
        return CachedFilms(records, schema, input_size, cache)
    return FilmList(records, schema, input_size)


def _lot(record: Record) -> str:
    """An order that has nothing to do with names and dates, the same on every machine."""
    return hashlib.sha256(record.id.encode()).hexdigest()
