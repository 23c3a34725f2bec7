"""Figures of classes against values worked out by hand, and what cannot be measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
from one_prediction import a_prediction

from vertebra_kp.core.anatomy import SCHEMAS, SLIP_CLASSES, UNKNOWN, VIEWS
from vertebra_kp.data.exchange import films_of_predictions
from vertebra_kp.evaluation.classification import TARGETS, class_headlines, classification_figures
from vertebra_kp.inference.predictions import image_entry, write_predictions

# Six labelled levels; the rows are probabilities of normal, left, right, antero, retro.
TRUTH = np.array([0, 0, 0, 3, 3, 4])
PROBABILITIES = np.array(
    [
        [0.80, 0.00, 0.00, 0.15, 0.05],  # right
        [0.60, 0.00, 0.00, 0.10, 0.30],  # right
        [0.30, 0.00, 0.00, 0.50, 0.20],  # normal, called antero; normal comes second
        [0.20, 0.00, 0.00, 0.70, 0.10],  # right
        [0.55, 0.00, 0.00, 0.20, 0.25],  # antero, called normal; antero comes third
        [0.05, 0.00, 0.00, 0.40, 0.55],  # right
    ]
)


def test_figures_are_those_of_the_definitions():
    figures = classification_figures(TRUTH, PROBABILITIES, SLIP_CLASSES)
    assert figures["labelled"] == 6
    assert figures["counts"] == {"normal": 3, "left": 0, "right": 0, "antero": 2, "retro": 1}
    assert figures["top1"] == pytest.approx(4 / 6)
    assert figures["top2"] == pytest.approx(5 / 6)
    # F1 = 2 TP / (2 TP + FP + FN): normal 2, 1, 1; antero 1, 1, 1; retro 1, 0, 0.
    f1 = {"normal": 4 / 6, "antero": 2 / 4, "retro": 1.0}
    # Area: share of (class, rest) pairs in the right order. normal .8 .6 .3 against .2 .55 .05: 8 of 9.
    # antero .7 .2 against .15 .1 .5 .4: 4 and 2 of 4. retro .55 against .05 .3 .2 .1 .25: all 5.
    auc = {"normal": 8 / 9, "antero": 6 / 8, "retro": 1.0}
    assert figures["macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    assert figures["roc_auc"] == pytest.approx(sum(auc.values()) / 3)
    for name in SLIP_CLASSES:
        assert figures["per_class"][name] == {
            "f1": pytest.approx(f1[name]) if name in f1 else None,
            "roc_auc": pytest.approx(auc[name]) if name in auc else None,
        }
    zero = dict.fromkeys(SLIP_CLASSES, 0)
    assert figures["confusion"] == {
        "normal": zero | {"normal": 2, "antero": 1},
        "left": zero,
        "right": zero,
        "antero": zero | {"normal": 1, "antero": 1},
        "retro": zero | {"retro": 1},
    }
    json.dumps(figures)


def test_labels_that_nobody_told_change_nothing_wherever_they_stand():
    """Two films of four levels, of which two levels are unknown, whatever is said of them."""
    truth = np.full(8, UNKNOWN)
    probabilities = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (8, 1))
    places = [0, 2, 3, 4, 6, 7]
    truth[places], probabilities[places] = TRUTH, PROBABILITIES
    masked = classification_figures(truth.reshape(2, 4), probabilities.reshape(2, 4, 5), SLIP_CLASSES)
    assert masked == classification_figures(TRUTH, PROBABILITIES, SLIP_CLASSES)


def test_a_tie_counts_as_the_first_class():
    figures = classification_figures(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]]), VIEWS)
    assert figures["top1"] == 0.5
    assert figures["roc_auc"] == 0.5


def test_one_class_alone_has_an_f1_and_no_roc_curve():
    figures = classification_figures(np.zeros(3, int), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), VIEWS)
    assert figures["top1"] == pytest.approx(2 / 3)
    assert figures["macro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))  # AP: 2 right, 1 missed
    assert figures["roc_auc"] is None
    assert figures["per_class"] == {
        "AP": {"f1": pytest.approx(0.8), "roc_auc": None},
        "LA": {"f1": None, "roc_auc": None},
    }
    assert figures["confusion"] == {"AP": {"AP": 2, "LA": 1}, "LA": {"AP": 0, "LA": 0}}


def test_without_any_label_nothing_is_measurable():
    figures = classification_figures(np.full((2, 3), UNKNOWN), np.full((2, 3, 5), 0.2), SLIP_CLASSES)
    assert figures["labelled"] == 0
    assert {figures[name] for name in ("top1", "top2", "macro_f1", "roc_auc")} == {None}
    assert set(figures["counts"].values()) == {0}


@pytest.mark.parametrize(
    ("classes", "told"), [(2, set()), (3, {"top2"}), (5, {"top2"}), (6, {"top5"}), (9, {"top5"})]
)
def test_the_top_five_are_told_of_more_than_five_classes_and_the_top_two_of_fewer(classes, told):
    names = tuple("abcdefghi"[:classes])
    rng = np.random.default_rng(3)
    truth, probabilities = rng.integers(0, classes, 200), rng.dirichlet(np.ones(classes), 200)
    figures = classification_figures(truth, probabilities, names)
    assert {name for name in figures if name.startswith("top")} == {"top1"} | told
    for name in told:
        k = int(name[3:])
        rank = (probabilities > probabilities[np.arange(200), truth][:, None]).sum(axis=1)
        assert figures[name] == pytest.approx((rank < k).mean())


def test_headlines_are_named_by_their_target():
    figures = classification_figures(TRUTH, PROBABILITIES, SLIP_CLASSES)
    headlines = class_headlines({"mre_px": 3.0, "slip": figures})
    assert headlines == {f"slip_{name}": figures[name] for name in ("top1", "macro_f1", "roc_auc")}
    assert class_headlines({"mre_px": 3.0}) == {}
    assert TARGETS == ("view", "slip", "image_class")


def test_classes_are_named_in_predictions_that_are_read_back(tmp_path):
    schema = SCHEMAS["la_lumbar"]
    points = np.random.default_rng(1).uniform(1, 60, (6, 4, 2)).astype(np.float32)
    points[~schema.exists] = np.nan
    plain = a_prediction(points)
    classified = replace(plain, view_probabilities=np.array([0.03, 0.97]), slip_probabilities=PROBABILITIES)
    images = [replace(p, file=str(tmp_path / f"{i}.png")) for i, p in enumerate((classified, plain))]
    write_predictions([image_entry(image, schema) for image in images], tmp_path)
    told, without = json.loads((tmp_path / "predictions.json").read_text())["films"]
    assert told["classified_view"] == {"class": "LA", "probability": 0.97}
    slips = [(level["slip"]["class"], level["slip"]["probability"]) for level in list(told["levels"].values())[:5]]
    assert slips == [("normal", 0.8), ("normal", 0.6), ("antero", 0.5), ("antero", 0.7), ("normal", 0.55)]
    assert "slip" not in told["levels"]["S1"]  # which stands on nothing that the film is asked about
    assert "classified_view" not in without
    assert not any("slip" in level for level in without["levels"].values())
    read = films_of_predictions(tmp_path / "predictions.json", tmp_path)
    np.testing.assert_allclose(read[0].points_xy_image, points, atol=1e-3)
    np.testing.assert_array_equal(read[0].points_xy_image, read[1].points_xy_image)
