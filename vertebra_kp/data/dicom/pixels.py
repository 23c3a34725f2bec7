"""The film in a DICOM file. What its header tells is checked before a pixel is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import RLELossless

from vertebra_kp.data.dicom import apart, display, header
from vertebra_kp.data.dicom.elements import ElementError, code, dicom_elements, whole_number
from vertebra_kp.data.dicom.frames import frame_shape
from vertebra_kp.data.dicom.header import DicomInfo
from vertebra_kp.data.film_file import MAX_PIXELS, decoding

# The bytes of a compressed frame against those of its pixels; RLE may grow by up to 1/128, and others little more.
MAX_EXPANSION = 2
FRAME_OVERHEAD = 2**20

_SIZE = ("Rows", "Columns")
_KEYWORDS = (*_SIZE, "SamplesPerPixel", "NumberOfFrames", "HighBit", *display.KEYWORDS)


@dataclass(frozen=True)
class DicomFilm:
    """``pixels`` [H, W] as displayed, what the header says, and the elements that were asked for besides."""

    pixels: np.ndarray
    info: DicomInfo
    elements: Dataset


def read_pixels(path: Path) -> np.ndarray:
    """A film ``[H, W]``, uint8 (up to 8 bits stored) or uint16, as displayed: windowed, MONOCHROME1 inverted.

    Raises FilmError for what is no single gray image, has too many pixels, is truncated or damaged, or needs a
    decoder that is not installed.
    """
    with dicom_elements(path, _KEYWORDS) as elements:
        return _displayed(path, elements)[0]


def read_dicom(path: Path, keywords: Iterable[str] = ()) -> DicomFilm:
    """The film and its header, read once; raises FilmError as ``read_pixels`` does."""
    with dicom_elements(path, {*_KEYWORDS, *header.KEYWORDS, *keywords}) as elements:
        info = header.info_of(elements)
        film, notes = _displayed(path, elements)
        return DicomFilm(film, replace(info, notes=(*info.notes, *notes)), elements)


def _displayed(path: Path, elements: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """The film and notes on how it is displayed."""
    rows, columns = _check_image(elements)
    shown = display.display_of(elements)
    _check_decoder(elements)
    with decoding(rows * columns):
        _read_pixel_data(path, elements)
        try:
            syntax = elements.file_meta.TransferSyntaxUID
            in_python = not syntax.is_encapsulated or syntax == RLELossless
            if in_python:  # all bits, since those above the stored ones tell some padding
                stored = pixel_array(elements, index=0, raw=True, correct_unused_bits=False)
            else:
                stored = apart.decoded(elements)
        except RuntimeError:  # of every decoder that knows the syntax
            told = f"its pixels ({syntax.name}) are damaged, or of a kind that no decoder knows"
            raise ElementError(f"{told}; copy it again, or store it uncompressed") from None
        del elements.PixelData
        if stored.shape != (rows, columns):
            raise ElementError(
                f"its pixels are {stored.shape}, by Rows and Columns {rows} x {columns}; export it again"
            )
        return shown.show(stored)


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of a film, from its header; raises FilmError."""
    with dicom_elements(path, _SIZE) as elements:
        return _size(elements)


def _size(elements: Dataset) -> tuple[int, int]:
    rows, columns = (whole_number(elements, keyword) for keyword in _SIZE)
    if rows < 1 or columns < 1:
        raise ElementError(f"Rows x Columns is {rows} x {columns}: there is no pixel; export it again")
    if rows * columns > MAX_PIXELS:
        raise ElementError(f"Rows x Columns is {rows} x {columns}, more than {MAX_PIXELS} pixels; shrink it")
    return rows, columns


def _check_image(elements: Dataset) -> tuple[int, int]:
    """(height, width) of what is one gray image; ElementError for anything else."""
    size = _size(elements)
    frames = whole_number(elements, "NumberOfFrames", default=1)
    if frames != 1:
        raise ElementError(f"NumberOfFrames must be 1, got {frames}; export the frame that counts as a film")
    samples = whole_number(elements, "SamplesPerPixel")
    if samples != 1:
        raise ElementError(f"SamplesPerPixel must be 1, got {samples}; convert colour to gray, or the film to PNG")
    if code(elements, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ElementError("PhotometricInterpretation must be MONOCHROME1 or MONOCHROME2; convert the film to PNG")
    allocated, stored = whole_number(elements, "BitsAllocated"), whole_number(elements, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        told = f"must be 8 or 16 and hold BitsStored, got {allocated} and {stored}"
        raise ElementError(f"BitsAllocated {told}; convert the film to PNG")
    high = whole_number(elements, "HighBit", default=stored - 1)
    if high != stored - 1:  # PS3.5, 8.1.1; older files put their bits elsewhere
        raise ElementError(
            f"HighBit must be {stored - 1}, one less than BitsStored, got {high}; convert the film to PNG"
        )
    if whole_number(elements, "PixelRepresentation") not in (0, 1):
        raise ElementError("PixelRepresentation must be 0 or 1; correct it")
    return size


def _check_decoder(elements: Dataset) -> None:
    syntax = elements.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:  # pydicom: no decoder is known for this syntax
        raise ElementError("TransferSyntaxUID is none that can be read; store it uncompressed") from None
    if not decoder.is_available:
        raise ElementError(f"its pixels are {syntax.name}, no decoder is there; pip install 'vertebra_kp[dicom]'")


def _read_pixel_data(path: Path, elements: Dataset) -> None:
    """Adds the element PixelData, when a compressed frame in it is one of this film."""
    pixel_data = dcmread(path, specific_tags=["PixelData"], force=True)
    if "PixelData" not in pixel_data:
        raise ElementError("PixelData is missing: no image, or cut short; copy or export it again")
    elements["PixelData"] = pixel_data["PixelData"]
    syntax = elements.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    frame = get_frame(elements.PixelData, 0, number_of_frames=1)
    wanted = *_size(elements), 1
    if len(frame) > MAX_EXPANSION * wanted[0] * wanted[1] * elements.BitsAllocated // 8 + FRAME_OVERHEAD:
        raise ElementError(f"its frame has {len(frame)} bytes, more than Rows x Columns can need; export it again")
    if syntax != RLELossless and (shape := frame_shape(frame)) != wanted:
        got, told = (" x ".join(map(str, numbers)) for numbers in (shape, wanted))
        raise ElementError(f"its frame is {got}, by Rows, Columns and SamplesPerPixel {told}; export it again")
