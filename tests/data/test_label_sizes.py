"""Labels that were made on an image of another size are refused or scaled, never read into the wrong place."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image
from shared_data import field_case

from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources import SourceError, read_records
from vertebra_kp.data.writers import WRITERS

SCHEMA = SCHEMAS["la_lumbar"]
SIZE = (256, 130)  # height, width
IN_PIXELS = ("coco", "cvat", "json", "labelme")
EXIF_TURNED = 6  # stored on its side


def labelled(folder, format_, shown):
    """Labels of an image of ``SIZE`` beside one of the size ``shown``."""
    drawn = draw_film(SCHEMA, "standard", 3, 0, SIZE)
    film = LabelledFilm("a.png", SIZE, SCHEMA, drawn.points_xy_image, drawn.states, "a.png")
    save(folder / "a.png", shown)
    WRITERS[format_]([film], folder)
    return drawn.points_xy_image


def save(path, shown, *, exif=None):
    Image.new("L", shown[::-1]).save(path, **({} if exif is None else {"exif": exif}))


@pytest.mark.parametrize("format_", [*IN_PIXELS, "label_studio"])
def test_labels_of_the_image_s_own_size_are_read(tmp_path, format_):
    points = labelled(tmp_path, format_, SIZE)
    (record,) = read_records(format_, tmp_path, SCHEMA)
    np.testing.assert_allclose(record.points_xy_image, points, atol=0.01)


@pytest.mark.parametrize("format_", IN_PIXELS)
@pytest.mark.parametrize("shown", [(512, 260), (128, 65), (256, 131), (130, 256)])
def test_labels_of_another_size_are_refused_with_both_sizes(tmp_path, format_, shown):
    labelled(tmp_path, format_, shown)
    with pytest.raises(SourceError) as caught:
        read_records(format_, tmp_path, SCHEMA)
    assert f"of 130 x 256 pixels, a.png has {shown[1]} x {shown[0]}" in str(caught.value)
    assert ("EXIF" in str(caught.value)) == (shown == (130, 256))


@pytest.mark.parametrize("format_", IN_PIXELS)
def test_the_size_is_that_of_the_image_as_displayed(tmp_path, format_):
    labelled(tmp_path, format_, SIZE)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = EXIF_TURNED
    save(tmp_path / "a.png", SIZE[::-1], exif=exif)
    assert len(read_records(format_, tmp_path, SCHEMA)) == 1


def test_percents_are_those_of_the_image_that_is_there(tmp_path):
    points = labelled(tmp_path, "label_studio", (512, 260))
    (record,) = read_records("label_studio", tmp_path, SCHEMA)
    np.testing.assert_allclose(record.points_xy_image, 2 * points, atol=0.01)


def test_percents_of_an_image_of_another_shape_are_refused(tmp_path):
    labelled(tmp_path, "label_studio", (130, 256))
    with pytest.raises(SourceError, match=r"of 130 x 256 pixels, a\.png has 256 x 130, which EXIF turns"):
        read_records("label_studio", tmp_path, SCHEMA)


@pytest.mark.parametrize("format_", IN_PIXELS)
def test_an_image_that_cannot_be_read_is_left_to_whoever_reads_its_pixels(tmp_path, format_):
    labelled(tmp_path, format_, SIZE)
    (tmp_path / "a.png").write_bytes(b"damaged")
    assert len(read_records(format_, tmp_path, SCHEMA)) == 1


def test_a_file_that_states_no_size_is_read(tmp_path):
    labelled(tmp_path, "coco", (512, 260))
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    for key in ("width", "height"):
        content["images"][0][key] = 0
    path.write_text(json.dumps(content))
    assert len(read_records("coco", tmp_path, SCHEMA)) == 1


FIRST = (0, 0)  # L1.TL


@pytest.mark.parametrize(
    ("case", "format_"), [*((name, name) for name in (*IN_PIXELS, "label_studio")), ("coco_exif", "coco")]
)
def test_the_field_cases_are_refused_or_scaled(case, format_):
    folder = field_case("02_labels_of_another_size") / case
    if format_ == "label_studio":
        (record,) = read_records(format_, folder, SCHEMA)
        assert record.states[FIRST] == State.LABELLED
        np.testing.assert_allclose(record.points_xy_image[FIRST], (91.7, 88.7), atol=0.05)
    else:
        sizes = (
            "256 x 128 pixels, a.jpg has 128 x 256" if "exif" in case else "128 x 256 pixels, a.jpg has 256 x 512"
        )
        with pytest.raises(SourceError, match=sizes):
            read_records(format_, folder, SCHEMA)
