"""The command prepare: the films of a config decoded and shrunk once, into a cache or into tar shards."""

import argparse
import time

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.config.io import find_config, load_config
from vertebra_kp.config.schema import DataConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.cache import fill_cache, settings_folder
from vertebra_kp.data.datasets import records_of, selection_of
from vertebra_kp.data.shards import write_shards


def run(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    data = load_config(find_config(arguments.config), arguments.overrides).data
    if data.source == "phantom":
        raise UserError("data.source phantom makes its images while training; there is nothing to prepare")
    out = arguments.out or (None if arguments.shards else data.cache)
    if out is None:
        kind = "shards: give --out DIR" if arguments.shards else "cache: give --out DIR, or set data.cache"
        raise UsageError(f"no folder for the {kind}")
    splits = None if arguments.whole_source else data.train_splits + data.validation_splits
    records = records_of(selection_of(data, splits))
    size, workers = data.film_size, arguments.workers
    if arguments.shards is None:
        films = fill_cache(out, [record.image_path for record in records], size, workers=workers)
        megabytes = sum(film.end(size) - film.offset for film in films) / 1e6
        made = f"{megabytes:.0f} MB of pixels in {settings_folder(out, size)}"
        taken = f"data.cache={out}"
    else:
        schema, shards = data.film_schema, arguments.shards
        written = write_shards(records, schema, size, out, source=data.source, shards=shards, workers=workers)
        megabytes = sum(path.stat().st_size for path in written) / 1e6
        # The shards' labels have these already.
        unset = {"repair_file": "null", "stored_order": "false", "names": "labels"}
        fields = DataConfig.model_fields
        changed = [name for name in unset if getattr(data, name) != fields[name].default]
        also = "".join(f" data.{name}={unset[name]}" for name in changed)
        made = f"{len(written)} shards, {megabytes:.0f} MB, in {out}"
        taken = f"data.shards={out}{also}"
    seconds = time.perf_counter() - started
    print(f"{len(records)} images in {seconds:.1f} s: {made}; runs take them with --set {taken}")
