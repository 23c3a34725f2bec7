"""Films with centres or unnamed vertebrae only: dealt into splits, audited, refused where corners train."""

import json

import numpy as np
import pytest
from commands import run
from marked_films import save

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.cache import CachedFilms
from vertebra_kp.data.film_file import FilmError
from vertebra_kp.data.films import FilmList
from vertebra_kp.data.record import take_levels
from vertebra_kp.data.shards import write_shards
from vertebra_kp.data.sources import read_records

LUMBAR, WHOLE = SCHEMAS["ap_lumbar"], SCHEMAS["ap_whole_spine"]
QUADS = [[1, y, 9, y, 1, y + 4, 9, y + 4] for y in (1, 9, 17)]
SOURCES = {
    "centres": ("centres.json", {"centres": {"T12": [9, 8], "L1": [9, 18]}}),
    "spinal_ai2024": ("quads.json", {"quads": QUADS}),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    file, entry = SOURCES[request.param]
    save(tmp_path, file, {f"{i}.png": entry for i in range(6)})
    return request.param


def test_they_are_dealt_into_splits(source, tmp_path):
    path = tmp_path / "splits.json"
    done = run(
        "split", "--source", source, "--anatomy", "ap_whole_spine", "--root", tmp_path, "--folds", 3,
        "--output-file", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    splits = json.loads(path.read_text())["splits"]
    assert [len(ids) for ids in splits.values()] == [2, 2, 2]


def test_an_audit_has_nothing_to_say_of_corners_that_nobody_named(source, tmp_path):
    out = tmp_path / "audit"
    done = run(
        "audit", "--source", source, "--anatomy", "ap_whole_spine", "--root", tmp_path, "--labels-only",
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 images: 0 findings" in done.stdout
    assert (out / "audit.html").is_file()


def test_a_network_of_corners_says_what_such_films_train(source, tmp_path):
    records = read_records(source, tmp_path, WHOLE)
    told = (
        r"none of 6 films has a labelled corner of ap_whole_spine: .* train the spine network \(config ap_spine\)"
    )
    with pytest.raises(FilmError, match=told):
        FilmList(records, WHOLE, (32, 32))
    with pytest.raises(FilmError, match=told):
        CachedFilms(records, WHOLE, (32, 32), tmp_path / "cache")
    with pytest.raises(FilmError, match=told):
        write_shards(records, WHOLE, (32, 32), tmp_path / "shards", source=source, shards=1)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "shards").exists()


def test_fewer_levels_keep_their_centres_and_all_unnamed_vertebrae(source, tmp_path):
    record = read_records(source, tmp_path, WHOLE)[0]
    lumbar = take_levels(record, WHOLE, LUMBAR)
    assert (lumbar.states == np.full((5, 4), State.UNLABELLED)).all()
    if source == "centres":
        np.testing.assert_array_equal(lumbar.centres_xy_image[0], (9, 18))
        assert np.isnan(lumbar.centres_xy_image[1:]).all()
    else:
        np.testing.assert_array_equal(lumbar.unnamed_xy_image, record.unnamed_xy_image)
