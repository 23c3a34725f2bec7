"""What a run can be told: one model per section, every field with its range; unknown keys are errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vertebra_kp.config.network import STRIDE, NetworkConfig, size_fault
from vertebra_kp.config.section import (
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Section,
    StartSection,
    TrackerName,
)
from vertebra_kp.core.anatomy import ONE_VERTEBRA, OTHER_VIEW, SCHEMAS, Schema

DataSet = Literal["aasce", "buu_lspine", "csxa", "lateral_whole", "mendeley", "spinal_ai2024"]
# Of labels of one's own
Format = Literal["centres", "coco", "corners", "csv", "cvat", "json", "label_studio", "labelme", "slicer"]
Names = Literal["labels", "settled"]  # of levels
HeatmapLoss = Literal["cross_entropy", "mse", "adaptive_wing"]
Precision = Literal["auto", "bf16", "fp16", "off"]
MARKED = ("aasce",)  # data sets of which level marks are committed


class PhantomConfig(Section):
    """Synthetic images (phantoms), made on the fly; sample i of a seed is the same on every machine."""

    preset: Literal["standard", "hard"] = "standard"
    seed: Count = 0
    """Seed of the training films; validation films use ``validation_seed``."""
    validation_seed: Count = 1_000_003
    films: Annotated[int, Field(ge=1)] = 1024
    """Training films per epoch; with ``fresh`` every epoch draws new ones."""
    validation_films: Annotated[int, Field(ge=1)] = 64
    fresh: bool = True
    other_view: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the films that show the same levels from the other side, lateral for AP and AP for lateral: of
    those only the view is labelled. For a network that classifies the view."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if self.seed == self.validation_seed:
            raise ValueError(
                f"seed and validation_seed are both {self.seed}: validation would see training films; change one"
            )
        return self


class PatchConfig(Section):
    """Single vertebrae cut out of films and set upright: what the crop refinement sees, level by level."""

    widths: Positive = 2.0
    """Side of a patch, in widths of its vertebra."""
    film_size: tuple[Annotated[int, Field(ge=STRIDE)], Annotated[int, Field(ge=STRIDE)]] = (1024, 416)
    """Films are kept in the pixels of this height and width, and patches cut from those."""


class DataConfig(Section):
    source: Literal["phantom", DataSet, Format] = "phantom"
    root: Path | None = None
    """Folder of the data set; for AASCE the environment variable VERTEBRA_KP_AASCE also counts."""
    anatomy: Literal["ap_lumbar", "la_lumbar", "ap_whole_spine", "la_cervical", "la_whole_spine"] = "la_lumbar"
    """Keypoint schema: which levels and corners are predicted."""
    stored_order: bool = False
    """AASCE: leave T1 after L5 in the 18 films that store it there, as published figures do."""
    repair_file: str | None = None
    """Repairs of wrong labels: a file of an audit, or the name of a committed one (``aasce``)."""
    names: Names = "labels"
    """Names of levels: those of the labels, or ``settled`` by a second reading of the films (AASCE). Labels of a
    film that are a level off move; a film on which the reading does not agree is left unlabelled."""
    split_file: str | None = None
    """File of ids, or the name of a committed one (``aasce``); not used by the phantom."""
    train_splits: list[str] = []
    validation_splits: list[str] = []
    train_films: Annotated[int, Field(ge=1)] | None = None
    """Train on so many films of ``train_splits`` only, always the same ones, those of fewer among those of more:
    for learning curves."""
    class_file: Path | None = None
    """CSV file with columns ``film`` (id or file name) and ``class``: which of ``network.classification.classes``
    an image shows. An image that it leaves out trains and measures the corners alone."""
    input_size: tuple[Annotated[int, Field(ge=STRIDE)], Annotated[int, Field(ge=STRIDE)]] = (256, 128)
    """Height and width of what the network sees, each divisible by 32; films are letterboxed to it."""
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    cache: Path | None = None
    """Folder of films that are decoded and shrunk already; what it lacks is added by the first run, or by
    ``vertebra-kp prepare``. None reads the films anew in every run and holds them in memory."""
    shards: Path | None = None
    """Folder of tar shards made by ``vertebra-kp prepare``: films and labels come from it, not from ``root``."""
    shard_window: Annotated[int, Field(ge=1)] | None = None
    """Read shard after shard, in another order every epoch, and mix films within so many places: for disks that
    seek slowly. None takes films from all shards in turn."""
    phantom: PhantomConfig = PhantomConfig()
    patch: PatchConfig | None = None
    """Train on single vertebrae of ``input_size`` instead of whole films: a network for crop refinement."""

    @property
    def film_schema(self) -> Schema:
        """What is labelled on a film."""
        return SCHEMAS[self.anatomy]

    @property
    def keypoint_schema(self) -> Schema:
        """What the network predicts: all of that, or the corners of the one vertebra that it is shown."""
        return self.film_schema if self.patch is None else ONE_VERTEBRA[self.film_schema.view]

    @property
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels are kept of a film."""
        return self.input_size if self.patch is None else self.patch.film_size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := "; ".join(self._problems()):
            raise ValueError(problems)
        return self

    def _problems(self) -> Iterator[str]:
        if fault := size_fault(self.input_size):
            yield fault
        if self.source != "phantom":
            if not self.split_file:
                yield f"split_file is needed for source {self.source}"
            for part in ("train_splits", "validation_splits"):
                if not getattr(self, part):
                    yield f"{part} is empty: name at least one split of {self.split_file}"
            if shared := set(self.train_splits) & set(self.validation_splits):
                yield f"splits {sorted(shared)} are in train_splits and validation_splits"
        changing = [name for name in ("stored_order", "repair_file") if getattr(self, name)]
        if self.names == "settled":
            changing.append("names")
            if self.source not in MARKED:
                yield (
                    f"names is settled, but levels are marked on {', '.join(MARKED)} only, not on {self.source}; "
                    "set names to labels"
                )
        if self.stored_order and len(changing) > 1:
            yield f"stored_order reads labels as they are, {changing[1]} changes them; leave one out"
        if self.patch is not None and self.source == "phantom":
            yield "patch cuts vertebrae out of films on disk; name a source, or leave patch out"
        other_view = self.phantom.other_view
        if other_view and self.anatomy not in OTHER_VIEW:
            yield (
                f"phantom.other_view is {other_view}, but {self.anatomy} is drawn from one side only; set it to 0 "
                f"or anatomy to {' or '.join(OTHER_VIEW)}"
            )
        stores = [name for name in ("cache", "shards") if getattr(self, name) is not None]
        if self.source == "phantom" and stores:
            yield f"{stores[0]} is for films on disk, source phantom draws them; leave {stores[0]} out"
        if len(stores) == 2:
            yield "cache and shards are two places for the same films; leave one out"
        if self.shards is None and self.shard_window is not None:
            yield f"shard_window is {self.shard_window} without shards; name their folder or null it"
        if self.shards is not None and changing:
            yield (
                f"{changing[0]} changes labels while they are read from root, shards hold them as they were "
                f"written; leave {changing[0]} out"
            )


