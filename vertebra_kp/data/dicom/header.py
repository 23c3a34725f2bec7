"""What a DICOM file says of its film besides the pixels, without anything that identifies a patient."""

from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset

from vertebra_kp.core.anatomy import Side
from vertebra_kp.data.dicom.elements import ElementError, code, codes, dicom_elements, numbers

SpacingSource = Literal["PixelSpacing", "ImagerPixelSpacing"]

SPACINGS: tuple[SpacingSource, ...] = ("PixelSpacing", "ImagerPixelSpacing")  # the first that is there counts
# PS3.3 C.8.1.2 (CR series), and what vendors write instead. Other words may be anything, a name too.
VIEW_POSITIONS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL")
LATERALITIES = ("R", "L", "U", "B")  # PS3.3 C.7.3.1 and C.8.11.1: unpaired, both
DIRECTIONS = set("APRLHF")  # PS3.3 C.7.6.1.1.1
# By where rows run to, which is the image's right
ANTERIOR: dict[str, Side] = {"A": "right", "P": "left"}
SEEN_ALONG = {"L": "frontal", "R": "frontal", "A": "lateral", "P": "lateral"}
TOLERANCE = 1e-3  # between spacings that are equal but for rounding

KEYWORDS = (
    *SPACINGS,
    "PixelSpacingCalibrationType",
    "ViewPosition",
    "PatientOrientation",
    "ImageLaterality",
    "Laterality",
    "BurnedInAnnotation",
)


@dataclass(frozen=True)
class DicomInfo:
    """``spacing_mm`` is the size of a square pixel, taken from the element ``spacing_from`` (PS3.3 10.7.1.3):
    PixelSpacing, which may be corrected for magnification, else ImagerPixelSpacing, measured at the detector.

    ``view_position`` is the code in ViewPosition (AP, LL, ...), else what PatientOrientation tells: "frontal"
    or "lateral". ``laterality`` is R, L, U (unpaired) or B (both). ``anterior_side`` is the image side that the
    patient faces, by PatientOrientation. None is what the file does not say.
    ``notes`` are sentences for whoever uses the film.
    """

    spacing_mm: float | None = None
    spacing_from: SpacingSource | None = None
    view_position: str | None = None
    laterality: str | None = None
    anterior_side: Side | None = None
    notes: tuple[str, ...] = ()


def read_header(path: Path) -> DicomInfo:
    """What a DICOM file says of its film. Raises FilmError for a file that is damaged, or none of DICOM."""
    with dicom_elements(path, KEYWORDS) as elements:
        return info_of(elements)


def info_of(elements: Dataset) -> DicomInfo:
    """The same of ``KEYWORDS`` that have been read."""
    notes: list[str] = []
    spacing_mm, spacing_from = _spacing(elements, notes)
    if code(elements, "BurnedInAnnotation") == "YES":
        notes.append("BurnedInAnnotation is YES: pictures show the text that stands in the pixels")
    along_rows = _main_direction(elements)
    position = code(elements, "ViewPosition")
    sides = (code(elements, keyword) for keyword in ("ImageLaterality", "Laterality"))
    return DicomInfo(
        spacing_mm,
        spacing_from,
        view_position=position if position in VIEW_POSITIONS else SEEN_ALONG.get(along_rows),
        laterality=next((side for side in sides if side in LATERALITIES), None),
        anterior_side=ANTERIOR.get(along_rows),
        notes=tuple(notes),
    )


def _spacing(elements: Dataset, notes: list[str]) -> tuple[float, SpacingSource] | tuple[None, None]:
    given = {keyword: pair for keyword in SPACINGS if (pair := _pair(elements, keyword, notes))}
    if not given:
        return None, None
    keyword, (rows_mm, columns_mm) = next(iter(given.items()))
    if not isclose(rows_mm, columns_mm, rel_tol=TOLERANCE):
        notes.append(f"{keyword} is {rows_mm:g} x {columns_mm:g} mm: pixels are not square, no spacing is taken")
        return None, None
    imager_mm = given.get("ImagerPixelSpacing", (rows_mm, columns_mm))[0]
    alike = isclose(rows_mm, imager_mm, rel_tol=TOLERANCE)
    if not alike and not code(elements, "PixelSpacingCalibrationType"):
        notes.append(
            f"PixelSpacing is {rows_mm:g} mm, ImagerPixelSpacing {imager_mm:g} mm, and "
            "PixelSpacingCalibrationType does not say why: PixelSpacing is taken"
        )
    return rows_mm, keyword


def _pair(elements: Dataset, keyword: str, notes: list[str]) -> tuple[float, float] | None:
    """Distance of rows and distance of columns, mm."""
    try:
        pair = numbers(elements, keyword)
    except ElementError:
        pair = (0.0,)
    if not pair:
        return None
    if len(pair) != 2 or min(pair) <= 0:
        notes.append(f"{keyword} is not two numbers above 0: it is ignored")
        return None
    return pair[0], pair[1]


def _main_direction(elements: Dataset) -> str:
    """Where the image's rows run to: A, P, L, R, H or F; empty where the file does not say."""
    directions = codes(elements, "PatientOrientation")
    if len(directions) != 2 or not all(len(one) <= 3 and set(one) <= DIRECTIONS for one in directions):
        return ""
    return directions[0][:1]  # the main direction comes first
