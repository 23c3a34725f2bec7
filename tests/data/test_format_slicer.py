"""3D Slicer point lists in and out: mm from the first pixel's centre, films of the same name beside them."""

import json

import numpy as np
import pytest
from PIL import Image
from shared_data import field_case
from test_dicom import dicom, saved
from test_format_coco import AP, LA, check_damaged_files, one_film, write_json

from vertebra_kp.core.anatomy import State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.sources.problems import SourceError
from vertebra_kp.data.sources.slicer import read_records
from vertebra_kp.data.writers.slicer import write

SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Resources/markups-schema-v1.0.3.json#"


def point(label="L1.TL", position=(3.0, 4.0, 0.0), **changes):
    """A control point as Slicer saves it."""
    return {
        "id": "1",
        "label": label,
        "description": "",
        "associatedNodeID": "vtkMRMLScalarVolumeNode1",
        "position": list(position),
        "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    } | changes


def markup(*points, **changes):
    head = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": False}
    return (
        head | {"labelFormat": "%N-%d", "controlPoints": list(points), "measurements": [], "display": {}} | changes
    )


def content(*points, **changes):
    return {"@schema": SCHEMA, "markups": [markup(*points, **changes)]}


def write_list(root, value, name="a.mrk.json", films=("a.png",)):
    write_json(root, value, name, films)


# --- reading -------------------------------------------------------------------------------------


def test_positions_without_spacing_are_pixel_indices(tmp_path):
    write_list(tmp_path, content(point(), point("S1.TR", (0, 0, 0)), point("T12.TL", (1, 1, 0))))
    (record,) = read_records(tmp_path, LA)
    expected = np.full((6, 4, 2), np.nan)
    expected[0, 0], expected[5, 1] = (3.5, 4.5), (0.5, 0.5)
    np.testing.assert_array_equal(record.points_xy_image, expected)
    assert record.points_xy_image.dtype == np.float32
    states = np.full((6, 4), State.UNLABELLED)
    states[5, 2:] = State.NONEXISTENT
    states[[0, 5], [0, 1]] = State.LABELLED
    np.testing.assert_array_equal(record.states, states)
    assert (record.id, record.image_path, record.group) == ("a.png", tmp_path / "a.png", "a.png")
    assert (record.spacing_mm, record.anterior_side) == (None, "left")


def test_positions_with_spacing_are_mm_and_one_point_that_says_so_is_enough(tmp_path):
    said = point("L1.TL", (0.5, 1, 0), description="spacing_mm=0.25; by reader 2")
    write_list(tmp_path, content(point("L1.TR", (10, 20, 0.4)), said))
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, :2], [(2.5, 4.5), (40.5, 80.5)])
    assert record.spacing_mm == 0.25


def opened(root, film, **options):
    """The first corner of a list without spacing beside an image of 300 x 200 pixels."""
    Image.new("L", (300, 200)).save(root / film, **options)
    (root / "a.mrk.json").write_text(json.dumps(content(point(position=(25.4, 12.7, 0)))))
    (record,) = read_records(root, AP)
    return record.points_xy_image[0, 0], record.spacing_mm


@pytest.mark.parametrize(
    ("film", "options", "per_mm"),
    [
        ("a.jpg", {"dpi": (150, 150)}, (150 / 25.4, 150 / 25.4)),
        ("a.jpg", {}, (1, 1)),
        ("a.tif", {"dpi": (100, 200)}, (100 / 25.4, 200 / 25.4)),
        ("a.tif", {}, (1, 1)),
        ("a.png", {}, (1, 1)),
    ],
)
def test_without_spacing_an_image_has_the_one_that_slicer_takes_from_it(tmp_path, film, options, per_mm):
    corner, spacing_mm = opened(tmp_path, film, **options)
    np.testing.assert_allclose(corner, 0.5 + np.array((25.4, 12.7)) * per_mm, atol=1e-4)
    assert spacing_mm is None, "a resolution tells nothing of the patient"


def test_where_programs_differ_in_the_spacing_an_error_asks(tmp_path):
    with pytest.raises(SourceError, match=r"pixels have 0\.254 or 1 mm.*spacing_mm=NUMBER"):
        opened(tmp_path, "a.png", dpi=(100, 100))


def test_points_off_the_image_ask_for_the_spacing(tmp_path):
    with pytest.raises(
        SourceError, match=r"1 of 1 points lie off the film, whose pixels have 0\.0508 mm.*spacing_mm="
    ):
        opened(tmp_path, "a.jpg", dpi=(500, 500))


def test_what_is_said_counts_before_what_the_image_says(tmp_path):
    Image.new("L", (300, 200)).save(tmp_path / "a.jpg", dpi=(150, 150))
    for said, expected, spacing_mm in (("0.5", (6.5, 8.5), 0.5), ("unknown", (3.5, 4.5), None)):
        listed = content(point(description=f"spacing_mm={said}"))
        (tmp_path / "a.mrk.json").write_text(json.dumps(listed))
        (record,) = read_records(tmp_path, AP)
        np.testing.assert_array_equal(record.points_xy_image[0, 0], expected)
        assert record.spacing_mm == spacing_mm


