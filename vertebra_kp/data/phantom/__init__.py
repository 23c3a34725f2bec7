"""Radiographs with known corners, drawn from stated ranges."""

from vertebra_kp.data.phantom.film import PhantomFilm, draw_film
from vertebra_kp.data.phantom.presets import PRESETS, Preset

__all__ = ["PRESETS", "PhantomFilm", "Preset", "draw_film"]
