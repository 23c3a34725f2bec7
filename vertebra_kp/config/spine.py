"""Configs of networks trained on several sources at once, each complete or not: spine networks, level networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vertebra_kp.config.network import STRIDE, BackboneConfig, NeckConfig, NetworkConfig, size_fault
from vertebra_kp.config.section import Count, Fraction, Name, Positive, Section, StartSection, TrackerName
from vertebra_kp.core.anatomy import SCHEMAS, Schema

USUAL_STEP = 32.0  # px of the input: a spine network tells the log of a step against it
SchemaName = Literal["ap_lumbar", "la_lumbar", "ap_whole_spine", "la_cervical", "la_whole_spine"]


class SpineSourceConfig(Section):
    """One data set: which of its images train, which validate, and how often it is shown."""

    source: str
    root: Path | None = None
    """Folder of the data set; None leaves the source out, with a warning."""
    anatomy: SchemaName = "ap_whole_spine"
    names: Literal["labels", "settled"] = "labels"
    """``settled``: labels moved to the names that a second reading supports."""
    share: Positive = 1.0
    """How often its images are shown, against those of the other sources."""
    validation: Fraction = 0.2
    """Share of its images that train nothing, the same ones in every run; 0 trains on all."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Instead: validate on one of so many parts (``fold``), and train on the others."""
    split_file: str | None = None
    """Instead: images by a split file, as ``train_splits`` and ``validation_splits``."""
    train_splits: list[str] = []
    validation_splits: list[str] = []
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many images."""
    repair_file: str | None = None

    @property
    def schema_of_labels(self) -> Schema:
        return SCHEMAS[self.anatomy]


class IntensitySection(Section):
    """How grays are changed in training, as ``AugmentConfig`` has them."""

    gamma: Annotated[float, Field(ge=0)] = 0.35
    contrast: Fraction = 0.2
    brightness: Fraction = 0.1
    blur_px: Annotated[float, Field(ge=0)] = 0.8
    noise: Fraction = 0.04
    invert: Fraction = 0.1
    cutout: Fraction = 0.2


class ViewsConfig(IntensitySection):
    """How an image is shown in training: partly as the finder sees it, partly as the corner network does."""

    size: tuple[Annotated[int, Field(ge=STRIDE)], Annotated[int, Field(ge=STRIDE)]] = (512, 256)
    """Height and width of what the network sees in training; in use any multiple of 32."""
    close: Fraction = 0.55
    """Share of images in which vertebrae have the size of ``step_px`` or are larger, up to twice; others show any
    part, any size."""
    spine: Fraction = 0.0
    """Share of images that show the whole marked spine upright in the middle, as a crop does in use, with the
    borders of the image where there are some."""
    step_px: Positive = 32.0
    """Distance of neighbouring vertebrae's centres for which corners are placed."""
    rotate_deg: Annotated[float, Field(ge=0, le=90)] = 20.0
    flip: bool = True

    @model_validator(mode="after")
    def _size_is_taken(self) -> Self:
        if fault := size_fault(self.size):
            raise ValueError(fault.replace("input_size", "size"))
        if self.close + self.spine > 1:
            raise ValueError(
                f"close and spine are shares of one whole: {self.close} + {self.spine} is more than 1"
            )
        return self


class SourcesTrainConfig(StartSection):
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 8
    freeze_stages: Count = 2
    """The backbone's stem and its first n stages stand still, as they came; 0 trains all."""
    lr: Positive = 1e-3
    backbone_lr: Positive = 5e-4
    warmup_steps: Count = 50
    final_lr: Fraction = 0.02
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    seed: Count = 0
    save_every_steps: Annotated[int, Field(ge=1)] = 100
    trackers: list[TrackerName] = ["tensorboard"]
    """Where curves go, besides ``metrics.csv``; ``mlflow`` and ``wandb`` are extras to install."""


class SourcesConfig(Section):
    """What is common to all networks that are trained on several sources."""

    name: Name
    anatomy: SchemaName = "ap_whole_spine"
    """Keypoint schema of what is predicted."""
    sources: Annotated[list[SpineSourceConfig], Field(min_length=1)]
    fold: Count | None = 0
    """Of the sources that are dealt into ``folds``: the part that validates; null: every image of every source
    trains, once the validation images have said how good it is."""
    train: SourcesTrainConfig

    @property
    def keypoint_schema(self) -> Schema:
        return SCHEMAS[self.anatomy]


class SpineConfig(SourcesConfig):
    network: NetworkConfig = NetworkConfig()
    views: ViewsConfig = ViewsConfig()


class ReformationConfig(IntensitySection):
    """How the level network sees a spine: a curved planar reformation, in which it is straight and upright."""

    rows: Annotated[int, Field(ge=4)] = 24
    """Vertebra steps that are shown, with what lies beyond both ends; longer spines get more."""
    step_px: Annotated[int, Field(ge=4)] = 24
    """Height of a vertebra step."""
    beside: Positive = 4.0
    """Vertebra steps that are shown to each side: the chest's width."""
    part: Fraction = 0.5
    """Share of training views that know a part of the vertebrae only, from ``least`` upwards."""
    least: Annotated[int, Field(ge=2)] = 5
    beyond: Fraction = 0.5
    """Share of training views in which neighbours beyond the marked ends count as found."""
    collimated: Fraction = 0.3
    """Share of training views with one side cut off."""
    flip: bool = True

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if fault := size_fault(self.size):
            raise ValueError(f"rows: {fault}")
        if self.least > self.rows:
            raise ValueError(f"least is {self.least}, more than rows, {self.rows}; lower it")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.rows * self.step_px, round(2 * self.beside * self.step_px)


class LevelNetworkConfig(Section):
    backbone: BackboneConfig = BackboneConfig()
    channels: Annotated[int, Field(ge=8)] = 96
    """Of the map, at stride 16, from which each vertebra's row is read."""
    encoder: NeckConfig = NeckConfig(depth=2, width=160, heads=5, mlp_ratio=2.0)
    """Transformer encoder along the spine: every vertebra sees every other."""


class LevelConfig(SourcesConfig):
    """A level network: it names vertebrae that were found."""

    network: LevelNetworkConfig = LevelNetworkConfig()
    reformation: ReformationConfig = ReformationConfig()


def sources_kind(values: Mapping[str, object]) -> type[SpineConfig] | type[LevelConfig] | None:
    """The kind of a config by its values, None for that of a network with a channel for every corner."""
    if "sources" not in values:
        return None
    return LevelConfig if "reformation" in values else SpineConfig
