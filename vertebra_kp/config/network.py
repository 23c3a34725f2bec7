"""The network's part of a config: one section per part, one word per choice."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vertebra_kp.config.section import Fraction, Section

BACKBONES = ("efficientnet_v2_s", "vgg16", "vgg16_bn", "resnet34", "resnet50", "convnext_small")
TIMM = re.compile(r"timm/[A-Za-z0-9_.-]+")
# Maps of a backbone by their stride, finest first, whatever the backbone is.
STRIDES = {"F1": 2, "F2": 4, "F3": 8, "S16": 16, "F4": 32}

STRIDE = STRIDES["F4"]  # sizes of what a network sees are multiples of it

FeatureName = Literal["F1", "F2", "F3", "S16", "F4"]
# Levels of a pyramid by the map that they stand for: that of stride 2^n is Pn.
LEVEL_OF = {name: f"P{stride.bit_length() - 1}" for name, stride in STRIDES.items()}
EXTRA_LEVELS = ("P6", "P7")
LevelName = Literal["P1", "P2", "P3", "P4", "P5", "P6", "P7"]
Width = Annotated[int, Field(ge=4)]


def size_fault(size: tuple[int, int]) -> str | None:
    """Why a network cannot take images of this height and width, with the next one that it can; else None."""
    padded = tuple(-(-side // STRIDE) * STRIDE for side in size)
    return None if padded == size else f"input_size must be divisible by {STRIDE}, got {size}; pad to {padded}"


def changed(section: Section) -> set[str]:
    """Fields that have another value than by default."""
    fields = type(section).model_fields
    return {name for name, field in fields.items() if getattr(section, name) != field.default}


class BackboneConfig(Section):
    name: str = "efficientnet_v2_s"
    """efficientnet_v2_s, vgg16, vgg16_bn, resnet34, resnet50, convnext_small, or timm/NAME: an encoder of timm."""
    weights: Literal["none", "imagenet"] | Path = "none"
    """``imagenet`` asks torchvision (timm); a path names a local state dict of its network of that name."""
    stochastic_depth: Fraction = 0.1
    """Of the networks that have it: EfficientNetV2-S and ConvNeXt-S."""
    reinitialise: Annotated[int, Field(ge=0)] | list[str] = 0
    """The last so many stages, or stages by name or range such as [stage5..stage6], begin with random weights
    after all: they know photographs best."""
    frozen_batch_norm: bool = False
    """BatchNorm keeps its statistics, scale and shift in every phase; with random weights a few batches set the
    statistics first."""
    projection: dict[FeatureName, Annotated[int, Field(ge=1)]] | None = None
    """Channels of optional 1x1 projections by map, such as {F1: 64, F2: 128, F3: 256, F4: 512}."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES and not TIMM.fullmatch(name):
            raise ValueError(f"no backbone {name}; take one of {', '.join(BACKBONES)}, or timm/NAME")
        return name

    @model_validator(mode="after")
    def _weights_to_lose(self) -> Self:
        if self.reinitialise and self.weights == "none":
            raise ValueError("reinitialise is set, but weights is none: all is random already; leave it out")
        return self


class AttentionSection(Section):
    """Width and heads of layers that attend."""

    width: Width = 256
    heads: Annotated[int, Field(ge=1)] = 8

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width must be divisible by heads and by 4, got width {self.width}, heads {self.heads}"
            )
        return self


class NeckConfig(AttentionSection):
    """Transformer encoder on F4 or more maps of the pyramid; depth 0 leaves them as they are."""

    depth: Annotated[int, Field(ge=0, le=24)] = 4
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    positions: Literal["sincos", "learned"] = "sincos"
    levels: Annotated[list[FeatureName], Field(min_length=1)] = ["F4"]
    """Maps that are encoded, each by layers of its own. Attention costs the square of a map's cells: at 512 x 512
    that is 256² for F4 and 4096² for F3."""


class PyramidConfig(Section):
    """Width of the decoders fpn, upernet and segformer, and how an fpn is built."""

    channels: Annotated[int, Field(ge=8)] = 128
    paths: Literal["top_down", "bottom_up", "both"] = "top_down"
    """``top_down`` is FPN, ``both`` adds PANet's way back, ``bottom_up`` is that way alone."""
    smoothing_convs: Annotated[int, Field(ge=0, le=3)] = 1
    """3x3 convolutions on every merged level; 0 leaves out their activation and norm too."""
    activation: Literal["relu", "leaky_relu", "none"] = "relu"
    """After each of them; the slope of leaky_relu is 0.1."""
    norm: Literal["none", "batch"] = "batch"
    order: Literal["conv_act_norm", "conv_norm_act"] = "conv_act_norm"
    """``conv_act_norm``: each convolution with its activation, one norm after the last. ``conv_norm_act``: each
    with its norm, then its activation, as torchvision's Conv2dNormActivation."""
    lateral: Literal["conv", "block"] = "conv"
    """1x1 convolutions of the encoder's maps: alone, or a ``block`` with norm and activation in that order."""
    enhancement: bool = False
    """One more 3x3 convolution and ReLU per level, after the norm."""
    extra_levels: Annotated[int, Field(ge=0, le=2)] = 0
    """Levels coarser than F4: P6, or P6 and P7."""
    extra: Literal["conv", "max_pool", "p6p7_from_p5", "p6p7_from_c5"] = "conv"
    """How they are made. ``conv``: from the encoder's F4 by 3x3 convolutions of stride 2; they join the sums of
    the paths. The others stand outside of them, as in torchvision: ``max_pool`` takes every second cell of the
    coarsest level (LastLevelMaxPool); ``p6p7`` convolves that level, or the encoder's F4 (C5), with a ReLU before
    P7 (LastLevelP6P7)."""

    @model_validator(mode="after")
    def _extra_is_read(self) -> Self:
        if self.extra != "conv" and not self.extra_levels:
            raise ValueError(
                f"extra is {self.extra} without extra_levels; set extra_levels to 1 or 2, or leave extra out"
            )
        return self


