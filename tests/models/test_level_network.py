"""The level network: rows in, levels out; its loss asks for the right path among all."""

import numpy as np
import pytest
import torch

from vertebra_kp.config.network import BackboneConfig, NeckConfig
from vertebra_kp.config.spine import LevelConfig, LevelNetworkConfig, SourcesTrainConfig, SpineSourceConfig
from vertebra_kp.core.anatomy import LEVELS
from vertebra_kp.models.level_network import OUTSIDE, LevelNetwork, LevelTargets, level_loss, path_scores

CONFIG = LevelConfig(
    name="test",
    sources=[SpineSourceConfig(source="centres")],
    network=LevelNetworkConfig(
        backbone=BackboneConfig(name="timm/tf_efficientnet_lite0"),
        channels=8,
        encoder=NeckConfig(depth=1, width=16, heads=2),
    ),
    train=SourcesTrainConfig(steps=1),
)


def test_every_row_has_the_probabilities_of_all_levels_however_many_rows_there_are():
    network = LevelNetwork(CONFIG).eval()
    for rows in (24, 28):
        with torch.no_grad():
            told = network(torch.rand(2, 1, rows * 24, 192), torch.ones(2, rows, dtype=torch.bool))
        assert told.shape == (2, rows, len(LEVELS))
        torch.testing.assert_close(told.exp().sum(dim=-1), torch.ones(2, rows))


def test_where_vertebrae_are_makes_a_difference():
    network, image = LevelNetwork(CONFIG).eval(), torch.rand(1, 1, 576, 192)
    few = torch.zeros(1, 24, dtype=torch.bool)
    few[:, 3:9] = True
    with torch.no_grad():
        assert not torch.allclose(network(image), network(image, few))


def test_scores_of_paths_are_the_sums_along_them():
    rng = np.random.default_rng(0)
    rows, places = 6, len(LEVELS)
    evidence = np.log(rng.dirichlet(np.ones(places), (2, rows)))
    found = np.array([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], dtype=bool)
    scores = path_scores(torch.from_numpy(evidence), torch.from_numpy(found)).numpy()
    assert scores.shape == (2, rows + places - 1)
    for image in range(2):
        for k, first in enumerate(range(1 - rows, places)):
            along = [
                evidence[image, row, first + row] if 0 <= first + row < places else OUTSIDE
                for row in np.flatnonzero(found[image])
            ]
            assert scores[image, k] == pytest.approx(sum(along) / np.sqrt(len(along)))


def test_the_loss_is_least_for_the_right_path():
    level = LEVELS.index("C5")
    found = torch.ones(1, 24, dtype=torch.bool)
    found[:, :6] = False
    logits = torch.zeros(1, 24, len(LEVELS))
    rows = torch.arange(24)
    inside = rows + level - 6 < len(LEVELS)
    logits[0, rows[inside], (rows + level - 6).clamp(min=0)[inside]] = 8.0
    told = logits.log_softmax(dim=-1)
    losses = [
        float(level_loss(told, LevelTargets(found, torch.tensor([level - 6 + shift])))["total"])
        for shift in (-1, 0, 1)
    ]
    assert losses[1] < 0.1 < min(losses[0], losses[2])
    # Rows above the first vertebra count nowhere, whatever they show.
    other = told.clone()
    other[:, :6] = torch.rand(1, 6, len(LEVELS)).log_softmax(dim=-1)
    at = LevelTargets(found, torch.tensor([level - 6]))
    torch.testing.assert_close(level_loss(other, at)["total"], level_loss(told, at)["total"])
