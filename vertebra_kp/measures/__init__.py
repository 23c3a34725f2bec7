"""Clinical measurements from vertebra corners: what a film's view allows, each with its value or its reason."""

from vertebra_kp.measures.aasce import AASCE_VERTEBRAE, cobb_aasce, largest_curve_deg
from vertebra_kp.measures.frontal import measure_frontal
from vertebra_kp.measures.lateral import measure_lateral
from vertebra_kp.measures.measurement import Measurement, Spine

__all__ = ["AASCE_VERTEBRAE", "Measurement", "Spine", "cobb_aasce", "largest_curve_deg", "measure"]


def measure(spine: Spine) -> list[Measurement]:
    """Every measure of the film's view, from head to foot."""
    return measure_frontal(spine) if spine.schema.view == "AP" else measure_lateral(spine)
