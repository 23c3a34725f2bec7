"""Imports go downwards only: a file uses lower floors, or files above it in its own floor's list."""

import ast
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vertebra_kp"
ROOT = PACKAGE.name

# A pattern (data.sources.*) stands for a folder: its files, which may use each other, and its __init__.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "anatomy", "geometry", "spine_line", "config_section", "config_network", "config", "config_io"),
    (
        "codec",
        "chain",
        "straightened",
        "losses",
        "measures.*",
        "metrics",
        "agreement",
        "uncertainty.*",
        "classification",
        "models.quick_imports",
        "models.library",
        "models.backbones",
        "models.necks",
        "models.pyramids",
        "models.decoders",
        "models.heads",
        "models.queries",
        "models.initialise",
        "models.network",
        "models.ensemble",
        "models.describe",
        "distributed",
        "precision",
    ),
    (
        "data.record",
        "data.film_file",
        "data.dicom.*",
        "data.images",
        "data.names",
        "data.sources.*",
        "data.writers.*",
        "data.exchange",
        "data.phantom.*",
        "data.strata",
        "data.committed",
        "data.splits",
        "data.audit",
        "data.audit_records",
        "data.duplicates",
        "data.repair",
        "data.films",
        "data.disturb",
        "data.cache",
        "data.shards",
        "data.patches",
        "data.datasets",
        "data.transforms",
        "data.loader",
        "checkpoint",
        "weights",
        "visualise",
        "page",
        "audit_page",
        "tracking",
        "run_folder",
    ),
    (
        "schedule",
        "meter",
        "state",
        "inference",
        "refine",
        "predictions",
        "calibrated",
        "reading",
        "readings",
        "spine_svg",
        "film_page",
        "report_plots",
        "dicom_results",
        "command_line",
        "film_choice",
        "label_noise",
        "level_agreement",
        "evaluate",
        "shape_check",
        "evaluation",
        "compare",
        "report",
        "summary_lines",
        "provenance",
        "selection",
        "engine",
        "predict",
        "network_choice",
        "robustness",
        "disagreement",
        "ablation.study",
        "ablation.ledger",
        "ablation.collect",
        "ablation.*",
    ),
)
ORDER = tuple(pattern for floor in FLOORS for pattern in floor)
NO_TORCH = FLOORS[0] + ("data.record",)
TORCH = {"torch", "torchvision", "segmentation_models_pytorch", "timm"}


def modules(package: Path) -> dict[str, Path]:
    """Every file by its dotted name inside the package; an ``__init__`` has the name of its folder."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports(path: Path, package: Path) -> set[str]:
    """Absolute names that a file imports, also inside functions; ``from a import b`` is a.b."""
    names = set()
    folder = (package.name, *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            source = ".".join((*above, *([node.module] if node.module else [])))
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def uses(name: str, files: dict[str, Path], package: Path) -> set[str]:
    """The package's own modules that a module imports; "" is the package itself (``vertebra_kp.load``)."""
    used = set()
    for imported in imports(files[name], package):
        parts = imported.split(".")
        if parts[0] != package.name:
            continue
        while ".".join(parts[1:]) not in files:  # a name in a module: the module counts
            parts.pop()
        used.add(".".join(parts[1:]))
    return used


def rank(name: str) -> int | None:
    """Place in ORDER, counted from the ground; None for what stands nowhere."""
    matching = (i for i, pattern in enumerate(ORDER) if fnmatchcase(name, pattern) or pattern == f"{name}.*")
    return next(matching, None)


def violations(package: Path) -> list[str]:
    files = modules(package)
    found = []
    for name in files:
        if name == "":
            continue  # the package's door: it may show whatever is inside
        here = rank(name)
        used = uses(name, files, package) - {name}
        if here is None and files[name].name == "__init__.py":
            if used:
                found.append(f"{name}/__init__.py imports {sorted(used)}: leave it without imports")
        elif here is None:
            found.append(f"{name} stands on no floor: add it to FLOORS in tests/test_floors.py")
        else:
            for other in sorted(used):
                there = rank(other)
                if there is None and files[other].name == "__init__.py":
                    found.append(f"{name} imports the folder {other or package.name}, not a file in it")
                elif there is not None and there > here:
                    found.append(f"{name} imports {other}, which stands above it")
    return found


def test_every_file_imports_from_below_only():
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def test_imports_never_go_round_in_a_circle():
    files = modules(PACKAGE)
    graph = {name: uses(name, files, PACKAGE) - {name} for name in files if name}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", NO_TORCH)
def test_the_ground_floor_knows_nothing_of_torch(name):
    path = modules(PACKAGE)[name]
    assert not TORCH & {imported.split(".")[0] for imported in imports(path, PACKAGE)}


def test_nobody_imports_a_script_and_no_file_is_called_utils():
    files = modules(PACKAGE)
    assert not [name for name in files if name.split(".")[-1] in ("utils", "helpers", "common")]
    for path in files.values():
        assert not {"scripts", "tests"} & {imported.split(".")[0] for imported in imports(path, PACKAGE)}


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("codec.py", "from vertebra_kp.engine import fit", "codec imports engine, which stands above it"),
        ("geometry.py", "from vertebra_kp import config", "geometry imports config, which stands above it"),
        (
            "codec.py",
            "def late():\n    from . import engine",
            "codec imports engine, which stands above it",
        ),
        ("data/record.py", "import vertebra_kp.data.sources.csv", "data.record imports data.sources.csv"),
        ("data/record.py", "from ..engine import fit", "data.record imports engine, which stands above it"),
        ("engine.py", "from vertebra_kp import load", "engine imports the folder vertebra_kp"),
        (
            "data/__init__.py",
            "from vertebra_kp.anatomy import LEVELS",
            "data/__init__.py imports ['anatomy']",
        ),
        ("novel.py", "", "novel stands on no floor: add it to FLOORS"),
        ("engine.py", "from vertebra_kp.codec import x\nimport numpy", None),
        ("data/sources/csv.py", "from vertebra_kp.data.sources.other import x", None),
        ("data/sources/__init__.py", "from vertebra_kp.data.sources.other import x", None),
        ("engine.py", "from vertebra_kp.data.sources import read_records", None),
    ],
)
def test_the_walk_sees_a_wrong_import(tmp_path, file, text, complaint):
    package = tmp_path / ROOT
    for name in ("__init__", "anatomy", "config", "geometry", "codec", "engine"):
        (package / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    for name in (
        "data/__init__",
        "data/record",
        "data/sources/__init__",
        "data/sources/csv",
        "data/sources/other",
    ):
        (package / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    (package / file).write_text(text)
    found = violations(package)
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(complaint)
