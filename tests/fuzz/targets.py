"""What is damaged: every reader of images and labels, every other kind of file, and the command line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import damage
import numpy as np
import test_damaged_inputs
import test_dicom
import yaml
from commands import run
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from small_run import SCHEMA as ANATOMY
from small_run import SmallRun, make_all
from tiny_job import thin_efficientnet

from vertebra_kp.cli.arguments import ARGUMENTS
from vertebra_kp.cli.commands import COMMANDS
from vertebra_kp.cli.predict import write_results
from vertebra_kp.config.io import find_config, load_config, load_job, override_config
from vertebra_kp.core.anatomy import SCHEMAS, State
from vertebra_kp.data.cache import CachedFilms
from vertebra_kp.data.datasets import records_of, selection_of
from vertebra_kp.data.exchange import films_of_predictions
from vertebra_kp.data.images import film_size, read_film, to_uint8
from vertebra_kp.data.repair import load_repair_file
from vertebra_kp.data.shards import ShardFilms, read_shards
from vertebra_kp.data.sources import read_records
from vertebra_kp.data.splits import load_split_file, read_pairs
from vertebra_kp.evaluation.store import load_evaluation
from vertebra_kp.evaluation.uncertainty.store import load_calibrated
from vertebra_kp.experiments.ledger import Ledger
from vertebra_kp.experiments.study import read_study
from vertebra_kp.inference.journal import open_journal
from vertebra_kp.inference.loading import load
from vertebra_kp.inference.network_file import COMMITTED
from vertebra_kp.models import library
from vertebra_kp.reports.evaluation import write_report

READERS, FILES, WORDS = "damaged images and labels", "damaged other files", "words of the command line"
SCHEMA = SCHEMAS[ANATOMY]

Make = Callable[[Path], object]  # sound files in an empty folder


@dataclass(frozen=True)
class Target:
    """``made`` writes sound files; of those ``files`` match, one is damaged per case, and then ``read``.

    A target without files reads what ``words`` draws.
    """

    name: str
    kind: str
    read: Callable[..., object]
    made: Make = field(default=lambda folder: None)
    files: str = "*"
    change: damage.Damage = damage.BINARY
    words: st.SearchStrategy | None = None


# --- images -------------------------------------------------------------------------------------------------


def _read_image(path: Path) -> None:
    film_size(path)
    to_uint8(read_film(path))


def _pixels(bits: int = 8) -> np.ndarray:
    levels = np.random.default_rng(2).integers(0, 2**bits, (24, 17))
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def _pngs(folder: Path) -> None:
    gray = Image.fromarray(_pixels())
    for mode in ("L", "P", "RGB", "RGBA", "LA", "1"):
        gray.convert(mode).save(folder / f"{mode}.png")
    Image.fromarray(_pixels(16)).save(folder / "16.png")
    exif = Image.Exif()
    exif[0x112] = 6
    gray.save(folder / "turned.png", exif=exif)


def _jpegs(folder: Path) -> None:
    gray, exif = Image.fromarray(_pixels()), Image.Exif()
    exif[0x112] = 8
    gray.save(folder / "gray.jpg", exif=exif, dpi=(150, 150))
    gray.convert("RGB").save(folder / "colour.jpg", progressive=True)
    gray.convert("CMYK").save(folder / "cmyk.jpg")


def _tiffs(folder: Path) -> None:
    gray = Image.fromarray(_pixels())
    for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        gray.save(folder / f"{name}.tif", compression=name, dpi=(150, 150))
    Image.fromarray(_pixels(16)).save(folder / "16.tif")
    gray.save(folder / "pages.tif", save_all=True, append_images=[gray, gray])
    Image.fromarray(_pixels().astype(np.float32)).save(folder / "float.tif")


def _dicoms(folder: Path) -> None:
    elements = {
        "PixelSpacing": [0.2, 0.2],
        "WindowCenter": 2000,
        "WindowWidth": 900,
        "PatientOrientation": ["A", "F"],
    }
    for name, syntax in {"implicit": ImplicitVRLittleEndian, "deflated": DeflatedExplicitVRLittleEndian}.items():
        made = test_dicom.dicom(test_dicom.twelve_bits(), bits=12, syntax=syntax, **elements)
        test_dicom.saved(folder / f"{name}.dcm", made)
    table = [test_dicom.lut(np.arange(256, dtype=np.uint16), 0, 8)]
    plain = test_dicom.dicom(test_dicom.twelve_bits(), bits=12, VOILUTSequence=table, RescaleSlope=2)
    test_dicom.saved(folder / "table.dcm", plain)


def _compressed_dicoms(folder: Path) -> None:
    for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless):
        test_dicom.compressed(folder / f"{syntax.name[:24].replace('/', ' ')}.dcm", syntax)
    eight = test_dicom.dicom(_pixels())
    test_dicom.transcoded(folder / "baseline.dcm", eight, JPEGBaseline8Bit)


IMAGES = [
    Target("PNG", READERS, _read_image, _pngs, "*.png", damage.one_of(damage.BINARY, damage.png_changed)),
    Target("JPEG", READERS, _read_image, _jpegs, "*.jpg"),
    Target("TIFF", READERS, _read_image, _tiffs, "*.tif"),
    Target("DICOM", READERS, _read_image, _dicoms, "*.dcm"),
    Target("DICOM, compressed", READERS, _read_image, _compressed_dicoms, "*.dcm"),
]

# --- labels -------------------------------------------------------------------------------------------------

_BY_SUFFIX = {
    ".json": damage.JSON,
    ".xml": damage.TEXT,
    ".csv": damage.TEXT,
    ".txt": damage.TEXT,
    ".mat": damage.BINARY,
}


def _labels(name: str) -> Target:
    write, schema = test_damaged_inputs.SOURCES[name]

    def read(path: Path) -> None:
        root = next(parent for parent in path.parents if parent.name == "sound")
        for record in read_records(name, root, schema):
            assert record.image_path.resolve().is_relative_to(root.resolve())
            assert (
                record.points_xy_image is None
                or np.isfinite(record.points_xy_image[record.states == State.LABELLED]).all()
            )

    def damaged(content: bytes, data: st.DataObject) -> bytes:
        looks_binary, is_json = b"\0" in content[:512], content[:1] in (b"{", b"[")
        kind = damage.BINARY if looks_binary else damage.JSON if is_json else damage.TEXT
        return kind(content, data)

    return Target(name, READERS, read, write, "labels", damaged)


LABELS = [_labels(name) for name in sorted(test_damaged_inputs.SOURCES)]

# --- other files --------------------------------------------------------------------------------------------


@cache
def _small_run(parent: Path) -> SmallRun:
    """Made once per process."""
    folder = parent / "small run"
    folder.mkdir()
    return make_all(folder)


def _of_run(*names: str) -> Make:
    """Copies of files of the small run."""

    def made(folder: Path) -> None:
        run = _small_run(folder.parents[1])
        for name in names:
            source = run.folder / name
            if source.is_dir():
                shutil.copytree(source, folder / source.name)
            else:
                shutil.copy(source, folder)

    return made


def _job(path: Path) -> SmallRun:
    """The small run that a case's sound folder was copied from."""
    sound = next(parent for parent in path.parents if parent.name == "sound")
    return _small_run(sound.parents[1])


