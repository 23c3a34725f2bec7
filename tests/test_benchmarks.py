"""Benchmarks are run by hand and seldom: what they import must still be there."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_finds_all_that_it_imports(path):
    assert "main" in runpy.run_path(str(path), run_name="not_main")
