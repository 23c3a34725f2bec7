"""Shards give the films that reading gives, to this project and to webdataset; bad ones are refused unread.

This file is also the program that two processes run under torchrun.
"""

import gzip
import hashlib
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from film_files import INPUT_SIZE, SCHEMA, assert_same_film, labelled_records
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_job import PATHS

from vertebra_kp.config.schema import AugmentConfig, Config
from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.datasets import FilmSelection, films_of, training_films, validation_films
from vertebra_kp.data.films import FilmList
from vertebra_kp.data.images import FilmError
from vertebra_kp.data.loader import FilmDataset, open_batches, shuffled
from vertebra_kp.data.record import Record
from vertebra_kp.data.shards import MAX_BYTES, ShardFilms, ShardOrder, read_shards, write_shards
from vertebra_kp.data.sources import SourceError
from vertebra_kp.training.distributed import process_group

ROOT = Path(__file__).parents[2]
SOURCE = "csv"
PROCESSES, BATCH, RESUMED_AT = 2, 2, 3
WINDOW = 4


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return labelled_records(tmp_path_factory.mktemp("films"))


def write(records, folder, *, shards=2, workers=None):
    return write_shards(records, SCHEMA, INPUT_SIZE, folder, source=SOURCE, shards=shards, workers=workers)


def opened(folder, schema=SCHEMA, input_size=INPUT_SIZE, *, window=None) -> ShardFilms:
    records, places = read_shards(folder, SOURCE, schema, input_size)
    return ShardFilms(records, places, schema, input_size, window=window)


