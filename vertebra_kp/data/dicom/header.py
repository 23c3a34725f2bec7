"""What a DICOM file says of its film besides the pixels, without anything that identifies a patient."""

from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Literal, NamedTuple

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
# Of PS3.16, annex L: parts of the spine by the letters of their levels, and parts that do not show it.
SPINE_PARTS = {
    "CSPINE": "C", "CTSPINE": "CT", "TSPINE": "T", "TLSPINE": "TL", "LSPINE": "L", "LSSPINE": "LS", "SSPINE": "S",
    "SPINE": "CTLS", "WHOLESPINE": "CTLS",
}  # fmt: skip
OTHER_PARTS = {
    "ANKLE", "ARM", "BREAST", "CALCANEUS", "CLAVICLE", "ELBOW", "EXTREMITY", "EYE", "FACE", "FEMUR", "FINGER",
    "FOOT", "FOREARM", "HAND", "HEAD", "HUMERUS", "JAW", "KNEE", "LEG", "MANDIBLE", "MAXILLA", "PATELLA", "RADIUS",
    "SCAPULA", "SHOULDER", "SINUS", "SKULL", "THUMB", "TIBIA", "TOE", "ULNA", "WRIST", "ZYGOMA",
}  # fmt: skip
TOLERANCE = 1e-3  # between spacings that are equal but for rounding
MAX_MAGNIFICATION = 2.0  # of a radiograph; a factor beyond it is a mistake

KEYWORDS = (
    *SPACINGS,
    "PixelSpacingCalibrationType",
    "PixelAspectRatio",
    "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "ViewPosition",
    "PatientOrientation",
    "ImageLaterality",
    "Laterality",
    "BodyPartExamined",
    "BurnedInAnnotation",
)


@dataclass(frozen=True)
class DicomInfo:
    """``spacing_mm`` is the size of a square pixel, taken from the element ``spacing_from`` (PS3.3 10.7.1.3):
    PixelSpacing, which may be corrected for magnification, else ImagerPixelSpacing, measured at the detector; the
    latter is divided by the magnification where the file says it. ``pixel_aspect`` is the height of a pixel over
    its width.

    ``view_position`` is the code in ViewPosition (AP, LL, ...), else what PatientOrientation tells: "frontal"
    or "lateral". ``laterality`` is R, L, U (unpaired) or B (both). ``rows_to`` and ``columns_to`` are where the
    image's right and its lower edge lie in the patient (A, P, L, R, H or F), by PatientOrientation, and
    ``anterior_side`` is the image side that the patient faces. ``body_part`` is one of ``SPINE_PARTS`` and
    ``OTHER_PARTS``. None is what the file does not say. ``notes`` are sentences for whoever uses the film.
    """

    spacing_mm: float | None = None
    spacing_from: SpacingSource | None = None
    view_position: str | None = None
    laterality: str | None = None
    anterior_side: Side | None = None
    notes: tuple[str, ...] = ()
    pixel_aspect: float = 1.0
    rows_to: str | None = None
    columns_to: str | None = None
    body_part: str | None = None


class _Spacing(NamedTuple):
    mm: float | None
    source: SpacingSource | None
    aspect: float


def read_header(path: Path) -> DicomInfo:
    """What a DICOM file says of its film. Raises FilmError for a file that is damaged, or none of DICOM."""
    with dicom_elements(path, KEYWORDS) as elements:
        return info_of(elements)


def viewer_spacings_mm(path: Path) -> list[tuple[float, float]]:
    """Width and height of a pixel, mm, by which viewers measure: two where they differ in which they take."""
    with dicom_elements(path, SPACINGS) as elements:
        pairs = [pair for keyword in SPACINGS if (pair := _pair(elements, keyword, []))]
    found = [(columns_mm, rows_mm) for rows_mm, columns_mm in pairs]
    return found[:1] if len(found) == 2 and all(map(_alike, *found)) else found


def info_of(elements: Dataset) -> DicomInfo:
    """The same of ``KEYWORDS`` that have been read."""
    notes: list[str] = []
    if elements.encoding_is_guessed:
        notes.append("The file has no meta information: the encoding that it begins with is taken")
    spacing = _spacing(elements, notes)
    if code(elements, "BurnedInAnnotation") == "YES":
        notes.append("BurnedInAnnotation is YES: pictures show the text that stands in the pixels")
    rows_to, columns_to = _directions(elements)
    if rows_to == "R":
        notes.append(
            "PatientOrientation says that the patient's right is at the right: sides are those of the image"
        )
    position, part = code(elements, "ViewPosition"), code(elements, "BodyPartExamined")
    sides = (code(elements, keyword) for keyword in ("ImageLaterality", "Laterality"))
    return DicomInfo(
        spacing.mm,
        spacing.source,
        view_position=position if position in VIEW_POSITIONS else SEEN_ALONG.get(rows_to),
        laterality=next((side for side in sides if side in LATERALITIES), None),
        anterior_side=ANTERIOR.get(rows_to),
        notes=tuple(notes),
        pixel_aspect=spacing.aspect,
        rows_to=rows_to or None,
        columns_to=columns_to or None,
        body_part=part if part in SPINE_PARTS or part in OTHER_PARTS else None,
    )


