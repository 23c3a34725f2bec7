"""Every argument of every command, defined once: one name, one type, one meaning, one default.

No import takes long here: help and shell completion need these definitions and nothing else. Choices are therefore
written down a second time; a test compares them with what the package knows.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra_kp.core.errors import UserError

SOURCES = (
    *("aasce", "buu_lspine", "coco", "csv", "csxa", "cvat", "json", "label_studio", "labelme", "mendeley"),
    *("slicer", "phantom"),
)
ANATOMIES = ("ap_lumbar", "la_lumbar", "ap_whole_spine", "la_cervical")
PRESETS = ("standard", "hard")
FORMATS = ("coco", "csv", "cvat", "json", "label_studio", "labelme", "slicer")
KINDS = (
    *("noise", "blur", "contrast", "rotation", "cut", "metal", "jpeg"),
    *("inverted", "upside_down", "mirrored"),
)
# Of synthetic images: a seed of its own for each purpose, so that no network is measured on what calibrated it.
SEEDS = {"evaluate": 2_000_003, "calibrate": 3_000_003, "robustness": 4_000_003, "phantom": 0}
NUMBERS = {"evaluate": 200, "calibrate": 500, "robustness": 50, "phantom": 20}


class UsageError(UserError):
    """Arguments that do not go together; the command ends as argparse ends it."""


@dataclass(frozen=True)
class Number:
    """A number within bounds, as a type for argparse."""

    of: type[int] | type[float]
    wanted: str
    holds: Callable[[float], bool]

    def __call__(self, text: str) -> float:
        try:
            value = self.of(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise argparse.ArgumentTypeError(f"must be {self.wanted}, got {text}")
        return value


COUNT = Number(int, "a whole number of 1 or more", lambda value: value >= 1)
SEED = Number(int, "a whole number of 0 or more", lambda value: value >= 0)
PROPER_SHARE = Number(float, "above 0 and below 1", lambda value: 0 < value < 1)
SHARE = Number(float, "0 or more and below 1", lambda value: 0 <= value < 1)
SIZE_MM = Number(float, "the size of a pixel in mm, above 0", lambda value: 0 < value < float("inf"))
LIMIT = Number(float, "a number of 0 or more", lambda value: 0 <= value < float("inf"))


@dataclass(frozen=True)
class Argument:
    """``options`` are those of ``add_argument``; ``aliases`` are older names, taken and not shown."""

    help: str
    options: dict[str, Any]
    aliases: tuple[str, ...] = ()


def _argument(help: str, *aliases: str, **options: Any) -> Argument:
    return Argument(help, options, aliases)


def _switch(help: str, *aliases: str) -> Argument:
    return Argument(help, {"action": "store_true"}, aliases)


def _by_command(defaults: dict[str, int]) -> str:
    return ", ".join(f"{number} ({command})" for command, number in defaults.items())


POSITIONALS = {
    "inputs": _argument(
        "PNG, JPG, TIFF or DICOM files; folders, with subfolders; globs", nargs="+", metavar="INPUT"
    ),
    "study": _argument("folder with study.yaml", type=Path, metavar="STUDY"),
    "evaluation": _argument("folder that evaluate wrote to, or one that holds evaluation/", type=Path),
    "first": _argument("evaluation to compare with: a folder as of report", type=Path),
    "second": _argument("evaluation that is compared", type=Path),
    "flexion": _argument("lateral radiograph in flexion", type=Path),
    "extension": _argument("lateral radiograph in extension", type=Path),
}

FLAGS = {
    # --- jobs and folders
    "config": _argument("config of the job: its name (quickstart) or its YAML file", metavar="NAME_OR_FILE"),
    "set": _argument(
        "settings to change, such as train.seed=1; of a trained network those of decoding and inference, such as "
        "codec.decode=dark",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="a.b=c",
    ),
    "run-dir": _argument("folder of the run; default: runs/NAME", type=Path, metavar="DIR"),
    "out": _argument("folder for the results; default of prepare: data.cache", type=Path, metavar="DIR"),
    "output-file": _argument(
        "file to write; default: report.html in the evaluation's folder, calibration.json in the run's, for the "
        "schema the terminal",
        type=Path,
        metavar="FILE",
    ),
    "resume": _switch("continue what the folder holds"),
    "overwrite": _switch("replace what the folder holds"),
    "describe": _switch("print the network and its cost, then stop"),
    "device": _argument("default: a GPU where there is one", choices=("cpu", "cuda")),
    "jobs": _argument("runs at a time; they share a GPU, or the cores", type=COUNT, default=1, metavar="N"),
    "workers": _argument("threads; default: a few more than cores", type=COUNT, metavar="N"),
    # --- networks
    "network": _argument(
        "trained network: best.pt or last.pt of a run, a file of export-weights, or published weights by name",
        "checkpoint",
        "weights",
        metavar="NAME_OR_FILE",
    ),
    "ensemble": _argument(
        "further networks, whose heatmaps are averaged with its own", nargs="+", default=[], metavar="NETWORK"
    ),
    "refine": _argument("network of single vertebrae (data.patch) for the crop refinement", metavar="NETWORK"),
    "flip": _argument(
        "average with the prediction of the mirrored image; default: inference.flip of the training",
        action=argparse.BooleanOptionalAction,
    ),
    "calibration": _argument(
        "of the network, for regions and intervals; default: calibration.json beside it, if there is one",
        type=Path,
        metavar="FILE",
    ),
    "coverage": _argument("that regions and intervals promise", type=PROPER_SHARE, default=0.9),
    "about": _argument("a line on the data and its terms, kept in the file", default=""),
    # --- images and labels
    "source": _argument("data set, or format of the labels; phantom: synthetic images", choices=SOURCES),
    "validation": _switch("take the images that validated the network while it was trained"),
    "root": _argument(
        "folder of the images; default: where the network's training had them", type=Path, metavar="DIR"
    ),
    "anatomy": _argument(
        "labelled levels and view; aasce has its own, default of phantom: la_lumbar", choices=ANATOMIES
    ),
    "split": _argument("splits to take, default: all images; aasce also has test, its own part", nargs="+"),
    "split-file": _argument(
        "file of splits, or a shipped one by name (aasce); default: that of the network's training",
        metavar="NAME_OR_FILE",
    ),
    "repair-file": _argument(
        "repairs of labels, a file or a shipped one by name (aasce); default: those of the network's training",
        metavar="NAME_OR_FILE",
    ),
    "stored-order": _argument(
        "aasce: labels as stored, T1 after L5 in 18 images; default: as the network was trained",
        action=argparse.BooleanOptionalAction,
    ),
    "preset": _argument("phantom: how hard the images are", choices=PRESETS, default="standard"),
    "seed": _argument(f"phantom: seed of the images; default: {_by_command(SEEDS)}", type=SEED),
    "num-images": _argument(
        f"phantom: how many images; default: {_by_command(NUMBERS)}", "films", type=COUNT, metavar="N"
    ),
    "other-view": _argument(
        "phantom: share of images from the other side, lateral for AP; default: as the network was trained",
        type=SHARE,
        metavar="SHARE",
    ),
    "size": _argument(
        "of every image, in pixels", type=COUNT, nargs=2, default=(512, 256), metavar=("HEIGHT", "WIDTH")
    ),
    "contact-sheet": _argument("picture of all anatomies and presets", type=Path, metavar="FILE"),
    "predictions": _argument("predictions.json of predict, in place of labels", type=Path, metavar="FILE"),
    "without-buu-lspine": _argument(
        "mendeley: leave out images that this copy of BUU-LSPINE has too", type=Path, metavar="DIR"
    ),
    "to": _argument("format to write", choices=FORMATS),
    "copy-images": _switch("also copy the images beside the annotations", "copy-films"),
    "pairs": _argument(
        "CSV with ids of images in columns 1 and 2: of one patient (split), labelled twice (label-noise)",
        type=Path,
        metavar="CSV",
    ),
    "leave-out": _argument("text file with ids that stand in no split, one a line", type=Path, metavar="FILE"),
    "folds": _argument("how many splits of equal size", type=COUNT, default=5, metavar="N"),
    "calibration-images": _argument(
        "size of the split for calibration; default: 40, at most 10 %%", type=SEED, metavar="N"
    ),
    "whole-source": _switch("all images, not only the job's splits"),
    "shards": _argument("write N tar shards instead of a cache", type=COUNT, metavar="N"),
    "labels-only": _switch("do not read the images"),
    "image-table": _argument(
        "films.csv of an evaluation on the same labels: its column shift_levels has the network's names",
        type=Path,
        metavar="CSV",
    ),
    "most": _argument(
        "pairs per patient, drawn by lot; more where an image would be left out",
        type=COUNT,
        default=12,
        metavar="N",
    ),
    "kinds": _argument("disturbances; default: all", nargs="+", choices=KINDS, default=KINDS, metavar="KIND"),
    # --- measures
    "report": _switch("also measure: reports/NAME.html per image, and readings.json with all of it"),
    "correct-shape": _switch(
        "measure corners where the calibration's shape model and the heatmaps agree; without intervals, which are "
        "those of the network's own corners"
    ),
    "spacing-mm": _argument(
        "size of a pixel, for measures in mm; default: what a DICOM header says", type=SIZE_MM, metavar="MM"
    ),
    "anterior-side": _argument(
        "where the patient looks to on lateral images; default: what a DICOM header says. Without it nothing that "
        "has a front is measured",
        choices=("left", "right"),
    ),
    "attention": _switch(
        "also write attention/NAME.png, where the neck's last layer looks from a few vertebrae, and NAME.npz with "
        "the weights of every layer, [heads, N, N] for the N cells of a map, row by row from the top left"
    ),
    "dicom-out": _argument(
        "also write a Grayscale Softcopy Presentation State for each DICOM image, which viewers lay over it; it "
        "names study, series and image by their UIDs, its fields of patient and study are empty",
        choices=("gsps",),
    ),
    "keep-identity": _switch(
        "fill these fields from the image (name, id, birth date, sex of the patient; date, time, id, accession "
        "number, physician of the study): a PACS files by them"
    ),
    "translation-mm": _argument("change of the slip that is unstable", type=LIMIT, default=3.0, metavar="MM"),
    "angle-deg": _argument("change of the disc angle that is unstable", type=LIMIT, default=12.0, metavar="DEG"),
    # --- studies
    "table": _switch("run nothing: table and plots of what is recorded"),
    "run": _argument("one run, left in its folder unrecorded", nargs=2, metavar=("VARIANT", "SEED")),
    "ray": _argument("on a Ray cluster; without ADDRESS on a local one", nargs="?", const="", metavar="ADDRESS"),
    "slurm": _switch("write a SLURM array of what is missing"),
    "sbatch-option": _argument(
        "once per option and with an equals sign: --sbatch-option=--gres=gpu:1",
        action="append",
        default=[],
        metavar="OPTION",
    ),
    "rerun-stale": _switch("move results of other settings out, run anew"),
    "keep-stale": _switch("count rows of other settings as they are"),
    "refine-config": _argument(
        "config of a network of single vertebrae (data.patch), trained per fold too for the crop refinement; of "
        "--set it is given data.root, data.cache, data.shards, data.workers and train.*_every_steps",
        metavar="NAME_OR_FILE",
    ),
    "seeds": _argument("each trains all folds", type=SEED, nargs="+", default=[0], metavar="SEED"),
    "also-stored-order": _switch(
        "aasce: also against the labels as stored (metrics_stored.json, runs/all_stored)"
    ),
}


def add(to: argparse._ActionsContainer, name: str, *, required: bool = False) -> None:
    """Add the argument of this name to a parser, or to a group of one."""
    if name in POSITIONALS:
        to.add_argument(name, help=POSITIONALS[name].help, **POSITIONALS[name].options)
        return
    flag = FLAGS[name]
    names = [f"--{one}" for one in (name, *flag.aliases)]
    options = flag.options | ({"required": True} if required else {})
    action = to.add_argument(*names, help=flag.help, **options)
    if flag.aliases:
        action.option_strings = names[:1]  # the parser knows the others by now; help and completion need not
