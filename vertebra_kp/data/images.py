"""Reading a film from disk: gray, 8 or 16 bit, upright, or one line that says why not.

Pillow decodes because it refuses a truncated file; OpenCV fills the rest with gray and goes on. Of colour with 16
bits Pillow keeps 8: OpenCV reads those once more. DICOM is left to ``data.dicom``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffTags, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vertebra_kp.data.film_file import DICOM_SUFFIXES, MAX_PIXELS, FilmError, decoding, is_dicom, open_film
from vertebra_kp.data.grays import counts, looked_up

DECODED = ("PNG", "JPEG", "TIFF")  # no others: for EPS, Pillow starts Ghostscript, which runs what a file says
FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_SUFFIXES)
WINDOW_PERCENT = (0.5, 99.5)  # of a 16-bit film's pixels; what lies outside is clipped
UINT16_MAX = 65535
MM_PER_INCH = 25.4
ROWS = 256  # of a film of 32 bits that are converted at a time

_TIFF_TAG = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}
_MIN_IS_WHITE = 0  # TIFF 6.0, PhotometricInterpretation
_LENGTHS = (2, 3)  # TIFF 6.0, ResolutionUnit: inch and centimetre
_FIRST_TURNED = 5  # EXIF 2.3: orientations 5..8 swap height and width
_PNG_DEPTH = 24  # PNG, 11.2.2: where the bits of a sample stand in a file


def read_film(path: Path) -> np.ndarray:
    """A film ``[H, W]``, uint8 or uint16, as displayed: EXIF orientation, a DICOM file's windows are applied.

    PNG, TIFF and gray DICOM keep their 16 bits; colour becomes gray, in DICOM it is refused. Of a TIFF with
    several pages the first counts. A file is DICOM by its suffix or by the mark inside. Raises FilmError for a
    missing, empty, truncated or damaged file, for one that is no image, and for more than ``MAX_PIXELS``.
    """
    path = Path(path)
    if is_dicom(path):
        from vertebra_kp.data import dicom  # here: pydicom takes an eighth of a second

        return dicom.read_pixels(path)
    with _opened(path) as image, decoding(image.width * image.height):
        min_is_white = image.format == "TIFF" and _tiff_value(image, "PhotometricInterpretation") == _MIN_IS_WHITE
        deep_colour = _bits(image, path) > 8 and not image.mode.startswith(("I", "F"))
        image.load()
        if deep_colour:
            image = _gray_of_16_bits(image, path)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            film = np.asarray(image).astype(np.uint16, copy=False)
            return UINT16_MAX - film if min_is_white else film  # Pillow inverts only what has 8 bits
        if image.mode in ("I", "F"):
            return _whole_numbers(image, path)
        return np.asarray(image.convert("L"))


def to_uint8(film: np.ndarray) -> np.ndarray:
    """The film with 8 bits: uint8 stays as it is, uint16 is windowed to ``WINDOW_PERCENT`` of its pixels.

    The darkest 0.5 % become 0, the brightest 0.5 % become 255, linear between; a flat film becomes 0.
    """
    if film.dtype == np.uint8:
        return film
    if film.dtype != np.uint16:
        raise TypeError(f"film must be uint8 or uint16, got {film.dtype}; read it with read_film")
    share = np.cumsum(counts(film, UINT16_MAX + 1)) / film.size
    low, high = np.searchsorted(share, np.array(WINDOW_PERCENT) / 100)
    steps = (np.arange(UINT16_MAX + 1) - low) / max(high - low, 1)
    return looked_up(np.rint(255 * steps.clip(0, 1)).astype(np.uint8), film)


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


def print_spacing_mm(path: Path) -> tuple[float, float] | None:
    """Width and height of a pixel, mm, by the resolution (dots per inch) of a PNG, JPG or TIFF.

    It is that of a print or a scanner, and tells nothing of the patient. None where there is none. Raises
    FilmError as ``read_film`` does.
    """
    with _opened(path) as image:
        x, y = (float(dots) for dots in image.info.get("dpi", (0, 0)))
        made_up = image.format == "JPEG" and not image.info.get("jfif_unit")  # by Pillow, or from EXIF
        made_up |= image.format == "TIFF" and _tiff_value(image, "ResolutionUnit") not in _LENGTHS
    return (MM_PER_INCH / x, MM_PER_INCH / y) if min(x, y) > 0 and not made_up else None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file; whatever goes wrong inside the block becomes a FilmError."""
    with open_film(path) as file:
        try:
            # by a file object: given a name, Pillow 13.0 maps uncompressed TIFFs and garbles turned ones
            with Image.open(file, formats=DECODED) as image:
                wide = 2 if image.mode in ("I", "F") else 1  # 32 bits, of which decoding takes several copies
                if image.width * image.height * wide > MAX_PIXELS:
                    raise _too_large(path, f"{image.width} x {image.height}")
                yield image
        except FilmError:
            raise
        except UnidentifiedImageError as error:
            raise FilmError(
                f"{path}: not an image in PNG, JPG, TIFF or DICOM; convert it to one of them"
            ) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, "its") from error
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...: all mean damage
            raise FilmError(f"{path}: truncated or damaged ({error}); copy or export it again") from error


