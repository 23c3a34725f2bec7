"""From any framing to named corners: finder and crop, with the maps that a perfect network would give."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference.test_spine_decoding import maps_of
from vertebra_kp.config.network import BackboneConfig, DecoderConfig, NeckConfig, NetworkConfig
from vertebra_kp.config.spine import SourcesTrainConfig, SpineConfig, SpineSourceConfig
from vertebra_kp.core.anatomy import LEVELS, SCHEMAS, VIEWS
from vertebra_kp.core.geometry import compose, rotate, translate
from vertebra_kp.data.borders import content_box
from vertebra_kp.data.spine_films import Vertebrae
from vertebra_kp.inference.predictions import image_entry
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.torch_stages import TorchSpine
from vertebra_kp.models.spine_network import SpineNetwork

WHOLE = SCHEMAS["ap_whole_spine"]
NETWORK = NetworkConfig(
    backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
    neck=NeckConfig(depth=0),
    decoder=DecoderConfig(channels=[16, 16, 16], output_stride=4),
)
CONFIG = SpineConfig(
    name="test", sources=[SpineSourceConfig(source="centres")], network=NETWORK, train=SourcesTrainConfig(steps=1)
)


def spine_in(height: int, first: str = "T1", count: int = 17, margin: float = 0.15) -> Vertebrae:
    step = height * (1 - 2 * margin) / count
    along = height * margin + step * (np.arange(count) + 0.5)
    centres = np.stack([300 + 40 * np.sin(along / height * 5), along], axis=1)
    half = np.array([[-0.6, -0.38], [0.6, -0.38], [-0.6, 0.38], [0.6, 0.38]]) * step
    return Vertebrae(centres, centres[:, None] + half, LEVELS.index(first) + np.arange(count))


class Perfect(SpinePredictor):
    """Sees what is on the image, in whatever frame it is shown."""

    def __init__(self, vertebrae: Vertebrae, view: str = "AP") -> None:
        torch.manual_seed(0)
        super().__init__(TorchSpine(SpineNetwork(NETWORK)), CONFIG, 0)
        self.vertebrae, self.seen_view = vertebrae, view

    def _maps(self, image, placement, size, *, mirrored=False):
        view = np.array([one == self.seen_view for one in VIEWS], dtype=float)
        return maps_of(self.vertebrae.moved(placement), size, view)


def noise(height: int, width: int = 600) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "first", "count", "margin"),
    [(1500, "T1", 17, 0.05), (1800, "T1", 17, 0.3), (900, "L1", 5, 0.1), (1200, "T8", 10, 0.08)],
    ids=["whole spine", "whole body", "lumbar", "thoracolumbar"],
)
def test_any_framing_gives_the_named_corners_of_the_original_image(height, first, count, margin):
    vertebrae = spine_in(height, first, count, margin)
    found = Perfect(vertebrae).predict(noise(height))
    rows = [WHOLE.levels.index(LEVELS[place]) for place in vertebrae.levels]
    assert np.flatnonzero(found.presence >= 0.5).tolist() == rows
    step = np.median(vertebrae.steps)
    # A cell of the corner network is a seventh of a step.
    assert np.linalg.norm(found.points_xy_image[rows] - vertebrae.corners, axis=-1).max() < 0.08 * step
    assert found.doubts == ()
    absent = np.setdiff1d(np.arange(17), rows)
    assert np.isnan(found.points_xy_image[absent]).all()


def test_a_turned_image_gives_turned_corners():
    upright = spine_in(1500, margin=0.12)
    turned = upright.moved(rotate(15, (300, 750)))
    found = Perfect(turned).predict(noise(1500))
    assert np.linalg.norm(found.points_xy_image - turned.corners, axis=-1).max() < 0.08 * np.median(turned.steps)


def test_flat_borders_are_cut_off_before_the_finder_looks():
    image = np.full((1400, 1200), 90, np.uint8)
    image[100:1300, 400:1000] = noise(1200)
    assert content_box(image) == (100, 400, 1300, 1000)
    assert content_box(np.full((50, 40), 7, np.uint8)) == (0, 0, 50, 40)
    vertebrae = spine_in(1200).moved(compose(translate(400, 100)))
    found = Perfect(vertebrae).predict(image)
    assert np.linalg.norm(found.points_xy_image - vertebrae.corners, axis=-1).max() < 0.08 * np.median(
        vertebrae.steps
    )


def test_an_image_without_a_spine_is_said_not_measured():
    nothing = Vertebrae(np.empty((0, 2)), np.empty((0, 4, 2)), np.empty(0, dtype=int))
    found = Perfect(nothing).predict(noise(800))
    assert found.doubts == ("spine not found",)
    assert (found.presence == 0).all()


def test_another_view_is_said_not_measured():
    found = Perfect(spine_in(1500), view="LA").predict(noise(1500))
    assert found.doubts == ("view",)
    assert np.isnan(found.points_xy_image).all()


def test_predictions_hold_doubts_and_no_corners_of_absent_vertebrae():
    found = Perfect(spine_in(900, "L1", 5)).predict(noise(900))
    entry = image_entry(found, WHOLE)
    json.dumps(entry, allow_nan=False)
    assert entry["doubts"] == []
    assert entry["names_probability"] > 0.5
    assert entry["levels"]["T1"] == {"presence": 0.0, "corners": {}, "scores": {}, "covariances": {}}
    assert set(entry["levels"]["L3"]["corners"]) == {"TL", "TR", "BL", "BR"}


def test_a_spine_that_is_lost_inside_the_image_is_doubted():
    found = Perfect(spine_in(1500, "T1", 8, 0.25)).predict(noise(1500))
    assert "ends inside" in found.doubts


def test_a_pin_moves_all_names():
    vertebrae = spine_in(1200, "T8", 9)
    x, y = vertebrae.centres[-1]
    pinned = Perfect(vertebrae)
    pinned.pin = ("L5", np.array([x, y]))
    found = pinned.predict(noise(1200))
    assert np.flatnonzero(found.presence >= 0.5).tolist() == list(range(8, 17))  # T9 to L5 in place of T8 to L4
    with pytest.raises(ValueError, match="level must be one of T1"):
        pinned.with_pin("C3", (x, y))


class Reader:
    """A level network that sees every vertebra a level lower than it is."""

    def __init__(self, vertebrae: Vertebrae, sure: float) -> None:
        self.vertebrae, self.sure = vertebrae, sure

    def evidence(self, image: np.ndarray, centres: np.ndarray) -> np.ndarray:
        told = np.full((len(centres), len(LEVELS)), (1 - self.sure) / (len(LEVELS) - 1))
        nearest = np.linalg.norm(centres[:, None] - self.vertebrae.centres, axis=-1).argmin(axis=1)
        told[np.arange(len(centres)), self.vertebrae.levels[nearest] + 1] = self.sure
        return np.log(told)


class Unsure(Perfect):
    """Sees where vertebrae are, and hardly which."""

    def _maps(self, *arguments, **options):
        maps = super()._maps(*arguments, **options)
        return replace(maps, levels=maps.levels * 0.05)


def test_a_level_network_names_what_was_found():
    vertebrae = spine_in(1200, "T8", 8)
    predictor = Unsure(vertebrae)
    assert LEVELS[predictor.predict(noise(1200)).names.levels[0]] == "T8"
    predictor.level_readers = [Reader(vertebrae, 0.9)]
    assert LEVELS[predictor.predict(noise(1200)).names.levels[0]] == "T9"