def _spacing(elements: Dataset, notes: list[str]) -> _Spacing:
    given = {keyword: pair for keyword in SPACINGS if (pair := _pair(elements, keyword, notes))}
    if not given:
        ratio = _pair(elements, "PixelAspectRatio", notes) or (1.0, 1.0)
        return _Spacing(None, None, _aspect("PixelAspectRatio", ratio, "", notes))
    keyword, (rows_mm, columns_mm) = next(iter(given.items()))
    aspect = _aspect(keyword, (rows_mm, columns_mm), " mm", notes)
    if aspect != 1:
        return _Spacing(None, None, aspect)
    imager_mm = given.get("ImagerPixelSpacing", (rows_mm, columns_mm))[0]
    said = bool(code(elements, "PixelSpacingCalibrationType"))
    if not _alike(rows_mm, imager_mm):
        if not said:
            notes.append(
                f"PixelSpacing is {rows_mm:g} mm, ImagerPixelSpacing {imager_mm:g} mm, and "
                "PixelSpacingCalibrationType does not say why: PixelSpacing is taken"
            )
    elif not said:
        rows_mm = _at_the_patient(elements, rows_mm, notes, at_detector="ImagerPixelSpacing" in given)
    return _Spacing(rows_mm, keyword, 1.0)


def _at_the_patient(elements: Dataset, mm: float, notes: list[str], *, at_detector: bool) -> float:
    """A spacing that nobody has corrected, divided by the magnification where that is known.

    PixelSpacing alone (not ``at_detector``) may have been corrected already: it stays, with a note.
    """
    factor, source = _magnification(elements)
    if factor == 1:
        return mm
    if factor is None:
        if at_detector:
            notes.append(f"A pixel has {mm:g} mm, measured at the detector: mm are too large by the magnification")
    elif at_detector:
        notes.append(f"ImagerPixelSpacing of {mm:g} mm is divided by the magnification of {factor:.4g} ({source})")
        return mm / factor
    else:
        told = f"{source} gives a magnification of {factor:.4g}, PixelSpacing may not be corrected for it"
        notes.append(f"{told}: mm may be {100 * (factor - 1):.0f} % too large")
    return mm


def _magnification(elements: Dataset) -> tuple[float | None, str]:
    """How much larger things are at the detector, and the element that tells it; PS3.3 C.8.7.2 and C.8.11.2."""
    factor = _number(elements, "EstimatedRadiographicMagnificationFactor")
    if 1 <= factor <= MAX_MAGNIFICATION:
        return factor, "EstimatedRadiographicMagnificationFactor"
    detector, patient = (_number(elements, f"DistanceSourceTo{what}") for what in ("Detector", "Patient"))
    if 0 < patient <= detector <= MAX_MAGNIFICATION * patient:
        return detector / patient, "DistanceSourceToDetector over DistanceSourceToPatient"
    return None, ""


def _number(elements: Dataset, keyword: str) -> float:
    """The only number of an element, else 0."""
    try:
        found = numbers(elements, keyword)
    except ElementError:
        return 0.0
    return found[0] if len(found) == 1 else 0.0


def _aspect(keyword: str, pair: tuple[float, float], unit: str, notes: list[str]) -> float:
    """Height over width of a pixel, 1 where they are equal but for rounding."""
    if _alike(*pair):
        return 1.0
    notes.append(f"{keyword} is {pair[0]:g} x {pair[1]:g}{unit}: pixels are not square, no spacing is taken")
    return pair[0] / pair[1]


def _alike(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=TOLERANCE)


def _pair(elements: Dataset, keyword: str, notes: list[str]) -> tuple[float, float] | None:
    """Distance of rows and distance of columns, mm; or vertical and horizontal part of a ratio."""
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


def _directions(elements: Dataset) -> tuple[str, str]:
    """Where the image's rows and columns run to: A, P, L, R, H or F; empty where the file does not say."""
    directions = codes(elements, "PatientOrientation")
    if len(directions) != 2 or not all(0 < len(one) <= 3 and set(one) <= DIRECTIONS for one in directions):
        return "", ""
    return directions[0][0], directions[1][0]  # the main direction comes first