@pytest.fixture(scope="module")
def shards(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write(records, folder)
    return folder


def test_films_from_shards_are_bit_equal_to_those_from_their_files(records, shards):
    films, wanted = opened(shards), FilmList(records, SCHEMA, INPUT_SIZE)
    assert len(films) == len(wanted) == 5
    assert films.identity == wanted.identity
    for index in range(len(wanted)):
        assert_same_film(films.at(0, index), wanted.at(0, index))
    assert len({films.at(0, index).file for index in range(5)}) == 5
    assert sorted(path.name for path in shards.iterdir()) == ["films-000000.tar", "films-000001.tar"]


def test_records_from_shards_are_those_that_were_written(records, shards):
    found, _ = read_shards(shards, SOURCE, SCHEMA, INPUT_SIZE)
    for record, wanted in zip(found, records, strict=True):
        np.testing.assert_array_equal(record.points_xy_image, wanted.points_xy_image)
        np.testing.assert_array_equal(record.states, wanted.states)
        assert (record.id, record.group, record.spacing_mm) == (wanted.id, wanted.group, wanted.spacing_mm)


def test_slips_and_view_come_back_from_shards(records, tmp_path):
    told = replace(records[0], view=SCHEMA.view, slips=np.array([0, 3, UNKNOWN, 4, 0, UNKNOWN], np.int8))
    write([told, records[1]], tmp_path, shards=1)
    again = {record.id: record for record in read_shards(tmp_path, SOURCE, SCHEMA, INPUT_SIZE)[0]}
    np.testing.assert_array_equal(again[told.id].slips, told.slips)
    assert again[told.id].slips.dtype == np.int8
    assert again[told.id].view == SCHEMA.view
    assert again[records[1].id].slips is None
    assert opened(tmp_path).identity == FilmList([told, records[1]], SCHEMA, INPUT_SIZE).identity


def test_older_shards_tell_no_slips_and_no_view(good, tmp_path):
    png, told = good
    old = {key: value for key, value in told.items() if key not in ("slips", "view")}
    assert len(old) == len(told) - 2
    write_tar(tmp_path / "old.tar", pair((png, old)))
    ((record,), _) = read_shards(tmp_path, SOURCE, SCHEMA, INPUT_SIZE)
    assert (record.view, record.slips) == (None, None)


def test_fewer_levels_than_were_written_can_be_read(records, tmp_path):
    whole = SCHEMAS["la_lumbar"]
    write_shards(records, whole, INPUT_SIZE, tmp_path, source=SOURCE, shards=1)
    found, _ = read_shards(tmp_path, SOURCE, SCHEMAS["ap_lumbar"], INPUT_SIZE)
    np.testing.assert_array_equal(found[0].points_xy_image, records[0].points_xy_image[:5])


def test_the_same_films_give_the_same_bytes(records, shards, tmp_path):
    for path in write(records, tmp_path, workers=1):
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_webdataset_reads_the_shards(records, shards):
    import webdataset

    paths = [str(path) for path in sorted(shards.glob("*.tar"))]
    wanted = {record.id: FilmList([record], SCHEMA, INPUT_SIZE).at(0, 0) for record in records}
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
    assert len(samples) == 5
    for sample in samples:
        film = wanted.pop(sample["json"]["id"])
        assert sample["json"]["size"] == list(film.size)
        raw = cv2.imdecode(np.frombuffer(sample["png"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(raw, film.image)


def test_shards_that_webdataset_wrote_are_read(records, shards, tmp_path):
    import webdataset

    films = opened(shards)
    described = {}
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    film = json.load(tar.extractfile(member))
                    described[film["id"]] = film
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=2, verbose=0) as writer:
        for index in range(len(films)):
            film = films.at(0, index)
            sample = {"png": film.image, "json": described[film.id], "cls": 3}
            writer.write({"__key__": f"some/where/{index}", **sample})
    assert len(list(tmp_path.iterdir())) == 3
    again = opened(tmp_path)
    assert again.identity == films.identity
    for index in range(len(films)):
        assert_same_film(again.at(0, index), films.at(0, index))


def test_nothing_is_left_where_a_film_cannot_be_read(tmp_path):
    records = labelled_records(tmp_path / "films")
    for number in (0, 3):
        records[number].image_path.write_bytes(b"")
    with pytest.raises(FilmError) as error:
        write(records, tmp_path / "out")
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "empty file (0 bytes); copy or export it again"
    ] * 2
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_are_never_mixed_with_older_ones_nor_left_empty(records, shards, tmp_path):
    with pytest.raises(UserError, match=r"holds shards already \(films-000000\.tar"):
        write(records, shards)
    with pytest.raises(UserError, match="shards 6: there are 5 films; ask for fewer"):
        write(records, tmp_path, shards=6)


def test_shards_of_a_run_that_was_killed_between_their_names_are_refused_and_written_anew(
    records, shards, tmp_path
):
    for shard in shards.glob("*.tar"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    last = tmp_path / "films-000001.tar"
    last.rename(last.with_name(last.name + ".partial"))
    with pytest.raises(SourceError, match=r"not whole, films-000001\.tar\.partial .*prepare the shards again"):
        opened(tmp_path)
    write(records, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films-000000.tar", "films-000001.tar"]
    assert len(opened(tmp_path)) == 5


def regular(name, content, size=None):
    member = tarfile.TarInfo(name)
    member.size = len(content) if size is None else size
    return member, content


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def extended(records, size=None):
    """A pax header with these records."""
    content = b""
    for keyword, value in records.items():
        record = f" {keyword}={value}\n".encode()
        content += str(len(record) + 2).encode() + record  # lengths of two digits
    member, content = regular("h", content, size)
    member.type = tarfile.XHDTYPE
    return member, content


def write_tar(path, members):
    """Headers and contents as given, sizes unchecked; then the end mark."""
    blocks = b""
    for member, content in members:
        header = member if isinstance(member, bytes) else member.tobuf(tarfile.USTAR_FORMAT)
        blocks += header + content + bytes(-len(content) % 512)
    path.write_bytes(blocks + bytes(1024))


@pytest.fixture(scope="module")
def good(shards):
    """PNG and JSON of a film, as they stand in a shard."""
    with tarfile.open(shards / "films-000000.tar") as tar:
        contents = {m.name.split(".")[1]: tar.extractfile(m).read() for m in tar.getmembers()[:2]}
    return contents["png"], json.loads(contents["json"])


def pair(good, key="a", png=None, **changes):
    """A film's two members, with another PNG or other fields."""
    text = json.dumps(good[1] | {"crc32": None} | changes).encode()  # changed on purpose
    return [regular(f"{key}.json", text), regular(f"{key}.png", good[0] if png is None else png)]


def test_a_shard_made_by_hand_is_read(good, tmp_path):
    named = [extended({"mtime": "1.5", "path": "ü.json"}), *pair(good, "c", id="third")]
    named[2:2] = [extended({"path": "ü.png"})]
    write_tar(tmp_path / "x.tar", named + pair(good) + pair(good, "folder.with.dots/b", id="other"))
    films = opened(tmp_path)
    assert len(films) == 3
    assert {Path(films.at(0, index).file).name for index in range(3)} == {"a.png", "b.png", "ü.png"}


def negative_size(name):
    """A header whose size is -512, in the binary form that tar has for large numbers."""
    member = tarfile.TarInfo(name)
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header), b""


HUGE = 7 * 2**30  # of a member that only says so: reading it would fail, or fill the memory
STRANGE_MEMBERS = {
    "link": ([special("b.png", tarfile.SYMTYPE, "/etc/passwd")], r"b\.png is of tar type '2'; only regular files"),
    "hard link": ([special("b.png", tarfile.LNKTYPE, "a.png")], "tar type '1'"),
    "folder": ([special("b", tarfile.DIRTYPE)], "tar type '5'"),
    "device": ([special("b.png", tarfile.CHRTYPE)], "tar type '3'"),
    "pipe": ([special("b.png", tarfile.FIFOTYPE)], "tar type '6'"),
    "sparse": ([special("b.png", tarfile.GNUTYPE_SPARSE)], "tar type 'S'"),
    "global header": ([special("b.png", tarfile.XGLTYPE)], "tar type 'g'"),
    "long name": ([special("b.png", tarfile.GNUTYPE_LONGNAME)], "tar type 'L'"),
    "huge header": ([extended({}, HUGE)], rf"is a header of {HUGE} bytes, at most 65536"),
    "damaged header": ([extended({"": "x"}), regular("b.png", b"x")], "is a damaged header"),
    "other size": ([extended({"size": "5"}), regular("b.png", b"x")], "has size; only whole files of plain size"),
    "sparse by header": ([extended({"GNU.sparse.major": "1"}), regular("b.png", b"x")], "has GNU.sparse.major"),
    "outside by header": ([extended({"path": "../b.png"}), regular("b.png", b"x")], "'../b.png' must stay"),
    "absolute": ([regular("/etc/b.png", b"x")], r"'/etc/b\.png'.*must stay inside the shard"),
    "outside": ([regular("c/../../b.png", b"x")], "must stay inside the shard"),
    "backwards": ([negative_size("b.png")], r"b\.png has -512 bytes"),
    "no name": ([regular("b", b"x")], r"b: a name must be KEY\.png or KEY\.json"),
    "huge PNG": ([regular("b.png", b"", HUGE)], rf"b\.png has {HUGE} bytes, at most {MAX_BYTES['png']}"),
    "huge JSON": ([regular("b.json", b"", HUGE)], rf"b\.json has {HUGE} bytes, at most {MAX_BYTES['json']}"),
    "huge other": ([regular("b.npy", b"", HUGE)], "cut off: no end mark follows its last member"),
    "alone": ([regular("b.png", b"x")], "b has no json"),
    "empty": ([regular("b.txt", b"x")], "b has no json and no png"),
    "twice": ([regular("b.png", b"x"), regular("b.png", b"y")], r"b\.png stands there twice"),
    "no JSON": ([regular("b.json", b"{"), regular("b.png", b"x")], r"b\.json: .*Invalid JSON"),
    "another JSON": ([regular("b.json", b"{}"), regular("b.png", b"x")], r"b\.json: source: Field required"),
}


@pytest.mark.parametrize("name", STRANGE_MEMBERS)
def test_a_member_that_does_not_belong_is_refused_unread(good, tmp_path, name):
    members, complaint = STRANGE_MEMBERS[name]
    write_tar(tmp_path / "good.tar", pair(good))
    write_tar(tmp_path / "strange.tar", pair(good, id="other") + members)
    with pytest.raises(SourceError, match=rf"1 problem; write or copy(.|\n)*strange\.tar: .*{complaint}") as error:
        opened(tmp_path)
    assert "good.tar" not in str(error.value)


def test_every_bad_shard_is_named_at_once(good, shards, tmp_path):
    whole = (shards / "films-000000.tar").read_bytes()
    middle = whole.index(b"ustar", 600) - 257  # the second header
    damaged = bytearray(whole)
    damaged[middle + 5] ^= 1
    contents = {
        "cut.tar": whole[: middle + 100],
        "damaged.tar": bytes(damaged),
        "empty.tar": b"",
        "packed.tar": gzip.compress(whole),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write_tar(tmp_path / "missing.tar", pair(good)[:1])
    with pytest.raises(SourceError) as error:
        opened(tmp_path)
    head, *lines = str(error.value).splitlines()
    assert "5 problems" in head
    for line, (name, problem) in zip(
        lines,
        [
            ("cut.tar", "cut off"),
            ("damaged.tar", "bad checksum"),
            ("empty.tar", "cut off"),
            ("missing.tar", "has no png"),
            ("packed.tar", ""),
        ],
        strict=True,
    ):
        assert line.strip().startswith(f"{name}: ")
        assert problem in line


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "aasce"}, "films of source aasce, data.source is csv"),
        ({"input_size": [256, 64]}, r"for input_size \[256, 64\] at resolution 1\.25, data.input_size is \[128"),
        ({"kept_resolution": 2.0}, "at resolution 2.0"),
        ({"anatomy": "tail"}, "anatomy must be one of ap_lumbar, la_lumbar, .*, got 'tail'"),
        ({"anatomy": "ap_lumbar"}, "films with the levels of ap_lumbar, data.anatomy is la_lumbar"),
        ({"size": [0, 5]}, r"a\.json: size\.0: .*greater than 0"),
        ({"states": [[1, 1, 1, 1]]}, "states must be 6 x 4 for la_lumbar"),
        ({"slips": [0, 0, 0]}, "slips must be 6 for la_lumbar"),
        ({"slips": [0, 0, 0, 5, 0, 0]}, r"a\.json: slips\.3: .*less than 5"),
        ({"view": "PA"}, r"a\.json: view: .*'AP' or 'LA'"),
        ({"states": [[1, 1, 1, 9]] * 6}, r"a\.json: states\.0\.3"),
        ({"points_xy_image": [[None] * 4] * 6}, "L1 TL is labelled without a position"),
        ({"points_xy_image": [[[float("nan"), 1.0]] * 4] * 6}, r"a\.json: points_xy_image\.0\.0\.0"),
    ],
)
def test_a_film_that_does_not_fit_is_refused(good, tmp_path, changes, complaint):
    write_tar(tmp_path / "x.tar", pair(good, **changes))
    with pytest.raises(SourceError, match=rf"x\.tar: .*{complaint}"):
        opened(tmp_path)


