"""A training job small enough for a test: 64 x 64 phantom films, two of them a batch, a thin backbone.

The thin backbone has the stages, channels and strides of EfficientNetV2-S and fewer layers in each: what the
loop does with a network does not depend on its depth. Tests of the network itself take the whole one.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

from vertebra_kp.config.schema import Config
from vertebra_kp.data.datasets import training_films, validation_films
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.inference.batch import codec_of
from vertebra_kp.models.losses import KeypointLoss
from vertebra_kp.training.distributed import Group
from vertebra_kp.training.loop import Run, batches_from, begin_phase, train_step
from vertebra_kp.training.meter import Meter
from vertebra_kp.training.run_folder import RunFolder
from vertebra_kp.training.schedule import make_plan
from vertebra_kp.training.state import RunState, start_state

ROOT = Path(__file__).resolve().parents[1]
PATHS = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"  # PYTHONPATH of processes that tests start
ONE_PROCESS = Group(0, 1, torch.device("cpu"))
FROZEN = {"name": "frozen", "epochs": 1, "freeze_stages": 4, "lr": 1e-3, "final_lr": 1.0}
UNFROZEN = {"name": "unfrozen", "epochs": 1, "lr": 1e-3, "layer_decay": 0.9, "warmup_steps": 1}


def thin_efficientnet(*, weights: None, stochastic_depth_prob: float) -> EfficientNet:
    """In place of torchvision's ``efficientnet_v2_s``; stages 1, 5 and 6 have residual layers."""
    assert weights is None
    stages = [
        FusedMBConvConfig(1, 3, 1, 24, 24, 1),
        FusedMBConvConfig(2, 3, 2, 24, 48, 1),
        FusedMBConvConfig(2, 3, 2, 48, 64, 1),
        MBConvConfig(2, 3, 2, 64, 128, 1),
        MBConvConfig(2, 3, 1, 128, 160, 2),
        MBConvConfig(2, 3, 2, 160, 256, 2),
    ]
    return EfficientNet(stages, dropout=0.0, stochastic_depth_prob=stochastic_depth_prob, last_channel=32)


def tiny_config(
    *,
    films: int = 8,
    fresh: bool = True,
    dropout: float = 0.1,
    stochastic_depth: float = 0.1,
    other_view: float = 0.0,
    classification: dict[str, Any] | None = None,
    phases: tuple[dict[str, Any], ...] = (FROZEN, UNFROZEN),
    **train: Any,
) -> Config:
    """Four steps of two films in each of two phases; ``train`` goes to fields of the train section."""
    return Config.model_validate(
        {
            "name": "tiny",
            "data": {
                "anatomy": "la_lumbar",
                "input_size": (64, 64),
                "workers": 0,
                "phantom": {"films": films, "validation_films": 3, "fresh": fresh, "other_view": other_view},
            },
            "network": {
                "backbone": {"stochastic_depth": stochastic_depth},
                "neck": {"depth": 2, "width": 64, "dropout": dropout},
                "decoder": {"channels": [48, 32, 24, 16], "output_stride": 2},
                "presence_dropout": dropout,
                "classification": classification,
            },
            "train": {
                "phases": list(phases),
                "batch_size": 2,
                "precision": "off",
                "batch_norm_calibration": 2,
                **train,
            },
        }
    )


def make_run(config: Config, group: Group = ONE_PROCESS) -> tuple[Run, RunState]:
    """A run without folder and tracker, before its first step."""
    films = training_films(config)
    plan = make_plan(config.train, len(films), group.world_size)
    dataset = FilmDataset(
        films,
        config.data.keypoint_schema,
        config.data.input_size,
        augmentation=config.augment,
        seed=config.train.seed,
    )
    loss = KeypointLoss(codec_of(config), config.loss)
    run = Run(config, RunFolder(Path("none")), group, plan, dataset, validation_films(config), loss, None)
    return run, start_state(config, config.data.keypoint_schema, group, plan.phases[0])


def train_all(run: Run, state: RunState) -> list[dict[str, Tensor]]:
    """All steps of all phases as the loop takes them, without evaluation; the losses of every step."""
    losses = []
    with Meter(run.plan, 0, visible=False) as meter:
        for phase in run.plan.phases:
            step_network = begin_phase(run, state, phase)
            for batches in batches_from(run, state.step, phase.end, meter):
                losses.append(train_step(run, state, phase, step_network, batches))
                state.step += 1
    return losses
