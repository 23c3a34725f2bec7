"""Images, and all that the commands make of them with a thin network: files to damage, runs to kill.

The images are of the source ``csv``; three folds train and validate a network of two phases.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from commands import run
from tiny_job import thin_efficientnet, tiny_config

from vertebra_kp.config.io import save_config
from vertebra_kp.models import library

SCHEMA = "la_lumbar"
BACKBONE = {"name": "timm/tf_efficientnet_lite0"}


@dataclass(frozen=True)
class SmallRun:
    """Where it all is, below one ``folder``."""

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def split_file(self) -> Path:
        return self.folder / "split.json"

    @property
    def config(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def spine_config(self) -> Path:
        return self.folder / "spine.yaml"

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def checkpoint(self) -> Path:
        return self.run_dir / "checkpoints" / "best.pt"

    @property
    def evaluation(self) -> Path:
        return self.run_dir / "evaluation"


def write_job(folder: Path, *, images: int = 6, config_of=tiny_config, **train) -> SmallRun:
    """The images, their split file, and configs of a network and of a spine network; nothing is trained."""
    made = SmallRun(folder)
    size = ("--size", 96, 64)
    _done("phantom", "--anatomy", SCHEMA, "--num-images", images, *size, "--out", made.images)
    asked = ("--source", "csv", "--anatomy", SCHEMA, "--root", made.images, "--folds", 3)
    _done("split", *asked, "--calibration-images", 0, "--output-file", made.split_file)
    folds = sorted(json.loads(made.split_file.read_text())["splits"])
    config = config_of(**{"batch_norm_calibration": 1, "save_every_steps": 1} | train)
    splits = {"train_splits": folds[:2], "validation_splits": folds[2:]}
    where = {"source": "csv", "root": made.images, "split_file": str(made.split_file)}
    save_config(config.model_copy(update={"data": config.data.model_copy(update=splits | where)}), made.config)
    made.spine_config.write_text(json.dumps(_spine(made.images)))
    return made


def make_all(folder: Path) -> SmallRun:
    """The job, trained, measured, exported, and used."""
    made = write_job(folder)
    network = ("--network", made.checkpoint, "--device", "cpu")
    with patch.object(library, "efficientnet_v2_s", thin_efficientnet):
        _done("train", "--config", made.config, "--run-dir", made.run_dir, "--device", "cpu")
        _done("evaluate", *network, "--validation", "--out", made.evaluation)
        _done("export-weights", "--network", made.checkpoint, "--output-file", folder / "weights.safetensors")
        _done("predict", made.images, *network, "--report", "--out", folder / "predicted")
        _done("prepare", "--config", made.config, "--whole-source", "--out", folder / "cache")
        _done("prepare", "--config", made.config, "--whole-source", "--shards", 2, "--out", folder / "shards")
    return made


def _spine(root: Path) -> dict:
    return {
        "name": "tiny",
        "sources": [{"source": "csv", "anatomy": SCHEMA, "root": str(root), "folds": 2}],
        "network": {
            "backbone": BACKBONE,
            "neck": {"depth": 1, "width": 16, "heads": 2},
            "decoder": {"channels": [8, 8, 8], "output_stride": 4},
        },
        "views": {"size": [128, 64], "step_px": 20},
        "train": {"steps": 4, "batch_size": 2, "save_every_steps": 1, "freeze_stages": 0},
    }


def _done(command, *arguments) -> None:
    ended = run(command, *arguments)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
