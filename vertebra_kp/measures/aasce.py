"""Cobb angles of a whole spine by the protocol of the AASCE challenge, between mid-lines.

Source of the protocol: Yi et al., "Vertebra-focused landmark detection for scoliosis assessment", ISBI 2020, the
evaluation published with it; the angles of the AASCE 2019 challenge follow the same rule.
"""

import numpy as np

from vertebra_kp.measures.lines import angle_deg, mid_line

AASCE_VERTEBRAE = 17  # T1..L5
# Below this the published test calls a curve one-sided. It is a product of two summed deviations, each as a
# fraction of the spine's extent along x and y.
S_SHAPE_TOLERANCE = 1e-4


def cobb_aasce(points_xy: np.ndarray, image_height: float) -> np.ndarray:
    """Three Cobb angles of a whole spine: the main curve, then the two that the protocol derives from it.

    ``points_xy`` ``[17, 4, 2]``: T1..L5, corners TL, TR, BL, BR, in continuous coordinates of the original
    film and in the order in which they are stored (sorting vertebrae by height changes the second and third
    angle of some films). ``image_height`` in pixels: in an S-shaped spine, the half of the film that the
    main curve lies in decides where the third curve is looked for. Returns ``[3]`` degrees in 0..180: zeros
    for a straight spine, nan when any corner is nan. Raises ValueError on any other shape.

    A vertebra's direction is its mid-line. The main angle is the largest between any two: the end vertebrae of
    the main curve. Here without the divisions that fail on a vertical or straight spine.
    """
    if points_xy.shape != (AASCE_VERTEBRAE, 4, 2):
        raise ValueError(
            f"points_xy must be [{AASCE_VERTEBRAE}, 4, 2] (T1..L5), got {list(points_xy.shape)}; "
            "give every vertebra of the whole spine"
        )
    points_xy = np.asarray(points_xy, dtype=np.float64)
    if np.isnan(points_xy).any():
        return np.full(3, np.nan)
    angle = _pairwise_angles_deg(points_xy)
    return np.array([angle[pair] for pair in aasce_end_vertebrae(points_xy, image_height)])


def aasce_end_vertebrae(points_xy: np.ndarray, image_height: float) -> tuple[tuple[int, int], ...]:
    """Pairs of vertebrae (indices, upper first) of the three angles; arguments as of ``cobb_aasce``, no nan."""
    angle = _pairwise_angles_deg(points_xy)
    first = np.unravel_index(angle.argmax(), angle.shape)  # of two equal entries the one with upper < lower
    upper, lower = int(first[0]), int(first[1])
    top = int(angle[upper, : upper + 1].argmax())
    if not _is_s_shaped(points_xy):
        others = (0, upper), (lower, AASCE_VERTEBRAE - 1)
    elif points_xy[[upper, lower], :2, 1].mean() < image_height / 2:
        others = (top, upper), (lower, lower + int(angle[lower, lower:].argmax()))
    else:  # the main curve is low on the film: both other curves lie above it
        others = (top, upper), (int(angle[top, : top + 1].argmax()), top)
    return (upper, lower), *others


def largest_curve_deg(points_xy: np.ndarray) -> float:
    """Largest angle between the mid-lines of any two vertebrae, degrees; of T1..L5 the main angle of AASCE.

    ``points_xy`` ``[levels, 4, 2]``; levels with a corner of nan are left out, nan when fewer than two are left.
    """
    whole = points_xy[np.isfinite(points_xy).all(axis=(1, 2))].astype(np.float64)
    return float(_pairwise_angles_deg(whole).max()) if len(whole) >= 2 else float("nan")


def _pairwise_angles_deg(points_xy: np.ndarray) -> np.ndarray:
    """``[V, V]`` unsigned angles between the mid-lines."""
    vectors = mid_line(points_xy)
    return np.abs(angle_deg(vectors[:, None], vectors[None]))


def _is_s_shaped(points_xy: np.ndarray) -> bool:
    """Whether the spine's midline crosses the straight line between its two ends.

    The published test compares |sum of deviations|^2 with (sum of |deviations|)^2, each deviation divided
    by the spine's extent in x and in y. Their difference is 4 x (sum on one side) x (sum on the other);
    multiplied by both extents squared, the divisions are gone.
    """
    middles = points_xy.reshape(-1, 2, 2).mean(axis=1)  # of superior and inferior endplates, from head to foot
    # The published loop leaves the last two middles out: the end itself, and the one before it.
    from_last, (extent_x, extent_y) = middles[:-2] - middles[-1], middles[0] - middles[-1]
    deviation = from_last[:, 1] * extent_x - from_last[:, 0] * extent_y
    right, left = deviation[deviation > 0].sum(), -deviation[deviation < 0].sum()
    return bool(4 * right * left > S_SHAPE_TOLERANCE * (extent_x * extent_y) ** 2)
