"""From attenuation to a displayed film: Beer-Lambert, scatter, quantum noise, detector blur, display."""

from dataclasses import dataclass

import cv2
import numpy as np

SHRINK = 8  # scatter and slow changes are smooth: computed on a coarse grid
COMPRESSION_SIGMA_MM = 30.0  # what is wider counts as slow; vertebrae are narrower
LEAST_WINDOW = 1.4  # of the log image: never stretch mere noise to the full grey scale
LEAST_SIGNAL = 1e-4  # of the unattenuated beam, so that the logarithm stays finite


@dataclass(frozen=True)
class Exposure:
    """What the machine does; units in the names, the display's as in the preset."""

    photons_per_mm2: float
    scatter_to_primary: float
    scatter_sigma_mm: float
    blur_sigma_mm: float
    gamma: float
    window_percentile: float
    contrast: float
    compression: float


def expose(attenuation: np.ndarray, spacing_mm: float, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    """Attenuation (line integral, ``[H, W]`` float32) to the log image that the detector reports."""
    primary = np.exp(-attenuation)
    veil = _slow(primary, exposure.scatter_sigma_mm / spacing_mm)
    signal = primary + exposure.scatter_to_primary * veil
    # A pixel collects thousands of photons, so the normal law stands for Poisson's; it also draws the same
    # number of random numbers whatever the signal, which keeps the stream equal on every machine.
    photons = exposure.photons_per_mm2 * spacing_mm**2
    signal += np.sqrt(signal / photons) * rng.standard_normal(signal.shape, dtype=np.float32)
    signal = cv2.GaussianBlur(signal, (0, 0), max(exposure.blur_sigma_mm / spacing_mm, 0.3))
    return -np.log(np.maximum(signal, LEAST_SIGNAL))


def display(
    log_image: np.ndarray, spacing_mm: float, exposed: tuple[slice, slice], exposure: Exposure
) -> np.ndarray:
    """Log image to uint8, bone bright; what lies outside the shutters (``exposed``) is black."""
    seen = log_image[exposed]
    seen = seen - exposure.compression * _slow(seen, COMPRESSION_SIGMA_MM / spacing_mm)
    low, high = np.percentile(seen[::3, ::3], (exposure.window_percentile, 99.7))
    low = min(low, high - LEAST_WINDOW)
    grey = np.clip((seen - low) / (high - low), 0, 1) ** exposure.gamma
    base = (1 - exposure.contrast) / 2
    film = np.zeros(log_image.shape, np.uint8)
    film[exposed] = np.round(255 * (base + exposure.contrast * grey)).astype(np.uint8)
    return film


def _slow(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Wide Gaussian blur, by way of a coarse grid."""
    height, width = image.shape
    small = max(1, width // SHRINK), max(1, height // SHRINK)
    coarse = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(coarse, (0, 0), sigma_px / SHRINK), (width, height))
