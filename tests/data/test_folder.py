"""Films in folders: links, results of earlier runs, and what is left out."""

import logging
import os
import threading
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.film_file import FilmError, is_dicom
from vertebra_kp.data.images import film_size, read_film
from vertebra_kp.data.record import LabelledFilm, label_arrays
from vertebra_kp.data.sources import SourceError, find_films, read_records
from vertebra_kp.data.writers import WRITERS

NFC, NFD = (unicodedata.normalize(form, "Wirbelsäule.png") for form in ("NFC", "NFD"))


def write_film(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 30), 90, np.uint8)).save(path)
    return path


def links_are_made(tmp_path):
    try:
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("links cannot be made here")
    (tmp_path / "link").unlink()


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: caplog.messages


@pytest.mark.parametrize("results", ["films/results", "films/deep/er"])
@pytest.mark.parametrize("inputs", ["films", "films/*", "films/**", "films/**/*.*"])
def test_the_folder_of_the_new_results_is_left_out_and_its_images_counted(tmp_path, said, inputs, results):
    film = write_film(tmp_path / "films" / "a.png")
    write_film(tmp_path / results / "overlays" / "a.png.jpg")
    write_film(tmp_path / results / "attention" / "a.png.png")
    assert find_films([str(tmp_path / inputs)], results=tmp_path / results) == [film]
    assert said() == [f"left out: 2 images of results in {tmp_path / results}"]


@pytest.mark.parametrize("inputs", ["films", "films/*", "films/**"])
def test_pictures_of_earlier_results_are_left_out_wherever_they_lie(tmp_path, said, inputs):
    film = write_film(tmp_path / "films" / "a.png")
    for results in (tmp_path / "films" / "first", tmp_path / "films" / "deep" / "second"):
        write_film(results / "overlays" / "a.png.jpg")
        write_film(results / "worst_films.png")
        (results / "predictions.json").touch()
    assert find_films([str(tmp_path / inputs)]) == [film]
    assert sum(line.count("images of results in") for line in said()) == 4


def test_results_beside_the_films_cost_only_their_pictures(tmp_path):
    film = write_film(tmp_path / "a.png")
    write_film(tmp_path / "overlays" / "a.png.jpg")
    (tmp_path / "predictions.jsonl").touch()
    assert find_films([str(tmp_path)], results=tmp_path) == [film]
    own = write_film(tmp_path / "more" / "b.png")
    assert find_films([str(tmp_path / "more")], results=tmp_path) == [own]


def test_folders_of_a_result_name_without_results_are_searched(tmp_path):
    film = write_film(tmp_path / "reports" / "a.png")
    assert find_films([str(tmp_path)]) == [film]


def test_an_overlay_that_is_named_itself_is_read(tmp_path):
    overlay = write_film(tmp_path / "results" / "overlays" / "a.png.jpg")
    (tmp_path / "results" / "predictions.json").touch()
    assert find_films([str(overlay)], results=tmp_path / "results") == [overlay]
    assert find_films([str(overlay.parent)]) == [overlay]


@pytest.mark.parametrize("inputs", ["films", "films/*", "films/**", "films/**/*.png"])
def test_linked_folders_are_searched_once_however_they_are_linked(tmp_path, inputs):
    links_are_made(tmp_path)
    film = write_film(tmp_path / "films" / "own" / "a.png")
    write_film(tmp_path / "elsewhere" / "b.png")
    films = tmp_path / "films"
    (films / "linked").symlink_to(tmp_path / "elsewhere")
    (films / "back").symlink_to(films)
    (films / "up").symlink_to(tmp_path)
    (films / "again").symlink_to(films / "own")
    (tmp_path / "elsewhere" / "back").symlink_to(films)
    found = find_films([str(tmp_path / inputs)])
    assert film in found
    assert sorted(path.name for path in found) == ["a.png", "b.png"]


def test_everything_that_is_left_out_is_counted(tmp_path, said):
    links_are_made(tmp_path)
    write_film(tmp_path / "a.png")
    for name in ("notes.txt", "deep/labels.csv", ".b.png", "._a.png", ".hidden/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    find_films([str(tmp_path)])
    (line,) = said()
    assert set(line.removeprefix("left out: ").split("; ")) == {
        "2 hidden files",
        "1 hidden folders",
        "2 files that are no images",
        "1 links that lead nowhere, pipes or devices",
        "1 links to folders that were searched already",
    }


def test_a_folder_of_films_alone_needs_no_word(tmp_path, said):
    write_film(tmp_path / "a.png")
    find_films([str(tmp_path)])
    assert said() == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["pipe.png", "pipe.dcm", "pipe"])
def test_a_pipe_is_left_out_of_a_search_and_refused_by_name(tmp_path, name):
    film, pipe = write_film(tmp_path / "a.png"), tmp_path / name
    os.mkfifo(pipe)

    def look():
        assert find_films([str(tmp_path)]) == find_films([str(tmp_path / "*")]) == [film]
        assert is_dicom(pipe) == (pipe.suffix == ".dcm")
        for read in (read_film, film_size):
            with pytest.raises(FilmError, match="a pipe or device, not a film"):
                read(pipe)
        looked.append(True)

    looked = []
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert looked, "waits for the other end of the pipe, or a check failed"


@pytest.mark.parametrize(("named", "stored"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_is_found_in_either_spelling_of_its_accents(tmp_path, named, stored):
    film = write_film(tmp_path / f"Süd-{stored}" / stored)
    if (tmp_path / f"Süd-{named}").exists():
        pytest.skip("this disk takes both spellings for one")
    assert find_films([str(tmp_path / f"Süd-{named}" / named)]) == [film]


def test_two_files_whose_names_differ_in_spelling_alone_are_not_mixed_up(tmp_path):
    write_film(tmp_path / NFC)
    write_film(tmp_path / NFD)
    assert find_films([str(tmp_path / NFC)]) == [tmp_path / NFC]
    assert len(find_films([str(tmp_path)])) == len(os.listdir(tmp_path))


@pytest.mark.parametrize(("source", "file"), [("slicer", "a.mrk.json"), ("labelme", "a.json")])
def test_labels_in_a_linked_folder_are_not_passed_over_in_silence(tmp_path, source, file):
    links_are_made(tmp_path)
    write_film(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "elsewhere" / file).write_text("{}")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=f"linked/{file}: .*link to a place outside"):
        read_records(source, tmp_path / "root", SCHEMAS["ap_lumbar"])


@pytest.mark.parametrize(("named", "stored"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize("source", sorted(WRITERS))
def test_every_format_finds_a_film_in_either_spelling_of_its_accents(tmp_path, source, named, stored):
    schema = SCHEMAS["ap_lumbar"]
    points, states = label_arrays(schema)
    points[0, 0], states[0, 0] = (7.5, 8.5), State.LABELLED
    WRITERS[source]([LabelledFilm(named, (40, 30), schema, points, states, named)], tmp_path)
    film = write_film(tmp_path / stored)
    (record,) = read_records(source, tmp_path, schema)
    assert (record.image_path, record.id) == (film, stored)
    np.testing.assert_allclose(record.points_xy_image, points, atol=1e-3)
