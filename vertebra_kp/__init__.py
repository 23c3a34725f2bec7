"""Find vertebra corners on X-ray films and turn them into measurements.

import vertebra_kp
prediction = vertebra_kp.load("runs/quickstart/checkpoints/best.pt").predict("film.png")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vertebra_kp.inference.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> object:
    """``load`` is imported when asked for: the ground floor stays usable without torch."""
    if name == "load":
        from vertebra_kp.inference.loading import load

        return load
    raise AttributeError(f"module 'vertebra_kp' has no attribute {name!r}")
