"""Stored values as displayed grays: Modality LUT, VOI LUT, polarity.

The order is that of DICOM PS3.4 N.2.1, the formulas are those of PS3.3 C.11.1 and C.11.2. All is done for the at
most 65,536 values that a pixel can store, not for the pixels. pydicom's functions for LUT sequences are not used:
in version 3.0 their indices wrap around where a LUT has more entries than its output type can count.
"""

import numpy as np
from pydicom.dataset import Dataset
from scipy.special import expit

from vertebra_kp.data.dicom.elements import ElementError, code, numbers, whole_number

KEYWORDS = (
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)
WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def display_table(elements: Dataset) -> np.ndarray:
    """The gray of every stored value, ``[2 ** BitsStored]``, uint8 up to 8 bits stored, else uint16.

    0 is black; 255, or 2 ** BitsStored - 1 above 8 bits, is white. Without any LUT, more than 8 bits stay what
    they are. Signed values are found at their own, negative index, which numpy counts from the end. Of several
    windows or LUTs the first counts, a LUT before a window. Raises ElementError.
    """
    bits = whole_number(elements, "BitsStored")
    values = np.arange(2**bits, dtype=np.float64)
    if whole_number(elements, "PixelRepresentation") == 1:
        values[values >= 2 ** (bits - 1)] -= 2**bits  # two's complement
    shares = _voi(elements, _modality(elements, values))
    if code(elements, "PhotometricInterpretation") == "MONOCHROME1":  # the lowest value is white
        shares = 1 - shares
    if bits <= 8:
        return np.rint(shares * 255).astype(np.uint8)
    return np.rint(shares * (2**bits - 1)).astype(np.uint16)


def first_window(elements: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, None where there is none; raises ElementError."""
    centres, widths = numbers(elements, "WindowCenter"), numbers(elements, "WindowWidth")
    if not centres or not widths:
        return None
    function = code(elements, "VOILUTFunction") or "LINEAR"
    if function not in WINDOW_FUNCTIONS:
        raise ElementError(f"VOILUTFunction must be one of {', '.join(WINDOW_FUNCTIONS)}; correct it")
    if widths[0] <= 0 or (function == "LINEAR" and widths[0] < 1):
        least = "at least 1" if function == "LINEAR" else "above 0"
        raise ElementError(
            f"WindowWidth must be {least}, got {widths[0]:g}; correct it, or convert the film to PNG"
        )
    return centres[0], widths[0], function


def _modality(elements: Dataset, values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The values in the modality's units, with the lowest and the highest that there can be."""
    if elements.get("ModalityLUTSequence"):
        mapped, highest = _through_lut(elements.ModalityLUTSequence[0], values)
        return mapped, 0, highest
    slopes, intercepts = numbers(elements, "RescaleSlope"), numbers(elements, "RescaleIntercept")
    if slopes and intercepts:
        if slopes[0] == 0:
            raise ElementError("RescaleSlope must not be 0; correct it, or convert the film to PNG")
        values = values * slopes[0] + intercepts[0]
    return values, values.min(), values.max()


def _voi(elements: Dataset, modality: tuple[np.ndarray, float, float]) -> np.ndarray:
    """Values of interest as shares 0..1 of their range."""
    values, lowest, highest = modality
    if elements.get("VOILUTSequence"):
        mapped, highest = _through_lut(elements.VOILUTSequence[0], values)
        return mapped / highest
    window = first_window(elements)
    return (values - lowest) / (highest - lowest) if window is None else _windowed(values, *window)


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Shares 0..1 by PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return expit(4 * (values - centre) / width)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return ((values - centre) / width + 0.5).clip(0, 1)


def _through_lut(lut: Dataset, values: np.ndarray) -> tuple[np.ndarray, float]:
    """The values through an item of a LUT sequence, and the highest output; PS3.3 C.11.1.1 and C.11.2.1.1."""
    described = numbers(lut, "LUTDescriptor")
    if len(described) != 3 or not 8 <= described[2] <= 16:
        raise ElementError("LUTDescriptor must be three numbers, the third 8 to 16; convert the film to PNG")
    entries, first, bits = (int(number) for number in described)
    entries = entries or 2**16  # PS3.3: 0 stands for 2^16
    data = lut.get("LUTData", b"")
    if isinstance(data, bytes):  # 8-bit entries may be stored with 8 bits or with 16: their length tells
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else "<u2")
    data = np.atleast_1d(data)[:entries]
    if len(data) < entries:
        raise ElementError(
            f"LUTData has {len(data)} entries, LUTDescriptor says {entries}; convert the film to PNG"
        )
    highest = 2**bits - 1
    index = np.rint(values - first).clip(0, entries - 1).astype(np.int64)
    return data.astype(np.float64).clip(0, highest)[index], highest
