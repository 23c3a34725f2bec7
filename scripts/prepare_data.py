"""Decode and shrink the films of a config once: into a cache, or into tar shards that can go to other machines.

    python scripts/prepare_data.py --config configs/aasce.yaml --out cache
    python scripts/prepare_data.py --config configs/aasce.yaml --shards 8 --out shards

A cache that was interrupted goes on with the films it has. Training sees the same pixels and corners from either
as from the films themselves.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from vertebra_kp.cli.command_line import add_set_argument
from vertebra_kp.config.io import load_config
from vertebra_kp.config.schema import DataConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.cache import fill_cache, settings_folder
from vertebra_kp.data.datasets import records_of
from vertebra_kp.data.record import Record
from vertebra_kp.data.shards import write_shards


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    try:
        data = load_config(arguments.config, arguments.overrides).data
        if data.source == "phantom":
            raise UserError("data.source phantom draws its films while training; there is nothing to prepare")
        splits = None if arguments.whole_source else data.train_splits + data.validation_splits
        records = records_of(data, splits)
        if arguments.shards is None:
            result = prepare_cache(records, data, arguments.out, arguments.workers)
        else:
            result = prepare_shards(records, data, arguments.out, arguments.shards, arguments.workers)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(records)} films in {time.perf_counter() - started:.1f} s: {result}")
    return 0


def prepare_cache(records: list[Record], data: DataConfig, out: Path | None, workers: int | None) -> str:
    cache = out or data.cache
    if cache is None:
        raise UserError("no folder for the cache: give --out DIR, or set data.cache")
    films = fill_cache(cache, [record.image_path for record in records], data.film_size, workers=workers)
    megabytes = sum(film.end(data.film_size) - film.offset for film in films) / 1e6
    folder = settings_folder(cache, data.film_size)
    return f"{megabytes:.0f} MB of pixels in {folder}; runs take them with --set data.cache={cache}"


def prepare_shards(
    records: list[Record], data: DataConfig, out: Path | None, shards: int, workers: int | None
) -> str:
    if out is None:
        raise UserError("no folder for the shards: give --out DIR")
    schema, size = data.film_schema, data.film_size
    written = write_shards(records, schema, size, out, source=data.source, shards=shards, workers=workers)
    megabytes = sum(path.stat().st_size for path in written) / 1e6
    unset = {"repair_file": "null", "stored_order": "false"}  # the shards' labels have these already
    also = "".join(f" data.{name}={value}" for name, value in unset.items() if getattr(data, name))
    taken = f"--set data.shards={out}{also}"
    return f"{len(written)} shards, {megabytes:.0f} MB, in {out}; runs take them with {taken}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the job")
    add_set_argument(parser)
    parser.add_argument("--whole-source", action="store_true", help="all films, not only the job's splits")
    parser.add_argument("--shards", type=int, metavar="N", help="write N tar shards instead of a cache")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default for a cache: data.cache")
    parser.add_argument("--workers", type=int, metavar="N", help="threads; default: a few more than cores")
    arguments = parser.parse_args()
    for name in ("shards", "workers"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name} {value}: must be 1 or more")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
