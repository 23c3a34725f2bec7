"""LabelMe: what the program saves is read exactly, what we write is read back, all else is a clear error."""

import copy
import json

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.record import LabelledFilm, label_arrays
from vertebra_kp.data.sources import SourceError
from vertebra_kp.data.sources.labelme import read_records
from vertebra_kp.data.writers.labelme import write

AP, LA = SCHEMAS["ap_lumbar"], SCHEMAS["la_lumbar"]


def shape(label, *points, kind="point"):
    """One shape with all the fields that labelme gives it."""
    fields = {"label": label, "points": [list(point) for point in points], "group_id": None, "description": ""}
    return {**fields, "shape_type": kind, "flags": {}, "mask": None}


def document(*shapes, film="a.png"):
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": film,
        "imageData": None,
        "imageHeight": 1200,
        "imageWidth": 500,
    }


def save(root, content, name="a.json", films=("a.png",)):
    """A JSON below ``root`` and empty files for its films: reading labels does not open films."""
    for file in (root / name, *(root / film for film in films)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    (root / name).write_text(text, encoding="utf-8")


SQUARE = (100, 200), (160.5, 210), (155, 250.25), (95, 240)  # TL, TR, BR, BL


# --- what is read --------------------------------------------------------------------------------


def test_points_polygons_and_lines_give_the_corners_they_name(tmp_path):
    shapes = (
        shape("L1.TL", (201.5, 97.25)),
        shape("l2_br", (3, 4)),
        shape("L3", *SQUARE, kind="polygon"),
        shape("S1", (90, 300), (150, 340.5), kind="line"),
    )
    save(tmp_path, document(*shapes))
    (record,) = read_records(tmp_path, LA)
    points, states = label_arrays(LA)
    points[0, 0] = 201.5, 97.25
    points[1, 3] = 3, 4
    points[2] = (100, 200), (160.5, 210), (95, 240), (155, 250.25)  # TL, TR, BL, BR
    points[5, :2] = (90, 300), (150, 340.5)
    states[~np.isnan(points[..., 0])] = State.LABELLED
    np.testing.assert_array_equal(record.points_xy_image, points)
    np.testing.assert_array_equal(record.states, states)
    assert record.points_xy_image.dtype == np.float32
    assert (record.id, record.group, record.spacing_mm) == ("a.png", "a.png", None)
    assert (record.image_path, record.anterior_side) == (tmp_path / "a.png", "left")


def test_a_linestrip_is_a_line_and_a_shape_without_type_a_polygon(tmp_path):
    polygon = shape("L5", *SQUARE)
    del polygon["shape_type"]
    save(tmp_path, document(polygon, shape("S1", (1, 2), (3, 1), kind="linestrip")))
    (record,) = read_records(tmp_path, LA)
    np.testing.assert_array_equal(record.points_xy_image[4, 3], SQUARE[2])
    np.testing.assert_array_equal(record.points_xy_image[5, :2], [(1, 2), (3, 1)])


def test_levels_that_the_schema_lacks_are_left_out_but_their_names_are_checked(tmp_path):
    other = shape("T12.TL", (1, 2)), shape("S1", (1, 2), (3, 1), kind="line"), shape("C3", *SQUARE, kind="polygon")
    save(tmp_path, document(shape("L1.TL", (5, 6)), *other))
    (record,) = read_records(tmp_path, AP)
    assert (record.states == State.LABELLED).sum() == 1
    assert record.anterior_side is None
    save(tmp_path, document(*other, shape("T13.TL", (1, 2))))
    with pytest.raises(SourceError, match=r"shapes\[3\]: 'T13.TL' names no corner"):
        read_records(tmp_path, AP)


def test_films_lie_beside_their_json_or_elsewhere_in_the_folder_and_come_sorted(tmp_path):
    save(tmp_path, document(shape("L1.TL", (1, 2)), film="b é.png"), "sub dir/b é.json", ["sub dir/b é.png"])
    save(tmp_path, document(shape("L1.TL", (1, 2)), film="..\\films\\a.png"), "z dir/z.json", ["films/a.png"])
    save(tmp_path, document(film="empty.png"), "empty.json")  # opened, saved, never labelled; the film is gone
    save(tmp_path, "Mac OS leaves this", "sub dir/._b é.json")
    assert [record.id for record in read_records(tmp_path, AP)] == ["films/a.png", "sub dir/b é.png"]


@pytest.mark.parametrize("tilt_deg", [-44, 0, 44])
def test_a_polygon_may_be_tilted_by_up_to_45_degrees(tmp_path, tilt_deg):
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    upright = np.array([(-40, -30), (40, -30), (40, 30), (-40, 30)])
    tilted = upright @ np.array([[c, s], [-s, c]]) + 200
    save(tmp_path, document(shape("L1", *tilted.tolist(), kind="polygon")))
    (record,) = read_records(tmp_path, AP)
    np.testing.assert_allclose(record.points_xy_image[0], tilted[[0, 1, 3, 2]], rtol=1e-6)


# --- writing -------------------------------------------------------------------------------------


def labelled_film(file, size, schema, points, states):
    return LabelledFilm(file, size, schema, points.astype(np.float32), states.astype(np.int8), group=file)


def test_a_written_file_has_the_fields_that_labelme_asks_for(tmp_path):
    points, states = label_arrays(LA)
    points[0, 1], states[0, 1] = (12.5, 8.25), State.LABELLED
    states[1] = State.OUTSIDE
    write([labelled_film("sub dir/é 1.png", (40, 30), LA, points, states)], tmp_path)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert path == tmp_path / "sub dir/é 1.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    expected = document(shape("L1.TR", (12.5, 8.25)), film="é 1.png") | {"imageHeight": 40, "imageWidth": 30}
    assert written == expected


@pytest.mark.parametrize("file", ["/a.png", "../a.png", "sub/../../a.png", "", "sub\\a.png"])
def test_nothing_is_written_outside_the_folder(tmp_path, file):
    points, states = label_arrays(LA)
    with pytest.raises(UserError, match=r"relative, with forward slashes and without \.\."):
        write([labelled_film(file, (4, 3), LA, points, states)], tmp_path / "out")
    assert not list(tmp_path.rglob("*.json"))


def test_nothing_is_written_through_a_link_or_over_another_films_file(tmp_path):
    points, states = label_arrays(LA)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "link").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"link/a\.json would be written through a link"):
        write([labelled_film("link/a.png", (4, 3), LA, points, states)], out)
    with pytest.raises(UserError, match=r"'a\.png' and 'a\.jpg' would share .*a\.json"):
        write([labelled_film(file, (4, 3), LA, points, states) for file in ("a.png", "a.jpg")], out)
    assert not list(tmp_path.rglob("*.json"))


