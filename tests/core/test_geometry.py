"""Image and points move by the same matrix: a blob drawn at a point is found where the matrix puts the point."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import warp

from vertebra_kp.core.geometry import (
    AREA_SHRINK_BELOW,
    apply_affine,
    compose,
    flip_horizontal,
    letterbox,
    points_from_indices,
    points_to_indices,
    rotate,
    scale,
    scale_of,
    translate,
    warp_image,
)

BLOB_PX = 0.02  # the claim
SIZE = (203, 121)  # height, width
POINTS = np.array([[60.5, 101.5], [47.313, 88.771], [78.9, 119.04], [55.0, 130.25]])


def blob(size, point, sigma):
    """A Gaussian at ``point``, drawn from continuous coordinates, float32 of peak 1."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(image):
    """Centre of mass in continuous coordinates."""
    image = image.astype(np.float64)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def middle(size):
    return size[1] / 2, size[0] / 2


LETTERBOX_SIZE = (160, 192)
WARPS = {
    "identity": (np.eye(3), SIZE),
    "enlarge": (scale(2.3), (467, 279)),
    "resize slightly": (scale(0.9), (183, 109)),
    "resize just above the area limit": (scale(AREA_SHRINK_BELOW + 0.001), (153, 91)),
    "shrink": (scale(0.41), (84, 50)),
    "shrink by an odd factor": (scale(1 / 3), (68, 41)),
    "stretch": (scale(0.8, 1.3), (264, 97)),
    "squeeze strongly": (scale(0.5, 0.7), (143, 61)),
    "shift": (translate(3.37, -11.62), SIZE),
    "rotate": (rotate(17.0, middle(SIZE)), SIZE),
    "rotate a quarter": (rotate(90.0, middle(SIZE)), SIZE),
    "flip": (flip_horizontal(SIZE[1]), SIZE),
    "crop": (translate(-13.0, -40.0), (131, 93)),
    "crop between pixels": (translate(-13.4, -40.7), (131, 93)),
    "letterbox": (letterbox(SIZE, LETTERBOX_SIZE), LETTERBOX_SIZE),
    "letterbox to a small size": (letterbox(SIZE, (96, 64)), (96, 64)),
    "all of them": (
        compose(
            translate(-5.3, -20.1),
            letterbox((170, 110), LETTERBOX_SIZE),
            translate(-96, -80),
            rotate(-11.3),
            scale(1.07),
            translate(97.3, 78.9),
            flip_horizontal(LETTERBOX_SIZE[1]),
        ),
        LETTERBOX_SIZE,
    ),
    "all of them and shrunk": (
        compose(
            translate(-5.3, -20.1), letterbox((170, 110), (96, 64)), rotate(7.9, (32, 48)), flip_horizontal(64)
        ),
        (96, 64),
    ),
}


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.parametrize(("matrix", "size"), WARPS.values(), ids=WARPS)
def test_a_warped_blob_lies_where_its_point_goes(matrix, size, point):
    sigma = 4.3
    expected = apply_affine(matrix, point)
    stretch = np.linalg.norm(matrix[:2, :2], ord=2)
    assert (expected > 4.5 * sigma * stretch).all()  # the test itself: nothing of the blob is cut off
    assert (expected < np.array(size)[::-1] - 4.5 * sigma * stretch).all()
    warped = warp_image(blob(SIZE, point, sigma), matrix, size)
    assert warped.shape == size
    assert np.linalg.norm(centroid(warped) - expected) < BLOB_PX


@settings(max_examples=30, deadline=None)
@given(
    angle=st.floats(-30, 30),
    factor=st.floats(0.35, 1.6),
    shift=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    flipped=st.booleans(),
)
def test_any_similarity_moves_image_and_point_alike(angle, factor, shift, flipped):
    size = (240, 256)
    matrix = compose(translate(-60, -100), rotate(angle), scale(factor), translate(128 + shift[0], 120 + shift[1]))
    if flipped:
        matrix = compose(matrix, flip_horizontal(size[1]))
    point = np.array([62.3, 97.7])
    warped = warp_image(blob(SIZE, point, 5.1), matrix, size)
    assert np.linalg.norm(centroid(warped) - apply_affine(matrix, point)) < BLOB_PX


def test_the_identity_and_whole_pixel_shifts_copy_pixels_exactly():
    image = np.random.default_rng(0).integers(0, 255, (37, 23), dtype=np.uint8)
    np.testing.assert_array_equal(warp_image(image, np.eye(3), (37, 23)), image)
    np.testing.assert_array_equal(warp_image(image, translate(-4, -7), (20, 11)), image[7:27, 4:15])
    np.testing.assert_array_equal(warp_image(image, flip_horizontal(23), (37, 23)), image[:, ::-1])


