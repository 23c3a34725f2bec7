"""Radiographs with known corners, drawn from stated ranges."""

from vertebra_kp.data.phantom.film import ANATOMIES, PhantomFilm, draw_film
from vertebra_kp.data.phantom.presets import PRESETS, Preset

__all__ = ["ANATOMIES", "PRESETS", "PhantomFilm", "Preset", "draw_film"]
