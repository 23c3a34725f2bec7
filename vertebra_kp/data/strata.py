"""What splits share out evenly: how curved a frontal spine is, how far a vertebra of a lateral one has slipped."""

from bisect import bisect

import numpy as np

from vertebra_kp.core.anatomy import Schema, Side
from vertebra_kp.data.record import Record
from vertebra_kp.measures import Spine, largest_curve_deg, measure

# Main curve: no scoliosis, mild, moderate, severe (SOSORT guidelines 2016)
CURVE_DEG = (10.0, 25.0, 40.0)
# Slip either way: none that corners can tell from their own error, Meyerding I, II and above
SLIP_PERCENT = (8.0, 25.0)
UNMEASURED = -1


def stratum(record: Record, schema: Schema) -> int:
    """Which band of curve (AP) or slip (LA) a film's labels fall in, from 0; UNMEASURED when they do not say."""
    if record.points_xy_image is None:
        return UNMEASURED
    bands: tuple[float, ...]
    if schema.view == "AP":
        size, bands = largest_curve_deg(record.points_xy_image), CURVE_DEG
    else:
        # Which way a slip goes does not matter here: where nobody told the side, the one that fits the sacrum.
        sides: tuple[Side, ...] = (record.anterior_side,) if record.anterior_side else ("left", "right")
        spines = [Spine(schema, record.points_xy_image, anterior_side=side) for side in sides]
        found = [m for spine in spines for m in measure(spine) if m.name == "slip_percent"]
        size, bands = max((abs(m.value) for m in found if m.value is not None), default=np.nan), SLIP_PERCENT
    return UNMEASURED if np.isnan(size) else bisect(bands, size)
