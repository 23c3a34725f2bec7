"""DICOM films are read as a viewer shows them, results lie where they belong, and no patient gets into them."""

import csv
import json
import re
import struct
from pathlib import Path

import cv2
import gdcm
import highdicom
import numpy as np
import pytest
import torch
from commands import run, run_apart, tiny
from one_prediction import a_prediction
from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from shared_data import field_case

from vertebra_kp.config.io import load_config
from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.geometry import points_from_indices
from vertebra_kp.data.dicom import DicomInfo, apart, pixels, read_dicom, read_header
from vertebra_kp.data.dicom.elements import ElementError
from vertebra_kp.data.dicom.pixels import _check_decoder
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.images import FilmError, film_size, read_film, to_uint8
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.data.record import LabelledFilm
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.data.writers import WRITERS
from vertebra_kp.inference import gsps
from vertebra_kp.inference.checkpoint import Checkpoint, save_checkpoint
from vertebra_kp.inference.gsps import IDENTITY, write_presentation_state
from vertebra_kp.inference.predictions import image_entry
from vertebra_kp.models.network import VertebraNetwork

REPOSITORY = Path(__file__).parents[2]
SCHEMA = SCHEMAS["la_lumbar"]
HEIGHT, WIDTH = 37, 23
TWELVE_BITS = 4095


def twelve_bits(seed=0, shape=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, TWELVE_BITS, shape, dtype=np.uint16, endpoint=True)


