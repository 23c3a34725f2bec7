"""A film and its corners move together, and what is random is a function of the generator alone."""

import cv2
import numpy as np
import pytest
from skimage.exposure import equalize_adapthist

from vertebra_kp.config.schema import AugmentConfig
from vertebra_kp.core.anatomy import SCHEMAS, UNKNOWN, State, presence_target
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.films import Film, film_of_record
from vertebra_kp.data.record import Record, label_arrays, mark_outside
from vertebra_kp.data.transforms import augment, change_intensity, place, random_affine

SCHEMA = SCHEMAS["ap_lumbar"]
SIZE = (300, 170)
INPUT_SIZE = (192, 128)
STILL = AugmentConfig(
    rotate_deg=0, scale=0, shift=0, gamma=0, contrast=0, brightness=0, blur_px=0, noise=0, invert=0, cutout=0
)
STRONG = AugmentConfig(
    rotate_deg=20, scale=0.3, shift=0.1, flip=True, gamma=0.8, contrast=0.5, brightness=0.3, blur_px=2, noise=0.2,
    invert=0.5, cutout=0.5,
)  # fmt: skip


def vertebrae(levels=5, *, left=50.0, right=110.0, top=30.0, step=50.0):
    """Corners ``[levels, 4, 2]`` in the order TL, TR, BL, BR of boxes 30 px high."""
    y = top + step * np.arange(levels)[:, None, None]
    corners = np.array([[left, 0.0], [right, 0.0], [left, 30.0], [right, 30.0]])
    return (corners + np.concatenate([0 * y, y], axis=-1)).astype(np.float32)


def film_with(points=None, image=None, states=None, slips=None) -> Film:
    points = vertebrae() if points is None else points
    if image is None:
        image = np.random.default_rng(0).integers(0, 255, SIZE, dtype=np.uint8)
    if states is None:
        states = np.full(points.shape[:2], State.LABELLED, np.int8)
    if slips is None:
        slips = np.zeros(len(points), np.int8)
    return Film(
        id="film",
        file="film.png",
        group="film",
        image=image,
        points_xy=points,
        states=states,
        slips=slips,
        view=0,
        to_image=np.eye(3),
        size=image.shape,
    )