class AugmentConfig(Section):
    """Random changes of a training film; 0 switches one off. Geometry is one warp of image and points."""

    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 5.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Relative: 0.1 draws factors from 0.9 to 1.1."""
    stretch: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Aspect-ratio jitter, height against width with the area kept: 0.1 draws ratios from 0.9 to 1.1."""
    shift: Fraction = 0.04
    """Fraction of the input size."""
    flip: bool = False
    """Left-right; only where the schema says a mirrored film is a film."""
    local_contrast: Fraction = 0.0
    """Probability of evening out the contrast place by place (CLAHE), as workstations show images."""
    gamma: NonNegative = 0.2
    """Log-range: 0.2 draws exponents from exp(-0.2) to exp(0.2)."""
    contrast: Fraction = 0.1
    brightness: Fraction = 0.05
    blur_px: NonNegative = 0.5
    noise: Fraction = 0.02
    invert: Fraction = 0.0
    """Probability of showing the film inverted."""
    cutout: Fraction = 0.0
    """Probability of a blank rectangle."""

    def with_geometry(self, strength: float) -> "AugmentConfig":
        """The same with rotation, scale, stretch and shift times ``strength``."""
        names = ("rotate_deg", "scale", "stretch", "shift")
        return self.model_copy(update={name: getattr(self, name) * strength for name in names})


class CodecConfig(Section):
    sigma: Annotated[float, Field(ge=0.9, le=16)] = 1.5
    """Of the Gaussian target, in heatmap cells; below 0.9 the grid is too coarse to decode to 0.01 px."""
    decode: Literal["soft_argmax", "dark", "argmax"] = "soft_argmax"
    dark_blur: bool = False
    """DARK: blur the map by sigma first; averages noise, costs a convolution."""


class LossConfig(Section):
    heatmap: HeatmapLoss = "cross_entropy"
    coordinate_weight: NonNegative = 0.0
    """Smooth L1 of the local soft-argmax; needs the probabilities of ``cross_entropy``."""
    presence_weight: NonNegative = 0.1
    classification_weight: NonNegative = 1.0
    """Of the view and of the slips alike, where ``network.classification`` asks for them."""
    image_class_weight: NonNegative = 1.0
    """Of the target ``image_class``."""
    class_weights: list[Positive] | None = None
    """Of every one of ``network.classification.classes``, in their order, so that a rare class can count more.
    None weighs all alike."""
    label_smoothing: Fraction = 0.1
    """Of the classes: the share of certainty that is spread evenly over all of them."""

    @model_validator(mode="after")
    def _coordinates_need_probabilities(self) -> Self:
        if self.coordinate_weight and self.heatmap != "cross_entropy":
            raise ValueError(
                f"coordinate_weight is {self.coordinate_weight} with heatmap {self.heatmap}, whose empty maps "
                "have no mean; set heatmap to cross_entropy or coordinate_weight to 0"
            )
        return self


