"""Which of the images that a network is measured on have trained it: on those its errors are too small."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.spine_sources import deal
from vertebra_kp.data.splits import load_split_file

log = logging.getLogger(__name__)


def training_images(
    configs: Sequence[Config | SpineConfig | LevelConfig], source: str, root: Path | None, ids: Collection[str]
) -> int:
    """How many of ``ids``, images of ``source`` in the folder ``root``, have trained one of the networks.

    As far as their configs say: images that came by another source, or trained the weights that a network began
    with, are not known. Of synthetic images, all of a seed that trained.
    """
    try:
        if source == "phantom":
            of_corners = [config for config in configs if isinstance(config, Config)]
            seeds = {config.data.phantom.seed for config in of_corners if _draws(config)}
            return sum(int(id.split("-")[2]) in seeds for id in ids)
        trained = {id for config in configs for id in _trained(config, source, root)}
    except UserError as error:
        log.warning("note: it is not known whether these images have trained the network: %s", error)
        return 0
    return sum(id.partition(":")[0] in trained for id in ids)  # a single vertebra is IMAGE:LEVEL


def _draws(config: Config) -> bool:
    return config.data.source == "phantom" or any(phase.films != "data" for phase in config.train.phases)


def _trained(config: Config | SpineConfig | LevelConfig, source: str, root: Path | None) -> list[str]:
    if not isinstance(config, Config):
        dealt = (
            deal(one.model_copy(update={"root": root or one.root}), config.fold)[0]
            for one in config.sources
            if one.source == source
        )
        return [record.id for training in dealt for record in training]
    if config.data.source != source or config.data.split_file is None:
        return []
    splits = load_split_file(config.data.split_file).splits
    return [id for name in config.data.train_splits for id in splits.get(name, ())]