def blob_film(point, sigma=5.0) -> Film:
    """A film with a bright spot at ``point``, which is corner L3.TR."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    image = 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))
    points, states = label_arrays(SCHEMA)
    points[2, 1], states[2, 1] = point, State.LABELLED
    return film_with(points, np.round(image).astype(np.uint8), states)


def centroid(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def rng(*seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(8))
def test_the_image_moves_with_its_corners(seed):
    moves = {"rotate_deg": 25.0, "scale": 0.25, "stretch": 0.3, "shift": 0.05, "flip": True}
    config = STILL.model_copy(update=moves)
    sample = augment(blob_film((91.3, 140.8)), INPUT_SIZE, config, rng(seed))
    (point,) = sample.points_xy[sample.states == State.LABELLED]
    assert np.linalg.norm(centroid(sample.image) - point) < 0.02
    np.testing.assert_allclose(apply_affine(sample.matrix, np.array([91.3, 140.8])), point, atol=1e-4)


def test_placing_shows_the_whole_film_unchanged_in_shape():
    sample = place(film_with(), INPUT_SIZE)
    assert sample.image.shape == INPUT_SIZE
    assert sample.image.dtype == sample.points_xy.dtype == np.float32
    # 192 / 300 < 128 / 170: the height decides.
    s = 192 / 300
    margin = (128 - s * 170) / 2
    np.testing.assert_allclose(sample.points_xy, vertebrae() * s + [margin, 0], rtol=1e-5)
    inside = slice(int(np.ceil(margin)) + 1, int(128 - margin) - 1)
    assert (sample.image[:, : int(margin) - 1] == 0).all()
    assert sample.image[:, inside].mean() == pytest.approx(127 / 255, abs=0.02)


def test_augmentation_without_changes_is_the_placing():
    still, placed = augment(film_with(), INPUT_SIZE, STILL, rng(0)), place(film_with(), INPUT_SIZE)
    np.testing.assert_allclose(still.matrix, placed.matrix, atol=1e-12)
    np.testing.assert_allclose(still.points_xy, placed.points_xy, atol=1e-4)
    assert np.abs(still.image - placed.image).max() <= 1 / 255


def test_equal_seeds_give_equal_samples_and_other_seeds_others():
    first, again, other = (augment(film_with(), INPUT_SIZE, STRONG, rng(4, s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.points_xy, again.points_xy)
    np.testing.assert_array_equal(first.states, again.states)
    assert not np.array_equal(first.matrix, other.matrix)


def test_augmentation_leaves_the_film_and_the_global_random_state_alone():
    film = film_with()
    image, points, states = film.image.copy(), film.points_xy.copy(), film.states.copy()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for seed in range(4):
        augment(film, INPUT_SIZE, STRONG, rng(seed))
    np.testing.assert_array_equal(film.image, image)
    np.testing.assert_array_equal(film.points_xy, points)
    np.testing.assert_array_equal(film.states, states)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def flips(film, seeds=20):
    """Samples of a flip alone, mirrored ones first and others second."""
    config = STILL.model_copy(update={"flip": True})
    samples = [augment(film, INPUT_SIZE, config, rng(seed)) for seed in range(seeds)]
    return [s for s in samples if s.matrix[0, 0] < 0], [s for s in samples if s.matrix[0, 0] > 0]


def test_after_a_flip_a_left_slip_is_a_right_one():
    mirrored, plain = flips(film_with(slips=np.array([0, 1, 2, UNKNOWN, 1], np.int8)))
    assert mirrored
    assert plain
    assert {tuple(sample.slips) for sample in plain} == {(0, 1, 2, UNKNOWN, 1)}
    assert {tuple(sample.slips) for sample in mirrored} == {(0, 2, 1, UNKNOWN, 2)}


def test_a_slip_whose_step_is_shifted_off_the_film_is_unknown():
    """Boxes of 30 px every 50 px from 30 on a film of 300 px: a shift of 40 % takes one or two off an end."""
    config = STILL.model_copy(update={"shift": 0.4})
    seen = set()
    for seed in range(30):
        sample = augment(film_with(), INPUT_SIZE, config, rng(seed))
        outside = sample.states == State.OUTSIDE
        steps = [outside[i, 2:].any() or outside[i + 1, :2].any() for i in range(4)]
        lost = [*steps, outside[4, 2:].any()]
        assert (sample.slips == np.where(lost, UNKNOWN, 0)).all()
        seen.add(tuple(sample.slips.tolist()))
    # The step of L1 is on a film without L1's superior corners; that of L4 goes with L5's.
    assert {tuple(5 * [0]), (0, 0, 0, 0, UNKNOWN), (0, 0, 0, UNKNOWN, UNKNOWN)} <= seen


def test_after_a_flip_the_left_corner_is_still_on_the_left():
    mirrored, plain = flips(film_with())
    assert mirrored
    assert plain
    for sample in (*mirrored, *plain):
        top_left, top_right, bottom_left, bottom_right = np.moveaxis(sample.points_xy, 1, 0)
        assert (top_left[:, 0] < top_right[:, 0]).all()
        assert (bottom_left[:, 0] < bottom_right[:, 0]).all()
        assert (top_left[:, 1] < bottom_left[:, 1]).all()


def test_a_flip_takes_the_state_of_a_corner_with_it():
    points, states = label_arrays(SCHEMA)
    points[:], states[:] = vertebrae(), State.LABELLED
    points[1, 2], states[1, 2] = np.nan, State.OUTSIDE  # L2.BL
    mirrored, plain = flips(film_with(points, states=states))
    assert np.argwhere(mirrored[0].states == State.OUTSIDE).tolist() == [[1, 3]]  # L2.BR
    assert np.argwhere(np.isnan(mirrored[0].points_xy[..., 0])).tolist() == [[1, 3]]
    assert np.argwhere(plain[0].states == State.OUTSIDE).tolist() == [[1, 2]]


def test_a_flipped_film_is_the_mirrored_film():
    mirrored, plain = flips(film_with())
    difference = np.abs(mirrored[0].image - plain[0].image[:, ::-1])
    assert difference.max() <= 2 / 255  # a grey level each way: sampling positions are rounded differently
    x, y = mirrored[0].points_xy[3, 0]
    np.testing.assert_allclose([128 - x, y], plain[0].points_xy[3, 1], atol=1e-4)


def test_corners_moved_off_the_image_are_outside_and_their_vertebra_absent():
    """A shift alone, upwards by more than 40 %: L1 leaves the image, L5 stays."""
    config = STILL.model_copy(update={"shift": 0.6})
    generators = (rng(seed) for seed in range(60))
    samples = [augment(film_with(), INPUT_SIZE, config, generator) for generator in generators]
    ups = [s for s in samples if s.matrix[1, 2] < -0.4 * 192 and abs(s.matrix[0, 2] - 9.6) < 30]
    assert ups
    for sample in ups:
        y = apply_affine(sample.matrix, vertebrae())[..., 1]
        off = y < 0
        assert off[0].all()
        assert (sample.states[off] == State.OUTSIDE).all()
        assert (sample.states[~off] == State.LABELLED).all()
        np.testing.assert_array_equal(np.isnan(sample.points_xy[..., 0]), off)
        np.testing.assert_array_equal(presence_target(sample.states), (~off).any(axis=1))
        assert presence_target(sample.states)[4] == 1


def test_states_that_were_not_labelled_stay_what_they_were():
    points, states = label_arrays(SCHEMAS["la_lumbar"])
    states[0], states[1] = State.OUTSIDE, State.UNLABELLED
    sample = augment(
        film_with(points, states=states), INPUT_SIZE, STRONG.model_copy(update={"flip": False}), rng(0)
    )
    np.testing.assert_array_equal(sample.states, states)
    assert np.isnan(sample.points_xy).all()


def test_marking_counts_only_labelled_corners_beyond_the_edge():
    points = vertebrae(1)  # x 50 and 110, y 30 and 60
    states = np.array([[State.LABELLED, State.LABELLED, State.UNLABELLED, State.LABELLED]], np.int8)
    new_points, new_states, count = mark_outside(points, states, (60, 109))
    assert count == 2
    assert new_states.tolist() == [[State.LABELLED, State.OUTSIDE, State.UNLABELLED, State.OUTSIDE]]
    assert np.isnan(new_points[0, [1, 3]]).all()
    assert (states == State.LABELLED).sum() == 3  # the arrays that came in are as they were
    on_the_edge = mark_outside(points, states, (60, 110))
    assert on_the_edge[2] == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_image_stays_between_zero_and_one(seed):
    image = augment(film_with(), INPUT_SIZE, STRONG, rng(seed)).image
    assert image.dtype == np.float32
    assert image.shape == INPUT_SIZE
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize(
    "change", [{"gamma": 0.5}, {"contrast": 0.5}, {"brightness": 0.3}, {"blur_px": 3.0}, {"noise": 0.2}]
)
def test_each_change_of_intensity_changes_the_image(change):
    image = np.random.default_rng(0).random((40, 30), dtype=np.float32)
    config = STILL.model_copy(update=change)
    assert max(np.abs(change_intensity(image, config, rng(seed)) - image).max() for seed in range(4)) > 0.05


def test_inversion_and_no_change_are_exact():
    image = np.random.default_rng(0).random((40, 30), dtype=np.float32)
    np.testing.assert_array_equal(change_intensity(image, STILL, rng(0)), image)
    inverted = change_intensity(image, STILL.model_copy(update={"invert": 1.0}), rng(0))
    np.testing.assert_array_equal(inverted, 1 - image)


@pytest.mark.parametrize("seed", range(6))
def test_a_cutout_blanks_one_rectangle_of_stated_size(seed):
    image = np.random.default_rng(0).random((200, 100), dtype=np.float32)
    changed = change_intensity(image, STILL.model_copy(update={"cutout": 1.0}), rng(seed))
    rows, columns = np.nonzero(changed != image)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert 0.05 * 200 - 1 <= height <= 0.25 * 200
    assert 0.05 * 100 - 1 <= width <= 0.25 * 100
    assert np.unique(changed[rows, columns]).size == 1


def test_the_random_affine_stays_within_its_ranges_about_the_centre():
    config = AugmentConfig(rotate_deg=10, scale=0.2, shift=0.05)
    centre = np.array([64.0, 96.0])
    for seed in range(50):
        matrix = random_affine(INPUT_SIZE, config, rng(seed))
        factor = np.sqrt(np.linalg.det(matrix[:2, :2]))
        angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert 0.8 <= factor <= 1.2
        assert abs(angle) <= 10
        np.testing.assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, factor**2 * np.eye(2), atol=1e-9)
        moved = apply_affine(matrix, centre) - centre
        assert (np.abs(moved) <= 0.05 * np.array([128, 192])).all()


def test_a_stretch_changes_height_against_width_and_keeps_the_area():
    config = AugmentConfig(rotate_deg=0, scale=0, stretch=0.2, shift=0)
    matrices = [random_affine(INPUT_SIZE, config, rng(seed)) for seed in range(50)]
    ratios = np.array([matrix[1, 1] / matrix[0, 0] for matrix in matrices])
    assert [np.linalg.det(matrix) for matrix in matrices] == pytest.approx([1] * 50)
    # 50 uniform draws all miss the lowest quarter of the range, or the highest, once in a million.
    assert 0.8 <= ratios.min() < 0.9
    assert 1.1 < ratios.max() <= 1.2


@pytest.fixture
def record_of(tmp_path):
    """Write an image and return its record with the given labels."""

    def write(image, points=None, states=None) -> Record:
        path = tmp_path / "film.png"
        cv2.imwrite(str(path), image)
        return Record("film", path, "case", points, states)

    return write


def test_a_shrunk_film_is_a_little_larger_than_the_network_sees_it(record_of):
    points, states = vertebrae() * 4, np.full((5, 4), State.LABELLED, np.int8)
    film = film_of_record(record_of(np.zeros((1213, 677), np.uint8), points, states), SCHEMA, INPUT_SIZE)
    # 1.25 * min(192 / 1213, 128 / 677) = 0.1979 of each side
    assert film.image.shape == (240, 134)
    assert film.size == (1213, 677)
    np.testing.assert_allclose(film.points_xy, points * [134 / 677, 240 / 1213], rtol=1e-5)
    np.testing.assert_allclose(film.labels().points_xy_image, points, atol=1e-3)


def test_a_small_film_is_not_resized(record_of):
    image = np.random.default_rng(0).integers(0, 255, (150, 99), dtype=np.uint8)
    film = film_of_record(record_of(image), SCHEMA, INPUT_SIZE)
    np.testing.assert_array_equal(film.image, image)
    np.testing.assert_array_equal(film.to_image, np.eye(3))
    assert (film.states == State.UNLABELLED).all()


def test_the_geometry_of_a_phase_scales_geometry_and_nothing_else():
    full = AugmentConfig(rotate_deg=8.0, scale=0.2, stretch=0.4, shift=0.1, gamma=0.3, noise=0.05)
    weak = full.with_geometry(0.25)
    quarter = {"rotate_deg": 2.0, "scale": 0.05, "stretch": 0.1, "shift": 0.025}
    assert weak == full.model_copy(update=quarter)


def test_corners_beyond_the_film_are_masked_and_reported_with_the_file(record_of, caplog):
    points, states = vertebrae(top=-40.0), np.full((5, 4), State.LABELLED, np.int8)  # L1 at y -40 and -10
    film = film_of_record(record_of(np.zeros(SIZE, np.uint8), points, states), SCHEMA, INPUT_SIZE)
    assert (film.states[0] == State.OUTSIDE).all()
    assert (film.states[1:] == State.LABELLED).all()
    assert "film.png: 4 corners" in caplog.text


@pytest.mark.parametrize("size", [(1213, 677), (3001, 1103), (500, 1501), (256, 128), (97, 89)])
def test_a_placed_record_maps_back_to_the_original_film(record_of, size):
    points = vertebrae() * [size[1] / SIZE[1], size[0] / SIZE[0]]
    states = np.full((5, 4), State.LABELLED, np.int8)
    film = film_of_record(
        record_of(np.zeros(size, np.uint8), points.astype(np.float32), states), SCHEMA, INPUT_SIZE
    )
    sample = place(film, INPUT_SIZE)
    back = apply_affine(np.linalg.inv(sample.matrix), sample.points_xy)
    assert np.abs(back - points).max() < 0.01


def test_local_contrast_is_that_of_scikit_image_and_shows_what_is_faint_in_the_dark():
    image = np.full((64, 64), 0.1, np.float32)
    image[20:30, 20:30], image[:, 48:] = 0.13, 0.9  # a faint square beside something bright
    changed = change_intensity(image, STILL.model_copy(update={"local_contrast": 1.0}), rng(0))
    np.testing.assert_allclose(changed, equalize_adapthist(image), rtol=0, atol=1e-6)
    assert changed[24, 24] - changed[40, 24] > 0.03
    assert changed.dtype == np.float32


def test_local_contrast_that_is_off_leaves_the_other_draws_alone():
    image = np.random.default_rng(1).random((40, 30), dtype=np.float32)
    seldom = STRONG.model_copy(update={"local_contrast": 0.5})
    drawn = [rng(seed).random() < 0.5 for seed in range(6)]
    assert set(drawn) == {True, False}
    for seed, evened in enumerate(drawn):
        generator = rng(seed)
        generator.random()  # the draw that decides
        first = equalize_adapthist(image).astype(np.float32) if evened else image
        np.testing.assert_array_equal(
            change_intensity(image, seldom, rng(seed)), change_intensity(first, STRONG, generator)
        )
