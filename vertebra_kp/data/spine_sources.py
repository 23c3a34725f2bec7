"""The images of a spine network's config: read from every source, dealt into training and validation."""

import hashlib
import logging

from vertebra_kp.config.spine import LevelConfig, SourcesConfig, SpineSourceConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import FilmSelection, records_of
from vertebra_kp.data.record import Record
from vertebra_kp.data.reformation import named_run
from vertebra_kp.data.spine_films import SpineFilm, spine_films

log = logging.getLogger(__name__)


def training_films_of(config: SourcesConfig) -> list[tuple[SpineFilm, float]]:
    """Images to train on, each with how often it is shown against the others; of a level network, named ones.

    Raises UserError where no source's folder is named.
    """
    training: list[tuple[SpineFilm, float]] = []
    for place, source in enumerate(config.sources):
        if source.root is None:
            log.warning("source %s is left out: sources.%d.root names no folder", source.source, place)
            continue
        records, held_back = deal(source, config.fold)
        films = spine_films(records, source.schema_of_labels)
        if isinstance(config, LevelConfig):
            films = _named(films, config.reformation.least, source.source)
        log.info("%s: %d images train, %d validate", source.source, len(films), len(held_back))
        training += [(film, source.share / len(films)) for film in films]
    if not training:
        raise UserError("no image to train on: name the folder of at least one source (sources.0.root and so on)")
    return training


def _named(films: list[SpineFilm], least: int, source: str) -> list[SpineFilm]:
    """Those with so many vertebrae whose names follow each other."""
    named = [film for film in films if len(named_run(film.vertebrae).levels) >= least]
    if len(named) < len(films):
        log.warning(
            "%s: %d images name fewer than %d neighbours: left out", source, len(films) - len(named), least
        )
    return named


def deal(source: SpineSourceConfig, fold: int | None) -> tuple[list[Record], list[Record]]:
    """Records that train and records that validate, none without a ``fold``; patients stay together."""

    def read(splits: list[str] | None) -> list[Record]:
        selection = FilmSelection(
            source.source,
            source.root,
            source.schema_of_labels,
            split_file=source.split_file,
            splits=splits,
            repair_file=source.repair_file,
            names=source.names,
            limit=source.limit,
        )
        return records_of(selection)

    by_file = source.split_file is not None
    if fold is None:
        return read([*source.train_splits, *source.validation_splits] if by_file else None), []
    if by_file:
        return read(source.train_splits), read(source.validation_splits)
    records = read(None)
    if source.folds is not None:
        order = sorted({record.group for record in records}, key=lot)
        chosen = set(order[fold % source.folds :: source.folds])
        held_back = [record.group in chosen for record in records]
    else:
        held_back = [lot(record.group) < source.validation for record in records]
    return (
        [record for record, held in zip(records, held_back, strict=True) if not held],
        [record for record, held in zip(records, held_back, strict=True) if held],
    )


def lot(group: str) -> float:
    """A number in 0..1 that has nothing to do with names and dates, the same on every machine."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:6]) / 2**48
