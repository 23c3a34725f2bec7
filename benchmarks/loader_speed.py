"""Films a second from the loader, the share of a step spent waiting for them, and memory; on phantom films.

python benchmarks/loader_speed.py [--config configs/aasce.yaml] [--size 512 192] [--workers 2]

Films are drawn, written as PNG, and then held in memory or read from a cache. Every row is a process of its own.
Memory is the largest resident size, pages that are shared with other processes included. A step of training is a
pause of ``--step-seconds``, as on a GPU; workers start anew in every epoch, as in training.
"""

import argparse
import itertools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vertebra_kp.config.io import load_config
from vertebra_kp.config.schema import Config
from vertebra_kp.core.files import write_image
from vertebra_kp.data.cache import CachedFilms
from vertebra_kp.data.films import KEPT_RESOLUTION, FilmList, Films
from vertebra_kp.data.loader import Batch, FilmDataset, open_batches, shuffled
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import Record

DRAWN = 50  # different films; more would take long and tell nothing new
SPEED_FILMS, STEPS = 2000, 100


@dataclass(frozen=True)
class Measured:
    films_a_second: float
    waiting: list[float]
    """Share of the time, for every length of a step."""
    process_mb: float
    worker_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/aasce.yaml"), help="augmentation and anatomy")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 192), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--films", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--step-seconds", type=float, nargs="+", default=[0.1, 0.3])
    arguments = parser.parse_args()
    sizes = {"input_size": list(arguments.size), "workers": arguments.workers}
    config = load_config(
        arguments.config,
        [*(f"data.{name}={value}" for name, value in sizes.items()), f"train.batch_size={arguments.batch_size}"],
    )
    steps = arguments.step_seconds
    print(f"{arguments.size[0]} x {arguments.size[1]}, {arguments.workers} workers, batch {arguments.batch_size}")
    waits = "".join(f" waiting, step {seconds} s |" for seconds in steps)
    print(f"| films | held in | films a second |{waits} MB of the process | MB of a worker |")
    print("|---" * (5 + len(steps)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        records = write_phantoms(config, max(arguments.films), Path(folder))
        for films, cached in itertools.product(arguments.films, (False, True)):
            cache = Path(folder) / "cache" if cached else None
            found = in_own_process(records[:films], config, steps, cache)
            shares = "".join(f" {100 * share:.1f} % |" for share in found.waiting)
            memory = f" {found.process_mb:.0f} | {found.worker_mb:.0f} |"
            held = "cache" if cached else "memory"
            print(f"| {films} | {held} | {found.films_a_second:.0f} |{shares}{memory}", flush=True)


def write_phantoms(config: Config, films: int, folder: Path) -> list[Record]:
    """Films of the size that is kept for the config's input size, ``DRAWN`` different ones under many names."""
    schema = config.data.keypoint_schema
    height, width = (round(KEPT_RESOLUTION * side) for side in config.data.input_size)
    drawn = [draw_film(schema, "standard", 0, index, (height, width)) for index in range(min(DRAWN, films))]
    records = []
    for index, film in zip(range(films), itertools.cycle(drawn), strict=False):
        path = folder / f"{index:05d}.png"
        write_image(film.image, path)
        records.append(Record(path.stem, path, path.stem, film.points_xy_image, film.states))
    return records


def in_own_process(records: list[Record], config: Config, steps: list[float], cache: Path | None) -> Measured:
    """A process of its own, so that its memory is that of these films alone."""
    context = multiprocessing.get_context("fork")  # what it starts itself is then started as in training
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(measure, records, config, steps, cache).result()


def measure(records: list[Record], config: Config, steps: list[float], cache: Path | None) -> Measured:
    schema, size = config.data.keypoint_schema, config.data.input_size
    films: Films = FilmList(records, schema, size) if cache is None else CachedFilms(records, schema, size, cache)
    dataset = FilmDataset(films, schema, size, augmentation=config.augment, seed=0)
    speed = films_a_second(dataset, config)
    waiting = [share_of_waiting(dataset, config, seconds) for seconds in steps]
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss
    process, worker = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Measured(speed, waiting, process.ru_maxrss / unit, worker.ru_maxrss / unit)


def films_a_second(dataset: FilmDataset, config: Config) -> float:
    """Of one long epoch, from its first batch on."""
    order = [(0, index % len(dataset)) for index in range(SPEED_FILMS)]
    size = config.train.batch_size
    with open_batches(dataset, order, batch_size=size, workers=config.data.workers) as batches:
        next(batches)
        started = time.perf_counter()
        films = sum(len(batch.image) for batch in batches)
        return films / (time.perf_counter() - started)


def share_of_waiting(dataset: FilmDataset, config: Config, step_seconds: float) -> float:
    epochs = max(1, round(STEPS * config.train.batch_size / len(dataset)))
    waited = 0.0
    started = time.perf_counter()
    for epoch in range(epochs):
        batches = epoch_of(dataset, config, epoch)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            time.sleep(step_seconds)
    return waited / (time.perf_counter() - started)


def epoch_of(dataset: FilmDataset, config: Config, epoch: int) -> Iterator[Batch]:
    size = config.train.batch_size
    items = shuffled(len(dataset), epoch, seed=0, batch_size=size)
    with open_batches(dataset, items, batch_size=size, workers=config.data.workers) as batches:
        yield from batches


if __name__ == "__main__":
    main()
