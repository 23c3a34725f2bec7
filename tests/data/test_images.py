"""Films are read exactly, upright and gray; what cannot be read is refused in one line."""

import os
import struct
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, ExifTags, Image

from vertebra_kp.data.images import WINDOW_PERCENT, FilmError, film_size, read_film, to_uint8

HEIGHT, WIDTH = 37, 23


# EXIF 2.3: which row and column of the displayed film the stored row 0 and column 0 are
STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[::-1],  # row 0 is the right side, column 0 the top
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[:, ::-1],  # row 0 is the left side, column 0 the bottom
}


def gray(dtype, seed=0):
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (HEIGHT, WIDTH), dtype=dtype, endpoint=True)


def smooth_jpeg_film():
    rows, columns = np.mgrid[0:300, 0:200]
    return (rows * 0.5 + columns * 0.4).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_gray_png_and_tiff_are_read_bit_for_bit(tmp_path, suffix, dtype):
    path = tmp_path / f"film{suffix}"
    film = gray(dtype)
    Image.fromarray(film).save(path)
    assert read_film(path).dtype == dtype
    np.testing.assert_array_equal(read_film(path), film)
    assert film_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_16_bit_tiff_is_read_bit_for_bit(tmp_path, compression):
    film = gray(np.uint16)
    Image.fromarray(film).save(tmp_path / "film.tif", compression=compression)
    np.testing.assert_array_equal(read_film(tmp_path / "film.tif"), film)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_films_written_by_opencv_are_read_bit_for_bit(tmp_path, suffix):
    film = gray(np.uint16)
    cv2.imwrite(str(tmp_path / f"film{suffix}"), film)
    np.testing.assert_array_equal(read_film(tmp_path / f"film{suffix}"), film)


@pytest.mark.parametrize(
    ("dtype", "byteorder", "photometric"),
    [
        (np.uint8, "<", "minisblack"),
        (np.uint8, "<", "miniswhite"),
        (np.uint8, ">", "miniswhite"),
        (np.uint16, "<", "minisblack"),
        (np.uint16, "<", "miniswhite"),
        (np.uint16, ">", "minisblack"),
    ],
)
def test_tiff_shows_the_same_film_whatever_its_byte_order_and_polarity(tmp_path, dtype, byteorder, photometric):
    film = gray(dtype)
    stored = np.iinfo(dtype).max - film if photometric == "miniswhite" else film
    tifffile.imwrite(tmp_path / "film.tif", stored, byteorder=byteorder, photometric=photometric)
    np.testing.assert_array_equal(read_film(tmp_path / "film.tif"), film)


def test_jpeg_is_read_within_its_own_loss(tmp_path):
    film = smooth_jpeg_film()
    Image.fromarray(film).save(tmp_path / "film.jpg", quality=95)
    assert np.abs(read_film(tmp_path / "film.jpg").astype(int) - film).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_files_of_a_gray_film_give_the_gray_film(tmp_path, mode):
    film = gray(np.uint8)
    Image.fromarray(film).convert(mode).save(tmp_path / "film.png")
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), film)


