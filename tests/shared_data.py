"""Data sets that are not part of the project, for the tests that read them: skipped where they are missing."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def field_case(name):
    """The folder ``name`` of field_cases, which lies beside the folder of data sets: files as people have them."""
    data = Path(os.environ.get("VERTEBRA_KP_DATA") or BESIDE)
    root = data.parent / "field_cases" / name
    if not root.is_dir():
        pytest.skip(f"{name} is not at {root}; put field_cases beside the folder of VERTEBRA_KP_DATA")
    return root


def data_set(name):
    """The folder ``name`` of VERTEBRA_KP_DATA, or of shared/data beside the checkout."""
    root = Path(os.environ.get("VERTEBRA_KP_DATA") or BESIDE) / name
    if not root.is_dir():
        pytest.skip(f"{name} is not at {root}; name its parent folder in VERTEBRA_KP_DATA")
    return root
