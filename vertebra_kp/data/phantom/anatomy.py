"""What phantoms are built of: the sizes of vertebrae and the outlines of all other bone, from ``anatomy.yaml``."""

from pathlib import Path

import numpy as np

from vertebra_kp.config.io import read_yaml

_TABLES = read_yaml(Path(__file__).with_name("anatomy.yaml"))
SIZES_MM: dict[str, list[float]] = _TABLES["sizes_mm"]  # by level; anatomy.yaml names the columns
OUTLINES = {
    name: np.array(points) for name, points in _TABLES["outlines"].items()
}  # [n, 2], units in anatomy.yaml