def png(stored, colour_type, *, before=b""):
    """A PNG of 16-bit samples [H, W, C]: Pillow writes none with colour or alpha."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = stored.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in stored.astype(">u2"))
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GRAY_ALPHA, RGB, RGBA = 4, 2, 6  # PNG, 11.2.2


@pytest.mark.parametrize("kind", [GRAY_ALPHA, RGB, RGBA])
@pytest.mark.parametrize("alpha", [65535, 300, 0])
def test_a_png_with_colour_or_alpha_keeps_its_16_bits(tmp_path, kind, alpha):
    film = gray(np.uint16)
    samples = [film] if kind == GRAY_ALPHA else [film] * 3
    samples += [np.full_like(film, alpha)] if kind != RGB else []
    (tmp_path / "film.png").write_bytes(png(np.dstack(samples), kind))
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), film)


@pytest.mark.parametrize("orientation", STORED_FROM_UPRIGHT)
def test_exif_orientation_turns_colour_of_16_bits(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    tags = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(tags)) + b"eXIf" + tags + struct.pack(">I", zlib.crc32(b"eXIf" + tags))
    upright = gray(np.uint16)
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    (tmp_path / "film.png").write_bytes(png(np.dstack([stored] * 3), RGB, before=chunk))
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), upright)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}],
    ids=lambda options: " ".join(options) or "plain",
)
def test_a_tiff_with_colour_keeps_its_16_bits(tmp_path, options, alpha):
    film = gray(np.uint16)
    samples = np.dstack([film] * 3 + [np.full_like(film, 65535)] * alpha)
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    tifffile.imwrite(tmp_path / "film.tif", samples, photometric="rgb", **extra, **options)
    np.testing.assert_array_equal(read_film(tmp_path / "film.tif"), film)


def test_colour_of_16_bits_that_two_decoders_read_differently_is_refused(tmp_path):
    planes = np.stack([gray(np.uint16)] * 3)
    tifffile.imwrite(tmp_path / "film.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(FilmError, match="save it as 16-bit gray"):
        read_film(tmp_path / "film.tif")


def test_colour_of_16_bits_becomes_luma(tmp_path):
    colour = np.zeros((5, 4, 3), np.uint16)
    colour[..., 1] = 50_000  # green alone: ITU-R 601 luma is 0.587 of it
    (tmp_path / "film.png").write_bytes(png(colour, RGB))
    assert np.abs(read_film(tmp_path / "film.png") - 0.587 * 50_000).max() <= 3


def test_colour_becomes_luma(tmp_path):
    colour = np.zeros((5, 4, 3), np.uint8)
    colour[..., 1] = 200  # green alone: ITU-R 601 luma is 0.587 of it
    Image.fromarray(colour).save(tmp_path / "film.png")
    assert np.abs(read_film(tmp_path / "film.png") - 0.587 * 200).max() <= 1


@pytest.mark.parametrize("orientation", STORED_FROM_UPRIGHT)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_puts_a_marked_pixel_where_it_belongs(tmp_path, suffix, orientation):
    upright = np.full((64, 48), 20, np.uint8)
    upright[8:16, 32:40] = 240  # a whole JPEG block near the top right
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"film{suffix}"
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    Image.fromarray(stored).save(path, exif=exif)
    film = read_film(path)
    assert film.shape == film_size(path) == (64, 48)
    assert np.abs(film.astype(int) - upright).max() <= 2


@pytest.mark.parametrize("orientation", STORED_FROM_UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation_keeps_16_bits(tmp_path, suffix, orientation):
    upright = gray(np.uint16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    Image.fromarray(stored).save(tmp_path / f"film{suffix}", exif=exif)
    np.testing.assert_array_equal(read_film(tmp_path / f"film{suffix}"), upright)


def test_size_of_a_png_whose_exif_comes_after_its_pixels_is_the_displayed_one(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "film.png"
    Image.fromarray(gray(np.uint8)).save(path, exif=exif)
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4  # a chunk is length, name, content, checksum
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:at] + data[end:last] + data[at:end] + data[last:])
    assert read_film(path).shape == film_size(path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["mit Leerzeichen.png", "Wirbelsäule č 脊椎.png", "a'b & c;d.png"])
def test_names_with_spaces_and_unicode_are_read(tmp_path, name):
    film = gray(np.uint16)
    Image.fromarray(film).save(tmp_path / name)
    np.testing.assert_array_equal(read_film(tmp_path / name), film)
    assert film_size(tmp_path / name) == film.shape


def test_films_of_one_pixel_and_of_extreme_shape_are_read(tmp_path):
    for shape in ((1, 1), (3000, 2), (2, 3000)):
        Image.fromarray(np.full(shape, 7, np.uint8)).save(tmp_path / "film.png")
        assert read_film(tmp_path / "film.png").shape == film_size(tmp_path / "film.png") == shape


def broken_files(folder):
    """Path and what the message must tell, of every kind of file that is no film."""
    empty = folder / "empty film.png"
    empty.write_bytes(b"")
    yield empty, "0 bytes"
    text = folder / "notes.png"
    text.write_text("not a film")
    yield text, "not an image"
    yield folder / "absent.png", "no such file"
    yield folder, "folder"
    for suffix in (".jpg", ".png", ".tif"):
        whole = folder / f"whole{suffix}"
        Image.fromarray(smooth_jpeg_film()).save(whole)
        cut = folder / f"cut{suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        yield cut, ""


def test_what_is_no_film_is_refused_with_its_name_fault_and_remedy(tmp_path):
    for path, fault in broken_files(tmp_path):
        with pytest.raises(FilmError) as caught:
            read_film(path)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert fault in message
        assert ";" in message, "no remedy"
        assert "\n" not in message


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """What is called of a Ghostscript that only writes down how it is called."""
    log, folder = tmp_path / "called", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f'#!/bin/sh\necho "$@" >> {log}\necho 10.0\n')
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # None: Pillow looks for it
    return lambda: log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("read", [read_film, film_size])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".eps"])
def test_a_program_under_a_films_name_is_refused_and_not_run(tmp_path, programs, suffix, read):
    path = tmp_path / f"film{suffix}"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n")
    with Image.open(path) as image, suppress(OSError):
        image.load()
    called = programs()
    assert called  # without this package's care
    with pytest.raises(FilmError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: not an image in PNG, JPG, TIFF or DICOM; convert it to one of them"
    assert programs() == called


@pytest.mark.parametrize("format_", ["BMP", "GIF", "PPM", "WEBP", "JPEG2000"])
def test_an_image_in_a_format_that_is_not_listed_is_refused(tmp_path, format_):
    Image.fromarray(smooth_jpeg_film()).save(tmp_path / "film.png", format_)
    with pytest.raises(FilmError, match="not an image in PNG, JPG, TIFF or DICOM"):
        read_film(tmp_path / "film.png")


def test_a_jpeg_of_a_camera_that_holds_several_images_shows_the_first(tmp_path):
    first = smooth_jpeg_film()
    Image.fromarray(first).save(
        tmp_path / "film.jpg", "MPO", save_all=True, append_images=[Image.fromarray(255 - first)], quality=95
    )
    assert np.abs(read_film(tmp_path / "film.jpg").astype(int) - first).max() < 10


def test_a_jpeg_that_lacks_its_last_tenth_is_refused(tmp_path):
    path = tmp_path / "film.jpg"
    Image.fromarray(gray(np.uint8)).resize((400, 600)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(FilmError, match=r"film\.jpg: truncated or damaged"):
        read_film(path)


def test_size_of_what_is_no_image_is_refused_in_the_same_words(tmp_path):
    for path, fault in broken_files(tmp_path):
        if fault:  # the header of a cut file still tells the size
            with pytest.raises(FilmError, match=fault):
                film_size(path)


def test_pixels_that_no_16_bits_hold_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.25, np.float32)).save(tmp_path / "film.tif")
    with pytest.raises(FilmError, match="32-bit"):
        read_film(tmp_path / "film.tif")


def test_uint8_stays_as_it_is():
    film = gray(np.uint8)
    assert to_uint8(film) is film


def test_window_of_a_16_bit_film_is_its_percentiles():
    # each value stands once, so percentile p is at 1000 + 20 p, to one step either way
    film = np.arange(1000, 3000, dtype=np.uint16).reshape(50, 40)
    low, high = (1000 + 2000 * percent / 100 for percent in WINDOW_PERCENT)
    expected = 255 * ((film - low) / (high - low)).clip(0, 1)
    rounding, step = 0.5, 255 / (high - low)
    assert np.abs(to_uint8(film) - expected).max() <= rounding + 2 * step
    assert to_uint8(film).dtype == np.uint8


def test_a_few_burnt_pixels_do_not_darken_a_16_bit_film():
    film = np.linspace(0, 4095, 10_000).astype(np.uint16).reshape(100, 100)
    burnt = film.copy()
    burnt[0, :40] = 65535  # 0.4 %: beyond the window
    difference = to_uint8(burnt)[1:].astype(int) - to_uint8(film)[1:]
    assert np.abs(difference).max() <= 2


def test_a_flat_16_bit_film_gives_a_flat_film():
    assert np.unique(to_uint8(np.full((9, 7), 40_000, np.uint16))).tolist() == [0]


def test_float_films_are_refused():
    with pytest.raises(TypeError, match="float64"):
        to_uint8(np.zeros((3, 3)))
