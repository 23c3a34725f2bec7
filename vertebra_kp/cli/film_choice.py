"""Which labelled films a command measures: the same for every command that does."""

import argparse

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.schema import Config, DataConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import FilmSelection, as_seen, films_of, validation_films
from vertebra_kp.data.films import Films, PhantomFilms

AASCE_TEST = "test"  # the data set's own part, not a split of the training part


def check_films(arguments: argparse.Namespace) -> None:
    """Raises UsageError where arguments do not go together: nothing that was said is dropped."""
    if arguments.validation:
        own = ("split", "split_file", "repair_file", "stored_order", "other_view")
        if given := [name for name in own if getattr(arguments, name) is not None]:
            raise UsageError(
                f"--validation takes the images as they validated the network; leave out "
                f"--{given[0].replace('_', '-')}, or name the images with --source"
            )
    if arguments.repair_file and (arguments.stored_order or arguments.split == [AASCE_TEST]):
        raise UsageError(
            "--repair-file mends the labels of AASCE's training part; leave --stored-order or test out"
        )


def check_labelled(arguments: argparse.Namespace) -> None:
    """Raises UsageError for synthetic images where a command reads labels from files."""
    if arguments.source == "phantom":
        raise UsageError(
            "--source phantom has no files with labels; write some with the command phantom, and read them as csv"
        )


def choose_films(
    arguments: argparse.Namespace, config: Config, film_size: tuple[int, int]
) -> tuple[argparse.Namespace, Films]:
    """The films, and the arguments with everything that was not said filled in as the network was trained.

    ``config`` is the network's, as it is measured; films are kept in the pixels of ``film_size`` (height, width).
    Raises UserError where the films cannot be had, UsageError where arguments do not go together.
    """
    check_films(arguments)
    if arguments.validation:
        arguments = argparse.Namespace(**vars(arguments))
        arguments.source, arguments.split = config.data.source, config.data.validation_splits
        if arguments.root is not None:  # the folder has moved since
            config = config.model_copy(update={"data": config.data.model_copy(update={"root": arguments.root})})
    arguments = _as_trained(arguments, config.data)
    if arguments.validation:
        return arguments, validation_films(config, film_size)
    return arguments, as_seen(_films_of(arguments, config.data, film_size), config.data)


def _as_trained(arguments: argparse.Namespace, data: DataConfig) -> argparse.Namespace:
    """The arguments, and what was not said as the network was trained, if it was trained on this source."""
    same_source = arguments.source == data.source
    committed = "aasce" if arguments.source == "aasce" else None
    trained = {
        "root": data.root if same_source else None,
        "split_file": data.split_file if same_source else committed,
        "repair_file": data.repair_file if same_source else None,
        "stored_order": data.stored_order and same_source,
        "other_view": data.phantom.other_view if same_source else 0.0,
        "cache": data.cache if same_source else None,
        "shards": data.shards if same_source and arguments.root is None else None,
    }
    if arguments.stored_order or arguments.split == [AASCE_TEST]:
        trained |= {"repair_file": None, "shards": None}  # they have other labels
    if arguments.repair_file:
        trained["shards"] = None  # a repair is made on the labels as they are stored
    said = {name: value for name, value in vars(arguments).items() if value is not None}
    return argparse.Namespace(**vars(arguments) | trained | said)


def _films_of(arguments: argparse.Namespace, data: DataConfig, film_size: tuple[int, int]) -> Films:
    schema = data.film_schema
    if arguments.source == "phantom":
        return PhantomFilms(
            schema,
            arguments.preset,
            arguments.seed,
            arguments.num_images,
            film_size,
            fresh=False,
            other_view=arguments.other_view,
        )
    part, splits = None, arguments.split
    if arguments.source == "aasce" and splits == [AASCE_TEST]:
        part, splits = AASCE_TEST, None
    elif not splits and arguments.source == data.source:
        trained = ", ".join(data.train_splits)
        print(f"note: all labelled images, also those that may have trained the network ({trained}); see --split")
    if splits and arguments.split_file is None:
        raise UserError(f"--split {' '.join(splits)} needs --split-file FILE for source {arguments.source}")
    selection = FilmSelection(
        arguments.source,
        arguments.root,
        schema,
        part=part,
        split_file=arguments.split_file,
        splits=splits,
        stored_order=arguments.stored_order,
        repair_file=arguments.repair_file,
        cache=arguments.cache,
        shards=arguments.shards,
    )
    return films_of(selection, film_size)