def test_a_dicom_image_with_two_spacings_asks(tmp_path):
    made = dicom(np.zeros((200, 300), np.uint8), PixelSpacing=[0.25, 0.5])  # rows, columns
    saved(tmp_path / "a.dcm", made)
    (tmp_path / "a.mrk.json").write_text(json.dumps(content(point(position=(25, 20, 0)))))
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (50.5, 80.5))
    made.ImagerPixelSpacing = [0.3, 0.3]
    saved(tmp_path / "a.dcm", made)
    with pytest.raises(SourceError, match=r"0\.5 or 0\.3 mm"):
        read_records(tmp_path, AP)


@pytest.mark.parametrize("case", ["dicom", "jpg_of_150_dpi"])
def test_the_field_cases_have_their_points_in_place(case):
    (record,) = read_records(field_case("08_slicer_spacing_of_the_film") / case, LA)
    np.testing.assert_allclose(record.points_xy_image[0, 0], (45.8, 44.3), atol=0.05)


def test_ras_has_opposite_signs_and_lps_is_the_default(tmp_path):
    write_list(tmp_path, content(point(position=(-3, -4, 0)), coordinateSystem="RAS"))
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (3.5, 4.5))
    value = content({"label": "l1_tl", "position": [3, 4, 0]}, coordinateUnits=["mm", "UCUM", "millimeter"])
    del value["markups"][0]["coordinateSystem"]
    write_list(tmp_path, value)
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_array_equal(record.points_xy_image[0, 0], (3.5, 4.5))


def test_points_that_are_not_placed_are_unlabelled_and_lists_of_one_film_add_up(tmp_path):
    statuses = [
        point(f"L2.{c}", positionStatus=s) for c, s in (("TL", "undefined"), ("TR", "preview"), ("BL", "missing"))
    ]
    del statuses[0]["position"]
    value = content(point(), *statuses)
    value["markups"].append(markup(point("L3.BR")))
    write_list(tmp_path, value)
    (record,) = read_records(tmp_path, AP)
    assert np.argwhere(record.states == State.LABELLED).tolist() == [[0, 0], [2, 3]]


def test_the_film_has_the_same_name_and_any_suffix(tmp_path):
    names = {"z.mrk.json": "z.JPG", "sub é/b.v2.mrk.json": "sub é/b.v2.tiff", "sub é/b.mrk.json": "sub é/b.png"}
    for name, film in names.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_list(tmp_path, content(point()), name, (film,))
    write_list(tmp_path, content(), "empty.mrk.json", ("empty.png",))
    (tmp_path / "other.png").touch()
    (tmp_path / "._z.mrk.json").write_bytes(b"\0")
    assert [record.id for record in read_records(tmp_path, AP)] == ["sub é/b.png", "sub é/b.v2.tiff", "z.JPG"]


FAULTS = [
    (5, "@schema must name markups-schema-v1.x.x.json, got None"),
    ({"@schema": "https://example.org/markups-schema-v2.0.0.json#", "markups": []}, "-v2.0.0.json#'; save it"),
    ({"@schema": SCHEMA, "markups": None}, "markups must be a list, got None"),
    ({"@schema": SCHEMA, "markups": [5]}, "markups[0]: type must be Fiducial, got 5"),
    (content(point(), type="Curve"), "markups[0]: type must be Fiducial, got 'Curve'; take other markups out"),
    (content(point(), coordinateSystem="IJK"), "coordinateSystem must be LPS or RAS, got 'IJK'"),
    (content(point(), coordinateSystem=["LPS"]), "coordinateSystem must be LPS or RAS, got ['LPS']"),
    (content(point(), coordinateUnits="um"), "coordinateUnits must be mm, got 'um'"),
    (content(point(), controlPoints={}), "controlPoints must be a list of objects, got {}"),
    (content(5), "controlPoints must be a list of objects, got 5"),
    (content(point(positionStatus="lost")), "positionStatus must be one of defined, undefined"),
    (content(point("F-1")), "markups[0].controlPoints[0]: 'F-1' names no corner"),
    (content(point(None)), "label must be a text like L1.TL, got None"),
    (content(point(), point("L1.TR", (1, 2))), "controlPoints[1]: position of L1.TR must be three numbers in mm"),
    (content(point(position=(1, float("nan"), 0))), "position of L1.TL must be three numbers in mm"),
    (content(point(position=(1, 10**400, 0))), "position of L1.TL must be three numbers in mm"),
    (content(point(position=(1, 2, True))), "position of L1.TL must be three numbers in mm"),
    (content(point(position=(1, 2, 0.7))), "position of L1.TL is off the film, z must be 0, got 0.7"),
    (content(point(description=None)), "description must be a text, got None"),
    (content(point(description="spacing_mm=0")), "spacing_mm must be a number above 0, got '0'"),
    (content(point(description="spacing_mm= 0.1")), "spacing_mm must be a number above 0, got ''"),
    (content(point(description="spacing_mm=nan")), "spacing_mm must be a number above 0, got 'nan'"),
    (
        content(point(description="spacing_mm=0.1"), point("L1.TR", description="spacing_mm=0.2")),
        "spacing_mm of the control points must agree, got [0.1, 0.2]",
    ),
    (content(point(description="spacing_mm=1e-300")), "L1.TL lies at (3e+300, 4e+300), beyond any film"),
    (content(point(), point()), "L1.TL is given twice; keep one"),
    (content(point("S1.BL")), "S1 has no BL in la_lumbar; take S1.BL out"),
]