class PhaseConfig(Section):
    """One stretch of training: what is frozen, how long, how fast."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    epochs: Annotated[int, Field(ge=1)]
    films: Literal["data", "phantom"] = "data"
    """``phantom`` trains this phase on phantoms of ``data.phantom``'s preset and seed, new ones in every epoch
    and as many as the data set has; validation stays on the data set."""
    freeze_stages: int | list[str] | Literal["all"] = 0
    """0 freezes nothing, ``all`` the backbone, n its stem and first n stages, -n all but the last n; or stages by
    name or range, such as [stem, stage2..stage4] (``vertebra-kp train --describe`` lists them)."""
    freeze_layers: int = 0
    """Besides: the first n layers of the backbone, -n all but the last n. A layer is what holds weights of its
    own, a convolution or a norm; ``vertebra-kp train --describe`` counts those of each stage."""
    freeze: list[Literal["neck", "decoder", "heatmap_head", "presence_head", "classification_head"]] = []
    lr: Positive = 1e-3
    backbone_lr: Positive | None = None
    """None: the same as ``lr``."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each backbone stage further from the output learns slower by this factor."""
    warmup_steps: Count = 0
    final_lr: Fraction = 0.0
    """Learning rate at the end of the cosine, as a fraction of the start; 1 keeps it constant."""
    geometry: Fraction = 1.0
    """Strength of the geometric augmentation in this phase, as a fraction of ``augment``'s. A weak one at the
    end lets the network learn where films usually show which level."""


class TrainConfig(StartSection):
    phases: Annotated[list[PhaseConfig], Field(min_length=1)]
    seed: Count = 0
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Films per process and step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are summed into one optimiser step."""
    precision: Precision = "auto"
    weight_decay: NonNegative = 0.01
    clip_norm: Positive | None = 5.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """0 switches the moving average of the weights off."""
    batch_norm_calibration: Count = 8
    """Batches that set the statistics of frozen random layers before a phase; 0 leaves them."""
    compile: bool = False
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations."""
    evaluate_films: Annotated[int, Field(ge=1)] | None = None
    """At most so many validation films in the evaluations during training."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without a better landmark error before the run stops."""
    save_every_steps: Annotated[int, Field(ge=1)] = 200
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    trackers: list[TrackerName] = ["tensorboard"]
    """Where curves and pictures go, besides ``metrics.csv``; ``mlflow`` and ``wandb`` are extras to install."""

    @model_validator(mode="after")
    def _phase_names_differ(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must differ, got {names}")
        return self


class InferenceConfig(Section):
    flip: bool = False
    """Average the heatmaps of the film and of its mirror image (AP films): twice the work, a little less error."""
    chain: bool = False
    """Level decoding (Viterbi): place all levels together, one step apart, before corners are read off their maps.
    For spines of many alike vertebrae, of which the network takes one for its neighbour."""


class Config(Section):
    name: Name
    """The run's folder is ``runs/NAME`` unless another folder is named."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    codec: CodecConfig = CodecConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    inference: InferenceConfig = InferenceConfig()
    train: TrainConfig

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classes = self.network.classification
        if classes is not None and classes.hidden and self.train.batch_size == 1:
            raise ValueError(
                "train.batch_size is 1, and the BatchNorm of network.classification.hidden needs two films; raise "
                "train.batch_size, or set network.classification.hidden to 0"
            )
        if problem := self._class_problem():
            raise ValueError(problem)
        if self.data.phantom.other_view and (classes is None or "view" not in classes.targets):
            raise ValueError(
                f"data.phantom.other_view is {self.data.phantom.other_view}, but no view is classified; "
                "add view to network.classification.targets, or set other_view to 0"
            )
        if self.data.patch is not None and any(phase.films == "phantom" for phase in self.train.phases):
            raise ValueError("data.patch cuts vertebrae out of films on disk; set films of every phase to data")
        flipped = [name for name in ("augment", "inference") if getattr(self, name).flip]
        if flipped and not self.data.keypoint_schema.flip_valid:
            raise ValueError(
                f"{flipped[0]}.flip is on, but a mirrored {self.data.anatomy} film swaps anterior and posterior; "
                f"set {flipped[0]}.flip to false"
            )
        return self

    def _class_problem(self) -> str | None:
        names, class_file, weights = self.network.image_classes, self.data.class_file, self.loss.class_weights
        if names and class_file is None:
            return "network.classification.classes needs data.class_file, which says what images show; name it"
        if class_file is not None and not names:
            return (
                f"data.class_file is {class_file}, but no image_class is predicted; add it to "
                "network.classification.targets and its names to network.classification.classes"
            )
        if names and (self.data.source == "phantom" or self.data.patch is not None):
            return "data.class_file is for whole films on disk; name data.source, drop data.patch"
        if weights is not None and len(weights) != len(names):
            return (
                f"loss.class_weights has {len(weights)} numbers, network.classification.classes {len(names)}; "
                "give one number per name"
            )
        return None