class DecoderConfig(Section):
    name: Literal["unet", "fpn", "unetplusplus", "manet", "linknet", "upernet", "segformer"] = "unet"
    skips: list[Literal["F1", "F2", "F3", "S16"]] | None = None
    """Maps that join on the way up (unet) or are levels of the pyramid (fpn); None takes all of the backbone."""
    channels: Annotated[list[int], Field(min_length=1)] = [256, 128, 64, 32, 32]
    """Width of unet, unetplusplus and manet at strides 16, 8, 4, 2, 1; what lies past ``output_stride`` is not
    built. linknet takes the last that is built."""
    pyramid: PyramidConfig = PyramidConfig()
    output_stride: Literal[1, 2, 4] = 2

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needed = {4: 3, 2: 4, 1: 5}[self.output_stride]
        if len(self.channels) < needed:
            raise ValueError(
                f"channels has {len(self.channels)} numbers, output_stride {self.output_stride} needs {needed}"
            )
        if self.skips is not None and self.name not in ("unet", "fpn"):
            raise ValueError(f"skips is {self.skips}, but {self.name} takes all maps; leave skips out")
        read = {"fpn": set(PyramidConfig.model_fields), "upernet": {"channels"}, "segformer": {"channels"}}
        if self.name in read and "channels" in changed(self):
            raise ValueError(f"channels is not read by {self.name}, whose width is pyramid.channels; leave it out")
        if unread := changed(self.pyramid) - read.get(self.name, set()):
            raise ValueError(f"pyramid.{min(unread)} is not read by {self.name}; leave it out")
        return self


class HeadConfig(AttentionSection):
    """How heatmaps are read off the decoder's features."""

    name: Literal["conv", "queries"] = "conv"
    """``queries``: one learned query per corner attends to F4 and is compared with every place."""
    rounds: Annotated[int, Field(ge=1, le=12)] = 3
    self_attention: bool = True
    """Queries see each other before they look at the film."""

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        if self.name == "conv" and (unread := changed(self)):
            raise ValueError(f"{min(unread)} is not read by the head conv; set name to queries or leave it out")
        return self


class ClassificationConfig(Section):
    """What is read off the image as a whole, beside the corners."""

    targets: Annotated[list[Literal["view", "slip", "image_class"]], Field(min_length=1)] = ["view", "slip"]
    """``view``: frontal or lateral. ``slip``: normal, left, right, antero or retro, for every level.
    ``image_class``: one of ``classes``, labelled by ``data.class_file``."""
    classes: list[Annotated[str, Field(min_length=1)]] = []
    """Names of the classes of ``image_class``, such as [no_fracture, fracture]."""
    maps: Annotated[list[FeatureName | LevelName], Field(min_length=1)] = ["F4"]
    """What it is read off, pooled and side by side: maps of the encoder after the transformer, or levels P1 to P7
    of the decoder fpn."""
    pooling: Literal["average", "max"] = "average"
    input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Before the hidden layer."""
    hidden: Annotated[int, Field(ge=0)] = 256
    """Width of the hidden layer with BatchNorm; 0 leaves it out."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """After the hidden layer."""

    @model_validator(mode="after")
    def _classes_have_names(self) -> Self:
        for field in ("targets", "classes", "maps"):
            names = getattr(self, field)
            if len(set(names)) < len(names):
                raise ValueError(f"{field} names something twice: {', '.join(names)}")
        if "image_class" in self.targets and len(self.classes) < 2:
            raise ValueError("targets asks for image_class, which needs two names or more in classes")
        if self.classes and "image_class" not in self.targets:
            raise ValueError(
                "classes is not read without the target image_class; add it to targets, or leave classes out"
            )
        return self


class NetworkConfig(Section):
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    decoder: DecoderConfig = DecoderConfig()
    head: HeadConfig = HeadConfig()
    presence_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    classification: ClassificationConfig | None = None
    initialisation: Literal["default", "normal", "kaiming"] = "default"
    """Of new convolutions and linear layers outside the neck: as torch has them, normal of deviation 0.01,
    or Kaiming normal by fan-out; biases are 0 in the last two."""

    @property
    def image_classes(self) -> tuple[str, ...]:
        """Names of the classes that whole images are sorted into; none without such a target."""
        return tuple(self.classification.classes) if self.classification is not None else ()
