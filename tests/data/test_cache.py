"""A cache gives the films that reading gives, reads each once, and survives whatever stops a run."""

import json
import multiprocessing
import os
import pickle
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import run_apart
from film_files import INPUT_SIZE, SCHEMA, SIZES, assert_same_film, labelled_records, write_film
from pydantic import ValidationError

from vertebra_kp.config.io import save_config
from vertebra_kp.config.schema import Config, DataConfig
from vertebra_kp.core.anatomy import State
from vertebra_kp.data import cache as cache_module
from vertebra_kp.data.cache import INDEX, PIXELS, CachedFilms, settings_folder
from vertebra_kp.data.datasets import films_of, records_of, selection_of, training_films, validation_films
from vertebra_kp.data.films import FilmList
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.phantom.folder import write_films

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def records(tmp_path):
    return labelled_records(tmp_path / "films")


@pytest.fixture
def folder(tmp_path):
    """Where the cache of the tests has its files."""
    return settings_folder(tmp_path / "cache", INPUT_SIZE)


@pytest.fixture
def reads(monkeypatch):
    """Names of the films that are read for a cache, as they are read."""
    names, real = [], cache_module.read_kept

    def read_kept(path, input_size):
        names.append(path.name)
        return real(path, input_size)

    monkeypatch.setattr(cache_module, "read_kept", read_kept)
    return names


def cached(records, tmp_path, **options):
    return CachedFilms(records, SCHEMA, INPUT_SIZE, tmp_path / "cache", **options)


def assert_as_read(films, records):
    """The films are those that a ``FilmList`` of the records holds, bit by bit."""
    wanted = FilmList(records, SCHEMA, INPUT_SIZE)
    assert len(films) == len(wanted)
    assert films.identity == wanted.identity
    for index in range(len(wanted)):
        assert_same_film(films.at(0, index), wanted.at(0, index))
        assert films.at(3, index).file == wanted.at(0, index).file


def test_a_film_from_a_cache_is_bit_equal_to_one_from_its_file(records, tmp_path):
    assert_as_read(cached(records, tmp_path), records)
    assert_as_read(cached(records[::-2], tmp_path), records[::-2])  # any choice of films, in any order


def test_each_film_is_read_once(records, tmp_path, reads):
    cached(records[:2] + records[:1], tmp_path)
    assert sorted(reads) == ["deep.png", "odd.png"]
    reads.clear()
    films = cached(records, tmp_path)
    assert sorted(reads) == ["small.png", "tall.png", "wide.png"]
    reads.clear()
    assert_as_read(films, records)
    assert_as_read(cached(records, tmp_path), records)
    assert reads == []


def test_only_a_film_that_changed_is_read_again_and_a_line_says_why(records, tmp_path, reads, caplog):
    caplog.set_level("INFO")
    before = cached(records, tmp_path)
    assert "reading 5 films, the first with these settings" in caplog.text
    old = [before.at(0, index).image.copy() for index in range(len(records))]
    reads.clear()
    caplog.clear()
    write_film(records[3].image_path, (407, 501), seed=77)
    found = records[1].image_path.stat()
    os.utime(records[1].image_path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))  # the same bytes, who knows
    assert_as_read(cached(records, tmp_path), records)
    assert sorted(reads) == ["odd.png", "tall.png"]
    assert "reading 2 films, 0 new, 2 changed since they were cached" in caplog.text
    for index, image in enumerate(old):  # a run that began before goes on with the films it began with
        np.testing.assert_array_equal(before.at(0, index).image, image)


def test_a_corrected_corner_makes_other_films_without_reading_one(records, tmp_path, reads):
    before = cached(records, tmp_path).identity
    reads.clear()
    points, states = records[2].points_xy_image.copy(), records[2].states.copy()
    points[0, 0] += 5
    states[4, 3] = State.UNLABELLED
    corrected = [*records[:2], replace(records[2], points_xy_image=points, states=states), *records[3:]]
    films = cached(corrected, tmp_path)
    assert films.identity != before
    assert_as_read(films, corrected)
    assert reads == []


def test_input_sizes_stand_side_by_side(records, tmp_path, reads):
    first = cached(records, tmp_path)
    larger = CachedFilms(records, SCHEMA, (160, 96), tmp_path / "cache")
    wanted = FilmList(records, SCHEMA, (160, 96))
    for index in range(len(records)):
        assert_same_film(larger.at(0, index), wanted.at(0, index))
    assert_as_read(first, records)
    reads.clear()
    cached(records, tmp_path)
    assert reads == []


def test_another_resolution_is_not_taken_for_the_one_of_the_cache(records, tmp_path, reads, monkeypatch):
    cached(records, tmp_path)
    reads.clear()
    monkeypatch.setattr(cache_module, "FORMAT", 10**6)
    cached(records, tmp_path)
    assert len(reads) == 5
    monkeypatch.setattr(cache_module, "KEPT_RESOLUTION", 1.5)
    cached(records, tmp_path)
    assert len(reads) == 10


