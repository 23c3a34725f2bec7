"""Plots show the figures that they are given."""

import numpy as np
import pytest

from vertebra_kp.inference.overlays import PREDICTED_COLOUR
from vertebra_kp.reports.plots import plot_error_per_level


def test_error_bars_grow_with_the_error_and_a_missing_level_has_none():
    def ink(per_level):
        picture = plot_error_per_level(per_level, "error").astype(int)
        columns = (np.abs(picture - PREDICTED_COLOUR).max(axis=2) < 10).sum(axis=0)
        edges = np.flatnonzero(np.diff(np.pad(columns > 0, 1).astype(int)))
        return [columns[a:b].max() for a, b in edges.reshape(-1, 2)]

    low, high = ink({"L1": 1.0, "L2": None, "L3": 3.0})
    assert high / low == pytest.approx(3, rel=0.05)
