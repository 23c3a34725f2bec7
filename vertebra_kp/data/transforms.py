"""From a film to what the network sees: one warp of image and points, then changes of intensity."""

from dataclasses import dataclass

import cv2
import numpy as np

from vertebra_kp.config.schema import AugmentConfig
from vertebra_kp.config.spine import IntensitySection
from vertebra_kp.core.anatomy import FLIPPED_CORNER, FLIPPED_SLIP, UNKNOWN
from vertebra_kp.core.geometry import (
    apply_affine,
    compose,
    flip_horizontal,
    letterbox,
    rotate,
    scale,
    translate,
    warp_image,
)
from vertebra_kp.data.films import Film
from vertebra_kp.data.record import mark_outside, mask_slips


@dataclass(frozen=True)
class Sample:
    """``image`` [H, W] float32 in 0..1, labels in its frame, ``matrix`` original film -> this image."""

    image: np.ndarray
    points_xy: np.ndarray
    states: np.ndarray
    slips: np.ndarray
    matrix: np.ndarray


def place(film: Film, input_size: tuple[int, int]) -> Sample:
    """The whole film, letterboxed, or its window: what evaluation and prediction see."""
    return _sample(film, _placement(film, input_size), input_size)


def augment(film: Film, input_size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A random view of the film; all draws come from ``rng``, in a fixed order."""
    flipped = config.flip and rng.random() < 0.5
    placement = compose(_placement(film, input_size), random_affine(input_size, config, rng))
    if flipped:
        placement = compose(placement, flip_horizontal(input_size[1]))
    sample = _sample(film, placement, input_size)
    points, states, slips = sample.points_xy, sample.states, sample.slips
    if flipped:
        points, states = points[:, FLIPPED_CORNER, :], states[:, FLIPPED_CORNER]
        slips = np.where(slips == UNKNOWN, UNKNOWN, np.take(FLIPPED_SLIP, slips)).astype(np.int8)
    return Sample(change_intensity(sample.image, config, rng), points, states, slips, sample.matrix)


def _placement(film: Film, input_size: tuple[int, int]) -> np.ndarray:
    if film.window is None:
        return letterbox(film.image.shape[:2], input_size)
    return compose(film.window, scale(input_size[1], input_size[0]))


def _sample(film: Film, placement: np.ndarray, input_size: tuple[int, int]) -> Sample:
    image = warp_image(film.image, placement, input_size).astype(np.float32) / 255
    points = apply_affine(placement, film.points_xy).astype(np.float32)
    points, states, _ = mark_outside(points, film.states, input_size)
    return Sample(image, points, states, mask_slips(film.slips, states), compose(film.to_image, placement))


def random_affine(size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Rotation, scale and aspect-ratio jitter about the centre, then a shift, drawn from the config's ranges."""
    height, width = size
    angle = rng.uniform(-config.rotate_deg, config.rotate_deg)
    factor = 1 + rng.uniform(-config.scale, config.scale)
    stretch = np.sqrt(1 + rng.uniform(-config.stretch, config.stretch))
    dx, dy = rng.uniform(-config.shift, config.shift, 2) * (width, height)
    to_centre = translate(-width / 2, -height / 2)
    back = translate(width / 2 + dx, height / 2 + dy)
    return compose(to_centre, rotate(angle), scale(factor / stretch, factor * stretch), back)


def augmentation_of(config: IntensitySection) -> AugmentConfig:
    """What ``change_intensity`` is to do by the config of a network that is trained on several sources."""
    return AugmentConfig(**{name: getattr(config, name) for name in IntensitySection.model_fields})


def change_intensity(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Local contrast, gamma, contrast, brightness, blur, noise, inversion, a blank rectangle; in 0..1."""
    if config.local_contrast and rng.random() < config.local_contrast:
        from skimage.exposure import equalize_adapthist  # here: few trainings need it

        image = equalize_adapthist(image).astype(np.float32)
    if config.gamma:
        image = image ** np.float32(np.exp(rng.uniform(-config.gamma, config.gamma)))
    if config.contrast or config.brightness:
        gain = 1 + rng.uniform(-config.contrast, config.contrast)
        offset = rng.uniform(-config.brightness, config.brightness)
        image = (image - 0.5) * np.float32(gain) + np.float32(0.5 + offset)
    if config.blur_px:
        sigma = rng.uniform(0, config.blur_px)
        if sigma > 0.1:  # a narrower kernel is the identity
            image = cv2.GaussianBlur(image, (0, 0), sigma)
    if config.noise:
        amplitude = np.float32(rng.uniform(0, config.noise))
        image = image + amplitude * rng.standard_normal(image.shape, dtype=np.float32)
    if config.invert and rng.random() < config.invert:
        image = 1 - image
    if config.cutout and rng.random() < config.cutout:
        image = _blank_rectangle(image, rng)
    return np.clip(image, 0, 1, dtype=np.float32)


def _blank_rectangle(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of 5 to 25 % of each side, at the image's mean, anywhere: a marker, a lead shield."""
    height, width = image.shape
    h, w = (rng.uniform(0.05, 0.25, 2) * (height, width)).astype(int)
    top, left = int(rng.uniform(0, height - h)), int(rng.uniform(0, width - w))
    image = image.copy()
    image[top : top + h, left : left + w] = image.mean()
    return image
