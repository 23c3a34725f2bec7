"""First-order propagation against drawn corners and a closed form."""

import numpy as np
import pytest

from vertebra_kp.core.anatomy import SCHEMAS
from vertebra_kp.data.phantom import draw_film
from vertebra_kp.evaluation.uncertainty.propagate import standard_error
from vertebra_kp.measures import Spine, measure


# discs must be high beside the noise: a length is never below 0, however little is left of it
@pytest.mark.parametrize(
    ("name", "size"), [("la_lumbar", (800, 400)), ("ap_lumbar", (800, 400)), ("la_whole_spine", (3000, 1200))]
)
def test_the_standard_error_is_the_spread_of_measures_of_drawn_corners(name, size):
    schema = SCHEMAS[name]
    film = draw_film(schema, "standard", 3, 0, size)
    spine = Spine(schema, film.points_xy_image, size, film.spacing_mm, film.anterior_side)
    rng = np.random.default_rng(0)
    root = rng.normal(0, 0.4, (*film.states.shape, 2, 2))
    covariances = root @ np.swapaxes(root, -1, -2)
    drawn = film.points_xy_image + np.einsum(
        "...ab,n...b->n...a", root, rng.normal(size=(4000, *film.states.shape, 2))
    )
    for measurement in measure(spine):
        if measurement.value is None:
            continue
        spread = measurement.formula(drawn).std()
        expected = standard_error(measurement, spine.points_xy_image, covariances)
        assert expected == pytest.approx(spread, rel=0.1), measurement


def test_an_endplate_angle_has_the_error_of_the_rule_of_thumb():
    """81 degrees times sigma over the width: the noise of two ends of one line."""
    schema = SCHEMAS["la_lumbar"]
    points = np.full((6, 4, 2), np.nan)
    points[5, 0], points[5, 1] = (100, 200), (300, 200)
    slope = next(m for m in measure(Spine(schema, points, anterior_side="left")) if m.name == "sacral_slope")
    covariances = np.broadcast_to(np.eye(2) * 3.0**2, (6, 4, 2, 2))
    assert standard_error(slope, points, covariances) == pytest.approx(np.degrees(np.sqrt(2)) * 3 / 200)


def test_what_was_not_measured_has_no_error():
    points = np.full((6, 4, 2), np.nan)
    nothing = measure(Spine(SCHEMAS["la_lumbar"], points, anterior_side="left"))[0]
    with pytest.raises(ValueError, match=r"lumbar_lordosis L1-S1 has no value: L1.TL is not visible"):
        standard_error(nothing, points, np.zeros((6, 4, 2, 2)))