# --- errors --------------------------------------------------------------------------------------

FAULTS = [
    (shape("L1.TM", (1, 2)), "'L1.TM' names no corner"),
    (shape("L1", (1, 2)), "'L1' names no corner"),
    (shape("L1.TL", (1, 2), (3, 4)), "point 'L1.TL' must have 1 points, got 2"),
    (shape("L1.TL"), "must have 1 points, got 0"),
    (shape("L6", *SQUARE, kind="polygon"), "'L6' names no level"),
    (shape("L1.TL", *SQUARE, kind="polygon"), "'L1.TL' names no level"),
    (shape("L1", *SQUARE, SQUARE[0], kind="polygon"), "polygon 'L1' must have 4 points, got 5"),
    (shape("L1", *SQUARE[::-1], kind="polygon"), "must go clockwise"),
    (shape("L1", SQUARE[0], SQUARE[1], SQUARE[3], SQUARE[2], kind="polygon"), "must go clockwise"),
    (shape("L1", *[SQUARE[0]] * 4, kind="polygon"), "must go clockwise"),
    (shape("L1", (0, 0), (10, 0), (2, 2), (0, 10), kind="polygon"), "must go clockwise"),  # a dent
    (shape("L1", *SQUARE[1:], SQUARE[0], kind="polygon"), "must begin at the top left corner"),
    (shape("L1", *SQUARE[2:], *SQUARE[:2], kind="polygon"), "must begin at the top left corner"),
    (shape("L1", *SQUARE[3:], *SQUARE[:3], kind="polygon"), "must begin at the top left corner"),
    (shape("L1", (1, 2), (3, 4), kind="line"), "line 'L1' must be S1"),
    (shape("S1", (3, 4), (1, 2), kind="line"), "must go from left to right"),
    (shape("S1", (3, 4), (5, 2), (7, 2), kind="linestrip"), "must have 2 points, got 3"),
    (shape("S1", *SQUARE, kind="polygon"), "S1 has no BR in la_lumbar; take S1.BR out"),
    (shape("S1.BL", (1, 2)), "S1 has no BL in la_lumbar"),
    (shape("L5.TL", (1, 2)), "L5.TL is given twice; keep one"),
    (shape("L5", *SQUARE, kind="polygon"), "L5.TL is given twice; keep one"),
    (shape("L1.TL", (1, float("nan"))), "points must be a list of [x, y] in pixels"),
    (shape("L1.TL", (1, float("inf"))), "points must be"),
    (shape("L1.TL", (1, 10**400)), "points must be"),
    (shape("L1.TL", (1, -1e30)), "points must be"),
    (shape("L1.TL", (1, "2")), "points must be"),
    (shape("L1.TL", (1, True)), "points must be"),
    (shape("L1.TL", (1, 2, 3)), "points must be"),
    ("L1.TL", "a shape must be an object, got 'L1.TL'"),
    (shape(7, (1, 2)), "label must be a text, got 7"),
]


@pytest.mark.parametrize(("wrong", "fault"), FAULTS)
def test_a_wrong_shape_is_named_with_its_number_and_what_to_do(tmp_path, wrong, fault):
    save(tmp_path, document(shape("L5.TL", (1, 2)), wrong))
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"{tmp_path}: " in head
    assert "correct these in labelme" in head
    assert lines[0].startswith("  a.json: shapes[1]: ")
    assert fault in lines[0]


