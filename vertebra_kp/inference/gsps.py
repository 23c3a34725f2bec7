"""Predicted corners as a Grayscale Softcopy Presentation State, which DICOM viewers lay over the image.

PS3.3 A.33.1. Corners and names stand in PIXEL units (PS3.3 C.10.5): the top left corner of the first pixel is
0\\0, its bottom right corner 1\\1, the centre 0.5\\0.5. That is this project's frame: nothing is converted.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from vertebra_kp.core.anatomy import OUTLINE, PRESENT_FROM, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import replacing
from vertebra_kp.data.dicom.display import KEYWORDS as DISPLAY
from vertebra_kp.data.dicom.display import first_window
from vertebra_kp.data.dicom.elements import ElementError, code, numbers, whole_number
from vertebra_kp.data.film_file import FilmError
from vertebra_kp.inference.prediction import Prediction

if TYPE_CHECKING:
    from highdicom.pr import GraphicAnnotation, GraphicLayer

LAYER = "VERTEBRAE"
UNITS = "PIXEL"
# What a PACS files a presentation state by; PS3.3 wants these elements there, though they may be empty.
IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_SIZE = ("Rows", "Columns", "SamplesPerPixel")
KEYWORDS = (*_UIDS, *_SIZE, *DISPLAY)


def check_installed() -> None:
    """Raises UserError where the package that writes presentation states is missing."""
    if find_spec("highdicom") is None:
        raise UserError("presentation states need the package highdicom; pip install 'vertebra_kp[dicom]'")


def write_presentation_state(
    film: str, elements: Dataset, target: Path, prediction: Prediction, schema: Schema
) -> None:
    """Writes the vertebrae of a DICOM image as outlines with the names of their levels; the image stays as it is.

    ``elements`` are those of ``KEYWORDS`` that the image has. Vertebrae less present than 0.5 are left out, and so
    are sides that end beyond the image, for which PIXEL units have no numbers. The state shows it with the
    windows and the polarity that were read.

    It names study, series and image by their UIDs. Elements of patient and study (``IDENTITY``), which the
    standard demands, are empty unless ``elements`` has them: most PACS want them filled in before they file it.
    Raises FilmError where the image cannot be referred to, UserError where the state cannot be written.
    """
    try:
        state = _presentation_state(elements, prediction, schema)
        if kept := [keyword for keyword in IDENTITY if keyword in elements]:
            for keyword in ("SpecificCharacterSet", *kept):  # a text of the image, read with whatever is read
                if keyword in elements:
                    state[keyword] = elements[keyword]
        with replacing(target) as file:
            state.save_as(file, enforce_file_format=True)
    except ElementError as error:
        raise FilmError(f"{film}: {error}") from None
    except OSError as error:
        told = f"the presentation state cannot be written ({error.strerror}); check the folder and the space"
        raise UserError(f"{target}: {told}") from None
    except Exception as error:  # its text may quote an element
        told = f"no presentation state can be made for it ({type(error).__name__}); predict it without one"
        raise UserError(f"{film}: {told}") from None


def _presentation_state(elements: Dataset, prediction: Prediction, schema: Schema) -> Dataset:
    import highdicom  # optional, and slow to import

    reference = _reference(elements)
    layer = highdicom.pr.GraphicLayer(LAYER, order=1, description="Predicted vertebrae")
    inverse = code(elements, "PhotometricInterpretation") == "MONOCHROME1"  # a state overrides it, PS3.4 N.2.1.4
    shape = highdicom.PresentationLUTTransformation("INVERSE" if inverse else "IDENTITY")
    state = highdicom.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[reference],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="vertebra_kp",
        manufacturer_model_name="vertebra_kp",
        software_versions="vertebra_kp",
        device_serial_number="0",
        content_label=LAYER,
        content_description="Vertebra corners predicted by a network, not reviewed",
        graphic_layers=[layer],
        graphic_annotations=_annotations(reference, layer, prediction, schema),
        presentation_lut_transformation=shape,
    )
    _add_display(state, elements)
    return state


def _reference(elements: Dataset) -> Dataset:
    """The image as highdicom wants it, without patient and study."""
    reference = Dataset()
    for keyword in _UIDS:
        uid = elements.get(keyword) or ""
        if not re.fullmatch("[0-9.]{1,64}", uid):  # it might be a name, and is not quoted
            fault = "is not a UID" if uid else "is missing"
            raise ElementError(f"{keyword} {fault}: no presentation state can refer to it; export it again")
        setattr(reference, keyword, uid)
    for keyword in _SIZE:
        setattr(reference, keyword, whole_number(elements, keyword))
    for keyword in IDENTITY:
        setattr(reference, keyword, None)
    return reference


def _annotations(
    reference: Dataset, layer: "GraphicLayer", prediction: Prediction, schema: Schema
) -> "list[GraphicAnnotation] | None":
    from highdicom.pr import GraphicAnnotation, GraphicObject, TextObject

    lines, texts = [], []
    size = np.array([reference.Columns, reference.Rows])
    for i, level in enumerate(schema.levels):
        if prediction.presence[i] < PRESENT_FROM:
            continue
        outline = prediction.points_xy_image[i, OUTLINE].astype(np.float64)
        inside = np.all((outline >= 0) & (outline <= size), axis=1)  # False for nan
        closed = np.concatenate([outline, outline[:1]])  # once around the body, or each side with both ends inside
        sides = [closed[i : i + 2] for i in range(4) if inside[i] and inside[(i + 1) % 4]]
        lines += [GraphicObject("POLYLINE", line, UNITS) for line in ([closed] if inside.all() else sides)]
        if inside.any():
            x, y = outline[inside].mean(axis=0)
            texts.append(TextObject(level, UNITS, anchor_point=(float(x), float(y)), anchor_point_visible=False))
    if not lines and not texts:
        return None
    return [GraphicAnnotation([reference], layer, graphic_objects=lines, text_objects=texts)]


def _add_display(state: Dataset, elements: Dataset) -> None:
    """The grays as ``display_table`` makes them, without the explanations in free text that may stand beside."""
    if elements.get("ModalityLUTSequence"):
        lut = _lut(elements.ModalityLUTSequence[0])
        lut.ModalityLUTType = "US"  # unspecified, PS3.3 C.11.1.1.2
        state.ModalityLUTSequence = [lut]
    elif numbers(elements, "RescaleSlope") and numbers(elements, "RescaleIntercept"):
        state.RescaleIntercept, state.RescaleSlope = elements.RescaleIntercept, elements.RescaleSlope
        state.RescaleType = "US"
    voi = Dataset()
    if elements.get("VOILUTSequence"):
        voi.VOILUTSequence = [_lut(elements.VOILUTSequence[0])]
    elif window := first_window(elements):
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = window
    if len(voi):
        state.SoftcopyVOILUTSequence = [voi]


def _lut(item: Dataset) -> Dataset:
    lut = Dataset()
    for keyword in ("LUTDescriptor", "LUTData"):
        lut.add(item[keyword])
    return lut
