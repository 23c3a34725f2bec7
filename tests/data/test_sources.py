"""Each public format gives the corners it holds, in continuous coordinates, or says what is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS, SLIP_CLASSES, UNKNOWN, State
from vertebra_kp.core.geometry import points_to_indices
from vertebra_kp.data.record import take_levels
from vertebra_kp.data.sources import SOURCES, SourceError, aasce, find_films, read_records

AP, LA, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))
RNG_SEED = 7


def write_film(path, shape=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 90, np.uint8)).save(path)


# --- AASCE ---------------------------------------------------------------------------------------


def aasce_labels(seed=RNG_SEED):
    return np.random.default_rng(seed).integers(1, 1000, (68, 2)).astype(np.uint16)


def write_aasce(root, films, part="training"):
    """The layout of the data set; ``films`` maps a name to its p2, None leaves the labels out."""
    labels = root / "boostnet_labeldata/labels" / part
    labels.mkdir(parents=True)
    for name, p2 in films.items():
        write_film(root / "boostnet_labeldata/data" / part / name)
        if p2 is not None:
            savemat(labels / f"{name}.mat", {"p2": p2})
    return root / "boostnet_labeldata"


FILM = "sunhl-1th-09-Jan-2017-224 A AP.jpg"


def test_aasce_corners_are_the_stored_ones_counted_from_one(tmp_path):
    p2 = aasce_labels()
    p2[0] = 1, 1  # Matlab's first pixel, whose centre is at 0.5
    p2[1] = 0, 0  # just off the film; unsigned numbers must not wrap around
    root = write_aasce(tmp_path, {FILM: p2})
    (record,) = read_records("aasce", root, WHOLE)
    np.testing.assert_array_equal(record.points_xy_image[0, :2], [(0.5, 0.5), (-0.5, -0.5)])
    expected = (p2.astype(float) - 0.5).reshape(17, 4, 2)  # T1 TL, TR, BL, BR, T2 TL, ...
    np.testing.assert_array_equal(record.points_xy_image, expected)
    assert record.points_xy_image.dtype == np.float32
    assert (record.states == State.LABELLED).all()
    assert record.id == FILM
    assert record.image_path == root / "data/training" / FILM


def test_aasce_lumbar_schema_takes_the_last_five_levels(tmp_path):
    root = write_aasce(tmp_path, {FILM: aasce_labels()})
    (whole,), (lumbar,) = (read_records("aasce", root, schema) for schema in (WHOLE, AP))
    np.testing.assert_array_equal(lumbar.points_xy_image, whole.points_xy_image[12:])


def test_aasce_top_vertebra_that_is_stored_last_comes_first(tmp_path):
    down = np.sort(aasce_labels().reshape(17, 4, 2), axis=0)  # x and y grow from level to level
    root = write_aasce(tmp_path, {FILM: np.roll(down, -1, axis=0).reshape(68, 2)})
    (record,) = read_records("aasce", root, WHOLE)
    np.testing.assert_array_equal(record.points_xy_image, down - 0.5)
    (stored,) = read_records("aasce", root, WHOLE, stored_order=True)
    np.testing.assert_array_equal(stored.points_xy_image, np.roll(down, -1, axis=0) - 0.5)


def test_aasce_root_may_be_the_parent_or_come_from_the_environment(tmp_path, monkeypatch):
    root = write_aasce(tmp_path, {FILM: aasce_labels()})
    monkeypatch.setenv("VERTEBRA_KP_AASCE", str(root))
    ids = [[record.id for record in read_records("aasce", at, WHOLE)] for at in (root, tmp_path, None)]
    assert ids == [[FILM]] * 3


def test_aasce_without_folder_says_how_to_name_one(monkeypatch, tmp_path):
    monkeypatch.delenv("VERTEBRA_KP_AASCE", raising=False)
    with pytest.raises(SourceError, match=r"data\.root.*VERTEBRA_KP_AASCE"):
        read_records("aasce", None, WHOLE)
    with pytest.raises(SourceError, match=r"nowhere has no data/training and labels/training.*data\.root"):
        read_records("aasce", tmp_path / "nowhere", WHOLE)


def test_aasce_test_part_has_its_own_folders(tmp_path):
    write_aasce(tmp_path, {FILM: aasce_labels()})
    other = "sunhl-1th-10-Jan-2017-238 A AP.jpg"
    write_aasce(tmp_path, {other: aasce_labels(1)}, part="test")
    assert [record.id for record in read_records("aasce", tmp_path, WHOLE, part="test")] == [other]
    with pytest.raises(SourceError, match="'validation'"):
        read_records("aasce", tmp_path, WHOLE, part="validation")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("sunhl-1th-03-Jan-2017-165 A AP.jpg", "165"),
        ("sunhl-1th-04-Jan-2017-165 C AP.jpg", "165"),
        ("sunhl-1th-22-Nov-2016-142 A AP (2).jpg", "142"),
        ("sunhl-1th-30-Dec-2016-159 A AP2.jpg", "159"),
        ("sunhl-1th-20-Jul-2016-5 A AP.jpg", "5"),
        ("sunhl-1th-20-Jul-2016-coronal5.jpg", "sunhl-1th-20-Jul-2016-coronal5"),
    ],
)
def test_aasce_group_is_the_case_number_under_every_date(name, group):
    assert aasce.case_group(name) == group


def test_aasce_lists_every_film_with_broken_labels(tmp_path):
    nan = aasce_labels().astype(float)
    nan[3, 1] = np.nan
    films = {
        "a.jpg": aasce_labels(),
        "b.jpg": None,
        "c.jpg": nan,
        "d.jpg": aasce_labels()[:67],
        "e.jpg": aasce_labels(),
        "f.jpg": aasce_labels(),
    }
    root = write_aasce(tmp_path, films)
    (root / "labels/training/e.jpg.mat").write_bytes(b"")
    savemat(root / "labels/training/f.jpg.mat", {"p3": aasce_labels()})
    with pytest.raises(SourceError) as caught:
        read_records("aasce", root, WHOLE)
    head, *lines = str(caught.value).splitlines()
    assert "5 problems" in head
    assert "restore" in head
    for line, name, fault in zip(
        lines,
        "bcdef",
        ("without labels", "1 points that are NaN", "(67, 2)", "e.jpg.mat", "p2"),
        strict=True,
    ):
        assert f"{name}.jpg" in line
        assert fault in line


def test_aasce_refuses_a_lateral_schema(tmp_path):
    with pytest.raises(SourceError, match="la_lumbar"):
        read_records("aasce", tmp_path, LA)


def aasce_root():
    beside = Path(__file__).parents[3] / "shared/data/aasce/boostnet_labeldata"
    root = Path(os.environ.get("VERTEBRA_KP_AASCE") or beside)
    if not root.is_dir():
        pytest.skip("AASCE is not at hand: VERTEBRA_KP_AASCE names no folder")
    return root


def test_real_aasce_corners_agree_with_its_table_of_landmarks():
    root = aasce_root()
    records = {record.id: record for record in read_records("aasce", root, WHOLE)}
    assert len(records) == 481
    labels = aasce.find_root(root) / "labels/training"
    names = (labels / "filenames.csv").read_text(encoding="utf-8").split("\n")
    rows = np.loadtxt(labels / "landmarks.csv", delimiter=",")
    for name, row in list(zip(names, rows, strict=False))[::40]:
        record = records[name.strip()]
        with Image.open(record.image_path) as film:
            table = row.reshape(2, 68).T * film.size
        # the table is p2 / size, p2 counts from 1, so p2 = continuous + 0.5
        np.testing.assert_allclose(record.points_xy_image.reshape(68, 2) + 0.5, table, atol=0.04)


def test_real_aasce_main_angle_follows_from_the_corners():
    root = aasce_root()
    labels = aasce.find_root(root) / "labels/training"
    names = [name.strip() for name in (labels / "filenames.csv").read_text(encoding="utf-8").split("\n")]
    published = dict(zip(names, np.loadtxt(labels / "angles.csv", delimiter=",")[:, 0], strict=False))
    for record in read_records("aasce", root, WHOLE)[::7]:
        corners = record.points_xy_image.astype(float)
        across = (corners[:, 1] + corners[:, 3] - corners[:, 0] - corners[:, 2]) / 2
        slopes = np.rad2deg(np.arctan2(across[:, 1], across[:, 0]))
        assert np.ptp(slopes) == pytest.approx(published[record.id], abs=0.02), record.id


# --- BUU-LSPINE ----------------------------------------------------------------------------------

BUU_FILMS = {"AP": "0001-F-037Y0", "LA": "0001-F-037Y1"}


def endplate_table(view, seed=RNG_SEED):
    """A row ``x1, y1, x2, y2`` per endplate: L1 superior, L1 inferior, ...; LA ends with S1 superior."""
    rows = {"AP": 10, "LA": 11}[view]
    return np.random.default_rng(seed).uniform(0, 2500, (rows, 4)).round(2)


def write_buu(root, view, name, table, label=None):
    write_film(root / view / f"{name}.jpg")
    lines = [",".join([*map(str, row), *([] if label is None else [str(label)])]) for row in table]
    (root / view / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("label", [None, 0, 3])
@pytest.mark.parametrize("schema", [AP, LA], ids=lambda schema: schema.name)
def test_buu_rows_become_the_corners_of_their_endplates(tmp_path, schema, label):
    table = endplate_table(schema.view)
    write_buu(tmp_path, schema.view, BUU_FILMS[schema.view], table, label)
    (record,) = read_records("buu_lspine", tmp_path, schema)
    for i, level in enumerate(schema.levels):
        corners = points_to_indices(record.points_xy_image[i])
        np.testing.assert_allclose(corners[:2].ravel(), table[2 * i], atol=1e-3)
        if level != "S1":
            np.testing.assert_allclose(corners[2:].ravel(), table[2 * i + 1], atol=1e-3)
    assert (record.states[schema.exists] == State.LABELLED).all()
    assert (record.states[~schema.exists] == State.NONEXISTENT).all()
    assert np.isnan(record.points_xy_image[~schema.exists]).all()
    assert record.anterior_side == {"AP": None, "LA": "left"}[schema.view]
    assert (record.id, record.group) == (BUU_FILMS[schema.view], "0001")


def buu_slips(root, view, labels):
    """Slips that are read where the rows end in these labels; None stands for a row without one."""
    schema = {"AP": AP, "LA": LA}[view]
    rows = [
        [*row, *([] if label is None else [label])]
        for row, label in zip(endplate_table(view).tolist(), labels, strict=True)
    ]
    write_buu(root, view, BUU_FILMS[view], rows)
    (record,) = read_records("buu_lspine", root, schema)
    return record


def test_buu_the_slip_of_a_level_is_told_by_either_of_its_rows(tmp_path):
    #           L1    L2    L3    L4       L5          S1, whose row counts for no level
    labels = [0, 0, 3, 0, 0, 4, "3", "3.0", None, None, 3]
    record = buu_slips(tmp_path, "LA", labels)
    assert record.slips.dtype == np.int8
    assert record.slips.tolist() == [0, 3, 4, 3, UNKNOWN, UNKNOWN]
    assert record.view == "LA"
    record = buu_slips(tmp_path, "AP", [0, 1, 2, None, "", 0, 0, 0, 2, 2])
    assert record.slips.tolist() == [1, 2, 0, 0, 2]
    assert record.notes == ()


def test_buu_without_the_column_tells_no_slips(tmp_path):
    assert buu_slips(tmp_path, "AP", 10 * [None]).slips.tolist() == 5 * [UNKNOWN]


@pytest.mark.parametrize(("view", "label"), [("LA", 1), ("LA", 2), ("AP", 3), ("AP", 4)])
def test_buu_slips_that_a_view_cannot_show_are_unknown_and_said_so(tmp_path, caplog, view, label):
    labels = [0, label, *({"AP": 10, "LA": 11}[view] - 2) * [0]]
    record = buu_slips(tmp_path, view, labels)
    assert (record.slips == UNKNOWN).all()
    assert f"no {view} film shows label {label} ({SLIP_CLASSES[label]})" in record.notes[0]
    assert f"1 films like {BUU_FILMS[view]} slips are unknown" in caplog.text
    assert (record.states == State.LABELLED).sum() == {"AP": 20, "LA": 22}[view]  # corners are kept


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ([0, 0, 3, 4], "rows 3 and 4: L2 has label 3 (antero) and 4 (retro)"),
        ([0, 5], "row 2: slip label is '5', wanted one of 0 normal, 1 left"),
        ([-1], "row 1: slip label is '-1'"),
        ([0, 0, "nan"], "row 3: slip label is 'nan'"),
        ([0.5], "row 1: slip label is '0.5'"),
        (["antero"], "row 1: slip label is 'antero'"),
    ],
)
def test_buu_a_slip_label_that_is_none_is_reported_with_its_file_and_row(tmp_path, labels, fault):
    with pytest.raises(SourceError) as caught:
        buu_slips(tmp_path, "LA", [*labels, *(11 - len(labels)) * [0]])
    assert f"{BUU_FILMS['LA']}.csv {fault}" in str(caught.value)


def test_buu_slips_follow_their_levels_into_another_schema(tmp_path):
    labels = [0, 0, 1, 0, 0, 0, 0, 2, 0, 0]
    buu_slips(tmp_path, "AP", labels)
    (record,) = read_records("buu_lspine", tmp_path, WHOLE)
    assert record.slips.tolist() == [*12 * [UNKNOWN], 0, 1, 0, 2, 0]
    assert take_levels(record, WHOLE, AP).slips.tolist() == [0, 1, 0, 2, 0]


def test_buu_levels_that_are_not_in_its_tables_stay_unlabelled(tmp_path):
    write_buu(tmp_path, "AP", BUU_FILMS["AP"], endplate_table("AP"))
    (record,) = read_records("buu_lspine", tmp_path, WHOLE)
    assert (record.states[:12] == State.UNLABELLED).all()
    assert (record.states[12:] == State.LABELLED).all()


def test_buu_films_of_a_patient_share_a_group_and_come_sorted(tmp_path):
    for name in ("0012-M-061Y1", "0003-F-013Y1", "0012-M-062Y1"):
        write_buu(tmp_path, "LA", name, endplate_table("LA"))
    write_film(tmp_path / "LA/contact sheet.jpg")  # not named like a film of the data set
    records = read_records("buu_lspine", tmp_path, LA)
    assert [(record.id, record.group) for record in records] == [
        ("0003-F-013Y1", "0003"),
        ("0012-M-061Y1", "0012"),
        ("0012-M-062Y1", "0012"),
    ]


def test_buu_lists_every_film_with_broken_labels(tmp_path):
    table = endplate_table("LA")
    nan, text = table.tolist(), table.tolist()
    nan[4][2], text[2][0] = "nan", "12 px"
    broken = {
        "0001-F-037Y1": table[:10],
        "0002-F-037Y1": nan,
        "0003-F-037Y1": text,
        "0004-F-037Y1": table[:, :3],
    }
    for name, rows in broken.items():
        write_buu(tmp_path, "LA", name, rows)
    write_film(tmp_path / "LA/0005-M-050Y1.jpg")
    write_buu(tmp_path, "LA", "0006-M-050Y1", table)
    with pytest.raises(SourceError) as caught:
        read_records("buu_lspine", tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert "5 problems" in head
    faults = (
        "10 rows, wanted 11",
        "row 5: holds NaN",
        "row 3: could not convert",
        "row 1: has 3 columns",
        "without labels",
    )
    for number, (line, fault) in enumerate(zip(lines, faults, strict=True), start=1):
        assert f"{number:04d}-" in line
        assert fault in line


def test_buu_without_its_folders_says_what_it_wants(tmp_path):
    with pytest.raises(SourceError, match=r"no folder LA; data\.root"):
        read_records("buu_lspine", tmp_path, LA)
    (tmp_path / "LA").mkdir()
    with pytest.raises(SourceError, match=r"0001-F-037Y0\.jpg"):
        read_records("buu_lspine", tmp_path, LA)


# --- CSV and images ------------------------------------------------------------------------------

HEADER = "file,patient,spacing_mm,level,corner,x,y,state"


def write_table(root, *rows, header=HEADER, films=("a.png",), encoding="utf-8"):
    for film in films:
        write_film(root / film)
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)


def test_csv_gives_points_states_patient_and_spacing(tmp_path):
    write_table(
        tmp_path,
        "a.png,P7,0.143,L1,TL,12.5,8.25,labelled",
        "a.png,P7,0.143,L1,TR,,,outside",
        "a.png,P7,0.143,L1,BL,,,nonexistent",
        "a.png,P7,0.143,S1,TR,3,4,labelled",
        "a.png,P7,0.143,T12,TR,3,4,labelled",  # a level that the schema lacks
    )
    (record,) = read_records("csv", tmp_path, LA)
    states = np.full((6, 4), State.UNLABELLED)
    states[5, 2:] = State.NONEXISTENT
    states[0, :3] = State.LABELLED, State.OUTSIDE, State.NONEXISTENT
    states[5, 1] = State.LABELLED
    np.testing.assert_array_equal(record.states, states)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (12.5, 8.25))
    np.testing.assert_array_equal(record.points_xy_image[5, 1], (3, 4))
    assert np.isnan(record.points_xy_image[states != State.LABELLED]).all()
    assert (record.group, record.spacing_mm, record.id) == ("P7", 0.143, "a.png")
    assert record.image_path == tmp_path / "a.png"


def test_csv_of_every_corner_returns_every_corner(tmp_path):
    points = np.random.default_rng(RNG_SEED).uniform(0, 30, (5, 4, 2)).astype(np.float32)
    rows = [
        f"a.png,,,{level},{corner},{x},{y},labelled"
        for level, of_level in zip(AP.levels, points, strict=True)
        for corner, (x, y) in zip(CORNERS, of_level, strict=True)
    ]
    write_table(tmp_path, *rows)
    (record,) = read_records("csv", tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image, points)


def test_csv_films_without_a_patient_are_groups_of_their_own(tmp_path):
    names = "sub folder/b é.png", "a.png"
    write_table(tmp_path, *(f"{name},,,L1,TL,1,2,labelled" for name in names), films=names)
    records = read_records("csv", tmp_path, AP)
    assert [(record.id, record.group, record.spacing_mm) for record in records] == [
        ("a.png", "a.png", None),
        ("sub folder/b é.png", "sub folder/b é.png", None),
    ]


def test_csv_names_the_films_that_have_no_row(tmp_path, caplog):
    write_table(tmp_path, "a.png,,,L1,TL,1,2,labelled", films=("a.png", "deep/forgotten.png", "new.tif"))
    (record,) = read_records("csv", tmp_path, AP)
    assert record.id == "a.png"
    (warning,) = caplog.messages
    assert "labels.csv: 2 films have no row" in warning
    assert "deep/forgotten.png, new.tif" in warning


def test_csv_saved_by_a_spreadsheet_is_read(tmp_path):
    write_table(tmp_path, "a.png , P1,, L1,TL, 1.5,2 ,labelled", "", ",,,,,,,", encoding="utf-8-sig")
    (record,) = read_records("csv", tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (1.5, 2))


FAULTS = [
    ("a.png,P,,L1,TL,1,2", "7 columns"),
    (",P,,L1,TL,1,2,labelled", "file is empty"),
    ("a.png,P,,L6,TL,1,2,labelled", "'L6'"),
    ("a.png,P,,L1,XX,1,2,labelled", "'XX'"),
    ("a.png,P,,L1,TL,1,2,visible", "'visible'"),
    ("a.png,P,,L1,TL,nan,2,labelled", "'nan'"),
    ("a.png,P,,L1,TL,,2,labelled", "numbers up to 1e+06, got '','2'"),
    ("a.png,P,,L1,TL,1,-1e300,labelled", "numbers up to 1e+06, got '1','-1e300'"),
    ("a.png,P,,L1,TL,1,inf,labelled", "'inf'"),
    ("a.png,P,,L1,TL,1,zwei,labelled", "'zwei'"),
    ("a.png,P,,L1,TL,1,2,outside", "must be empty"),
    ("a.png,P,0,L1,TL,1,2,labelled", "spacing_mm"),
    ("a.png,P,-0.1,L1,TL,1,2,labelled", "spacing_mm"),
    ("a.png,P,wide,L1,TL,1,2,labelled", "'wide'"),
    ("a.png,P,1e300,L1,TL,1,2,labelled", "a number above 0, up to 1e+06, or empty, got '1e300'"),
    ("a.png,Q,,L1,TL,1,2,labelled", "'Q'"),
    ("a.png,P,0.2,L1,TL,1,2,labelled", "0.2"),
    ("a.png,P,,L5,BR,1,2,labelled", "line 2 already"),
    ("./a.png,P,,L5,BR,1,2,labelled", "line 2 already"),
    ("a.png,P,,S1,BL,1,2,labelled", "S1 has no BL"),
    ("b.png,P,,L1,TL,1,2,labelled", "film 'b.png' is not in"),
    ("../outside.png,P,,L1,TL,1,2,labelled", "stay inside"),
    ("sub/../../outside.png,P,,L1,TL,1,2,labelled", "stay inside"),
    ("/etc/hostname,P,,L1,TL,1,2,labelled", "stay inside"),
    ("C:\\a.png,P,,L1,TL,1,2,labelled", "stay inside"),
    ("link.png,P,,L1,TL,1,2,labelled", "film 'link.png' is a link to a place outside"),
    (f"{'n' * 500}.png,P,,L1,TL,1,2,labelled", "too long"),
]


def test_csv_lists_every_problem_with_its_line_at_once(tmp_path):
    root = tmp_path / "films"
    write_film(tmp_path / "outside.png")
    write_table(root, "a.png,P,,L5,BR,1,2,labelled", *(row for row, _ in FAULTS))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError) as caught:
        read_records("csv", root, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"labels.csv: {len(FAULTS)} problems" in head
    for number, (line, (_, fault)) in enumerate(zip(lines, FAULTS, strict=True), start=3):
        assert line.strip().startswith(f"line {number}: ")
        assert fault in line


def test_csv_of_a_broken_table_lists_fifty_lines_and_counts_the_rest(tmp_path):
    write_table(tmp_path, *["a.png,,,L1,TL,x,y,labelled"] * 63)
    with pytest.raises(SourceError) as caught:
        read_records("csv", tmp_path, AP)
    head, *lines = str(caught.value).splitlines()
    assert "63 problems" in head
    assert [line.split(":")[0].strip() for line in lines[:-1]] == [f"line {number}" for number in range(2, 52)]
    assert lines[-1].strip() == "... and 13 more"


def test_csv_of_windows_names_its_films_with_backslashes(tmp_path):
    rows = "sub\\a.png,,,L1,TL,1,2,labelled", "sub/a.png,,,L1,TR,3,4,labelled"
    write_table(tmp_path, *rows, films=("sub/a.png",))
    (record,) = read_records("csv", tmp_path, AP)
    assert (record.id, record.image_path) == ("sub/a.png", tmp_path / "sub/a.png")
    np.testing.assert_array_equal(record.points_xy_image[0, :2], [(1, 2), (3, 4)])


def test_csv_names_several_faults_of_one_line(tmp_path):
    write_table(tmp_path, "a.png,P,,L9,ZZ,1,2,labelled")
    with pytest.raises(SourceError, match=r"line 2: level .*'L9'; corner .*'ZZ'"):
        read_records("csv", tmp_path, AP)


@pytest.mark.parametrize("header", ["", "file,level,corner,x,y", HEADER.replace("patient", "Patient")])
def test_csv_with_another_header_says_which_it_wants(tmp_path, header):
    write_table(tmp_path, header=header)
    with pytest.raises(SourceError, match=f"must begin with {HEADER}"):
        read_records("csv", tmp_path, AP)


def test_csv_without_table_rows_or_text_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"has no labels\.csv; data\.root"):
        read_records("csv", tmp_path, AP)
    write_table(tmp_path)
    with pytest.raises(SourceError, match="no rows"):
        read_records("csv", tmp_path, AP)
    (tmp_path / "labels.csv").write_bytes(HEADER.encode() + b"\n\xff\xfe,,,,,,,\n")
    with pytest.raises(SourceError, match="not UTF-8"):
        read_records("csv", tmp_path, AP)


# --- what all have in common ---------------------------------------------------------------------


def test_a_source_that_nobody_knows_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SourceError, match=f"one of {', '.join(SOURCES)}, got 'phantom'"):
        read_records("phantom", tmp_path, AP)


def test_sources_without_root_or_with_a_part_that_they_lack_say_so(tmp_path):
    for source in set(SOURCES) - {"aasce"}:
        with pytest.raises(SourceError, match=r"data\.root"):
            read_records(source, None, AP)
        with pytest.raises(SourceError, match="'test'"):
            read_records(source, tmp_path, AP, part="test")


# --- folders without labels ----------------------------------------------------------------------


def test_films_are_found_in_folders_patterns_and_names_each_once(tmp_path):
    names = ["a.png", "b é.JPG", "deep/er/c d.tiff", "deep/x.jpeg", "[1].png"]
    for name in names:
        write_film(tmp_path / name)
    for name in ("notes.txt", "deep/labels.csv", "._a.png"):
        (tmp_path / name).write_text("no film")
    everything = sorted(tmp_path / name for name in names)
    assert find_films([str(tmp_path)]) == everything
    assert find_films([str(tmp_path / "**")]) == everything
    assert find_films([str(tmp_path / "*")]) == everything
    assert find_films([str(tmp_path / "*.png"), str(tmp_path / "a.png")]) == [
        tmp_path / "[1].png",
        tmp_path / "a.png",
    ]
    assert find_films([str(tmp_path / "[1].png")]) == [tmp_path / "[1].png"]
    assert find_films([str(tmp_path / "deep"), str(tmp_path / "a.png")])[-1] == tmp_path / "a.png"


def test_a_named_file_is_returned_unchecked_so_that_reading_it_can_say_why_not(tmp_path):
    absent = tmp_path / "absent.png"
    assert find_films([str(absent)]) == [absent]


def test_inputs_that_give_nothing_are_all_named(tmp_path):
    with pytest.raises(SourceError) as caught:
        find_films([str(tmp_path), str(tmp_path / "*.png")])
    assert f"folder {tmp_path} holds no film" in str(caught.value)
    assert f"pattern {tmp_path / '*.png'} matches no film" in str(caught.value)
    with pytest.raises(SourceError, match="no input"):
        find_films([])