def test_every_problem_is_listed_at_once_with_its_file(tmp_path):
    for index, (value, _) in enumerate(FAULTS):
        write_list(tmp_path, value, f"{index:02d}.mrk.json", (f"{index:02d}.png",))
    write_list(tmp_path, content(point()), "98.mrk.json", ())
    write_list(tmp_path, content(point()), "99.mrk.json", ("99.png", "99.jpg"))
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"{len(FAULTS) + 2} problems; correct these files" in head
    for index, (line, (_, fault)) in enumerate(zip(lines, FAULTS, strict=False)):
        assert line.strip().startswith(f"{index:02d}.mrk.json: ")
        assert fault in line
    assert "98.mrk.json: wanted one film of this name beside it, found none" in lines[-2]
    assert "found 99.jpg, 99.png" in lines[-1]


def test_a_folder_without_point_lists_films_or_points_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"holds no \*\.mrk\.json; data\.root"):
        read_records(tmp_path / "nowhere", AP)
    write_list(tmp_path, content(point()), films=())
    with pytest.raises(SourceError, match="wanted one film of this name beside it, found none"):
        read_records(tmp_path, AP)
    write_list(tmp_path, content())
    with pytest.raises(SourceError, match="has a placed control point"):
        read_records(tmp_path, AP)


def test_links_out_of_the_folder_are_refused(tmp_path):
    root = tmp_path / "films"
    write_list(root, content(point()))
    write_list(tmp_path, content(point()), "outside.mrk.json", ("outside.png",))
    (root / "b.mrk.json").symlink_to(tmp_path / "outside.mrk.json")
    (root / "b.png").touch()
    write_list(root, content(point()), "c.mrk.json", ())
    (root / "c.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError) as caught:
        read_records(root, AP)
    _, first, second = str(caught.value).splitlines()
    assert "b.mrk.json is a link to a place outside" in first
    assert "film 'c.png' is a link to a place outside" in second


def test_damaged_files_end_in_source_errors(tmp_path):
    value = content(point(description="spacing_mm=0.5"), point("S1.TR"))
    root = tmp_path / "films"
    write_list(root, value)
    check_damaged_files(read_records, root / "a.mrk.json", value)


# --- writing -------------------------------------------------------------------------------------


def test_positions_are_indices_times_spacing(tmp_path):
    write([one_film(AP, spacing_mm=0.2), one_film(AP, file="sub/b.x.png", spacing_mm=None)], tmp_path)
    value = json.loads((tmp_path / "a.mrk.json").read_text())
    assert value["@schema"].endswith("/markups-schema-v1.0.3.json#")
    (points,) = value["markups"]
    assert (points["type"], points["coordinateSystem"], points["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    assert len(points["controlPoints"]) == 20
    first = points["controlPoints"][0]
    assert (first["id"], first["label"], first["description"]) == ("1", "L1.TL", "spacing_mm=0.2")
    assert first["positionStatus"] == "defined"
    np.testing.assert_allclose(first["position"], (50 * 0.2, 20 * 0.2, 0))
    first = json.loads((tmp_path / "sub/b.x.mrk.json").read_text())["markups"][0]["controlPoints"][0]
    assert (first["position"], first["description"]) == ([50, 20, 0], "spacing_mm=unknown")


@pytest.mark.parametrize("file", ["../a.png", "/tmp/a.png", "link/a.png", "sub/../../a.png"])
def test_nothing_is_written_outside_the_folder(tmp_path, file):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"must be relative|through a link to"):
        write([one_film(file="good.png"), one_film(file=file)], folder)
    assert not list(tmp_path.rglob("*.mrk.json"))


def test_two_films_of_one_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"'a\.png' and 'a\.jpg' would share .*a\.mrk\.json"):
        write([one_film(file="a.png"), one_film(file="a.jpg")], tmp_path)
    assert not list(tmp_path.iterdir())