def _load(path: Path) -> None:
    with patch.object(library, "efficientnet_v2_s", thin_efficientnet):
        predictor = load(path, "cpu")
        predictor.predict_films([predictor.film_of(np.zeros((96, 64), np.uint8), "black")])


def _write_configs(folder: Path) -> None:
    _of_run("job.yaml", "spine.yaml")(folder)
    (folder / "above.yaml").write_text("base: job.yaml\ntrain: {seed: 3}\n")
    (folder / "shipped.yaml").write_text("base: quickstart\nname: other\n")


def _write_weights(folder: Path) -> None:
    """Without the side file: the checksum alone would stop every case."""
    shutil.copy(_small_run(folder.parents[1]).folder / "weights.safetensors", folder)


def _write_calibration(folder: Path) -> None:
    """The shipped one, smaller: damage hits its structure, not the thousandth number of a list."""
    content = json.loads((COMMITTED / "ap-spine" / "calibration.json").read_text())
    (folder / "calibration.json").write_text(json.dumps(content))


def _write_repairs(folder: Path) -> None:
    actions = [
        {"action": "reorder_corners", "level": "L4", "order": [1, 0, 3, 2], "reason": "mirrored"},
        {"action": "reorder_levels", "order": list(range(SCHEMA.num_levels)), "reason": "none"},
        {"action": "unlabel", "level": "L5", "reason": "hidden"},
    ]
    content = {"source": "csv", "anatomy": ANATOMY, "films": {"a.png": actions}, "proposals": {"a.png": ["look"]}}
    (folder / "repairs.json").write_text(json.dumps(content))


