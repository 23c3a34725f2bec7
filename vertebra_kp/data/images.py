"""Reading a film from disk: gray, 8 or 16 bit, upright, or one line that says why not.

Pillow decodes because it refuses a truncated file; OpenCV fills the rest with gray and goes on. DICOM is left to
``data.dicom``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffTags, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vertebra_kp.data.film_file import DICOM_SUFFIXES, FilmError, is_dicom, open_film

DECODED = ("PNG", "JPEG", "TIFF")  # no others: for EPS, Pillow starts Ghostscript, which runs what a file says
FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_SUFFIXES)
WINDOW_PERCENT = (0.5, 99.5)  # of a 16-bit film's pixels; what lies outside is clipped
UINT16_MAX = 65535

_TIFF_TAG = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
_MIN_IS_WHITE = 0  # TIFF 6.0, PhotometricInterpretation
_FIRST_TURNED = 5  # EXIF 2.3: orientations 5..8 swap height and width


def read_film(path: Path) -> np.ndarray:
    """A film ``[H, W]``, uint8 or uint16, as displayed: EXIF orientation, a DICOM file's windows are applied.

    Gray PNG, TIFF and DICOM keep their 16 bits; colour becomes gray with 8, in DICOM it is refused. Of a TIFF
    with several pages the first counts. A file is DICOM by its suffix or by the mark inside. Raises FilmError
    for a missing, empty, truncated or damaged file, and for one that is no image.
    """
    path = Path(path)
    if is_dicom(path):
        from vertebra_kp.data import dicom  # here: pydicom takes an eighth of a second

        return dicom.read_pixels(path)
    with _opened(path) as image:
        image.load()
        min_is_white = image.format == "TIFF" and _tiff_value(image, "PhotometricInterpretation") == _MIN_IS_WHITE
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            film = np.asarray(image).astype(np.uint16)
            return UINT16_MAX - film if min_is_white else film  # Pillow inverts only what has 8 bits
        if image.mode in ("I", "F"):
            film = np.asarray(image)
            if not np.array_equal(film, film.clip(0, UINT16_MAX).round()):
                wrong = f"32-bit pixels outside 0..{UINT16_MAX} or fractional; save it with 16 bits"
                raise FilmError(f"{path}: {wrong}")
            return film.astype(np.uint16)
        return np.asarray(image.convert("L"))


def to_uint8(film: np.ndarray) -> np.ndarray:
    """The film with 8 bits: uint8 stays as it is, uint16 is windowed to ``WINDOW_PERCENT`` of its pixels.

    The darkest 0.5 % become 0, the brightest 0.5 % become 255, linear between; a flat film becomes 0.
    """
    if film.dtype == np.uint8:
        return film
    if film.dtype != np.uint16:
        raise TypeError(f"film must be uint8 or uint16, got {film.dtype}; read it with read_film")
    share = np.cumsum(np.bincount(film.ravel(), minlength=UINT16_MAX + 1)) / film.size
    low, high = np.searchsorted(share, np.array(WINDOW_PERCENT) / 100)
    steps = (np.arange(UINT16_MAX + 1) - low) / max(high - low, 1)
    return np.rint(255 * steps.clip(0, 1)).astype(np.uint8)[film]


def film_size(path: Path) -> tuple[int, int]:
    """(height, width) of a film as displayed, from its header; raises FilmError as ``read_film`` does."""
    path = Path(path)
    if is_dicom(path):
        from vertebra_kp.data import dicom

        return dicom.read_size(path)
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow swaps ``size`` of a turned TIFF since version 11.0
            width, height = _tiff_value(image, "ImageWidth"), _tiff_value(image, "ImageLength")
        turned = _orientation(image, path) >= _FIRST_TURNED
    return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file; whatever goes wrong inside the block becomes a FilmError."""
    with open_film(path) as file:
        try:
            # by a file object: given a name, Pillow 13.0 maps uncompressed TIFFs and garbles turned ones
            with Image.open(file, formats=DECODED) as image:
                yield image
        except FilmError:
            raise
        except UnidentifiedImageError as error:
            raise FilmError(
                f"{path}: not an image in PNG, JPG, TIFF or DICOM; convert it to one of them"
            ) from error
        except Image.DecompressionBombError as error:
            raise FilmError(f"{path}: {error}; shrink it") from error
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...: all mean damage
            raise FilmError(f"{path}: truncated or damaged ({error}); copy or export it again") from error


def _tiff_value(image: Image.Image, tag: str) -> int:
    assert isinstance(image, TiffImageFile)
    return int(image.tag_v2.get(_TIFF_TAG[tag], -1))


def _orientation(image: Image.Image, path: Path) -> int:
    if image.format == "PNG" and b"eXIf" not in Path(path).read_bytes():
        exif = Image.Image.getexif(image)  # PngImageFile.getexif decodes all pixels to find a late chunk
    else:
        exif = image.getexif()
    return exif.get(ExifTags.Base.Orientation, 1)