def dicom(stored, *, bits=None, syntax=ExplicitVRLittleEndian, **elements):
    """A computed radiograph of the pixels as they are stored; ``elements`` are added, None takes one away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = generate_uid(), generate_uid(), "CR"
    made.Rows, made.Columns = stored.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = 8 * stored.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    made.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def lut(entries, first, bits, *, vr="US", **elements):
    """An item of a LUT sequence with 16-bit entries, or 8-bit ones from a uint8 array."""
    item = Dataset()
    item.add(DataElement("LUTDescriptor", vr, [len(entries) % 2**16, first, bits]))
    item.add(DataElement("LUTData", "OW", entries.tobytes() + b"\0" * (entries.nbytes % 2)))
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def saved(path, made):
    made.save_as(path, enforce_file_format=True)
    return path


# --- pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, 1), (3, 900)])
def test_a_film_without_windows_is_read_bit_for_bit(tmp_path, syntax, shape):
    stored = twelve_bits(shape=shape)
    path = saved(tmp_path / "film.dcm", dicom(stored, bits=12, syntax=syntax))
    assert read_film(path).dtype == np.uint16
    np.testing.assert_array_equal(read_film(path), stored)
    assert film_size(path) == shape


def test_8_bits_stay_8_bits(tmp_path):
    stored = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    film = read_film(saved(tmp_path / "film.dcm", dicom(stored)))
    assert film.dtype == np.uint8
    np.testing.assert_array_equal(film, stored)


def test_signed_pixels_keep_their_order(tmp_path):
    stored = np.array([[-32768, -1, 0, 1, 32767]], np.int16)
    film = read_film(saved(tmp_path / "film.dcm", dicom(stored)))
    np.testing.assert_array_equal(film, stored.astype(int) + 32768)


def test_bits_above_those_stored_are_no_pixels(tmp_path):
    stored = twelve_bits()
    film = read_film(saved(tmp_path / "film.dcm", dicom(stored | 0xA000, bits=12)))  # an overlay in bits 13 and 15
    np.testing.assert_array_equal(film, stored)


# A linear window of centre c and width w is black up to c - 0.5 - (w - 1) / 2, white above c - 0.5 + (w - 1) / 2.
LEVELS = np.array([[0, 500, 750, 1000, 1500, 2000, TWELVE_BITS]], np.uint16)
SHARES = np.array([[0, 0, 0.25, 0.5, 1, 1, 1]])  # between 500 and 1500


@pytest.mark.parametrize(
    ("window", "shares"),
    [
        ({"WindowCenter": 1000.5, "WindowWidth": 1001}, SHARES),
        ({"WindowCenter": [1000.5, 9], "WindowWidth": [1001, 1]}, SHARES),
        ({"WindowCenter": 1000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}, SHARES),
        ({"WindowCenter": 750, "WindowWidth": 1}, LEVELS >= 750),
        (
            {"WindowCenter": 1000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (LEVELS.astype(float) - 1000) / 1000)),
        ),
        # twice the stored value less 1000: the window's 0 is at 500, its 2000 at 1500
        (
            {"WindowCenter": 1000.5, "WindowWidth": 2001, "RescaleSlope": 2, "RescaleIntercept": -1000},
            SHARES,
        ),
        # upside down: 1500 and above are below the window
        (
            {"WindowCenter": 4095 - 999.5, "WindowWidth": 1001, "RescaleSlope": -1, "RescaleIntercept": 4095},
            1 - SHARES,
        ),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, 1 - LEVELS / TWELVE_BITS),
        ({"RescaleSlope": "0.001", "RescaleIntercept": "-7"}, LEVELS / TWELVE_BITS),
        ({"WindowCenter": 1000}, LEVELS / TWELVE_BITS),  # half a window is none
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_the_window_is_applied_and_then_the_polarity(tmp_path, window, shares, photometric):
    path = saved(tmp_path / "film.dcm", dicom(LEVELS, bits=12, PhotometricInterpretation=photometric, **window))
    shares = 1 - shares if photometric == "MONOCHROME1" else shares
    rounding = 0.5 + 1e-6
    assert np.abs(read_film(path) - shares * TWELVE_BITS).max() <= rounding


def test_windows_are_those_that_pydicom_makes(tmp_path):
    stored = np.random.default_rng(3).integers(-2048, 2047, (HEIGHT, WIDTH), dtype=np.int16, endpoint=True)
    made = dicom(
        stored, bits=12, WindowCenter=-310.25, WindowWidth=1730.5, RescaleSlope="1.37", RescaleIntercept="-99.5"
    )
    theirs = apply_voi_lut(apply_modality_lut(stored, made), made)
    lowest, highest = -2048 * 1.37 - 99.5, 2047 * 1.37 - 99.5
    shares = (theirs - lowest) / (highest - lowest)
    film = read_film(saved(tmp_path / "film.dcm", made))
    assert np.abs(film - shares * TWELVE_BITS).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("entries", "bits"),
    [
        (np.array([0, 10, 200, 65535, 30000], np.uint16), 16),
        (np.array([0, 10, 200, 1023, 300], np.uint16), 10),
        (np.array([0, 10, 200, 255, 30], np.uint16), 8),  # 8 bits, padded to 16
        (np.array([0, 10, 200, 255, 30], np.uint8), 8),
    ],
)
def test_a_voi_lut_maps_below_and_beyond_itself_to_its_ends(tmp_path, syntax, entries, bits):
    stored = np.array([[0, 99, 100, 101, 102, 103, 104, 105, TWELVE_BITS]], np.uint16)
    index = [0, 0, 0, 1, 2, 3, 4, 4, 4]  # entry 0 belongs to 100
    made = dicom(stored, bits=12, syntax=syntax, VOILUTSequence=[lut(entries, 100, bits)])
    made.WindowCenter, made.WindowWidth = 5, 5  # a LUT goes before a window
    film = read_film(saved(tmp_path / "film.dcm", made))
    expected = entries[index] / (2**bits - 1) * TWELVE_BITS
    assert np.abs(film[0] - expected).max() <= 0.5 + 1e-6


def test_a_voi_lut_may_have_more_entries_than_its_bits_count_and_begin_below_zero(tmp_path):
    stored = np.array([[-2048, -1000, 0, 1000, 2047]], np.int16)
    entries = (np.arange(4096) // 16).astype(np.uint8)
    made = dicom(stored, bits=12, VOILUTSequence=[lut(entries, -2048, 8, vr="SS")])
    film = read_film(saved(tmp_path / "film.dcm", made))
    assert np.abs(film - (stored + 2048) // 16 / 255 * TWELVE_BITS).max() <= 0.5 + 1e-6


def test_a_modality_lut_comes_before_the_window(tmp_path):
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    modality = lut(np.array([4000, 1500, 750, 500], np.uint16), 0, 16, ModalityLUTType="US")
    made = dicom(stored, ModalityLUTSequence=[modality], WindowCenter=1000.5, WindowWidth=1001)
    film = read_film(saved(tmp_path / "film.dcm", made))
    assert np.abs(film - np.array([[1, 1, 0.25, 0]]) * 255).max() <= 0.5 + 1e-6


def test_a_modality_lut_alone_spans_its_own_bits(tmp_path):
    stored = np.array([[0, 1]], np.uint8)
    modality = lut(np.array([65535, 0], np.uint16), 0, 16, ModalityLUTType="US")
    film = read_film(saved(tmp_path / "film.dcm", dicom(stored, ModalityLUTSequence=[modality])))
    np.testing.assert_array_equal(film, [[255, 0]])


# A window of 8 bits, one of 12 bits on 8, one without width, one beside all pixels, and a function of no standard:
# all but the last are passed over, as viewers do.
@pytest.mark.parametrize(
    ("stored", "elements", "noted"),
    [
        (LEVELS, {"WindowCenter": 5, "WindowWidth": 0}, "WindowWidth is 0"),
        (LEVELS, {"WindowCenter": 5, "WindowWidth": -2, "VOILUTFunction": "SIGMOID"}, "WindowWidth is -2"),
        (LEVELS, {"WindowCenter": 127.5, "WindowWidth": 255}, "one of 8 bits"),
        (LEVELS, {"WindowCenter": 9000, "WindowWidth": 1000}, "none of what pixels can be, 0 to 4095"),
        (LEVELS, {"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope is 0"),
        (LEVELS.astype(np.uint8), {"WindowCenter": 2048, "WindowWidth": 4096}, "WindowWidth is 4096"),
    ],
)
def test_a_window_that_cannot_be_meant_is_passed_over_with_a_note(tmp_path, stored, elements, noted):
    bits = 12 if stored.dtype == np.uint16 else 8
    film = read_dicom(saved(tmp_path / "film.dcm", dicom(stored, bits=bits, **elements)))
    np.testing.assert_array_equal(film.pixels, stored)
    (note,) = film.info.notes
    assert noted in note


def test_a_window_of_8_bits_holds_for_a_film_whose_pixels_are_in_it(tmp_path):
    stored = np.array([[0, 64, 128, 255] * 9, [255] * 36], np.uint16)
    path = saved(tmp_path / "film.dcm", dicom(stored, bits=12, WindowCenter=128, WindowWidth=256))
    assert read_dicom(path).info.notes == ()
    np.testing.assert_allclose(read_film(path), stored / 255 * TWELVE_BITS, atol=0.51)


def test_the_first_window_with_a_width_counts(tmp_path):
    made = dicom(LEVELS, bits=12, WindowCenter=[9, 1000.5], WindowWidth=[0, 1001])
    film = read_dicom(saved(tmp_path / "film.dcm", made))
    assert np.abs(film.pixels - SHARES * TWELVE_BITS).max() <= 0.5 + 1e-6


def test_an_unknown_function_of_a_window_is_taken_as_linear_with_a_note(tmp_path):
    made = dicom(LEVELS, bits=12, WindowCenter=1000.5, WindowWidth=1001, VOILUTFunction="CUBIC")
    film = read_dicom(saved(tmp_path / "film.dcm", made))
    assert np.abs(film.pixels - SHARES * TWELVE_BITS).max() <= 0.5 + 1e-6
    assert "taken as LINEAR" in film.info.notes[0]


def padded(content, value):
    """Ten columns of padding at either side."""
    return np.pad(content, ((0, 0), (10, 10)), constant_values=value)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("dtype", "bits", "value", "elements"),
    [
        (np.uint16, 16, 65535, {}),
        (np.int16, 16, -32768, {}),
        (np.uint16, 16, 60_500, {"PixelPaddingRangeLimit": 60_000}),
        (np.int16, 16, -2_000, {"PixelPaddingRangeLimit": -1_500}),
        (np.uint16, 12, 4095, {}),
        (np.uint16, 12, 65535, {}),  # beyond the bits stored
        (np.int16, 12, -2048, {}),
    ],
)
def test_padding_is_background_and_stays_out_of_the_window(tmp_path, photometric, dtype, bits, value, elements):
    content = np.random.default_rng(4).integers(100, 2000, (80, 40)).astype(dtype)
    end = elements.get("PixelPaddingRangeLimit", value)
    elements = {"PhotometricInterpretation": photometric, **elements}
    border = padded(content, value)
    made = dicom(border, bits=bits, **elements)
    # written with the bits of an unsigned number, whatever the pixels are: some writers do
    for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", end)):
        made.add(DataElement(keyword, "US", number % 2**16))
    path = saved(tmp_path / "film.dcm", made)
    # without its border, at 16 bits and of one sign, as any window must leave it
    alone = to_uint8(
        content.astype(np.uint16) if photometric == "MONOCHROME2" else 2100 - content.astype(np.uint16)
    )
    shown = to_uint8(read_film(path))
    assert (shown[:, :10] == 0).all()
    assert (shown[:, -10:] == 0).all()
    # half of the pixels are border: the window's lowest 0.5 % are cut off without it, and are its end with it
    assert np.abs(shown[:, 10:-10].astype(int) - alone).max() <= 4
    assert len(np.unique(shown[:, 10:-10])) > 200


def test_a_film_of_8_bits_has_black_padding(tmp_path):
    stored = np.array([[255, 90, 200, 255]], np.uint8)
    path = saved(tmp_path / "film.dcm", dicom(stored, PixelPaddingValue=255))
    np.testing.assert_array_equal(read_film(path), [[0, 90, 200, 0]])


@pytest.mark.parametrize("first", [63536, -2000])  # written as unsigned and as signed
def test_a_lut_begins_at_a_negative_value_however_it_is_written(tmp_path, first):
    stored = np.array([[-2048, -2000, -1999, -1997, 2047]], np.int16)
    item = lut(np.array([0, 10, 200, 65535], np.uint16), 0, 16, vr="US" if first > 0 else "SS")
    item.LUTDescriptor = [4, first, 16]
    film = read_film(saved(tmp_path / "film.dcm", dicom(stored, VOILUTSequence=[item])))
    np.testing.assert_array_equal(film, [[0, 0, 10, 65535, 65535]])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("with_meta", [False, True])
@pytest.mark.parametrize("name", ["film.dcm", "IM0001"])
def test_a_file_without_meta_or_preamble_is_read_with_a_note(tmp_path, syntax, with_meta, name):
    stored = twelve_bits()
    whole = saved(tmp_path / "whole.dcm", dicom(stored, bits=12, syntax=syntax)).read_bytes()
    start = whole.index(b"\x08\x00\x16\x00")  # SOPClassUID, the first element
    path = tmp_path / "films" / name
    path.parent.mkdir()
    path.write_bytes(whole[132:] if with_meta else whole[start:])
    assert find_films([str(path.parent)]) == [path]
    film = read_dicom(path)
    np.testing.assert_array_equal(film.pixels, stored)
    assert film_size(path) == stored.shape
    assert len(film.info.notes) == (not with_meta)
    assert with_meta or "no meta information" in film.info.notes[0]


def transcoded(path, made, syntax):
    """The film with its pixels compressed by GDCM."""
    saved(path, made)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    return path


def compressed(path, syntax, **elements):
    """A film of 12 bits and its pixels."""
    stored = twelve_bits()
    made = dicom(stored, bits=12, **elements)
    if syntax != RLELossless:
        return transcoded(path, made, syntax), stored
    made.compress(RLELossless)
    return saved(path, made), stored


LOSSLESS = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_lossless_compression_is_read_bit_for_bit(tmp_path, syntax):
    path, stored = compressed(tmp_path / "film.dcm", syntax)
    np.testing.assert_array_equal(read_film(path), stored)
    assert film_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLosslessSV1, JPEG2000Lossless], ids=lambda syntax: syntax.name
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_above_those_stored_are_no_pixels_in_compressed_films(tmp_path, syntax, dtype):
    """As writers leave an overlay, or the sign of all 16 bits, in a film of 12."""
    stored = twelve_bits()
    above = dicom((stored | 0xA000).view(dtype))
    path = tmp_path / "film.dcm"
    if syntax == RLELossless:
        above.compress(RLELossless)
        saved(path, above)
    else:
        transcoded(path, above, syntax)
    film = dcmread(path)
    film.BitsStored, film.HighBit = 12, 11
    saved(path, film)
    expected = stored if dtype == np.uint16 else (stored + 2048) % 4096  # the lowest number is black
    np.testing.assert_array_equal(read_film(path), expected)


def test_pixels_that_end_the_decoder_are_refused_and_the_next_film_is_read(tmp_path):
    path, stored = compressed(tmp_path / "film.dcm", JPEG2000Lossless)
    aborts = field_case("red") / "gdcm_abort.dcm"
    for _ in range(2):
        assert "the decoder ends" in refused(aborts)
        np.testing.assert_array_equal(read_film(path), stored)


def test_a_decoder_that_dies_is_started_again(tmp_path):
    path, stored = compressed(tmp_path / "film.dcm", JPEG2000Lossless)
    np.testing.assert_array_equal(read_film(path), stored)
    first = apart._decoder.process
    first.kill()
    first.wait()
    np.testing.assert_array_equal(read_film(path), stored)
    assert apart._decoder.process.pid != first.pid


def smooth():
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (rows * 4 + columns * 3).astype(np.uint8)


def jpeg(path, image, **elements):
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    made = dicom(image, syntax=JPEGBaseline8Bit, **elements)
    made.PixelData = encapsulate([encoded + b"\0" * (len(encoded) % 2)])
    made["PixelData"].is_undefined_length = True
    return saved(path, made)


def test_jpeg_is_read_to_its_own_exactness(tmp_path):
    path = jpeg(tmp_path / "film.dcm", smooth(), PhotometricInterpretation="MONOCHROME1")
    assert np.abs(read_film(path) - (255 - smooth().astype(int))).max() <= 3


def test_a_missing_decoder_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path, _ = compressed(tmp_path / "film.dcm", JPEGLosslessSV1)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(FilmError, match=r"JPEG Lossless.*pip install 'vertebra_kp\[dicom\]'"):
        read_film(path)


# --- what is no film --------------------------------------------------------------------------------------


def refused(path):
    """The message, after a look at its form."""
    with pytest.raises(FilmError) as caught:
        read_film(path)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert ";" in message, "no remedy"
    assert "\n" not in message
    assert caught.value.__cause__ is None, "a traceback would show what pydicom said"
    return message


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"NumberOfFrames": 3}, "NumberOfFrames must be 1, got 3"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel must be 1, got 3"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PhotometricInterpretation"),
        ({"BitsAllocated": 32}, "BitsAllocated must be 8 or 16 and hold BitsStored, got 32 and 16"),
        ({"BitsStored": 17}, "got 16 and 17"),
        ({"PixelRepresentation": 2}, "PixelRepresentation"),
        ({"HighBit": 11}, "HighBit must be 15, one less than BitsStored, got 11"),
        ({"Rows": 60000, "Columns": 60000}, "Rows x Columns is 60000 x 60000"),
        ({"Rows": 0}, "Rows x Columns is 0 x 23"),
        ({"Rows": None}, "Rows is missing"),
        ({"BitsStored": None}, "BitsStored is missing"),
        ({"VOILUTSequence": [lut(np.zeros(5, np.uint16), 0, 7)]}, "LUTDescriptor"),
        ({"PixelData": None}, "PixelData is missing"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_a_pixel_is_decoded(tmp_path, monkeypatch, elements, told):
    path = saved(tmp_path / "film.dcm", dicom(twelve_bits(), **elements))
    if "PixelData" not in elements:
        monkeypatch.setattr(pixels, "pixel_array", lambda *_, **__: pytest.fail("pixels were decoded"))
    assert told in refused(path)


def test_a_lut_shorter_than_it_says_is_refused(tmp_path):
    item = lut(np.zeros(5, np.uint16), 0, 16)
    item.LUTDescriptor = [50, 0, 16]
    assert "LUTData" in refused(saved(tmp_path / "film.dcm", dicom(twelve_bits(), VOILUTSequence=[item])))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *LOSSLESS], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("kept", [0.98, 0.6, 0.2, 0.02])
def test_a_truncated_film_is_refused_wherever_it_ends(tmp_path, syntax, kept):
    if syntax == ExplicitVRLittleEndian:
        path = saved(tmp_path / "film.dcm", dicom(twelve_bits(), bits=12))
    else:
        path, _ = compressed(tmp_path / "film.dcm", syntax)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(path)


def test_a_kind_of_jpeg_that_no_decoder_knows_is_told(tmp_path):
    path = jpeg(tmp_path / "film.dcm", smooth())
    content = path.read_bytes()
    uids = [str(uid).encode() for uid in (JPEGBaseline8Bit, JPEGExtended12Bit)]
    at = content.index(b"\x28\x00\x00\x01US\x02\x00") + 8  # the value of BitsAllocated, before BitsStored
    wide = content[:at] + b"\x10\x00" + content[at + 2 : at + 10] + b"\x0c\x00" + content[at + 12 : at + 20]
    wide += b"\x0b\x00" + content[at + 22 :]
    path.write_bytes(wide.replace(*uids))
    assert "no decoder knows; copy it again, or store it uncompressed" in refused(path)


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = jpeg(tmp_path / "film.dcm", np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    refused(path)


def lie(content, syntax, shape):
    """The frame inside says that it has another shape."""
    if syntax == JPEG2000Lossless:
        at = content.index(b"\xff\x4f\xff\x51") + 8  # behind SOC, and marker, length and profile of SIZ
        content = content[:at] + struct.pack(">II", *shape[::-1]) + content[at + 8 :]
        return content[: at + 16] + struct.pack(">II", *shape[::-1]) + content[at + 24 :]  # one tile
    marker = {JPEGLosslessSV1: b"\xff\xc3", JPEGLSLossless: b"\xff\xf7", JPEGBaseline8Bit: b"\xff\xc0"}[syntax]
    at = content.index(marker) + 5  # behind marker, length and precision
    return content[:at] + struct.pack(">HH", *shape) + content[at + 4 :]


@pytest.mark.parametrize(
    "syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.name
)
def test_a_frame_that_is_larger_than_the_film_is_not_decoded(tmp_path, monkeypatch, syntax):
    path = tmp_path / "film.dcm"
    if syntax == JPEGBaseline8Bit:
        jpeg(path, smooth())
    else:
        compressed(path, syntax)
    path.write_bytes(lie(path.read_bytes(), syntax, (60_001, 60_000)))
    monkeypatch.setattr(pixels, "pixel_array", lambda *_, **__: pytest.fail("pixels were decoded"))
    assert "its frame is 60001 x 60000 x 1, by Rows, Columns and SamplesPerPixel 37 x 23 x 1" in refused(path)


def test_a_frame_far_longer_than_its_pixels_is_not_decoded(tmp_path, monkeypatch):
    made = dicom(twelve_bits(), syntax=RLELossless)
    made.PixelData = encapsulate([b"\x81\x07" * 2**20])  # RLE: 128 times 7, a million times
    made["PixelData"].is_undefined_length = True
    monkeypatch.setattr(pixels, "pixel_array", lambda *_, **__: pytest.fail("pixels were decoded"))
    assert "its frame has 2097152 bytes" in refused(saved(tmp_path / "film.dcm", made))


def test_what_is_no_dicom_is_told(tmp_path):
    path = tmp_path / "film.dcm"
    path.write_bytes(b"not a film" * 100)
    assert "DICM" in refused(path)
    path.write_bytes(b"")
    with pytest.raises(FilmError, match="0 bytes"):
        read_film(path)
    with pytest.raises(FilmError, match="no such file"):
        read_film(tmp_path / "absent.dcm")


@pytest.mark.parametrize("syntax", ["1.2.3.4", "1.2.840.10008.1.2.4.1"])
def test_a_transfer_syntax_that_no_decoder_is_known_for_is_refused_with_the_remedy(syntax):
    film = dicom(twelve_bits())
    film.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(ElementError, match=r"^TransferSyntaxUID is none that can be read; store it uncompressed$"):
        _check_decoder(film)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, "1.2.3.4", "1.2.840.10008.1.2.4.1"])
def test_transfer_syntaxes_that_are_not_read_are_told_at_once(tmp_path, syntax):
    path = jpeg(tmp_path / "film.dcm", smooth())
    content, uid = path.read_bytes(), str(JPEGBaseline8Bit).encode()
    assert content.count(uid) == 1
    path.write_bytes(content.replace(uid, str(syntax).encode().ljust(len(uid), b"\0")))
    assert "TransferSyntaxUID" in refused(path)


def test_deflated_elements_are_not_inflated(tmp_path, monkeypatch):
    path = saved(tmp_path / "film.dcm", dicom(twelve_bits(), syntax=DeflatedExplicitVRLittleEndian))
    monkeypatch.setattr("zlib.decompress", lambda *_, **__: pytest.fail("they were"))
    assert "TransferSyntaxUID" in refused(path)


def test_sequences_nested_beyond_all_measure_are_refused(tmp_path):
    path = saved(tmp_path / "film.dcm", dicom(twelve_bits()))
    content = path.read_bytes()
    deep = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20_000
    at = content.index(b"\x08\x00\x60\x00CS")  # Modality, the next element
    path.write_bytes(content[:at] + deep + content[at:])
    refused(path)


# --- header -----------------------------------------------------------------------------------------------


FACTOR = "EstimatedRadiographicMagnificationFactor"


def distances(detector, patient):
    return {"DistanceSourceToDetector": detector, "DistanceSourceToPatient": patient}


def header(tmp_path, **elements):
    return read_header(saved(tmp_path / "film.dcm", dicom(twelve_bits(), **elements)))


@pytest.mark.parametrize(
    ("elements", "spacing_mm", "spacing_from", "noted"),
    [
        ({}, None, None, ""),
        ({"PixelSpacing": [0.143, 0.143]}, 0.143, "PixelSpacing", ""),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, 0.2, "ImagerPixelSpacing", "measured at the detector"),
        (
            {"PixelSpacing": [0.15, 0.15], "ImagerPixelSpacing": [0.15, 0.15]},
            0.15,
            "PixelSpacing",
            "measured at the detector",
        ),
        (
            {"PixelSpacing": [0.13, 0.13], "ImagerPixelSpacing": [0.15, 0.15]},
            0.13,
            "PixelSpacing",
            "PixelSpacing is 0.13 mm, ImagerPixelSpacing 0.15 mm",
        ),
        (
            {
                "PixelSpacing": [0.13, 0.13],
                "ImagerPixelSpacing": [0.15, 0.15],
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            0.13,
            "PixelSpacing",
            "",
        ),
        ({"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.1, 0.1]}, None, None, "not square"),
        ({"ImagerPixelSpacing": [0.1, 0.10001]}, 0.1, "ImagerPixelSpacing", "measured at the detector"),
        (
            {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2], FACTOR: 1},
            0.2,
            "ImagerPixelSpacing",
            "PixelSpacing is not",
        ),
        # a pixel of 1 mm at the detector is one of 1 / 1.25 = 0.8 mm at the patient
        ({"ImagerPixelSpacing": [1, 1], FACTOR: 1.25}, 0.8, "ImagerPixelSpacing", "divided by the magnification"),
        (
            {"ImagerPixelSpacing": [1, 1], **distances(1800, 1440)},
            0.8,
            "ImagerPixelSpacing",
            "DistanceSourceToDetector over",
        ),
        (
            {"PixelSpacing": [1, 1], "ImagerPixelSpacing": [1, 1], FACTOR: 1.25},
            0.8,
            "PixelSpacing",
            "divided by the magnification of 1.25",
        ),
        (
            {
                "PixelSpacing": [0.8, 0.8],
                "ImagerPixelSpacing": [1, 1],
                FACTOR: 1.25,
                "PixelSpacingCalibrationType": "GEOMETRY",
            },
            0.8,
            "PixelSpacing",
            "",
        ),
        ({"PixelSpacing": [1, 1], FACTOR: 1.25}, 1, "PixelSpacing", "mm may be 25 % too large"),
        ({"PixelSpacing": [1, 1], FACTOR: 1}, 1, "PixelSpacing", ""),
        ({"ImagerPixelSpacing": [1, 1], FACTOR: 0}, 1, "ImagerPixelSpacing", "measured at the detector"),
        ({"ImagerPixelSpacing": [1, 1], **distances(1440, 1800)}, 1, "ImagerPixelSpacing", "at the detector"),
        ({"PixelAspectRatio": [2, 1]}, None, None, "PixelAspectRatio is 2 x 1: pixels are not square"),
        ({"PixelAspectRatio": [7, 7]}, None, None, ""),
    ],
)
def test_the_spacing_says_where_it_comes_from(tmp_path, elements, spacing_mm, spacing_from, noted):
    info = header(tmp_path, **elements)
    assert (info.spacing_mm, info.spacing_from) == (pytest.approx(spacing_mm), spacing_from)
    assert len(info.notes) == bool(noted)
    assert noted in "".join(info.notes)


@pytest.mark.parametrize(
    ("elements", "view_position", "laterality"),
    [
        ({}, None, None),
        ({"ViewPosition": "AP", "PatientOrientation": ["A", "F"]}, "AP", None),
        ({"PatientOrientation": ["L", "F"], "Laterality": ""}, "frontal", None),
        ({"PatientOrientation": ["AL", "FR"]}, "lateral", None),
        ({"PatientOrientation": ["H", "F"]}, None, None),
        ({"ViewPosition": "", "PatientOrientation": ""}, None, None),
        ({"ViewPosition": "LL", "ImageLaterality": "U", "Laterality": "L"}, "LL", "U"),
        ({"Laterality": "R"}, None, "R"),
        ({"ViewPosition": "MILLER", "Laterality": "JOHN", "PatientOrientation": ["RALPH", "FARL"]}, None, None),
    ],
)
def test_view_and_side_are_known_codes_or_nothing(tmp_path, elements, view_position, laterality):
    info = header(tmp_path, **elements)
    assert (info.view_position, info.laterality) == (view_position, laterality)


def test_text_that_is_burnt_in_is_noted(tmp_path):
    (note,) = header(tmp_path, BurnedInAnnotation="YES").notes
    assert "BurnedInAnnotation" in note
    assert header(tmp_path, BurnedInAnnotation="NO").notes == ()


# --- folders ----------------------------------------------------------------------------------------------


def test_folders_give_dicom_films_by_suffix_and_by_their_mark(tmp_path):
    made = dicom(twelve_bits())
    names = ["a.dcm", "b.DICOM", "c.ima", "IM0001", "1.2.840.10008.77"]
    for name in [*names, "DICOMDIR", "report.txt", ".hidden.dcm"]:
        saved(tmp_path / name, made)
    (tmp_path / "README").write_text("not a film")
    (tmp_path / "folder.12").mkdir()
    assert sorted(path.name for path in find_films([str(tmp_path)])) == sorted(names)
    assert sorted(path.name for path in find_films([str(tmp_path / "*")])) == sorted(names)
    assert is_dicom(tmp_path / "report.txt"), "named outright, it is read"
    for name in names:
        assert read_film(tmp_path / name).shape == film_size(tmp_path / name) == (HEIGHT, WIDTH)


# --- presentation states ----------------------------------------------------------------------------------


def prediction(points, presence=1.0):
    levels = SCHEMA.num_levels
    return a_prediction(points, size=(700, 300), presence=np.broadcast_to(presence, levels).astype(np.float32))


def write_state(path, target, predicted, *, keep_identity=False):
    keywords = (*gsps.KEYWORDS, *(gsps.IDENTITY if keep_identity else ()))
    write_presentation_state(str(path), read_dicom(path, keywords).elements, target, predicted, SCHEMA)


def bodies(width=300, height=700):
    """Awkward corners of all vertebrae within a film, S1 without its lower ones."""
    points = np.zeros((SCHEMA.num_levels, 4, 2), np.float32)
    jitter = np.random.default_rng(1).uniform(-7, 7, points.shape)
    for i in range(SCHEMA.num_levels):
        top = height * (i + 0.2) / SCHEMA.num_levels
        points[i] = [[60, top], [width - 60, top], [60, top + 70], [width - 60, top + 70]]
    points = (points + jitter).astype(np.float32)
    points[~SCHEMA.exists] = np.nan
    return points


def big_film(path, **elements):
    made = dicom(twelve_bits(shape=(700, 300)), bits=12, **elements)
    return saved(path, made), made


def drawn(state):
    (annotation,) = state.GraphicAnnotationSequence
    lines = [np.array(item.GraphicData).reshape(-1, 2) for item in annotation.get("GraphicObjectSequence", [])]
    texts = {item.UnformattedTextValue: item.AnchorPoint for item in annotation.TextObjectSequence}
    return lines, texts


def test_a_presentation_state_opens_again_with_the_corners_in_place(tmp_path):
    path, film = big_film(tmp_path / "film.dcm")
    points = bodies()
    # PS3.3 C.10.5: 0\0 is the top left corner of the first pixel, so the centre of pixel (41, 57) is 41.5\57.5
    points[0, 0] = points_from_indices([41, 57])
    write_state(path, tmp_path / "state.dcm", prediction(points))
    state = dcmread(tmp_path / "state.dcm")
    assert state.SOPClassUID.name == "Grayscale Softcopy Presentation State Storage"
    assert state.StudyInstanceUID == film.StudyInstanceUID
    (series,) = state.ReferencedSeriesSequence
    (referenced,) = series.ReferencedImageSequence
    assert series.SeriesInstanceUID == film.SeriesInstanceUID != state.SeriesInstanceUID
    assert referenced.ReferencedSOPClassUID == film.SOPClassUID
    assert referenced.ReferencedSOPInstanceUID == film.SOPInstanceUID

    lines, texts = drawn(state)
    assert list(texts) == list(SCHEMA.levels)
    for i in range(5):
        TL, TR, BL, BR = points[i]
        np.testing.assert_allclose(lines[i], [TL, TR, BR, BL, TL], atol=0.01)
        assert points[i].min(axis=0)[1] < texts[SCHEMA.levels[i]][1] < points[i].max(axis=0)[1]
    np.testing.assert_allclose(lines[5], points[5, :2], atol=0.01)
    np.testing.assert_allclose(lines[0][0], [41.5, 57.5], atol=0.01)
    (item,) = state.GraphicAnnotationSequence
    assert {thing.GraphicAnnotationUnits for thing in item.GraphicObjectSequence} == {"PIXEL"}
    assert {thing.AnchorPointAnnotationUnits for thing in item.TextObjectSequence} == {"PIXEL"}
    (area,) = state.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [300, 700]
    for thing in item.GraphicObjectSequence:
        highdicom.pr.GraphicObject("POLYLINE", np.array(thing.GraphicData).reshape(-1, 2), "PIXEL")


def test_vertebrae_that_are_absent_or_beyond_the_film_are_not_drawn(tmp_path):
    path, _ = big_film(tmp_path / "film.dcm")
    points = bodies()
    points[1, 1] = 301, 200  # the TR of L2, a pixel beyond the right edge
    points[2, :, 1] = -3  # all of L3 is above the film
    presence = np.array([0.9, 0.9, 0.9, 0.49, 0.9, 0.1])
    write_state(path, tmp_path / "state.dcm", prediction(points, presence))
    lines, texts = drawn(dcmread(tmp_path / "state.dcm"))
    assert list(texts) == ["L1", "L2", "L5"]
    _, _, BL, BR = points[1]
    np.testing.assert_allclose(lines[1], [BR, BL], atol=0.01)
    np.testing.assert_allclose(lines[2], [BL, points[1, 0]], atol=0.01)
    assert [len(line) for line in lines] == [5, 2, 2, 5]


def test_a_film_without_vertebrae_gets_a_state_without_annotations(tmp_path):
    path, _ = big_film(tmp_path / "film.dcm")
    write_state(path, tmp_path / "state.dcm", prediction(bodies(), 0.0))
    assert "GraphicAnnotationSequence" not in dcmread(tmp_path / "state.dcm")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_state_shows_the_film_as_it_was_read(tmp_path, syntax):
    rescaled, _ = big_film(
        tmp_path / "a.dcm", syntax=syntax, PhotometricInterpretation="MONOCHROME1",
        RescaleSlope="1.5", RescaleIntercept="-7", WindowCenter=[1000, 9], WindowWidth=[2001, 9],
    )  # fmt: skip
    mapped, film = big_film(
        tmp_path / "b.dcm",
        syntax=syntax,
        ModalityLUTSequence=[lut(np.arange(5, dtype=np.uint16), 3, 16, ModalityLUTType="OD")],
        VOILUTSequence=[lut(np.arange(7, dtype=np.uint16), 1, 16, LUTExplanation="LEAK")],
    )
    states = []
    for path in (rescaled, mapped):
        write_state(path, tmp_path / "state.dcm", prediction(bodies()))
        states.append(dcmread(tmp_path / "state.dcm"))
    (voi,) = states[0].SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (1000, 2001)
    assert (states[0].RescaleSlope, states[0].RescaleIntercept) == (1.5, -7)
    assert states[0].PresentationLUTShape == "INVERSE"
    assert states[1].PresentationLUTShape == "IDENTITY"
    (voi,) = states[1].SoftcopyVOILUTSequence
    pairs = [
        (voi.VOILUTSequence[0], film.VOILUTSequence[0]),
        (states[1].ModalityLUTSequence[0], film.ModalityLUTSequence[0]),
    ]
    for written, given in pairs:
        assert list(written.LUTDescriptor) == list(given.LUTDescriptor)
        assert written.LUTData == given.LUTData
        assert "LUTExplanation" not in written


def test_patient_and_study_are_empty_unless_asked_for(tmp_path):
    identity = dict.fromkeys(IDENTITY, "LEAK") | {
        "PatientName": "Müller^Jörg", "PatientSex": "M", "PatientBirthDate": "18991231", "StudyDate": "18991231",
        "StudyTime": "235917",
    }  # fmt: skip
    path, _ = big_film(tmp_path / "film.dcm", SpecificCharacterSet="ISO_IR 100", **identity)
    target = tmp_path / "state.dcm"
    write_state(path, target, prediction(bodies()))
    empty = dcmread(target)
    assert all(not empty[keyword].value for keyword in IDENTITY), "there, and empty"
    assert not leaks(target.read_bytes(), [b"LEAK", b"18991231", b"235917", "Müller".encode("latin-1")])
    write_state(path, target, prediction(bodies()), keep_identity=True)
    kept = dcmread(target)
    assert {keyword: str(kept[keyword].value) for keyword in IDENTITY} == identity


def test_a_film_that_cannot_be_referred_to_is_told(tmp_path):
    path, film = big_film(tmp_path / "film.dcm")
    del film.StudyInstanceUID
    with pytest.raises(FilmError, match="StudyInstanceUID is missing"):
        write_state(saved(path, film), tmp_path / "state.dcm", prediction(bodies()))
    film.add(DataElement("StudyInstanceUID", "UI", "LEAK", validation_mode=pydicom_config.IGNORE))
    with pytest.raises(FilmError, match="StudyInstanceUID is not a UID"):
        write_state(saved(path, film), tmp_path / "state.dcm", prediction(bodies()))
    film.StudyInstanceUID, film.SOPClassUID = generate_uid(), "1.2.3.4"
    with pytest.raises(UserError, match=r"film\.dcm: no presentation state"):
        write_state(saved(path, film), tmp_path / "state.dcm", prediction(bodies()))
    film.SOPClassUID = ComputedRadiographyImageStorage
    (tmp_path / "no").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        write_state(saved(path, film), path / "state.dcm", prediction(bodies()))


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    gsps.check_installed()
    monkeypatch.setattr(gsps, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vertebra_kp\[dicom\]'"):
        gsps.check_installed()


def test_a_state_is_no_film(tmp_path):
    path, _ = big_film(tmp_path / "film.dcm")
    write_state(path, tmp_path / "state.dcm", prediction(bodies()))
    assert "Rows is missing" in refused(tmp_path / "state.dcm")


def test_predictions_have_the_header_s_keys_only_where_it_tells_them():
    keys = {"spacing_mm", "spacing_from", "view_position", "laterality"}
    assert not keys & image_entry(prediction(bodies()), SCHEMA).keys()
    info = DicomInfo(0.15, "PixelSpacing", "LL")
    entry = image_entry(prediction(bodies()), SCHEMA, info)
    assert keys & entry.keys() == keys - {"laterality"}
    assert (entry["spacing_mm"], entry["spacing_from"], entry["view_position"]) == (0.15, "PixelSpacing", "LL")


# --- privacy ----------------------------------------------------------------------------------------------

TEXT = {"AE": 16, "CS": 16, "LO": 64, "LT": 99, "PN": 64, "SH": 16, "ST": 99, "UC": 99, "UR": 99, "UT": 99}
DATES = {"AS": "097Y", "DA": "18991231", "DT": "18991231235917", "TM": "235917"}
# Of identification, patient, trial, acquisition, relation, study, visit, procedure, storage, interpretation.
GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040, 0x0088, 0x4008)
NEEDED = ("PhotometricInterpretation", "VOILUTFunction")
MARKS = [b"LEAK", b"18991231", b"235917", b"097Y"]


def leaks(content, marks=MARKS):
    """Marks in some bytes, in any case, as plain text or as two bytes a character."""
    content = content.upper()
    wide = [mark.decode("latin-1").upper().encode("utf-16-le") for mark in marks]
    return [mark for mark in [*(mark.upper() for mark in marks), *wide] if mark in content]


def identified(stored, **elements):
    """A film in which every element that takes a text or a date holds a mark; private and nested ones, too.

    The mark in SpecificCharacterSet is one that pydicom quotes in a warning.
    """
    made = dicom(stored, bits=12, WindowCenter=2000, WindowWidth=3000, **elements)
    nested = Dataset()
    nested.PatientName = nested.RequestedProcedureDescription = "LEAK^NESTED"
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 not in GROUPS or keyword in NEEDED:
            continue
        if vr in TEXT:
            made.add_new(tag, vr, f"LEAK{tag:08X}"[: TEXT[vr]])
        elif vr in DATES:
            made.add_new(tag, vr, DATES[vr])
    made.OtherPatientIDsSequence = made.RequestAttributesSequence = [nested]
    made["RequestAttributesSequence"].is_undefined_length = True
    made.preamble = b"LEAK IN THE PREAMBLE".ljust(128, b"\0")
    made.file_meta.SourceApplicationEntityTitle = "LEAKMETA"
    block = made.private_block(0x0009, "LEAK CREATOR", create=True)
    block.add_new(0x01, "LO", "LEAK PRIVATE")
    return made


def checkpoint(path):
    """An untrained network of the quickstart, sure of every vertebra."""
    config = load_config(REPOSITORY / "configs" / "quickstart.yaml", ["data.input_size=[64,64]"])
    torch.manual_seed(0)
    network = VertebraNetwork(config.network, config.data.keypoint_schema, load_weights=False)
    torch.nn.init.constant_(network.presence_head.linear.bias, 20.0)
    dumped = config.model_dump(mode="json")
    save_checkpoint(Checkpoint(dumped, 0, network.state_dict(), None, {}, {}, [], {}), path)
    return path


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # when the test writes it
def test_nothing_of_the_patient_gets_into_anything_that_predict_writes(tmp_path, monkeypatch):
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    stored = twelve_bits(shape=(96, 96))  # square as the network: no corner is predicted beyond it
    whole = saved(films / "a.dcm", identified(stored, PixelSpacing=[0.15, 0.15], ImagerPixelSpacing=[0.2, 0.2]))
    assert leaks(whole.read_bytes()) == [*MARKS], "the film itself is full of them"
    slope = "1.23456789012345"  # 16 characters, replaced by a text that is no number
    broken = identified(stored, RescaleSlope=slope, RescaleIntercept="0")
    content = saved(films / "b.dcm", broken).read_bytes()
    assert content.count(slope.encode()) == 1
    (films / "b.dcm").write_bytes(content.replace(slope.encode(), b"LEAK IN A NUMBER"))
    (films / "c.dcm").write_bytes(whole.read_bytes()[:-7000])
    (films / "IM0001").write_bytes(whole.read_bytes()[:-90].replace(b"MONOCHROME2 ", b"LEAKCHROME2 "))

    monkeypatch.setenv("PYTHONWARNINGS", "always")
    network = checkpoint(tmp_path / "best.pt")
    options = ["--out", out, "--device", "cpu", "--dicom-out", "gsps"]
    done = run_apart("predict", films, "--network", network, *options)
    told = done.stderr
    assert done.returncode == 3, told
    for name, fault in (("b.dcm", "RescaleSlope"), ("c.dcm", "damaged"), ("IM0001", "Photometric")):
        assert re.search(rf"skipped: .*{re.escape(name)}: .*{fault}", told), told
    assert "PixelSpacingCalibrationType" not in told, "it holds a text, so the two spacings are explained"

    written = [path for path in out.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(out)) for path in written) == [
        ".predictions.jsonl.lock", "gsps/a.dcm.gsps.dcm", "overlays/a.dcm.jpg",
        "predictions.csv", "predictions.json", "predictions.jsonl",
    ]  # fmt: skip
    for content in (done.stdout.encode(), told.encode(), *(path.read_bytes() for path in written)):
        assert not leaks(content)
    (entry,) = json.loads((out / "predictions.json").read_text())["films"]
    assert (entry["spacing_mm"], entry["spacing_from"]) == (0.15, "PixelSpacing")
    assert not {"view_position", "laterality"} & entry.keys()
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines, texts = drawn(dcmread(out / "gsps" / "a.dcm.gsps.dcm"))
    assert list(texts) == list(entry["levels"])
    first = [float(rows[0]["x"]), float(rows[0]["y"])]
    np.testing.assert_allclose(lines[0][0], first, atol=0.01)
    np.testing.assert_allclose(lines[0][0], entry["levels"]["L1"]["corners"]["TL"], atol=0.01)


def test_a_broken_number_is_told_without_its_text(tmp_path):
    path = saved(tmp_path / "film.dcm", dicom(twelve_bits(), WindowCenter="1234567890", WindowWidth="5"))
    path.write_bytes(path.read_bytes().replace(b"1234567890", b"LEAK LEAK!"))
    message = refused(path)
    assert "WindowCenter is not a number" in message
    assert "LEAK" not in message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unknown encoding")  # when the test writes it
def test_nothing_of_the_patient_gets_into_a_run_its_evaluation_or_an_audit(tmp_path):
    films, split = tmp_path / "films", tmp_path / "split.json"
    films.mkdir()
    labelled = []
    for i in range(6):
        saved(films / f"{i}.dcm", identified(twelve_bits(shape=(256, 128))))
        drawn_film = draw_film(SCHEMA, "standard", 1, i, (256, 128))
        labelled.append(
            LabelledFilm(f"{i}.dcm", (256, 128), SCHEMA, drawn_film.points_xy_image, drawn_film.states, f"{i}.dcm")
        )
    WRITERS["csv"](labelled, films)
    ids = [film.file for film in labelled]
    split.write_text(json.dumps({"source": "csv", "splits": {"one": ids[:4], "two": ids[4:]}}))
    data = [f"data.root={films}", f"data.split_file={split}", "data.train_splits=[one]"]
    data += ["data.validation_splits=[two]", f"data.anatomy={SCHEMA.name}", f"data.cache={tmp_path / 'cache'}"]
    own, folder = "own_films", tmp_path / "run"
    best = folder / "checkpoints" / "best.pt"
    csv_source = ("--source", "csv", "--root", films)
    done = [
        run("train", "--config", own, "--run-dir", folder, "--set", *tiny("own_films"), *data),
        run("evaluate", "--network", best, *csv_source, "--out", tmp_path / "evaluation"),
        run("audit", *csv_source, "--anatomy", SCHEMA.name, "--out", tmp_path / "audit"),
    ]
    assert [command.returncode for command in done] == [0, 0, 0], [command.stderr for command in done]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(films)]
    assert {"best.pt", "metrics.json", "films.bin", "audit.html"} <= {path.name for path in written}
    assert any(path.name.startswith("events.out") for path in written)
    said = [text.encode() for command in done for text in (command.stdout, command.stderr)]
    for content in (*said, *(path.read_bytes() for path in written)):
        # Longer marks: among millions of weights a few letters come by chance.
        assert not leaks(content, [b"LEAK0", b"LEAK^", b"LEAK PRIVATE", b"LEAKMETA", b"18991231"])


# --- field cases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pad_-32768.dcm", "pad_65535.dcm"])
def test_the_field_cases_of_padding_have_all_their_grays(name):
    grays, reference = (
        len(np.unique(to_uint8(read_film(field_case("03_dicom_pixel_padding") / film))[:, 10:-10]))
        for film in (name, "reference_zero_border.dcm")
    )
    assert grays == reference


@pytest.mark.parametrize("name", ["ermf.dcm", "distances.dcm"])
def test_the_field_cases_of_magnification_have_the_spacing_at_the_patient(name):
    assert read_header(field_case("05_dicom_magnification") / name).spacing_mm == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["a.dcm", "window_width_0.dcm"])
def test_the_field_cases_of_odd_files_are_read_with_a_note(name):
    film = read_dicom(field_case("17_dicom_without_meta") / name)
    assert len(film.info.notes) == 1
    assert len(np.unique(film.pixels)) > 190
