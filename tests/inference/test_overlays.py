"""Pictures show what they claim, where they claim it."""

from dataclasses import replace

import numpy as np
import pytest

from vertebra_kp.core.anatomy import CORNERS, SCHEMAS
from vertebra_kp.inference.overlays import (
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    FilmView,
    attention_panel,
    draw_vertebrae,
    film_grid,
    film_panel,
    overlay_heatmaps,
    overlay_original,
)
from vertebra_kp.inference.prediction import Prediction

LATERAL = SCHEMAS["la_lumbar"]
SIZE = (256, 128)


def column_of_vertebrae(schema=LATERAL, size=SIZE) -> np.ndarray:
    """Upright boxes, one below the other, as points ``[levels, 4, 2]``."""
    height, width = size
    step = height / (schema.num_levels + 1)
    points = np.full((schema.num_levels, len(CORNERS), 2), np.nan)
    for i in range(schema.num_levels):
        left, right, top, bottom = 0.35 * width, 0.6 * width, (i + 0.6) * step, (i + 1.3) * step
        points[i] = [(left, top), (right, top), (left, bottom), (right, bottom)]
    points[~schema.exists] = np.nan
    return points


def view_of(schema=LATERAL, size=SIZE, **other) -> FilmView:
    """``other`` are fields of the prediction."""
    rng = np.random.default_rng(3)
    points = column_of_vertebrae(schema, size)
    tokens = (size[0] // 32) * (size[1] // 32)
    predicted = {
        "file": "film-17.png",
        "size": size,
        "points_xy_image": points + 2.0,
        "covariances": np.tile(np.eye(2), (schema.num_levels, 4, 1, 1)),
        "scores": np.ones((schema.num_levels, 4)),
        "presence": np.full(schema.num_levels, 0.9),
        "matrix": np.eye(3),
        "image": rng.integers(0, 255, size, dtype=np.uint8),
        "heatmaps": rng.random((schema.num_channels, size[0] // 2, size[1] // 2), dtype=np.float32),
        "attention": {"F4": [rng.random((8, tokens, tokens), dtype=np.float32)]},
    }
    return FilmView("film-17", Prediction(**predicted | other), points, 2.83)


def centre_of_colour(image: np.ndarray) -> tuple[float, float]:
    """Centre of the brightness of a picture on black, in continuous coordinates."""
    weight = image.sum(axis=2).astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()


def test_a_vertebra_is_drawn_where_its_points_say_not_half_a_pixel_beside():
    black = np.zeros((64, 48, 3), np.uint8)
    points = np.array([[(10.3, 20.6), (33.3, 20.6), (10.3, 40.6), (33.3, 40.6)]])
    drawn = draw_vertebrae(black, points, ["L1"], (255, 255, 255), names=False, thickness=1)
    # By symmetry the ink's centre is the box's: (21.8, 30.6). Drawing at the raw coordinates moves it by 0.5.
    assert centre_of_colour(drawn) == pytest.approx((21.8, 30.6), abs=0.1)


def test_corners_are_joined_around_the_body_and_never_across_it():
    black = np.zeros((64, 64, 3), np.uint8)
    points = np.array([[(10.5, 10.5), (50.5, 10.5), (10.5, 50.5), (50.5, 50.5)]])
    drawn = draw_vertebrae(black, points, ["L1"], (255, 255, 255), names=False, thickness=1)
    for row, column in ((10, 30), (50, 30), (30, 10), (30, 50)):
        assert drawn[row, column].min() > 200
    assert not drawn[15:46, 15:46].any()


def test_the_sacrum_is_a_line():
    black = np.zeros((64, 64, 3), np.uint8)
    points = np.array([[(10.5, 30.5), (50.5, 30.5), (np.nan, np.nan), (np.nan, np.nan)]])
    drawn = draw_vertebrae(black, points, ["S1"], (255, 255, 255), names=False, thickness=1)
    assert drawn[30, 30].min() > 200
    assert not drawn[:27].any()
    assert not drawn[34:].any()


def test_levels_that_are_not_present_leave_the_film_as_it_was_and_the_input_is_never_written_on():
    film = np.zeros((256, 128, 3), np.uint8)
    points = column_of_vertebrae()
    present = np.array([True, False, False, False, False, False])
    drawn = draw_vertebrae(film, points, LATERAL.levels, PREDICTED_COLOUR, present=present)
    end_of_first = int(points[0, 2, 1]) + 12
    assert drawn[:end_of_first].any()
    assert not drawn[end_of_first:].any()
    assert not film.any()


def test_a_name_that_would_leave_the_film_stands_on_the_other_side():
    black = np.zeros((128, 128, 3), np.uint8)
    points = np.array([[(100.0, 40.0), (126.0, 40.0), (100.0, 80.0), (126.0, 80.0)]])
    plain, named = (draw_vertebrae(black, points, ["L1"], (255, 255, 255), names=names) for names in (False, True))
    rows, columns = np.nonzero((plain != named).any(axis=2))
    assert columns.size
    assert columns.max() < 100
    assert 40 < rows.mean() < 80


def test_a_heatmap_blob_shines_at_its_place_in_the_film():
    height, width, stride = 96, 64, 4
    x, y = 25.0, 53.0
    rows, columns = np.mgrid[: height // stride, : width // stride] + 0.5
    blob = np.exp(-((columns - x / stride) ** 2 + (rows - y / stride) ** 2) / (2 * 1.7**2))
    picture = overlay_heatmaps(np.zeros((height, width), np.uint8), blob[None] / blob.sum(), [0])
    assert centre_of_colour(picture) == pytest.approx((x, y), abs=0.3)


def test_heatmaps_are_shown_alike_whether_their_sum_or_their_peak_is_one():
    rng = np.random.default_rng(0)
    film = rng.integers(0, 255, (64, 32), dtype=np.uint8)
    peak_one = rng.random((LATERAL.num_channels, 16, 8), dtype=np.float32)
    sum_one = peak_one / peak_one.sum(axis=(1, 2), keepdims=True)
    levels = [level for level, _ in LATERAL.channels]
    difference = overlay_heatmaps(film, peak_one, levels).astype(int) - overlay_heatmaps(film, sum_one, levels)
    assert np.abs(difference).max() <= 1


def test_an_empty_heatmap_shows_the_plain_film():
    film = np.arange(64 * 32, dtype=np.uint8).reshape(64, 32)
    picture = overlay_heatmaps(film, np.zeros((3, 16, 8), np.float32), [0, 0, 0])
    assert np.array_equal(picture, np.repeat(film[..., None], 3, axis=2))


@pytest.mark.parametrize("name", SCHEMAS)
def test_corners_of_a_level_share_a_hue_and_neighbouring_levels_differ(name):
    schema = SCHEMAS[name]
    colours, levels = [], [level for level, _ in schema.channels]
    for k in range(schema.num_channels):
        heatmaps = np.zeros((schema.num_channels, 4, 4), np.float32)
        heatmaps[k] = 1.0
        colours.append(overlay_heatmaps(np.zeros((4, 4), np.uint8), heatmaps, levels)[0, 0].astype(int))
    for (level, _), colour, (next_level, _), next_colour in zip(
        schema.channels, colours, schema.channels[1:], colours[1:], strict=False
    ):
        if level == next_level:
            assert (colour == next_colour).all()
        else:
            assert np.abs(colour - next_colour).max() > 60


@pytest.mark.parametrize(("name", "size"), [("la_lumbar", (256, 128)), ("ap_whole_spine", (512, 192))])
def test_panels_are_about_512_high_and_show_truth_and_prediction(name, size):
    panel = film_panel(view_of(SCHEMAS[name], size), SCHEMAS[name])
    assert panel.dtype == np.uint8
    assert 512 <= panel.shape[0] <= 600
    assert panel.shape[1] >= 2 * 512 * size[1] / size[0]
    right = panel[-512:, panel.shape[1] // 2 :].reshape(-1, 3).astype(int)
    for colour in (TRUE_COLOUR, PREDICTED_COLOUR):
        assert (np.abs(right - colour).max(axis=1) < 10).sum() > 100


def test_a_film_without_labels_and_heatmaps_still_has_a_panel():
    bare = replace(view_of(heatmaps=None, attention=None), true_points_xy=None, error_px=None)
    panel = film_panel(bare, LATERAL).reshape(-1, 3).astype(int)
    assert (np.abs(panel - TRUE_COLOUR).max(axis=1) < 10).sum() == 0


def test_a_grid_holds_every_panel_unchanged_and_in_order():
    panels = [np.full((20 + i, 30, 3), 50 * (i + 1), np.uint8) for i in range(3)]
    grid = film_grid(panels, 2)
    for i, panel in enumerate(panels):
        rows, columns = np.nonzero((grid == 50 * (i + 1)).all(axis=2))
        assert rows.size == panel.shape[0] * panel.shape[1]
        assert (rows.min() > 22, columns.min() > 30) == ((i == 2), (i == 1))


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ValueError, match="panels is empty"):
        film_grid([], 4)


def test_attention_shines_where_the_query_looks():
    rows, columns = SIZE[0] // 32, SIZE[1] // 32
    at = np.zeros((1, rows * columns, rows * columns), np.float32)
    at[:, :, 6 * columns + 0] = 1.0  # every query looks at row 6, first column
    panel = attention_panel(view_of(image=np.zeros(SIZE, np.uint8), attention={"F4": [at]}), LATERAL).astype(int)
    # Yellow ink (the top of the colour map; neither text nor frame, which are grey) lies in one place per map.
    yellow = panel[..., 0] - panel[..., 2] > 60
    cell = panel.shape[1] // 2  # two columns: the mean, and the only head
    for left in (0, cell):
        part = yellow[:, left : left + cell]
        assert part.any()
        assert np.nonzero(part)[1].mean() < cell / 2


def test_attention_of_another_size_is_named_in_the_error():
    view = view_of(attention={"F4": [np.zeros((8, 7, 7))]})
    with pytest.raises(ValueError, match=r"must be \[heads, 32, 32\] .* got \[8, 7, 7\]"):
        attention_panel(view, LATERAL)


def test_attention_of_a_network_without_neck_is_refused():
    with pytest.raises(ValueError, match="depth >= 1"):
        attention_panel(view_of(attention={}), LATERAL)


def test_the_overlay_keeps_the_size_of_the_film_in_grey_and_in_colour():
    points = column_of_vertebrae(size=(300, 170))
    for shape in ((300, 170), (300, 170, 3)):
        film = np.zeros(shape, np.uint8)
        assert overlay_original(film, points, np.ones(6), LATERAL).shape == (300, 170, 3)


def test_the_error_ellipse_holds_ninety_percent():
    points = np.full((6, 4, 2), np.nan)
    points[0, 0] = (200.5, 150.5)
    covariances = np.full((6, 4, 2, 2), np.nan)
    covariances[0, 0] = np.diag([400.0, 100.0])  # standard deviations 20 px along x, 10 px along y
    film = np.zeros((300, 400), np.uint8)
    plain, with_ellipse = (
        overlay_original(film, points, np.ones(6), LATERAL, given) for given in (None, covariances)
    )
    rows, columns = np.nonzero((plain != with_ellipse).any(axis=2))
    # A Gaussian leaves exp(-r^2 / 2) outside r standard deviations: 10 % at r = sqrt(2 ln 10) = 2.146.
    r = np.sqrt(2 * np.log(10))
    assert np.ptp(columns) / 2 == pytest.approx(20 * r, abs=2)
    assert np.ptp(rows) / 2 == pytest.approx(10 * r, abs=2)


def test_a_tilted_error_ellipse_leans_the_way_of_its_covariance():
    points = np.full((6, 4, 2), np.nan)
    points[0, 0] = (150.5, 150.5)
    covariances = np.full((6, 4, 2, 2), np.nan)
    covariances[0, 0] = [[400.0, 300.0], [300.0, 400.0]]  # x and y grow together: towards the lower right
    film = np.zeros((300, 300), np.uint8)
    drawn = overlay_original(film, points, np.ones(6), LATERAL, covariances)
    plain = overlay_original(film, points, np.ones(6), LATERAL)
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    assert np.corrcoef(rows, columns)[0, 1] > 0.5