def _write_study(folder: Path) -> None:
    _of_run("job.yaml")(folder)
    study = {"base": "job.yaml", "seeds": [0, 1], "baseline": "plain"}
    study |= {
        "variants": {"plain": [], "wide": ["codec.sigma=2.5"]},
        "measured": {"argmax": ["codec.decode=argmax"]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))


def _read_study(path: Path) -> None:
    study = read_study(path.parent)
    Ledger(study.folder).entries()


def _read_cache(path: Path) -> None:
    cache_folder, config = path.parents[1], load_config(_job(path).config)
    records = records_of(selection_of(config.data, None))
    films = CachedFilms(records, SCHEMA, config.data.film_size, cache_folder)
    for index in range(len(films)):
        films.at(0, index)


def _read_shards(path: Path) -> None:
    records, places = read_shards(path.parent, "csv", SCHEMA, (64, 64))
    films = ShardFilms(records, places, SCHEMA, (64, 64))
    for index in range(len(films)):
        films.at(0, index)


def _read_journal(path: Path) -> None:
    about = json.loads(_small_run_line(path))["about"]
    with open_journal(path.parent, about, resume=True, overwrite=False) as journal:
        write_results(journal, [], path.parent)


def _small_run_line(path: Path) -> bytes:
    return (_job(path).folder / "predicted" / "predictions.jsonl").read_bytes().splitlines()[0]


def _report(path: Path) -> None:
    load_evaluation(path.parent)
    write_report(path.parent, path.parent / "report.html")


def _resume(path: Path) -> None:
    """A finished run whose tables are damaged; nothing is left to train."""
    with patch.object(library, "efficientnet_v2_s", thin_efficientnet):
        job = _job(path)
        _told_in_one_line(
            run("train", "--config", job.config, "--run-dir", path.parent, "--resume", "--device", "cpu")
        )


def _told_in_one_line(ended) -> None:
    assert "Traceback" not in ended.stderr, ended.stderr[-300:]
    assert ended.returncode in (0, 1, 2, 3, 75, 130), ended.returncode


OTHERS = [
    Target("config", FILES, load_job, _write_configs, "*.yaml", damage.TEXT),
    Target("checkpoint", FILES, _load, _of_run("run/checkpoints/best.pt"), "*.pt",
           damage.one_of(damage.BINARY, damage.zip_changed, damage.zip_changed)),
    Target("safetensors", FILES, _load, _write_weights, "*.safetensors",
           damage.one_of(damage.BINARY, damage.safetensors_changed, damage.safetensors_changed)),
    Target("calibration", FILES, lambda path: load_calibrated(path, SCHEMAS["ap_whole_spine"]), _write_calibration,
           "*.json", damage.JSON),
    Target("split file", FILES, lambda path: load_split_file(str(path)), _of_run("split.json"),
           "*.json", damage.JSON),
    Target("repair file", FILES, lambda path: load_repair_file(str(path)), _write_repairs, "*.json", damage.JSON),
    Target("pairs of images", FILES, read_pairs,
           lambda folder: (folder / "pairs.csv").write_text("first,second\na.png,b.png\nc.png,d.png\n"),
           "*.csv", damage.TEXT),
    Target("predictions.json", FILES, lambda path: films_of_predictions(path, _job(path).images),
           _of_run("predicted/predictions.json"), "*.json", damage.JSON),
    Target("journal of predict", FILES, _read_journal, _of_run("predicted/predictions.jsonl"), "*.jsonl",
           damage.one_of(damage.TEXT, damage.json_lines_changed, damage.json_lines_changed)),
    Target("evaluation.npz", FILES, lambda path: load_evaluation(path.parent),
           _of_run("run/evaluation/evaluation.npz"), "*.npz", damage.one_of(damage.BINARY, damage.zip_changed)),
    Target("metrics.json of a report", FILES, _report,
           _of_run("run/evaluation/evaluation.npz", "run/evaluation/metrics.json"), "metrics.json", damage.JSON),
    Target("study", FILES, _read_study, _write_study, "study.yaml", damage.TEXT),
    Target("cache", FILES, _read_cache, _of_run("cache"), "*x64*/[fi]*",
           damage.one_of(damage.BINARY, damage.json_lines_changed)),
    Target("shard", FILES, _read_shards, _of_run("shards"), "shards/*.tar", damage.BINARY),
]  # fmt: skip

