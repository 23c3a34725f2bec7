"""An ensemble: the members' probabilities averaged, and networks that do not fit together refused."""

import pytest
import torch
from tiny_job import ONE_PROCESS, make_run, thin_efficientnet, tiny_config

from vertebra_kp.inference.checkpoint import save_checkpoint
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import CheckpointError
from vertebra_kp.models import library
from vertebra_kp.models.codec import HeatmapCodec
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.losses import to_heatmaps
from vertebra_kp.models.network import VertebraNetwork
from vertebra_kp.training.state import checkpoint_of


@pytest.fixture(autouse=True)
def thin(monkeypatch):
    monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)


def member(seed: int, config=None):
    torch.manual_seed(seed)
    config = config or tiny_config(classification={"targets": ["view", "slip"]})
    return VertebraNetwork(config.network, config.data.keypoint_schema, load_weights=False).eval()


@torch.inference_mode()
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_members_probabilities_are_averaged(loss):
    one, two, film = member(0), member(1), torch.rand(2, 1, 64, 64)
    both = Ensemble([one, two], loss)(film)
    outputs = one(film), two(film)
    expected = sum(to_heatmaps(o.heatmap_logits, loss) for o in outputs) / 2
    torch.testing.assert_close(to_heatmaps(both.heatmap_logits, loss), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        both.presence_logits.sigmoid(), sum(o.presence_logits.sigmoid() for o in outputs) / 2
    )
    for target in ("view", "slip"):
        expected = sum(o.class_logits[target].softmax(-1) for o in outputs) / 2
        torch.testing.assert_close(both.class_logits[target].softmax(-1), expected)


@torch.inference_mode()
def test_where_members_disagree_the_corner_is_less_sure():
    codec = HeatmapCodec(2, 1.5)
    here, there = (codec.encode(torch.tensor([[[x, 30.0]]]), (32, 32)) for x in (30.0, 36.0))
    alone, both = codec.decode(here), codec.decode((here + there) / 2)
    assert both.covariance[0, 0, 0, 0] > 1.5 * alone.covariance[0, 0, 0, 0]


def checkpoint(path, **changes):
    config = tiny_config()
    if changes:
        config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    _, state = make_run(config)
    saved = checkpoint_of(state, config, ONE_PROCESS)
    save_checkpoint(saved, path)
    return path


def test_members_are_loaded_and_those_that_do_not_fit_are_refused(tmp_path):
    first, second = checkpoint(tmp_path / "a.pt"), checkpoint(tmp_path / "b.pt")
    predictor = load(first, "cpu", members=[second])
    assert len(predictor.network.members) == 2
    assert not predictor.network.training
    wide = checkpoint(tmp_path / "c.pt", input_size=(64, 96))
    with pytest.raises(CheckpointError, match=r"c.pt: data.input_size is not that of .*a.pt"):
        load(first, "cpu", members=[wide])