def test_a_film_that_stands_in_two_shards_is_refused(good, tmp_path):
    write_tar(tmp_path / "x.tar", pair(good))
    write_tar(tmp_path / "y.tar", pair(good, "b"))
    with pytest.raises(SourceError, match=r"y\.tar: b\.png: x\.tar has film .* too"):
        opened(tmp_path)


def test_a_folder_without_shards_says_how_to_make_them(tmp_path):
    with pytest.raises(SourceError, match=r"holds no \.tar; prepare shards first"):
        opened(tmp_path)


def test_corners_that_a_level_does_not_have_stay_nonexistent(good, tmp_path):
    write_tar(tmp_path / "x.tar", pair(good, points_xy_image=[[[3.0, 4.0]] * 4] * 6, states=[[1] * 4] * 6))
    film = opened(tmp_path).at(0, 0)
    assert film.states[5].tolist() == [State.LABELLED] * 2 + [State.NONEXISTENT] * 2
    assert np.isnan(film.points_xy[5, 2:]).all()


def bomb(height, width):
    """A PNG of a few bytes whose header tells of many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def as_png(image):
    return cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes()


def test_a_png_that_is_not_the_film_is_told_with_its_place(good, tmp_path):
    image = cv2.imdecode(np.frombuffer(good[0], np.uint8), cv2.IMREAD_UNCHANGED)
    height, width = image.shape
    wanted = f"wanted 8-bit gray of {height} x {width}"
    wrong = {
        "bomb": (bomb(8000, 9000), f"{wanted}, got L of 8000 x 9000"),
        "colour": (as_png(np.dstack([image] * 3)), f"{wanted}, got RGB of {height} x {width}"),
        "turned": (as_png(image.T), f"{wanted}, got L of {width} x {height}"),
        "deep": (as_png(image.astype(np.uint16)), f"{wanted}, got I;16 of {height} x {width}"),
        "cut": (good[0][: len(good[0]) // 2], "truncated"),
        "jpeg": (cv2.imencode(".jpg", image)[1].tobytes(), "cannot identify image"),
    }
    members = [part for key, (png, _) in wrong.items() for part in pair(good, key, png, id=key)]
    write_tar(tmp_path / "x.tar", members)
    films = opened(tmp_path)
    for index, key in enumerate(sorted(wrong)):
        with pytest.raises(FilmError) as error:
            films.at(0, index)
        assert str(error.value).startswith(f"{tmp_path / 'x.tar'}/{key}.png: ")
        assert wrong[key][1] in str(error.value)


def job(folder, split_file, **data) -> Config:
    sections = {"source": SOURCE, "anatomy": SCHEMA.name, "input_size": INPUT_SIZE, "split_file": str(split_file)}
    sections |= {"shards": folder, "train_splits": ["a"], "validation_splits": ["b"], "workers": 0, **data}
    phases = [{"name": "all", "epochs": 1}]
    return Config.model_validate({"name": "job", "data": sections, "train": {"phases": phases}})


def test_a_config_takes_its_splits_from_shards(records, shards, tmp_path):
    ids = [record.id for record in records]
    splits = {"a": [ids[0], ids[3], ids[4]], "b": [ids[1], ids[2]]}
    content = {"source": SOURCE, "splits": splits, "groups": {record.id: record.group for record in records}}
    (tmp_path / "splits.json").write_text(json.dumps(content))
    config = job(shards, tmp_path / "splits.json")
    chosen = [records[i] for i in (0, 3, 4)]
    assert training_films(config).identity == FilmList(chosen, SCHEMA, INPUT_SIZE).identity
    assert len(validation_films(config)) == 2
    assert len(films_of(FilmSelection(SOURCE, None, SCHEMA, shards=shards), INPUT_SIZE)) == 5
    with pytest.raises(SourceError, match="source csv has no parts"):  # shards have none either
        films_of(FilmSelection(SOURCE, None, SCHEMA, part="test", shards=shards), INPUT_SIZE)
    near = training_films(job(shards, tmp_path / "splits.json", shard_window=WINDOW))
    assert near.order.window == WINDOW
    assert sorted(index for shard in near.order.shards for index in shard) == [0, 1, 2]
    assert FilmDataset(near, SCHEMA, INPUT_SIZE).shard_order == near.order
    assert FilmDataset(training_films(config), SCHEMA, INPUT_SIZE).shard_order is None


def order_of(sizes, window):
    """An order over shards of the given sizes; the films lie in them as a shuffled pack of cards."""
    cards = np.random.default_rng(0).permutation(sum(sizes)).tolist()
    ends = np.cumsum(sizes)
    dealt = (tuple(cards[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    return ShardOrder(tuple(dealt), window)


shard_sizes = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@settings(deadline=None)
@given(sizes=shard_sizes, window=st.integers(1, 30), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_every_film_comes_once_and_near_its_shard(sizes, window, seed, epoch):
    order = order_of(sizes, window)
    drawn = order.shuffled(seed, epoch).tolist()
    assert sorted(drawn) == list(range(sum(sizes)))
    assert drawn == order.shuffled(seed, epoch).tolist()
    # Undisturbed, the shards come one after the other in an order that the seed and the epoch choose.
    still = ShardOrder(order.shards, 1).shuffled(seed, epoch).tolist()
    places = {film: place for place, film in enumerate(still)}
    assert all(abs(places[film] - place) < window for place, film in enumerate(drawn))
    shard_of = {film: i for i, shard in enumerate(order.shards) for film in shard}
    visited = [shard_of[film] for film in still]
    assert len(sizes) == 1 + sum(a != b for a, b in pairwise(visited))
    assert [film for i in dict.fromkeys(visited) for film in order.shards[i]] == still


@pytest.mark.parametrize(("window", "orders"), [(1, 12), (5, 16)])  # two of 16 orders of six shards may agree
def test_the_order_of_shards_changes_with_epoch_and_seed(window, orders):
    order = order_of([7] * 6, window)
    assert len({tuple(order.shuffled(seed, epoch)) for seed in range(4) for epoch in range(4)}) >= orders


def test_films_of_a_shard_are_read_as_they_lie_in_it(shards):
    lying = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = [member for member in tar.getmembers() if member.name.endswith(".json")]
            lying.append([json.load(tar.extractfile(member))["id"] for member in members])
    films = opened(shards, window=1)
    assert [[films.at(0, index).id for index in shard] for shard in films.order.shards] == lying
    assert lying != [sorted(ids) for ids in lying]  # else the order of the ids would do


@settings(deadline=None)
@given(sizes=shard_sizes, batch_size=st.integers(1, 4), world_size=st.integers(1, 3), start=st.integers(0, 20))
def test_a_sampler_deals_the_order_of_shards_to_ranks(sizes, batch_size, world_size, start):
    order = order_of(sizes, 6)
    films = sum(sizes)
    arguments = {"seed": 5, "batch_size": batch_size, "world_size": world_size, "shard_order": order}
    whole = [shuffled(films, 2, rank=rank, **arguments) for rank in range(world_size)]
    late = [shuffled(films, 2, rank=rank, start=start, **arguments) for rank in range(world_size)]
    assert late == [items[start:] for items in whole]
    usable = films - films % (batch_size * world_size)
    together = [index for turn in zip(*whole, strict=True) for _, index in turn]
    assert together == order.shuffled(5, 2)[:usable].tolist()


def dataset_of(films):
    augmentation = AugmentConfig(rotate_deg=9, noise=0.1)
    return FilmDataset(films, SCHEMA, INPUT_SIZE, augmentation=augmentation, seed=4)


def batches(dataset, *, rank=0, world_size=1, batch_size=BATCH, start=0, workers=0):
    """Of one epoch: for every batch, id and hash of the pixels of each film."""
    items = shuffled(
        len(dataset),
        1,
        seed=4,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        start=start,
        shard_order=dataset.shard_order,
    )
    with open_batches(dataset, items, batch_size=batch_size, workers=workers) as opened_batches:
        return [
            [
                (labels.id, hashlib.sha256(image.numpy().tobytes()).hexdigest())
                for labels, image in zip(batch.labels, batch.image, strict=True)
            ]
            for batch in opened_batches
        ]


def many_films(folder: Path) -> list[Record]:
    """Seventeen records, so that two processes take four steps and a film is left over."""
    copies = {copy: labelled_records(folder / str(copy)) for copy in range(4)}
    return [replace(record, id=f"{copy} {record.id}") for copy in copies for record in copies[copy]][:17]


def program(folder: Path) -> None:
    """Each process draws an epoch, then its end as a resumed run would; the main one writes what all drew."""
    with process_group("cpu") as group:
        place = {"rank": group.rank, "world_size": group.world_size, "workers": 1}
        drawn = {}
        for window in (None, WINDOW):
            dataset = dataset_of(opened(folder, window=window))
            undisturbed = batches(dataset, **place)
            resumed = batches(dataset, start=RESUMED_AT * BATCH, **place)
            drawn[str(window)] = group.gather([undisturbed, resumed])
        if group.is_main:
            (folder / "drawn.json").write_text(json.dumps(drawn))


def test_two_processes_share_the_films_and_resume_exactly(tmp_path):
    records = many_films(tmp_path / "films")
    folder = tmp_path / "shards"
    write(records, folder, shards=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={PROCESSES}", __file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": PATHS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = json.loads((folder / "drawn.json").read_text())
    steps = len(records) // (BATCH * PROCESSES)
    for window in (None, WINDOW):
        undisturbed, resumed = zip(*drawn[str(window)], strict=True)
        assert [len(rank) for rank in undisturbed] == [steps] * PROCESSES
        assert list(resumed) == [rank[RESUMED_AT:] for rank in undisturbed]
        seen = [film for rank in undisturbed for batch in rank for film, _ in batch]
        assert len(set(seen)) == len(seen) == steps * BATCH * PROCESSES
        # One process with the same global batch sees the same films in each step, and the same pixels.
        alone = batches(dataset_of(opened(folder, window=window)), batch_size=BATCH * PROCESSES)
        for step in range(steps):
            together = [film for rank in undisturbed for film in rank[step]]
            assert sorted(map(tuple, together)) == sorted(alone[step])
    # Without a window, the films are those that come when they are read from their files.
    from_files = batches(dataset_of(FilmList(records, SCHEMA, INPUT_SIZE)), batch_size=BATCH * PROCESSES)
    assert from_files == batches(dataset_of(opened(folder)), batch_size=BATCH * PROCESSES)


if __name__ == "__main__":
    program(Path(sys.argv[1]))


# --- damage -----------------------------------------------------------------------------------------------


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)


def test_a_flipped_bit_is_found_in_labels_and_in_pixels(records, shards, tmp_path):
    sound, rng = opened(shards), np.random.default_rng(3)
    whole = (shards / "films-000000.tar").read_bytes()
    refused = 0
    for at in rng.integers(0, 8 * len(whole), 150):
        (tmp_path / "x.tar").write_bytes(whole)
        flipped(tmp_path / "x.tar", at)
        try:
            films = opened(tmp_path)
            read = [films.at(0, index) for index in range(len(films))]
        except UserError as error:
            refused += "x.tar" in str(error)
            continue
        by_id = {sound.at(0, index).id: sound.at(0, index) for index in range(len(sound))}
        for film in read:
            np.testing.assert_array_equal(film.image, by_id[film.id].image)
            np.testing.assert_array_equal(film.points_xy, by_id[film.id].points_xy)
    assert refused > 80  # much of a tar is padding


def test_shards_of_an_earlier_version_have_no_checksum_and_are_read(good, tmp_path):
    members = pair(good)
    text = {key: value for key, value in good[1].items() if key not in ("crc32", "pixels_crc32")}
    write_tar(tmp_path / "x.tar", [regular("a.json", json.dumps(text).encode()), members[1]])
    assert len(opened(tmp_path)) == 1


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_a_shard_that_is_damaged_in_mid_epoch_ends_it_with_its_name(records, tmp_path, workers):
    write(records, tmp_path)
    films = opened(tmp_path)
    place = films._places[-1]
    flipped(place.shard, 8 * (place.offset + place.length // 2))
    dataset, items = FilmDataset(films, SCHEMA, INPUT_SIZE), [(0, index) for index in range(5)]
    with (
        pytest.raises(FilmError) as caught,
        open_batches(dataset, items, batch_size=1, workers=workers) as batches,
    ):
        list(batches)
    assert str(caught.value).startswith(f"{place.shard}/{place.member}: ")
    assert "\n" not in str(caught.value)