def _too_large(path: Path, size: str) -> FilmError:
    return FilmError(f"{path}: {size} pixels are more than {MAX_PIXELS}, or half of it with 32 bits; shrink it")


def _bits(image: Image.Image, path: Path) -> int:
    """Bits of a sample as they are stored."""
    if image.format == "TIFF":
        assert isinstance(image, TiffImageFile)
        return max(image.tag_v2.get(_TIFF_TAG["BitsPerSample"], (1,)))
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(_PNG_DEPTH + 1)[_PNG_DEPTH]
    return 8


def _gray_of_16_bits(image: Image.Image, path: Path) -> Image.Image:
    """Colour with 16 bits a sample as gray with 16, with the EXIF of ``image``, which Pillow decoded to 8 bits."""
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    upper = np.asarray(image.convert("RGB"))
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[:2] != upper.shape[:2]:
        raise FilmError(f"{path}: colour with more than 8 bits of a kind that is not read; save it as 16-bit gray")
    if any(not np.array_equal(np.right_shift(stored[..., 2 - i], 8), upper[..., i]) for i in range(3)):
        raise FilmError(f"{path}: two decoders read its 16-bit colour differently; save it as 16-bit gray")
    gray = Image.fromarray(cv2.cvtColor(stored[..., :3], cv2.COLOR_BGR2GRAY))
    gray.getexif()[ExifTags.Base.Orientation] = _orientation(image, path)
    return gray


def _whole_numbers(image: Image.Image, path: Path) -> np.ndarray:
    """32-bit pixels as uint16, in blocks of rows: copies of all would be several times as large."""
    found = np.empty((image.height, image.width), np.uint16)
    for top in range(0, image.height, ROWS):
        bottom = min(top + ROWS, image.height)
        stored = np.asarray(image.crop((0, top, image.width, bottom)))
        if not np.array_equal(stored, stored.clip(0, UINT16_MAX).round()):
            wrong = f"32-bit pixels outside 0..{UINT16_MAX} or fractional; save it with 16 bits"
            raise FilmError(f"{path}: {wrong}")
        found[top:bottom] = stored
    return found


def _tiff_value(image: Image.Image, tag: str) -> int:
    assert isinstance(image, TiffImageFile)
    return int(image.tag_v2.get(_TIFF_TAG[tag], -1))


def _orientation(image: Image.Image, path: Path) -> int:
    if image.format == "PNG" and b"eXIf" not in Path(path).read_bytes():
        exif = Image.Image.getexif(image)  # PngImageFile.getexif decodes all pixels to find a late chunk
    else:
        exif = image.getexif()
    return exif.get(ExifTags.Base.Orientation, 1)
