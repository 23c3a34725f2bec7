"""What a compressed frame says of itself, so that it is not decoded into more than the film's header announces.

JPEG and JPEG-LS: ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2 (SOF markers); JPEG 2000: 15444-1 A.5.1 (SIZ).
"""

import struct

_SOI, _SOS = 0xFFD8, 0xFFDA
_SOF = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}  # less DHT, JPG and DAC, with JPEG-LS
_SOC_SIZ = b"\xff\x4f\xff\x51"


def frame_shape(frame: bytes) -> tuple[int, int, int]:
    """(height, width, components) of a JPEG, JPEG-LS or JPEG 2000 frame; ValueError where its start tells none."""
    if frame[:2] == _SOI.to_bytes(2, "big"):
        return _jpeg_shape(frame)
    if (start := frame.find(_SOC_SIZ)) >= 0:  # some writers put a JP2 file around it
        x_end, y_end, x_start, y_start = struct.unpack_from(">4I", frame, start + 8)
        (components,) = struct.unpack_from(">H", frame, start + 40)
        return y_end - y_start, x_end - x_start, components
    raise ValueError("no JPEG, JPEG-LS or JPEG 2000 frame")


def _jpeg_shape(frame: bytes) -> tuple[int, int, int]:
    at = 2
    while at + 10 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker in _SOF:
            height, width, components = struct.unpack_from(">HHB", frame, at + 5)
            return height, width, components
        if marker < 0xFF00 or marker == _SOS:
            break
        at += 1 if marker == 0xFFFF else 2 + length  # 0xFF may fill the space before a marker
    raise ValueError("a JPEG frame without a size")