def test_strong_shrinking_averages_instead_of_skipping_pixels():
    checkerboard = (np.indices((120, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = warp_image(checkerboard, scale(0.2), (24, 18))
    # Blocks of 5 x 5 cells hold 12 or 13 white ones.
    assert np.abs(small.astype(float) - 127.5).max() <= 255 / 50 + 1


def test_what_lies_beyond_the_image_is_filled():
    image = np.full((20, 30), 9, np.uint8)
    warped = warp_image(image, translate(10, 5), (40, 60), fill=77)
    assert (warped[5:25, 10:40] == 9).all()
    assert (warped[:5] == 77).all()
    assert (warped[:, :10] == 77).all()


def test_sixteen_bits_and_channels_survive_a_warp():
    image = np.random.default_rng(1).integers(0, 65535, (31, 17, 3), dtype=np.uint16)
    warped = warp_image(image, translate(-2, -3), (20, 10))
    assert warped.dtype == np.uint16
    np.testing.assert_array_equal(warped, image[3:23, 2:12])


@pytest.mark.parametrize("size", [(3755, 1427), (973, 355), (500, 900), (256, 128), (1, 7)])
@pytest.mark.parametrize("new_size", [(256, 128), (512, 192), (320, 512)])
def test_letterbox_never_squashes_shows_everything_and_centres(size, new_size):
    matrix = letterbox(size, new_size)
    corners = apply_affine(matrix, np.array([[0, 0], [size[1], size[0]]]))
    (left, top), (right, bottom) = corners
    assert matrix[0, 0] == matrix[1, 1]
    assert matrix[0, 1] == matrix[1, 0] == 0
    assert left == pytest.approx(new_size[1] - right, abs=1e-9)
    assert top == pytest.approx(new_size[0] - bottom, abs=1e-9)
    assert min(left, top) == pytest.approx(0, abs=1e-9)


def test_letterbox_keeps_45_degrees():
    a, b = apply_affine(letterbox((2000, 700), (512, 192)), np.array([[100.0, 100.0], [400.0, 400.0]]))
    assert np.rad2deg(np.arctan2(*(b - a)[::-1])) == pytest.approx(45, abs=1e-9)


def test_a_positive_rotation_turns_x_towards_y():
    np.testing.assert_allclose(apply_affine(rotate(90), np.array([1.0, 0.0])), [0, 1], atol=1e-12)
    np.testing.assert_allclose(apply_affine(rotate(90, (5, 5)), np.array([6.0, 5.0])), [5, 6], atol=1e-12)


def test_compose_applies_from_first_to_last():
    point = np.array([3.0, 4.0])
    np.testing.assert_allclose(apply_affine(compose(scale(2), translate(10, 0)), point), [16, 8])
    np.testing.assert_allclose(apply_affine(compose(translate(10, 0), scale(2)), point), [26, 8])
    np.testing.assert_array_equal(compose(), np.eye(3))


@settings(deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(0.05, 20),
    st.tuples(*[st.floats(-4000, 4000)] * 4),
)
def test_a_matrix_and_its_inverse_give_the_point_back(angle, factor, numbers):
    dx, dy, x, y = numbers
    matrix = compose(rotate(angle, (50, 60)), scale(factor), translate(dx, dy), flip_horizontal(100))
    point = np.array([x, y])
    np.testing.assert_allclose(apply_affine(np.linalg.inv(matrix), apply_affine(matrix, point)), point, atol=1e-6)
    assert scale_of(matrix) == pytest.approx(factor)


def test_points_keep_their_shape_and_nan_stays_nan():
    points = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    points[1, 2, 3] = np.nan
    moved = apply_affine(rotate(10), points)
    assert moved.shape == points.shape
    assert moved.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(points))


def test_the_first_pixel_has_its_centre_at_one_half():
    np.testing.assert_array_equal(points_from_indices([[0, 0], [2, 5]]), [[0.5, 0.5], [2.5, 5.5]])
    points = np.array([[0.25, 7.0]])
    np.testing.assert_array_equal(points_from_indices(points_to_indices(points)), points)


def test_an_opencv_index_and_a_point_agree_through_the_conversion():
    image = np.zeros((9, 9), np.uint8)
    cv2.circle(image, (3, 6), 0, 255, -1)  # index frame
    np.testing.assert_array_equal(centroid(image), points_from_indices([3, 6]))


def test_a_warp_is_that_of_scikit_image_where_both_see_the_image():
    rng = np.random.default_rng(4)
    image = cv2.GaussianBlur(rng.random((60, 45)), (0, 0), 2.5)
    matrix = compose(rotate(13.0, (20, 30)), scale(1.2, 0.9), translate(3.4, -2.7))
    # Its transforms count pixels from the centre of the first one, and lead from the new image to the old one.
    centre = translate(0.5, 0.5)
    index_matrix = np.linalg.inv(centre) @ matrix @ centre
    expected = warp(image, np.linalg.inv(index_matrix), output_shape=(70, 50), order=1)
    inside = warp(np.ones_like(image), np.linalg.inv(index_matrix), output_shape=(70, 50), order=1) == 1
    assert inside.sum() > 1500
    # OpenCV interpolates at 1/32 of a pixel; over it a smooth image changes by no more than this.
    found = warp_image(image, matrix, (70, 50))
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=np.abs(np.gradient(image)).max() / 16)
