"""Which labelled films a command measures: the same for every command that does."""

import argparse
from typing import Any

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.schema import MARKED, Config, DataConfig
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import FilmSelection, as_seen, films_of, records_of, validation_films
from vertebra_kp.data.films import Films
from vertebra_kp.data.phantom_films import PhantomFilms
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources import schema_of

AASCE_TEST = "test"  # the data set's own part, not a split of the training part


def check_films(arguments: argparse.Namespace) -> None:
    """Raises UsageError where arguments do not go together: nothing that was said is dropped."""
    if arguments.validation:
        own = ("split", "split_file", "repair_file", "names", "stored_order", "other_view")
        if given := [name for name in own if getattr(arguments, name) is not None]:
            raise UsageError(
                f"--validation takes the images as they validated the network; leave out "
                f"--{given[0].replace('_', '-')}, or name the images with --source"
            )
    for flag, does in ("repair-file", "mends"), ("names", "settles the names of"):
        said = getattr(arguments, flag.replace("-", "_"))
        if said not in (None, "labels") and (arguments.stored_order or arguments.split == [AASCE_TEST]):
            raise UsageError(
                f"--{flag} {does} the labels of AASCE's training part; leave --stored-order or test out"
            )
    if arguments.names == "settled" and arguments.source not in MARKED:
        raise UsageError(
            f"--names settled is for --source {', '.join(MARKED)}, whose levels are marked; leave it out"
        )


def labelled_records(arguments: argparse.Namespace, *, stored_order: bool = False) -> tuple[list[Record], Schema]:
    """A source's labels, mended or in ``stored_order``; raises UsageError for synthetic images."""
    if arguments.source == "phantom":
        raise UsageError(
            "--source phantom has no files with labels; write some with the command phantom, and read them as csv"
        )
    schema = schema_of(arguments.source, arguments.anatomy)
    selection = _selection(arguments, schema, splits=vars(arguments).get("split"), stored_order=stored_order)
    return records_of(selection), schema


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
    return arguments, as_seen(_films_of(arguments, config, film_size), config.data)


def _as_trained(arguments: argparse.Namespace, data: DataConfig) -> argparse.Namespace:
    """The arguments, and what was not said as the network was trained, if it was trained on this source."""
    committed = "aasce" if arguments.source == "aasce" else None
    trained: dict[str, Any] = {
        "split_file": committed,
        "class_file": None,
        "names": "labels",
        "stored_order": False,
        "other_view": 0.0,
    }
    if arguments.source == data.source:
        names = ("root", "split_file", "repair_file", "class_file", "names", "stored_order", "cache", "shards")
        trained = {name: getattr(data, name) for name in names} | {"other_view": data.phantom.other_view}
    if arguments.stored_order or arguments.split == [AASCE_TEST]:
        trained |= {"repair_file": None, "names": "labels", "shards": None}  # they have other labels
    if arguments.root is not None:
        trained["shards"] = None  # the images are read from where they were said to be
    if arguments.repair_file or arguments.names == "settled":
        trained |= {"stored_order": False, "shards": None}  # both change the labels as they are stored
    said = {name: value for name, value in vars(arguments).items() if value is not None}
    return argparse.Namespace(**vars(arguments) | trained | said)


def _films_of(arguments: argparse.Namespace, config: Config, film_size: tuple[int, int]) -> Films:
    data, schema, classes = config.data, config.data.film_schema, config.network.image_classes
    if arguments.class_file is not None and not classes:
        raise UsageError("--class-file is for networks that classify images; this one does not, leave it out")
    if arguments.source == "phantom":
        drawn = arguments.preset, arguments.seed, arguments.num_images
        return PhantomFilms(schema, *drawn, film_size, fresh=False, other_view=arguments.other_view)
    part, splits = None, arguments.split
    if arguments.source == "aasce" and splits == [AASCE_TEST]:
        part, splits = AASCE_TEST, None
    elif not splits and arguments.source == data.source:
        trained = ", ".join(data.train_splits)
        print(f"note: all labelled images, also those that may have trained the network ({trained}); see --split")
    if splits and arguments.split_file is None:
        raise UserError(f"--split {' '.join(splits)} needs --split-file FILE for source {arguments.source}")
    chosen = {"stored_order": arguments.stored_order, "names": arguments.names, "classes": classes}
    selection = _selection(arguments, schema, part=part, splits=splits, **chosen)
    return films_of(selection, film_size)


def _selection(arguments: argparse.Namespace, schema: Schema, **chosen: Any) -> FilmSelection:
    """The films of a source under what is ``chosen``, and whatever else the command has arguments for."""
    names = ("split_file", "repair_file", "class_file", "cache", "shards")
    said = {name: value for name, value in vars(arguments).items() if name in names}
    return FilmSelection(arguments.source, arguments.root, schema, **said, **chosen)
