"""Compressed pixels decoded in a process of its own, because damaged ones make some decoders end theirs.

The process is started by the first compressed film and serves all others; one that dies is started again for the
next. Both sides write a line of JSON, then as many bytes as it says. It ends when its parent does.
"""

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from threading import Lock, Timer
from typing import IO, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from vertebra_kp.data.dicom.elements import ElementError, code, whole_number

LIMIT_S = 120  # for one film; the largest takes a few seconds

_NUMBERS = {
    "Rows": "rows", "Columns": "columns", "BitsAllocated": "bits_allocated", "BitsStored": "bits_stored",
    "SamplesPerPixel": "samples_per_pixel", "PixelRepresentation": "pixel_representation",
}  # fmt: skip


class _Decoder:
    """The process, or None before the first film and after a death; one film at a time."""

    def __init__(self) -> None:
        self.lock, self.owner = Lock(), 0
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, about: dict[str, Any], pixels: bytes) -> tuple[dict[str, Any], bytes]:
        """Raises OSError, EOFError or ValueError where the process died."""
        with self.lock:
            mine = self.process is not None and self.owner == os.getpid()  # a fork shares the pipes of its parent
            if self.process is None or not mine or self.process.poll() is not None:
                self.process, self.owner = _start(), os.getpid()
            process = self.process
            timer = Timer(LIMIT_S, process.kill)
            timer.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                _send(process.stdin, about, pixels)
                return _receive(process.stdout)
            except BaseException:
                self.close()
                raise
            finally:
                timer.cancel()

    def close(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None


_decoder = _Decoder()
atexit.register(_decoder.close)


def decoded(elements: Dataset) -> np.ndarray:
    """The stored values [H, W] of a film with PixelData, of whatever integers the decoder gives.

    RuntimeError where no decoder can read them, ElementError where they ended the decoder.
    """
    about: dict[str, Any] = {name: whole_number(elements, keyword) for keyword, name in _NUMBERS.items()}
    about |= {"syntax": elements.file_meta.TransferSyntaxUID, "number_of_frames": 1, "pixel_keyword": "PixelData"}
    about["photometric_interpretation"] = code(elements, "PhotometricInterpretation")
    try:
        answer, pixels = _decoder.ask(about, elements.PixelData)
    except (OSError, EOFError, ValueError):
        raise ElementError("its pixels are damaged so that the decoder ends; copy or export it again") from None
    if "fault" in answer:
        raise RuntimeError(answer["fault"])
    return np.frombuffer(pixels, answer["dtype"]).reshape(answer["shape"])


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders quote what they read
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
        start_new_session=True,  # Ctrl-C is for the parent
    )


def _send(file: IO[bytes], about: dict[str, Any], content: bytes) -> None:
    file.write(json.dumps(about | {"bytes": len(content)}).encode() + b"\n")
    file.write(content)
    file.flush()


def _receive(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """EOFError at the end of the file."""
    if not (line := file.readline()):
        raise EOFError
    about: dict[str, Any] = json.loads(line)
    content = file.read(size := about.pop("bytes"))
    if len(content) < size:
        raise EOFError
    return about, content


def _serve() -> None:
    """Decode what comes on standard input, until it ends; decoders must not write to standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        about, content = _receive(sys.stdin.buffer)
        try:
            decoder = get_decoder(UID(about.pop("syntax")))
            pixels, _ = decoder.as_array(content, index=0, raw=True, **about | {"correct_unused_bits": False})
            shaped = {"shape": pixels.shape, "dtype": pixels.dtype.str}
            _send(answers, shaped, np.ascontiguousarray(pixels).tobytes())
        except Exception as error:
            _send(answers, {"fault": type(error).__name__}, b"")


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError):
        _serve()
