"""Films that a config or a command line names, split into what trains and what measures."""

from pathlib import Path

from vertebra_kp.anatomy import Schema
from vertebra_kp.config import Config, PhaseConfig
from vertebra_kp.data.films import FilmList, Films, PhantomFilms
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.splits import SplitError, load_split_file, select


def training_films(config: Config) -> Films:
    if config.data.source == "phantom":
        phantom = config.data.phantom
        return _training_phantoms(config, phantom.films, fresh=phantom.fresh)
    return _films_of_splits(config, config.data.train_splits)


def films_of_phase(config: Config, phase: PhaseConfig, films: Films) -> Films:
    """What a phase trains on: the training ``films``, or as many phantoms."""
    if phase.films == "data":
        return films
    return _training_phantoms(config, len(films), fresh=True)


def _training_phantoms(config: Config, films: int, *, fresh: bool) -> PhantomFilms:
    data, phantom = config.data, config.data.phantom
    size = data.input_size
    return PhantomFilms(data.keypoint_schema, phantom.preset, phantom.seed, films, size, fresh=fresh)


def validation_films(config: Config) -> Films:
    data, phantom = config.data, config.data.phantom
    if data.source == "phantom":
        return phantom_films(
            data.keypoint_schema,
            phantom.preset,
            phantom.validation_seed,
            phantom.validation_films,
            data.input_size,
        )
    return _films_of_splits(config, data.validation_splits)


def phantom_films(schema: Schema, preset: str, seed: int, films: int, size: tuple[int, int]) -> PhantomFilms:
    """A fixed set of phantom films."""
    return PhantomFilms(schema, preset, seed, films, size, fresh=False)


def _films_of_splits(config: Config, names: list[str]) -> Films:
    data = config.data
    assert data.split_file is not None  # DataConfig checks it
    split_file = load_split_file(data.split_file)
    if split_file.source != data.source:
        raise SplitError(
            f"data.split_file {data.split_file} splits the films of {split_file.source}, data.source is "
            f"{data.source}; make one with scripts/split_data.py"
        )
    records = read_records(data.source, data.root, data.keypoint_schema, stored_order=data.stored_order)
    chosen = select(records, split_file, names)
    return FilmList(chosen, data.keypoint_schema, data.input_size)


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
) -> FilmList:
    """Films for evaluation: a whole source, one of its own parts, or named splits of it."""
    records = read_records(source, root, schema, part, stored_order=stored_order)
    if splits:
        assert split_file is not None
        records = select(records, load_split_file(split_file), splits)
    return FilmList(records, schema, input_size)
