"""Stored values as displayed grays: Modality LUT, VOI LUT, polarity, padding.

The order is that of DICOM PS3.4 N.2.1, the formulas are those of PS3.3 C.11.1 and C.11.2. All is done for the at
most 65,536 values that a pixel can store, not for the pixels. pydicom's functions for LUT sequences are not used:
in version 3.0 their indices wrap around where a LUT has more entries than its output type can count.

A window that cannot be meant is passed over with a note, as viewers do: one without width, and one of another
number of bits.
"""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from scipy.special import expit

from vertebra_kp.data.dicom.elements import ElementError, code, numbers, whole_number
from vertebra_kp.data.grays import counts, looked_up

KEYWORDS = (
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
PASSED = "it is passed over"
EIGHT_BITS = 256  # where a window of 8 bits ends
MOST_ABOVE = 0.1  # of a film's pixels above such a window: with more, the film has more bits than the window
WIDEST = 2.0  # times what pixels can store: a wider window is one of more bits, and shows them all alike


@dataclass(frozen=True)
class Display:
    """What stored values look like; all by the word that a pixel is stored in, ``[2 ** BitsAllocated]``.

    ``grays`` are uint8 up to 8 bits stored, else uint16: 0 is black; 255, or 2 ** BitsStored - 1 above 8 bits, is
    white. Without any LUT, more than 8 bits stay what they are. Signed values stand at their two's complement, and
    bits above those stored are no pixels. ``is_padding`` are those that fill the space around the film.
    ``unwindowed`` is ``grays`` without the window, where that may be one of 8 bits for a film of more, and then
    ``is_above`` tells what lies above it.
    """

    grays: np.ndarray
    is_padding: np.ndarray
    unwindowed: np.ndarray | None = None
    is_above: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def show(self, stored: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The film [H, W] of stored integers of any type as displayed, and notes.

        Padding becomes black, and above 8 bits the darkest gray of the rest, so that it stays out of the window
        that such films are given (``images.to_uint8``).
        """
        words = len(self.grays)
        stored = stored.view(f"u{stored.itemsize}")
        if 2 ** (8 * stored.itemsize) > words:  # a decoder's range is not to be trusted
            stored = stored & (words - 1)
        grays, notes, present = self.grays, self.notes, None
        if self.is_above is not None:
            present = np.where(self.is_padding, 0, counts(stored, words))
            if present[self.is_above].sum() > MOST_ABOVE * present.sum():
                assert self.unwindowed is not None
                grays = self.unwindowed
                notes += (f"The window is one of 8 bits, pixels exceed it: {PASSED}",)
        if self.is_padding.any():
            present = counts(stored, words) if present is None else present
            content = (present > 0) & ~self.is_padding
            darkest = grays[content].min() if content.any() and grays.dtype == np.uint16 else 0
            grays = np.where(self.is_padding, darkest, grays).astype(grays.dtype)
        return looked_up(grays, stored), notes


def display_of(elements: Dataset) -> Display:
    """How a film is displayed. Of several windows or LUTs the first counts, a LUT before a window.

    Raises ElementError.
    """
    bits, allocated = whole_number(elements, "BitsStored"), whole_number(elements, "BitsAllocated")
    signed = whole_number(elements, "PixelRepresentation") == 1
    words = np.arange(2**allocated)
    values = _numbers_of(words, bits, signed=signed)
    notes: list[str] = []
    inverted = code(elements, "PhotometricInterpretation") == "MONOCHROME1"  # the lowest value is white

    def grays_of(shares: np.ndarray) -> np.ndarray:
        shares = 1 - shares if inverted else shares
        return np.rint(shares * max(255, 2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)

    modality = mapped, lowest, highest = _modality(elements, values, notes)
    is_padding = _padding(elements, values, _numbers_of(words, allocated, signed=signed), notes)
    if elements.get("VOILUTSequence"):
        voi, highest = _through_lut(elements.VOILUTSequence[0], mapped)
        return Display(grays_of(voi / highest), is_padding, notes=tuple(notes))
    unwindowed = grays_of((mapped - lowest) / (highest - lowest))
    window = _usable_window(elements, modality, notes)
    if window is None:
        return Display(unwindowed, is_padding, notes=tuple(notes))
    grays = grays_of(_windowed(mapped, *window))
    centre, width, _ = window
    if bits <= 8 or centre - width / 2 < -1 or centre + width / 2 > EIGHT_BITS + 1:
        return Display(grays, is_padding, notes=tuple(notes))
    return Display(grays, is_padding, unwindowed, mapped > EIGHT_BITS, tuple(notes))


def first_window(elements: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window that has a width, None without any; raises ElementError."""
    centres, widths = numbers(elements, "WindowCenter"), numbers(elements, "WindowWidth")
    function = code(elements, "VOILUTFunction")
    function = function if function in WINDOW_FUNCTIONS else "LINEAR"
    least = 1 if function == "LINEAR" else np.nextafter(0, 1)
    pairs = zip(centres, widths, strict=False)
    return next(((centre, width, function) for centre, width in pairs if width >= least), None)


def _usable_window(
    elements: Dataset, modality: tuple[np.ndarray, float, float], notes: list[str]
) -> tuple[float, float, str] | None:
    """The first window, None where it cannot be meant for what a film can store."""
    _, lowest, highest = modality
    window = first_window(elements)
    if window is None:
        if numbers(elements, "WindowCenter") and numbers(elements, "WindowWidth"):
            notes.append(f"WindowWidth is {numbers(elements, 'WindowWidth')[0]:g}: {PASSED}")
        return None
    centre, width, _ = window
    if code(elements, "VOILUTFunction") not in ("", *WINDOW_FUNCTIONS):
        notes.append(f"VOILUTFunction is none of {', '.join(WINDOW_FUNCTIONS)}: the window is taken as LINEAR")
    if width > WIDEST * (highest - lowest + 1):
        notes.append(f"WindowWidth is {width:g}, pixels span {highest - lowest:g}: {PASSED}")
        return None
    if centre + width / 2 < lowest or centre - width / 2 > highest:
        notes.append(f"The window shows none of what pixels can be, {lowest:g} to {highest:g}: {PASSED}")
        return None
    return window


def _numbers_of(words: np.ndarray, bits: int, *, signed: bool) -> np.ndarray:
    """The numbers that stand in the lowest bits of words, float64."""
    numbers_ = (words & (2**bits - 1)).astype(np.float64)
    if signed:
        numbers_[numbers_ >= 2 ** (bits - 1)] -= 2**bits  # two's complement
    return numbers_


def _padding(elements: Dataset, values: np.ndarray, whole: np.ndarray, notes: list[str]) -> np.ndarray:
    """Which words are padding, by the ``values`` of their stored bits or by all of their bits; C.7.5.1.1.2.

    Writers disagree whether the element is signed as the pixels are, and whether it keeps to the bits stored.
    """
    none = np.zeros(len(values), dtype=bool)
    try:
        found = [numbers(elements, keyword)[:1] for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    except ElementError:
        notes.append("PixelPaddingValue is not a number: it is ignored")
        return none
    if not found[0]:
        return none
    ends = [whole[int(number) % len(whole)] for numbers_ in found for number in numbers_]
    low, high = min(ends), max(ends)
    within = values.min() <= low and high <= values.max()
    return ((whole >= low) & (whole <= high)) | (within & (values >= low) & (values <= high))


def _modality(elements: Dataset, values: np.ndarray, notes: list[str]) -> tuple[np.ndarray, float, float]:
    """The values in the modality's units, with the lowest and the highest that there can be."""
    if elements.get("ModalityLUTSequence"):
        mapped, highest = _through_lut(elements.ModalityLUTSequence[0], values)
        return mapped, 0, highest
    slopes, intercepts = numbers(elements, "RescaleSlope"), numbers(elements, "RescaleIntercept")
    if slopes and intercepts:
        if slopes[0] == 0:
            notes.append("RescaleSlope is 0: values are not rescaled")
        else:
            values = values * slopes[0] + intercepts[0]
    return values, values.min(), values.max()


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
    entries = entries % 2**16 or 2**16  # PS3.3: 0 stands for 2^16
    if first > values.max():  # written as unsigned, though values are signed
        first -= 2**16
    elif first + entries <= values.min():  # or the other way round
        first += 2**16
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
