"""Every format gives back what was written in it: corners to 0.01 px, and whatever else it has a place for."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_format_coco import one_film

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.record import LabelledFilm, label_arrays
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.writers import WRITERS

TOLERANCE_PX = 0.01
EVERY_WRITER = pytest.mark.parametrize("name", sorted(WRITERS))

KEEP_PATIENTS = {"coco", "csv", "json", "label_studio"}
KEEP_SPACING = {*KEEP_PATIENTS, "slicer"}
KEEP_STATES = {"csv", "json"}

# what both Windows and POSIX take as one name
names = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters='/\\:*?"<>|'), min_size=1, max_size=20
).filter(lambda name: name == name.strip() == name.strip(" ."))


@st.composite
def labelled_films(draw):
    """One to three films of a schema: odd sizes, any names, missing levels, any states, corners off the film."""
    schema = draw(st.sampled_from(list(SCHEMAS.values())))
    folder = draw(st.just("") | names.map(lambda name: name.replace(".", "_") + "/"))
    stems = draw(st.lists(names, min_size=1, max_size=3, unique_by=str.casefold))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    films = []
    for stem in stems:
        height, width = draw(st.tuples(st.integers(1, 6001), st.integers(1, 6001)))
        points, states = label_arrays(schema)
        states[schema.exists] = rng.choice([int(state) for state in State], schema.num_channels)
        states[rng.random(schema.num_levels) < 0.2] = State.NONEXISTENT  # missing vertebrae
        states[schema.channels[0]] = State.LABELLED  # a film without any label is not read back
        labelled = states == State.LABELLED
        points[labelled] = rng.uniform((-3, -3), (width + 3, height + 3), (labelled.sum(), 2))
        file = f"{draw(st.sampled_from([folder, '']))}{stem}.png"
        group = draw(st.sampled_from([file, "P 7", "Müller 椎"]))
        spacing_mm = draw(st.none() | st.floats(0.01, 2))
        films.append(LabelledFilm(file, (height, width), schema, points, states, group, spacing_mm))
    return films


def expected_states(name, film):
    """States of a film as the format can say them; what it cannot say is unlabelled."""
    if name in KEEP_STATES:
        return film.states
    kept = film.states == State.LABELLED
    if name == "cvat":
        kept |= film.states == State.OUTSIDE
    _, unlabelled = label_arrays(film.schema)
    return np.where(kept, film.states, unlabelled)


@EVERY_WRITER
@settings(max_examples=40, deadline=None)
@given(films=labelled_films())
def test_what_is_written_is_read_back(name, films):
    with TemporaryDirectory() as folder:
        root = Path(folder) / "films of köln"
        for film in films:
            (root / film.file).parent.mkdir(parents=True, exist_ok=True)
            (root / film.file).touch()
        WRITERS[name](films, root)
        records = {record.id: record for record in read_records(name, root, films[0].schema)}
        assert records.keys() == {film.file for film in films}
        for film in films:
            record = records[film.file]
            np.testing.assert_array_equal(record.states, expected_states(name, film))
            np.testing.assert_allclose(record.points_xy_image, film.points_xy_image, rtol=0, atol=TOLERANCE_PX)
            assert record.image_path == root / film.file
            assert record.group == (film.group if name in KEEP_PATIENTS else film.file)
            known = film.spacing_mm if name in KEEP_SPACING else None
            assert record.spacing_mm == (known and pytest.approx(known, rel=1e-8))
            assert record.anterior_side == ("left" if film.schema.view == "LA" else None)


@EVERY_WRITER
def test_nothing_is_written_through_a_link_that_leads_out_of_the_folder(tmp_path, name):
    WRITERS[name]([one_film()], tmp_path / "as usual")
    written = [path.name for path in (tmp_path / "as usual").iterdir()]
    assert written
    elsewhere = tmp_path / "elsewhere"
    for number, file in enumerate(written):
        elsewhere.write_text("mine")
        out = tmp_path / f"out {number}"
        out.mkdir()
        (out / file).symlink_to(elsewhere)
        with pytest.raises(UserError, match=r"through a link to .*elsewhere.*remove the link"):
            WRITERS[name]([one_film()], out)
        assert elsewhere.read_text() == "mine"
        assert [path.name for path in out.iterdir()] == [file]


@EVERY_WRITER
def test_a_link_within_the_folder_is_no_way_out(tmp_path, name):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")  # the folder itself may be one
    WRITERS[name]([one_film()], tmp_path / "out")
    (tmp_path / "real/a.png").touch()
    (record,) = read_records(name, tmp_path / "out", one_film().schema)
    assert (record.states == State.LABELLED).sum() == 22


@pytest.mark.parametrize("file", [" a.png", "a.png ", "\u2003a.png"])
def test_a_name_that_a_table_would_lose_is_refused(tmp_path, file):
    with pytest.raises(UserError, match="begins or ends with a space"):
        WRITERS["csv"]([one_film(), one_film(file=file)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["csv", "labelme"])
def test_a_name_that_is_no_text_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        WRITERS[name]([one_film(), one_film(file="b\udcff.png")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