def in_processes(*targets):
    """Exit codes of functions that run at the same time, each in a process that is a copy of this one."""
    processes = [FORK.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_a_run_that_was_killed_is_taken_up_where_it_stopped(records, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(cache_module, "FILMS_PER_SYNC", 1)
    real = cache_module.read_kept

    def fill_and_die():
        def read_kept(path, input_size):
            if path.name == "tall.png":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(path, input_size)

        cache_module.read_kept = read_kept
        cached(records, tmp_path, workers=1)

    assert in_processes(fill_and_die) == [-signal.SIGKILL]
    films = cached(records, tmp_path)
    assert sorted(reads) == ["tall.png", "wide.png"]
    assert_as_read(films, records)


def test_a_film_that_is_not_yet_in_the_index_is_read_again(records, tmp_path, reads, monkeypatch):
    """What is left when a run dies between the pixels and their line, or in the middle of the line."""
    cached(records[:3], tmp_path, workers=1)
    index = settings_folder(tmp_path / "cache", INPUT_SIZE) / INDEX
    index.write_bytes(index.read_bytes()[:-10])
    reads.clear()
    assert_as_read(cached(records, tmp_path, workers=1), records)
    assert reads == ["small.png", "tall.png", "wide.png"]
    reads.clear()
    assert_as_read(cached(records, tmp_path), records)
    assert reads == []


def test_a_line_whose_pixels_are_gone_does_not_count(records, folder, tmp_path, reads):
    cached(records, tmp_path, workers=1)
    os.truncate(folder / PIXELS, (folder / PIXELS).stat().st_size - 1)
    write_film(records[0].image_path, (90, 90), seed=78)
    assert_as_read(cached(records[:1], tmp_path), records[:1])  # its pixels now stand where the last film's stood
    reads.clear()
    assert_as_read(cached(records, tmp_path), records)
    assert reads == ["wide.png"]
    (folder / PIXELS).unlink()
    reads.clear()
    assert_as_read(cached(records, tmp_path), records)
    assert len(reads) == 5


def test_processes_that_start_together_share_the_work(records, tmp_path, monkeypatch):
    real, log = cache_module.read_kept, tmp_path / "log"
    start = FORK.Barrier(3)

    def read_kept(path, input_size):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {path.name}\n")
        return real(path, input_size)

    monkeypatch.setattr(cache_module, "read_kept", read_kept)

    def fill():
        start.wait()
        assert_as_read(cached(records, tmp_path), records)

    assert in_processes(fill, fill, fill) == [0, 0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for _, name in lines) == sorted(SIZES)
    assert len({process for process, _ in lines}) == 1


def test_every_unreadable_film_is_named_and_the_others_are_kept(records, tmp_path, reads):
    records[0].image_path.write_bytes(b"")
    records[3].image_path.unlink()
    with pytest.raises(FilmError) as error:
        cached(records, tmp_path)
    first, second = str(error.value).splitlines()
    assert "deep.png: empty file" in first
    assert "tall.png: no such file" in second
    reads.clear()
    good = [records[i] for i in (1, 2, 4)]
    assert_as_read(cached(good, tmp_path), good)
    assert reads == []


def test_films_without_a_labelled_corner_are_refused(records, tmp_path):
    unlabelled = [replace(record, points_xy_image=None, states=None) for record in records]
    with pytest.raises(FilmError, match=r"none of 5 films has a labelled corner of la_lumbar"):
        cached(unlabelled, tmp_path)


def test_what_a_worker_is_sent_holds_no_pixels(records, tmp_path):
    films = cached(records, tmp_path)
    pixels = sum(films.at(0, index).image.size for index in range(len(films)))
    sent = pickle.dumps(films)
    assert pixels > 30_000  # 5 films of at most 160 x 80
    assert len(sent) < 2_000 * len(films)
    assert_as_read(pickle.loads(sent), records)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"cache": "c"}, "cache is for films on disk, source phantom draws them; leave cache out"),
        ({"shards": "s"}, "shards is for films on disk, source phantom draws them; leave shards out"),
        ({"source": "aasce", "cache": "c", "shards": "s"}, "two places for the same films; leave one out"),
        ({"source": "aasce", "shard_window": 5}, "shard_window is 5 without shards; name their folder"),
        ({"source": "aasce", "shards": "s", "repair_file": "aasce"}, "leave repair_file out"),
        ({"source": "aasce", "shards": "s", "stored_order": True}, "leave stored_order out"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(data, problem):
    splits = {"split_file": "aasce", "train_splits": ["fold0"], "validation_splits": ["fold1"]}
    with pytest.raises(ValidationError, match=problem):
        DataConfig.model_validate(splits | data)


def job(tmp_path, **data) -> Config:
    """A job on five phantom films on disk."""
    root, split_file = tmp_path / "phantoms", tmp_path / "splits.json"
    if not root.exists():
        write_films(SCHEMA, "standard", seed=3, films=5, size=(150, 90), folder=root)
        ids = sorted(path.name for path in root.glob("*.png"))
        content = {"source": "csv", "splits": {"a": ids[:3], "b": ids[3:]}, "groups": {id: id for id in ids}}
        split_file.write_text(json.dumps(content))
    sections = {"source": "csv", "root": root, "split_file": str(split_file), "input_size": [96, 64]}
    sections |= {"train_splits": ["a"], "validation_splits": ["b"], "workers": 0, **data}
    phases = [{"name": "all", "epochs": 1}]
    return Config.model_validate({"name": "job", "data": sections, "train": {"phases": phases}})


def test_a_config_takes_its_films_from_a_cache(tmp_path, reads):
    plain, quick = job(tmp_path), job(tmp_path, cache=tmp_path / "cache")
    for films_for in (training_films, validation_films):
        assert isinstance(films_for(quick), CachedFilms)
        assert films_for(quick).identity == films_for(plain).identity
    assert len(reads) == 5
    whole = selection_of(quick.data, None)
    assert len(films_of(whole, quick.data.input_size)) == len(records_of(whole)) == 5
    assert len(reads) == 5


def test_few_films_are_always_the_same_ones_and_among_those_of_more(tmp_path):
    def ids(**data):
        films = training_films(job(tmp_path, **data))
        return {films.at(0, i).id for i in range(len(films))}

    every = ids()
    one, two, more = ids(train_films=1), ids(train_films=2), ids(train_films=9)
    assert (len(one), len(two)) == (1, 2)
    assert one < two < every == more
    assert len(validation_films(job(tmp_path, train_films=1))) == 2


def prepare(config, *arguments):
    return run_apart("prepare", "--config", config, *arguments)


def test_the_script_fills_a_cache_that_training_then_finds(tmp_path, reads):
    save_config(job(tmp_path), tmp_path / "job.yaml")
    cache = tmp_path / "cache"
    refused = prepare(tmp_path / "job.yaml")
    assert refused.returncode == 2
    assert "no folder for the cache: give --out DIR, or set data.cache\n" in refused.stderr
    done = prepare(tmp_path / "job.yaml", "--out", cache, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "5 images in" in done.stdout
    assert f"runs take them with --set data.cache={cache}" in done.stdout
    films = training_films(job(tmp_path, cache=cache))
    drawn = cv2.imread(str(tmp_path / "phantoms" / films.at(0, 0).id), cv2.IMREAD_UNCHANGED)
    # 96 / 150 is less than 64 / 90: 1.25 times that is kept
    assert films.at(0, 0).image.shape == (120, 72)
    assert drawn.shape == (150, 90)
    assert reads == []


# --- damage -----------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_the_pixels_is_found_and_its_remedy_helps(records, folder, tmp_path):
    cached(records, tmp_path)
    whole, rng = (folder / PIXELS).read_bytes(), np.random.default_rng(2)
    for at in rng.integers(0, 8 * len(whole), 20):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (folder / PIXELS).write_bytes(damaged)
        films = cached(records, tmp_path)
        with pytest.raises(FilmError, match=r"are damaged; remove that file") as caught:
            [films.at(0, index) for index in range(len(films))]
        assert str(caught.value).startswith(str(tmp_path / "films"))
    (folder / PIXELS).unlink()
    assert_as_read(cached(records, tmp_path), records)


def test_a_flipped_bit_of_the_index_gives_the_same_films_or_is_found(records, folder, tmp_path):
    cached(records, tmp_path)
    whole, pixels, rng = (folder / INDEX).read_bytes(), (folder / PIXELS).read_bytes(), np.random.default_rng(2)
    wanted = FilmList(records, SCHEMA, INPUT_SIZE)
    for at in rng.integers(0, 8 * len(whole), 100):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (folder / INDEX).write_bytes(damaged)
        (folder / PIXELS).write_bytes(pixels)
        films = cached(records, tmp_path)
        for index in range(len(films)):
            with suppress(FilmError):
                assert_same_film(films.at(0, index), wanted.at(0, index))


@pytest.mark.parametrize(
    "change", [{"offset": [0]}, {"offset": -1}, {"size": [0, 5]}, {"bytes": "x"}, {"crc32": {}}]
)
def test_an_entry_that_is_none_is_read_anew(records, folder, tmp_path, change):
    cached(records, tmp_path)
    lines = [json.loads(line) | change for line in (folder / INDEX).read_text().splitlines()]
    (folder / INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert_as_read(cached(records, tmp_path), records)


def test_a_cache_of_an_earlier_version_has_no_checksum_and_is_used(records, folder, tmp_path, reads):
    cached(records, tmp_path)
    lines = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
    for line in lines:
        del line["crc32"]
    (folder / INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines))
    reads.clear()
    assert_as_read(cached(records, tmp_path), records)
    assert reads == []
