"""Every choice of network is selected by config alone: each trains two steps through the command line."""

import json

import pytest
from network_rows import BACKBONES, DECODERS, PARTS, RESNET50_FPN, TINY
from tiny_job import thin_efficientnet

from vertebra_kp.cli.main import main
from vertebra_kp.models import library

SCHEDULES = {
    "frozen by number": ["train.phases.0.freeze_stages=3"],
    "frozen from the end": ["train.phases.0.freeze_stages=-2"],
    "frozen by name": ["train.phases.0.freeze_stages=[stem, stage2..stage4]"],
    "frozen parts": ["train.phases.0.freeze=[neck, decoder]"],
    "slower backbone": ["train.phases.0.backbone_lr=1e-4", "train.phases.0.layer_decay=0.8"],
}
ROWS = {
    **{f"backbone {name}": settings for name, settings in BACKBONES.items()},
    **{f"decoder {name}": settings for name, settings in DECODERS.items()},
    **PARTS,
    **SCHEDULES,
    "resnet50 fpn": RESNET50_FPN,
}
FAST = ("decoder fpn", "queries", "classes, average")  # the others run with make test-slow


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(n, s, id=n, marks=() if n in FAST else pytest.mark.slow) for n, s in ROWS.items()],
)
def test_two_steps_of_every_row_through_the_command_line(name, settings, tmp_path, monkeypatch):
    if not name.startswith("backbone"):
        monkeypatch.setattr(library, "efficientnet_v2_s", thin_efficientnet)
    command = ["train", "--config", "quickstart", "--run-dir", str(tmp_path / "run")]
    assert main([*command, "--set", *TINY, *settings]) == 0
    report = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert report["steps"] == 2
    assert report["validation"]["mre_px"] > 0