# --- words ----------------------------------------------------------------------------------------------------

_ODD = (
    "",
    " ",
    "-",
    "--",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "9" * 40,
    "9" * 5000,
    "0x10",
    "١٢",
    "NaN",
)
_ODD += (
    "../..",
    "a" * 300,
    "a\nb",
    "\udcff",
    "𝔘.png",
    "~",
    "~nobody/x",
    "*",
    "[",
    "***",
    "/",
    ".",
    "no.yaml",
    "%s",
)
_VALUES = ("nan", "inf", "-.inf", ".nan", "1e400", "9" * 400, "9" * 5000, "[" * 500, "{" * 5000, "- " * 3000, "")
_VALUES += (
    "null",
    "true",
    "[]",
    "{}",
    "&a [*a]",
    "*a",
    "!!python/object/apply:os.system [ls]",
    "2001-01-01",
    "\t",
)
_VALUES += ("a: b: c", "'", '"', "|", "[1, [2, [3]]]", "-1", "0", "1e308", "x" * 5000, "\udcff", "\x07", "1_000")
_COSTLY = {"phantom", "train", "cross-validate", "ablate"}  # with sound words they do what is asked, for hours


def _paths_of(section: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in section.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _paths_of(value, f"{prefix}{key}.")
    return found


_FIELDS = _paths_of(load_config(find_config("quickstart")).model_dump(mode="json"))
settings_words = st.lists(
    st.tuples(
        st.sampled_from(
            [*_FIELDS, "train.phases.0.lr", "train.phases.9.lr", "train.phases.-1.lr", "train.phases.x"]
        )
        | st.sampled_from(["", ".", "a..b", "name.x", "__class__", "9" * 30]),
        st.sampled_from(["=", "=", "=", "", " = ", "=="]),
        st.sampled_from(_VALUES) | st.text(max_size=10) | st.floats().map(str) | st.integers().map(str),
    ).map("".join),
    min_size=1,
    max_size=4,
)


@st.composite
def command_words(draw) -> list[str]:
    """A command with arguments that it takes, and values that nobody would give; no folder that exists."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = [name]
    takes = [item.rstrip("!") for item in COMMANDS[name].takes.replace("|", " ").split()]
    for argument in draw(st.lists(st.sampled_from(takes), max_size=6)):
        about = ARGUMENTS[argument]
        positional = about.get("positional", False)
        words += [] if positional else [f"--{argument}"]
        values = st.sampled_from(_ODD) | st.sampled_from([str(one) for one in about.get("choices", ["x"])])
        if argument == "set":
            values = settings_words.flatmap(st.sampled_from)
        if positional or about.get("action") not in ("switch", "switch_off"):
            words += draw(st.lists(values, min_size=1, max_size=2))
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(_ODD)))
    return words


def _set(words: list[str]) -> None:
    override_config(load_config(find_config("quickstart")), words)


def _command(words: list[str]) -> None:
    if words and words[0] in _COSTLY and "--config" not in words:
        words = [*words, "--no-such-flag"]
    _told_in_one_line(run(words[0], *words[1:]) if words else run(""))


LINES = [
    Target("settings (--set)", WORDS, _set, words=settings_words),
    Target("commands", WORDS, _command, words=command_words()),
]

TARGETS = {target.name: target for target in [*IMAGES, *LABELS, *OTHERS, *LINES]}


def files_of(target: Target, folder: Path) -> list[Path]:
    if target.files == "labels":
        return test_damaged_inputs.label_files(folder)
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).match(target.files)
    )
