"""CVAT for images 1.1: exports are read exactly, what we write is read back, all else is a clear error."""

import json
import weakref
from xml.etree import ElementTree

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.record import LabelledFilm, label_arrays
from vertebra_kp.data.sources import SourceError, cvat
from vertebra_kp.data.sources.cvat import read_records
from vertebra_kp.data.writers.cvat import write

AP, LA, WHOLE = (SCHEMAS[name] for name in ("ap_lumbar", "la_lumbar", "ap_whole_spine"))

# as a server writes it: the meta part is its own business
TASK = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>31</id> <name>spines</name> <size>3</size> <mode>annotation</mode>
      <labels>
        <label>
          <name>L1</name> <color>#33ddff</color> <type>skeleton</type> <attributes></attributes>
          <svg>&lt;circle r="1.5" data-type="element node" data-label-id="9"&gt;&lt;/circle&gt;</svg>
        </label>
        <label> <name>TL</name> <type>points</type> <attributes></attributes> <parent>L1</parent> </label>
      </labels>
    </task>
    <dumped>2024-05-06 07:08:09.101112+00:00</dumped>
  </meta>
  {images}
</annotations>
"""

SKELETON = """<skeleton label="L1" source="manual" z_order="0">
      <points label="BR" source="manual" outside="0" occluded="0" points="155.00,250.25">
        <attribute name="quality">poor</attribute>
      </points>
      <points label="TL" source="manual" outside="0" occluded="1" points="100.00,200.00"> </points>
      <points label="TR" source="manual" outside="1" occluded="0" points="128.00,230.00"> </points>
      <points label="BL" source="manual" outside="1" occluded="1" points="128.00,230.00"> </points>
      <attribute name="note"></attribute>
    </skeleton>"""


def image(*shapes, name="a.png", extra=""):
    body = "\n    ".join(shapes)
    return f'<image id="0" name="{name}" {extra} width="500" height="1200">\n    {body}\n  </image>'


def point(label, xy, flags='occluded="0"', **more):
    others = " ".join(f'{key}="{value}"' for key, value in more.items())
    return f'<points label="{label}" source="manual" {flags} points="{xy}" {others} z_order="0"> </points>'


def save(root, *images, films=("a.png",), text=None):
    """annotations.xml and empty files for its films: reading labels does not open films."""
    for film in films:
        (root / film).parent.mkdir(parents=True, exist_ok=True)
        (root / film).touch()
    content = TASK.format(images="\n  ".join(images)) if text is None else text
    (root / "annotations.xml").write_text(content, encoding="utf-8")


# --- what is read --------------------------------------------------------------------------------


def test_skeletons_and_points_give_the_corners_they_name_and_flags_their_states(tmp_path):
    tag = '<tag label="blurred" source="manual"> </tag>'
    save(tmp_path, image(SKELETON, tag, point("s1_tr", "301.5,97.25"), point("L5.BL", "3,4", 'occluded="1"')))
    (record,) = read_records(tmp_path, LA)
    points, states = label_arrays(LA)
    points[0, 0], points[0, 3] = (100, 200), (155, 250.25)
    points[5, 1], points[4, 2] = (301.5, 97.25), (3, 4)
    states[~np.isnan(points[..., 0])] = State.LABELLED
    states[0, 1] = State.OUTSIDE
    np.testing.assert_array_equal(record.points_xy_image, points)
    np.testing.assert_array_equal(record.states, states)
    assert record.points_xy_image.dtype == np.float32
    assert (record.id, record.group, record.spacing_mm) == ("a.png", "a.png", None)
    assert (record.image_path, record.anterior_side) == (tmp_path / "a.png", "left")


def test_levels_that_the_schema_lacks_are_left_out_but_their_names_are_checked(tmp_path):
    other = point("T12.TL", "1,2"), SKELETON.replace('"L1"', '"C3"')
    save(tmp_path, image(point("L1.TL", "5,6"), *other))
    (record,) = read_records(tmp_path, AP)
    assert (record.states == State.LABELLED).sum() == 1
    assert record.anterior_side is None
    save(tmp_path, image(*other, SKELETON.replace('"L1"', '"C8"')))
    with pytest.raises(SourceError, match=r"image 'a\.png': skeleton 'C8': 'C8' names no level"):
        read_records(tmp_path, AP)


def test_corners_that_s1_does_not_have_may_be_hidden(tmp_path):
    uniform = SKELETON.replace('"L1"', '"S1"').replace(
        'label="BR" source="manual" outside="0"', 'label="BR" outside="1"'
    )
    save(tmp_path, image(uniform))
    (record,) = read_records(tmp_path, LA)
    assert record.states[5].tolist() == [State.LABELLED, State.OUTSIDE, State.NONEXISTENT, State.NONEXISTENT]


def test_films_of_a_task_lie_in_images_or_beside_the_file_and_come_sorted(tmp_path):
    label = point("L1.TL", "1,2")
    names = ("z.png", "sub dir/b é.png", "sub dir/a.png")
    never_labelled = image(name="gone.png"), image('<tag label="blurred"> </tag>', name="gone too.png")
    files = ("images/z.png", "images/sub dir/b é.png", "sub dir/a.png")
    save(tmp_path, *(image(label, name=name) for name in names), *never_labelled, films=files)
    assert [record.id for record in read_records(tmp_path, AP)] == sorted(files)


def test_films_of_a_project_lie_in_the_folders_of_its_subsets(tmp_path):
    images = [
        image(point("L1.TL", f"{k},2"), name="night/a.png", extra=f'subset="{subset}" task_id="{k}"')
        for k, subset in enumerate(["Train", "Validation"], start=7)
    ]
    save(tmp_path, *images, films=["images/Train/night/a.png", "images/Validation/night/a.png"])
    train, validation = read_records(tmp_path, AP)
    assert (train.id, validation.id) == ("images/Train/night/a.png", "images/Validation/night/a.png")
    assert (train.points_xy_image[0, 0, 0], validation.points_xy_image[0, 0, 0]) == (7, 8)


# --- writing -------------------------------------------------------------------------------------


def labelled_film(file, size, schema, points, states):
    return LabelledFilm(file, size, schema, points.astype(np.float32), states.astype(np.int8), group=file)


def written_film():
    points, states = label_arrays(LA)
    points[0, :2], states[0, :2] = [(10, 20), (14.5, 30)], State.LABELLED
    states[0, 2] = State.OUTSIDE
    states[1] = State.OUTSIDE
    points[5, 1], states[5, 1] = (1 / 3, 2), State.LABELLED
    return labelled_film("sub dir/é & 1.png", (40, 30), LA, points, states)


def test_a_skeleton_has_every_corner_of_its_level_and_hides_those_without_a_place(tmp_path):
    write([written_film()], tmp_path)
    (found,) = ElementTree.parse(tmp_path / "annotations.xml").getroot().findall("image")
    assert found.attrib == {"id": "0", "name": "sub dir/é & 1.png", "width": "30", "height": "40"}
    rows = [
        (skeleton.get("label"), *(element.get(key) for key in ("label", "outside", "occluded", "points")))
        for skeleton in found
        for element in skeleton
    ]
    middle_of_labelled, middle_of_film = "12.2500,25.0000", "15.0000,20.0000"
    assert rows == [
        ("L1", "TL", "0", "0", "10.0000,20.0000"),
        ("L1", "TR", "0", "0", "14.5000,30.0000"),
        ("L1", "BL", "1", "0", middle_of_labelled),
        ("L1", "BR", "1", "1", middle_of_labelled),
        *(("L2", corner, "1", "0", middle_of_film) for corner in ("TL", "TR", "BL", "BR")),
        ("S1", "TL", "1", "1", "0.3333,2.0000"),
        ("S1", "TR", "0", "0", "0.3333,2.0000"),
    ]


def test_the_labels_are_skeletons_whose_pictures_name_every_point(tmp_path):
    write([written_film()], tmp_path)
    meta = ElementTree.parse(tmp_path / "annotations.xml").getroot().find("meta/task/labels")
    in_xml = [(label.findtext("name"), label.findtext("type"), label.findtext("parent")) for label in meta]
    raw = json.loads((tmp_path / "cvat_labels.json").read_text(encoding="utf-8"))
    in_raw = []
    for label in raw:
        in_raw.append((label["name"], label["type"], None))
        in_raw += [(sub["name"], sub["type"], label["name"]) for sub in label["sublabels"]]
    corners = [(level, corner) for level in LA.levels for corner in ("TL", "TR", "BL", "BR")]
    existing = [(level, corner) for level, corner in corners if level != "S1" or corner in ("TL", "TR")]
    assert [(level, corner) for corner, kind, level in in_raw if kind == "points"] == existing
    assert [name for name, kind, _ in in_raw if kind == "skeleton"] == list(LA.levels)
    assert in_xml == in_raw
    for label, svg in zip(raw, meta.iter("svg"), strict=True):
        assert svg.text == label["svg"]
        picture = ElementTree.fromstring(f"<svg>{label['svg']}</svg>")
        numbers = {node.get("data-node-id"): node.get("data-label-name") for node in picture.iter("circle")}
        assert list(numbers.values()) == [sub["name"] for sub in label["sublabels"]]
        edges = [
            (numbers[line.get("data-node-from")], numbers[line.get("data-node-to")])
            for line in picture.iter("line")
        ]
        whole = [("TL", "TR"), ("TR", "BR"), ("BR", "BL"), ("BL", "TL")]
        assert edges == (whole[:1] if label["name"] == "S1" else whole)


def test_films_of_several_schemas_share_one_list_of_labels_and_nothing_else_is_written(tmp_path):
    other = labelled_film("b.png", (4, 3), WHOLE, *label_arrays(WHOLE))
    write([written_film(), other], tmp_path / "out")
    raw = json.loads((tmp_path / "out/cvat_labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in raw] == [*WHOLE.levels, "S1"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["annotations.xml", "cvat_labels.json", "out"]


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path):
    film = labelled_film("a\x01.png", (4, 3), LA, *label_arrays(LA))
    with pytest.raises(UserError, match=r"'a\\x01\.png' has a character that XML cannot hold"):
        write([film], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- errors --------------------------------------------------------------------------------------

SHAPE_FAULTS = [
    (point("L1.TM", "1,2"), "points 'L1.TM': 'L1.TM' names no corner"),
    (point("L1", "1,2"), "points 'L1': 'L1' names no corner"),
    (point("L1.TL", "1,2").replace('label="L1.TL"', ""), "points None: '' names no corner"),
    (point("L1.TL", "1,2;3,4"), "points must be one x,y in pixels, got '1,2;3,4'"),
    (point("L1.TL", "1"), "points must be one x,y"),
    (point("L1.TL", ""), "points must be one x,y"),
    (point("L1.TL", "1,zwei"), "points must be one x,y"),
    (point("L1.TL", "1,nan"), "points must be pixels, up to 1000000, got '1,nan'"),
    (point("L1.TL", "-inf,1"), "points must be pixels"),
    (point("L1.TL", "1,1e30"), "points must be pixels"),
    (point("L1.TL", "1,2", 'occluded="yes"'), "outside and occluded must be 0 or 1, got '0', 'yes'"),
    (point("L1.TL", "1,2", outside="2"), "outside and occluded must be 0 or 1, got '2', '0'"),
    (point("L5.TL", "1,2"), "L5.TL is given twice"),
    (SKELETON.replace('"L1"', '"L5"'), "L5.TL is given twice"),
    (SKELETON.replace('"BL"', '"BR"'), "L1.BR is given twice"),
    (SKELETON.replace('"L1"', '"L6"'), "skeleton 'L6': 'L6' names no level"),
    (SKELETON.replace('"TR"', '"5"'), "skeleton 'L1': point '5': 'L1.5' names no corner"),
    (SKELETON.replace("155.00,250.25", "155.00"), "point 'BR': points must be one x,y"),
    (SKELETON.replace("<attribute name=\"note\"></attribute>", "<box />"), "its elements must be points, got box"),
    (SKELETON.replace('"L1"', '"S1"'), "S1 has no BR in la_lumbar; take S1.BR out, or hide it"),
    (point("S1.BL", "1,2"), "S1 has no BL in la_lumbar"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "fault"), SHAPE_FAULTS)
def test_a_wrong_shape_is_named_with_its_image_and_what_to_do(tmp_path, wrong, fault):
    save(tmp_path, image(point("L5.TL", "1,2"), wrong))
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    head, *lines = str(caught.value).splitlines()
    assert f"{tmp_path / 'annotations.xml'}: " in head
    assert "correct these in CVAT and export them again as CVAT for images 1.1" in head
    assert lines[0].startswith("  image 'a.png': ")
    assert fault in lines[0]


def test_shapes_that_are_no_corner_are_left_out_counted_and_named(tmp_path, caplog):
    others = [
        SKELETON.replace('"L1"', '"pelvis"'),
        point("femoral head", "1,2"),
        '<box label="L1" xtl="1" ytl="2" xbr="3" ybr="4"> </box>',
        '<polygon label="implant" points="1,2;3,4;5,6;7,8"> </polygon>',
        "<unheard-of />",
    ]
    save(tmp_path, image(SKELETON, *others), image(*others, name="b.png"), films=["a.png"])
    assert [record.id for record in read_records(tmp_path, LA)] == ["a.png"]
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        f"2 {what} left out: image 'a.png', image 'b.png'"
        for what in (
            "skeleton shapes 'pelvis'",
            "points shapes 'femoral head'",
            "box shapes 'L1'",
            "polygon shapes 'implant'",
            "unheard-of shapes None",
        )
    ]


def test_every_problem_of_every_image_is_listed_at_once(tmp_path):
    root, good = tmp_path / "films", point("L1.TL", "1,2")
    save(tmp_path, image(good), films=["outside.png"])
    (root / "images").mkdir(parents=True)
    (root / "images/link.png").symlink_to(tmp_path / "outside.png")
    long = "x" * 5000
    images = [
        image(good, good, point("x.TL", "1,2")),
        image(good),
        image(good, name="b.png"),
        image(good, name="../outside.png"),
        image(good, name="a.png", extra='subset="../.."'),
        image(good, name="/etc/hostname"),
        image(good, name="C:\\films\\a.png"),
        image(good, name="link.png"),
        image(good, name=long),
        image(good, name=""),
        image(good).replace('name="a.png"', ""),
    ]
    save(root, *images)
    with pytest.raises(SourceError) as caught:
        read_records(root, LA)
    expected = [
        "image 'a.png': points 'L1.TL': L1.TL is given twice",
        "image 'a.png': points 'x.TL': 'x.TL' names no corner",
        "image 'a.png': film a.png stands in image 1 already; keep one",
        "image 'b.png': film 'b.png' is not in",
        "image '../outside.png': file must be relative",
        "image 'a.png': film a.png stands in image 1 already; keep one",
        "image '/etc/hostname': file must be relative",
        "image 'C:\\\\films\\\\a.png': file must be relative",
        "image 'link.png': film 'link.png' is a link to a place outside",
        f"image '{long[:900]}",
        "image '': name is missing",
        "image None: name is missing",
    ]
    head, *lines = str(caught.value).split("\n  ")
    assert f"{len(expected)} problems" in head
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    assert lines[9].endswith("correct its name")
    assert len(lines[9]) < 2100  # the middle of a name that no film has is left out


def test_a_folder_without_labels_says_what_it_wants(tmp_path):
    with pytest.raises(SourceError, match=r"has no annotations\.xml; data\.root of cvat"):
        read_records(tmp_path, LA)
    save(tmp_path, image())
    with pytest.raises(SourceError, match="has no image with shapes"):
        read_records(tmp_path, LA)


# --- damage --------------------------------------------------------------------------------------

VALID = TASK.format(images=image(SKELETON, point("S1.TL", "230.00,800.40"), extra='subset="Train"'))
ENTITIES = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 10))
BOMB = f'<!DOCTYPE annotations [<!ENTITY e0 "ha">{ENTITIES}]>'
WRONG_FILES = {
    "a bomb of entities": (
        VALID.replace("<annotations>", f"{BOMB}<annotations>").replace("L1", "&e9;"),
        "declares",
    ),
    "an entity of another file": (
        VALID.replace("<annotations>", '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotations>&e;'),
        "declares entities or a document type",
    ),
    "a document type elsewhere": (
        VALID.replace("<annotations>", '<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><annotations>'),
        "declares entities or a document type",
    ),
    "an entity that nobody declared": (VALID.replace("L1", "&e;"), "is not XML"),
    "another XML": ("<svg><image /></svg>", "begins with <svg>, wanted <annotations>"),
    "a video": (VALID.replace("<image", '<track id="0" label="L1"> </track><image'), "holds tracks"),
    "no XML": ('{"shapes": []}', "is not XML"),
    "nothing": ("", "is not XML"),
    "endless depth": (VALID.replace("</skeleton>", "<a>" * 100_000), "is not XML"),
}


@pytest.mark.parametrize(("text", "fault"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_no_export_is_refused_with_the_reason(tmp_path, text, fault):
    save(tmp_path, text=text)
    with pytest.raises(SourceError) as caught:
        read_records(tmp_path, LA)
    assert fault in str(caught.value)
    assert "annotations.xml" in str(caught.value)


def test_depth_that_ends_is_one_wrong_element(tmp_path):
    deep = "<a>" * 100_000 + "</a>" * 100_000
    save(tmp_path, text=VALID.replace("</skeleton>", f"{deep}</skeleton>"))
    with pytest.raises(SourceError, match="its elements must be points, got a"):
        read_records(tmp_path, LA)


def test_images_that_were_read_are_let_go(tmp_path):
    save(tmp_path, *[image(SKELETON)] * 50)
    read = []
    for element in cvat._images(tmp_path, tmp_path / "annotations.xml"):
        read.append(weakref.ref(element))
        assert sum(earlier() is not None for earlier in read) <= 2
    assert len(read) == 50


def test_a_file_that_is_a_link_or_not_utf8_is_refused(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    save(tmp_path, text=VALID)
    (root / "annotations.xml").symlink_to(tmp_path / "annotations.xml")
    with pytest.raises(SourceError, match="is a link to a place outside"):
        read_records(root, LA)
    (tmp_path / "annotations.xml").write_bytes(b"<annotations>\xff\xfe</annotations>")
    with pytest.raises(SourceError, match="is not UTF-8"):
        read_records(tmp_path, LA)


def read_or_refuse(root, text):
    save(root, text=text)
    try:
        (record,) = read_records(root, LA)
    except SourceError:
        return
    assert record.id == "a.png"
    np.testing.assert_array_equal(np.isfinite(record.points_xy_image[..., 0]), record.states == State.LABELLED)


DAMAGE = ["", "x", "-1", "nan", "1e400,1", "9" * 5000, "1,2,3", ";", "../a.png", "/etc/hostname", "\N{DIGIT ONE}"]


@pytest.mark.parametrize("number", range(len(list(ElementTree.fromstring(VALID).iter()))))
def test_an_export_with_any_part_replaced_is_read_or_refused(tmp_path, number):
    def changed(change):
        tree = ElementTree.fromstring(VALID)
        change(tree, list(tree.iter())[number])
        return ElementTree.tostring(tree, "unicode")

    def delete(tree, element):
        for parent in tree.iter():
            if element in list(parent):
                parent.remove(element)

    def rename(tree, element):
        element.tag = "unknown"

    read_or_refuse(tmp_path, changed(delete))
    read_or_refuse(tmp_path, changed(rename))
    for key in list(list(ElementTree.fromstring(VALID).iter())[number].attrib):
        read_or_refuse(tmp_path, changed(lambda _, element, key=key: element.attrib.pop(key)))
        for value in DAMAGE:
            read_or_refuse(tmp_path, changed(lambda _, element, key=key, value=value: element.set(key, value)))


def test_an_export_cut_off_anywhere_is_refused(tmp_path):
    end = VALID.rindex(">")
    for length in range(0, end, 23):
        save(tmp_path, text=VALID[:length])
        with pytest.raises(SourceError):
            read_records(tmp_path, LA)
