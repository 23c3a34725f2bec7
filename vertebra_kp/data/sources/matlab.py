"""One matrix of numbers in a Matlab file of level 5, as Matlab and SciPy save it.

"MAT-File Format", The MathWorks: a header, then elements of a tag and data, which may be deflated; a matrix is an
element of elements. SciPy's reader is not used: a damaged file may end the process in it, or fill the memory.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

MAX_BYTES = 2**20  # of a file, and of what is deflated in it; 68 points take 1 KiB

_HEADER, _VERSION_1 = 128, b"\x00\x01IM"  # little endian; the other byte order is none that a PC writes
_MATRIX, _DEFLATED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_FIRST_CLASS, _LAST_CLASS = 6, 15  # mxDOUBLE_CLASS to mxUINT64_CLASS
_COMPLEX = 0x0800  # in an array's flags


def read_matrix(path: Path, name: str) -> np.ndarray:
    """The matrix ``name`` [rows, columns] of real numbers; ValueError says why there is none."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    content = path.read_bytes()
    if content[_HEADER - 4 : _HEADER] != _VERSION_1:
        raise ValueError("it is no Matlab file of level 5")
    try:
        for kind, data in _elements(content[_HEADER:]):
            if kind == _DEFLATED:
                inflater = zlib.decompressobj()
                ((kind, data),) = _elements(inflater.decompress(data, MAX_BYTES))
            if kind == _MATRIX and (matrix := _matrix(data, name)) is not None:
                return matrix
    except (struct.error, zlib.error) as error:
        raise ValueError(f"it is damaged ({error})") from error
    raise ValueError(f"it holds no matrix {name}")


def _matrix(data: bytes, name: str) -> np.ndarray | None:
    """The matrix of an element, None for one of another name."""
    parts = _elements(data)
    if len(parts) < 4 or parts[2][1] != name.encode():
        return None
    flags, shape = (np.frombuffer(_whole(part, 4), "<i4") for _, part in parts[:2])
    kind, numbers = parts[3]
    if not _FIRST_CLASS <= flags[0] & 0xFF <= _LAST_CLASS or flags[0] & _COMPLEX or kind not in _NUMBERS:
        raise ValueError(f"{name} is no matrix of real numbers")
    values = np.frombuffer(_whole(numbers, np.dtype(_NUMBERS[kind]).itemsize), _NUMBERS[kind])
    if len(shape) != 2 or shape.min() < 0 or int(shape[0]) * int(shape[1]) != len(values):
        raise ValueError(f"{name} has {len(values)} numbers, its shape is {shape.tolist()}")
    return values.reshape(shape, order="F")


def _whole(data: bytes, size: int) -> bytes:
    """``data``, if it holds whole items of ``size`` bytes."""
    if not data or len(data) % size:
        raise ValueError("it is damaged (an element is cut short)")
    return data


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    """(type, data) of each element; small ones have both in eight bytes."""
    found, at = [], 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, at)
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            start, step = at + 8, 8 + size if kind == _DEFLATED else 8 + -(-size // 8) * 8
        data = content[start : start + size]
        if len(data) < size or (start == at + 4 and size > 4):
            raise ValueError("it is damaged (an element is cut short)")
        found.append((kind, data))
        at += step
    return found
