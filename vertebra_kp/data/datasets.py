"""Films that a config or a command line names, split into what trains and what measures."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra_kp.config.schema import Config, DataConfig, Names, PhaseConfig
from vertebra_kp.core.anatomy import SCHEMAS, Schema, State
from vertebra_kp.data.cache import CachedFilms
from vertebra_kp.data.classes import label_classes
from vertebra_kp.data.films import FilmList, Films
from vertebra_kp.data.level_marks import load_marks, settle_names
from vertebra_kp.data.patches import PatchFilms
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.data.record import Record, take_levels
from vertebra_kp.data.repair import RepairError, apply_repairs, load_repair_file
from vertebra_kp.data.shards import ShardFilms, read_shards
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.splits import SplitError, load_split_file, select

log = logging.getLogger(__name__)


def training_films(config: Config) -> Films:
    data = config.data
    if data.source == "phantom":
        return _phantoms(data, data.phantom.seed, data.phantom.films, data.input_size, fresh=data.phantom.fresh)
    classes = config.network.image_classes
    selection = selection_of(data, data.train_splits, limit=data.train_films, classes=classes)
    return as_seen(films_of(selection, data.film_size), data)


def films_of_phase(config: Config, phase: PhaseConfig, films: Films) -> Films:
    """What a phase trains on: the training ``films``, or as many phantoms."""
    if phase.films == "data":
        return films
    data = config.data
    return _phantoms(data, data.phantom.seed, len(films), data.input_size, fresh=True)


def validation_films(config: Config, film_size: tuple[int, int] | None = None) -> Films:
    """``film_size`` (height, width) whose pixels are kept; None keeps what the network itself needs."""
    data, phantom = config.data, config.data.phantom
    film_size = film_size or data.film_size
    if data.source == "phantom":
        return _phantoms(data, phantom.validation_seed, phantom.validation_films, film_size, fresh=False)
    selection = selection_of(data, data.validation_splits, classes=config.network.image_classes)
    return as_seen(films_of(selection, film_size), data)


def _phantoms(data: DataConfig, seed: int, films: int, size: tuple[int, int], *, fresh: bool) -> PhantomFilms:
    schema, phantom = data.keypoint_schema, data.phantom
    return PhantomFilms(schema, phantom.preset, seed, films, size, fresh=fresh, other_view=phantom.other_view)


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


@dataclass(frozen=True)
class FilmSelection:
    """Which films, with which labels, and where their pixels are.

    The films: those of a whole ``source`` in the folder ``root``, of one ``part`` that it has itself, or of named
    ``splits`` of a ``split_file``; of these ``limit``, if so many are there. The labels: the levels of ``schema``,
    mended by the reader, by a ``repair_file`` or, in ``stored_order``, not at all; under the ``names`` that they
    have, or under those ``settled`` by a second reading. The pixels are held in memory, or stay in a ``cache`` or
    in ``shards``, whose ``shard_window`` is that of ``ShardFilms``. A ``class_file`` says which of ``classes``
    films belong to.
    """

    source: str
    root: Path | None
    schema: Schema
    part: str | None = None
    split_file: str | None = None
    splits: Sequence[str] | None = None
    stored_order: bool = False
    repair_file: str | None = None
    names: Names = "labels"
    cache: Path | None = None
    shards: Path | None = None
    shard_window: int | None = None
    limit: int | None = None
    class_file: Path | None = None
    classes: Sequence[str] = ()


def selection_of(
    data: DataConfig, splits: Sequence[str] | None, *, limit: int | None = None, classes: Sequence[str] = ()
) -> FilmSelection:
    """Named splits of a config's source, or the whole source; SplitError where the split file is another's."""
    if splits is not None:
        assert data.split_file is not None  # DataConfig checks it
        split_file = load_split_file(data.split_file)
        if split_file.source != data.source:
            raise SplitError(
                f"data.split_file {data.split_file} splits the films of {split_file.source}, data.source is "
                f"{data.source}; make a split file of this source"
            )
    return FilmSelection(
        data.source,
        data.root,
        data.film_schema,
        split_file=data.split_file,
        splits=splits,
        stored_order=data.stored_order,
        repair_file=data.repair_file,
        names=data.names,
        cache=data.cache,
        shards=data.shards,
        shard_window=data.shard_window,
        limit=limit,
        class_file=data.class_file,
        classes=classes,
    )


def films_of(selection: FilmSelection, input_size: tuple[int, int]) -> Films:
    """The films in the pixels that a network of ``input_size`` needs."""
    schema = selection.schema
    if selection.shards is not None and selection.part is None:  # shards hold no part of its own
        records, places = read_shards(selection.shards, selection.source, schema, input_size)
        records = _chosen(records, selection)
        return ShardFilms(records, places, schema, input_size, window=selection.shard_window)
    records = records_of(selection)
    if selection.cache is not None:
        return CachedFilms(records, schema, input_size, selection.cache)
    return FilmList(records, schema, input_size)


def records_of(selection: FilmSelection) -> list[Record]:
    """The films as records, read from ``root``, with the repairs of ``repair_file`` made and then names settled.

    Repair files and level marks speak of the films they were made from, AASCE's training part; other parts are
    only read, and so is the stored order. A repair file stands in place of what the reader mends by itself. Raises
    RepairError where it does not fit the source or the schema, MarksError where the source has no level marks.
    """
    schema = selection.schema
    if selection.stored_order or selection.part is not None:
        stored_order = selection.stored_order
        read = read_records(selection.source, selection.root, schema, selection.part, stored_order=stored_order)
        return _chosen(read, selection)
    if selection.names == "labels":
        return _chosen(_mended(selection, schema), selection)
    marks = load_marks(selection.source)
    # Levels beyond those of the schema may belong to it under their settled names.
    whole = SCHEMAS[marks.anatomy]
    settled = settle_names(_mended(selection, whole), marks, whole)
    return _chosen([take_levels(record, whole, schema) for record in settled], selection)


def _mended(selection: FilmSelection, schema: Schema) -> list[Record]:
    """All records of the source with labels of ``schema``, mended by the reader or by ``repair_file``."""
    source, root, repair_file = selection.source, selection.root, selection.repair_file
    if repair_file is None:
        return read_records(source, root, schema)
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


def _chosen(records: list[Record], selection: FilmSelection) -> list[Record]:
    """Those of the splits, at most ``limit``, with their classes."""
    if selection.class_file is not None and selection.classes:
        records = label_classes(records, selection.class_file, selection.classes)
    if selection.splits:
        assert selection.split_file is not None
        records = select(records, load_split_file(selection.split_file), list(selection.splits))
    if selection.limit is not None:
        ids = {record.id for record in sorted(records, key=_lot)[: selection.limit]}
        records = [record for record in records if record.id in ids]
    return records


def _lot(record: Record) -> str:
    """An order that has nothing to do with names and dates, the same on every machine."""
    return hashlib.sha256(record.id.encode()).hexdigest()