def test_shapes_that_are_no_corner_are_left_out_counted_and_named(tmp_path, caplog):
    others = [
        shape("implant", (1, 2)),
        shape("L1", (1, 2), (3, 4), kind="rectangle"),
        shape("pelvis", (1, 2), (3, 4), (5, 6), kind="polygon"),
    ]
    save(tmp_path, document(shape("L5.TL", (1, 2)), *others))
    save(tmp_path, document(*others, film="b.png"), "deep/b.json")
    assert [record.id for record in read_records(tmp_path, LA)] == ["a.png"]
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        f"2 {what} left out: a.json, deep/b.json"
        for what in ("point shapes 'implant'", "rectangle shapes 'L1'", "polygon shapes 'pelvis'")
    ]


def test_every_problem_of_every_file_is_listed_at_once(tmp_path):
    save(tmp_path / "outside", document(), films=["a.png"])
    good = shape("L1.TL", (1, 2))
    root = tmp_path / "films"
    contents = {
        "a.json": document(good, good, shape("x.TL", (1, 2))),
        "b.json": document(good, film="b.png"),
        "c.json": document(good, film="../../outside/a.png"),
        "d.json": document(good, film="/etc/hostname"),
        "e.json": document(good, film="C:\\films\\a.png"),
        "f.json": document(good, film="a\0.png"),
        "g.json": document(good, film="x" * 5000),
        "h.json": document(good, film=""),
        "i.json": document(good, film=["a.png"]),
        "j.json": document(good),
        "k.json": {"splits": {}},
        "l.json": [],
        "m.json": '{"shapes": [',
        "n.json": "[" * 100_000,
        "p.json": document(good, film="link.png"),
    }
    for name, content in contents.items():
        save(root, content, name)
    (root / "link.png").symlink_to(tmp_path / "outside/a.png")
    (root / "q.json").symlink_to(tmp_path / "outside/a.json")
    (root / "r.json").symlink_to("r.json")
    (root / "s.json").write_bytes(b'{"shapes": "\xff\xfe"}')
    with pytest.raises(SourceError) as caught:
        read_records(root, LA)
    expected = [
        "a.json: shapes[1]: L1.TL is given twice",
        "a.json: shapes[2]: 'x.TL' names no corner",
        "b.json: film 'b.png' is not in",
        "c.json: file must be relative",
        "d.json: file must be relative",
        "e.json: file must be relative",
        "f.json: file must be relative",
        "g.json: film 'xxx",
        "h.json: imagePath must be the name of the film, got ''",
        "i.json: imagePath must be the name of the film, got ['a.png']",
        "j.json: film a.png stands in a.json already; keep one",
        "k.json: is no LabelMe file, it has no list 'shapes'",
        "l.json: is no LabelMe file",
        f"m.json: {root / 'm.json'} is not JSON",
        f"n.json: {root / 'n.json'} is nested too deeply",
        "p.json: film 'link.png' is a link to a place outside",
        f"q.json: {root / 'q.json'} is a link to a place outside",
        f"r.json: {root / 'r.json'} is not a file",
        f"s.json: {root / 's.json'} is not UTF-8",
    ]
    head, *lines = str(caught.value).split("\n  ")
    assert f"{root}: {len(expected)} problems" in head
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_a_folder_without_labels_says_what_it_wants(tmp_path):
    with pytest.raises(SourceError, match=r"is no folder; data\.root of labelme"):
        read_records(tmp_path / "absent", LA)
    save(tmp_path, document())
    with pytest.raises(SourceError, match=r"holds no \.json file with shapes"):
        read_records(tmp_path, LA)


# --- damage --------------------------------------------------------------------------------------

VALID = document(shape("L1.TL", (1, 2)), shape("L3", *SQUARE, kind="polygon"))
NUMBERS = [True, 0, -1.5, 1e308, 10**400, float("nan")]
DAMAGE = [None, *NUMBERS, "", "x", "../a.png", "\ud800", "\0", [], [[]], {}, [None]]
DELETED = object()


def nodes(value, path=()):
    """The path to every value of a document, itself first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from nodes(child, (*path, key))


def damaged(path, value):
    """The text of VALID with the value at ``path`` replaced or deleted."""
    if not path:
        return json.dumps(value)
    content = copy.deepcopy(VALID)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if value is DELETED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize("path", list(nodes(VALID)), ids=lambda path: ".".join(map(str, path)) or "all")
def test_a_document_with_any_part_replaced_is_read_or_refused(tmp_path, path):
    for value in [DELETED, *DAMAGE] if path else DAMAGE:
        save(tmp_path, damaged(path, value))
        try:
            (record,) = read_records(tmp_path, LA)
        except SourceError:
            continue
        assert record.id == "a.png"
        np.testing.assert_array_equal(np.isfinite(record.points_xy_image[..., 0]), record.states == State.LABELLED)


def test_a_document_cut_off_anywhere_is_refused(tmp_path):
    save(tmp_path, VALID)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    for length in range(0, len(text), 7):
        save(tmp_path, text[:length])
        with pytest.raises(SourceError):
            read_records(tmp_path, LA)
