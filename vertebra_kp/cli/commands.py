"""The commands: what each is for, and which arguments it takes."""

from dataclasses import dataclass, field

NETWORK = "network! ensemble refine set device"
IMAGES = "source|validation! root split split-file repair-file stored-order preset seed num-images other-view"
LABELS = "source! root anatomy"


@dataclass(frozen=True)
class Command:
    """``takes`` names arguments; ``a|b`` are alternatives, ``!`` after a name says that it is required.

    ``needs`` says which argument makes no sense without which other one. ``about`` follows ``help`` in the
    command's own help.
    """

    name: str
    help: str
    takes: str
    about: str = ""
    needs: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The file of this room whose ``run`` does the work."""
        return self.name.replace("-", "_")


GROUPS = {
    "Use a network": (
        Command(
            "predict",
            "find the vertebra corners on images, without labels",
            f"inputs {NETWORK} out! resume|overwrite report calibration correct-shape spacing-mm anterior-side "
            "attention dicom-out keep-identity",
            "Of a DICOM header only the size of a pixel, the view and the side get into the results, nothing of "
            "patient or study. But results name images by their paths as given: rename an image that is named "
            "after a patient. And pictures show the text that stands in an image's pixels.",
            {
                **dict.fromkeys(("calibration", "correct-shape", "spacing-mm", "anterior-side"), "report"),
                "keep-identity": "dicom-out",
            },
        ),
        Command(
            "instability",
            "instability between vertebrae, from flexion and extension",
            f"flexion extension {NETWORK} anterior-side! spacing-mm translation-mm angle-deg",
            "Two lateral images of one patient. A segment is unstable when its slip or its disc angle changes by "
            "more than the criterion. The defaults are one convention among several: name the criterion beside "
            "the result. Without the size of a pixel angles decide alone.",
        ),
    ),
    "Train": (
        Command(
            "train",
            "train the network that a config describes",
            "config! set run-dir device describe resume|overwrite",
            "Everything it writes stands in one run folder. SIGTERM and Ctrl-C write a checkpoint first.",
        ),
        Command(
            "cross-validate",
            "train once per fold, measure every image by the other folds",
            "config! set refine-config out! seeds jobs also-stored-order rerun-stale",
            "The splits that train and those that validate in the config take turns: each validates once. Rows of "
            "finished folds are in results.csv, the figures over all images in metrics.json, what report reads in "
            "runs/all. Start it again to go on after any interruption.",
        ),
        Command(
            "ablate",
            "run what is missing of a study, compare its variants",
            "study jobs table|run|ray|slurm sbatch-option rerun-stale|keep-stale",
            "Start it again to go on after any interruption.",
            {"sbatch-option": "slurm"},
        ),
        Command(
            "export-weights",
            "write a trained network to one small file, weights of 8 bits",
            "network! refine set about output-file!",
        ),
        Command(
            "config-schema",
            "JSON schema of a config file, for editors",
            "output-file",
            "VS Code with the YAML extension: save it as schema.json beside a config that starts with the line "
            "# yaml-language-server: $schema=schema.json",
        ),
    ),
    "Measure": (
        Command(
            "evaluate",
            "measure a network on labelled images",
            f"{NETWORK} {IMAGES} calibration flip out!",
            "In the images' own pixels. Writes JSON, CSV and a picture of the worst images.",
        ),
        Command(
            "calibrate",
            "learn how far off a network is, for regions and intervals",
            f"{NETWORK} {IMAGES} coverage output-file",
            "Take labelled images that neither trained nor selected the network. The coverage that is printed is "
            "cross-conformal: patients are judged by what the others say.",
            {"ensemble": "output-file"},
        ),
        Command(
            "report",
            "write an evaluation as one HTML file",
            "evaluation output-file",
        ),
        Command(
            "compare",
            "compare two evaluations of the same images",
            "first second",
            "Differences per image, intervals over patients, a verdict.",
        ),
        Command(
            "robustness",
            "measure a network on images that get worse step by step",
            f"{NETWORK} {IMAGES} calibration kinds out!",
            "Writes robustness.csv; beside an evaluation's metrics.json it becomes a part of the report. With a "
            "calibration it also says how often a disturbed image has a higher out-of-distribution score than a "
            "clean one (area under the ROC).",
        ),
    ),
    "Labels": (
        Command(
            "audit",
            "look for wrong labels, duplicates, patients in two splits",
            f"{LABELS} split-file network set device labels-only out!",
            "Writes audit.csv (one finding a row, worst first), audit.html (the same with pictures) and "
            "repair.json: what is certain as actions, everything else as proposals for a person. data.repair_file "
            "of a config applies it. With a network, labels are also compared with its predictions.",
            {"set": "network", "device": "network"},
        ),
        Command(
            "label-noise",
            "how far apart two labellings of the same images are",
            f"{LABELS} repair-file pairs!",
            "The floor below which a network's error says nothing.",
        ),
        Command(
            "level-agreement",
            "whether images of one patient name vertebrae alike",
            f"{LABELS} split split-file repair-file image-table most out!",
            "Writes pairs.csv, a row for each two images of a patient, and prints what clear pairs say. Where "
            "labels contradict each other, no network can agree with all of them.",
            {"split": "split-file", "split-file": "split"},
        ),
    ),
    "Data": (
        Command(
            "split",
            "deal images to folds by patient",
            f"{LABELS} pairs leave-out folds calibration-images output-file!",
            "And to a part for calibration; each gets its share of curves or slips. The same input gives the same "
            "file.",
        ),
        Command(
            "convert",
            "labels or predictions in the format of another tool",
            "source|predictions! root! anatomy without-buu-lspine to! copy-images out!",
        ),
        Command(
            "prepare",
            "decode and shrink the images of a config once",
            "config! set whole-source shards out workers",
            "Into a cache, or into tar shards that can go to other machines. A cache that was interrupted goes on "
            "with the images it has. Training sees the same pixels and corners from either as from the images.",
        ),
        Command(
            "phantom",
            "write synthetic images with their labels",
            "anatomy preset seed num-images size out contact-sheet",
        ),
    ),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
