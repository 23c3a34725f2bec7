"""Imports go downwards only: a room (a folder of the package) uses the rooms before it, never those after it."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vertebra_kp"

FLOORS = (
    "core",
    "measures",
    "config",
    "data",
    "models",
    "inference",
    "evaluation",
    "reports",
    "audit",
    "training",
    "experiments",
    "cli",
)
WITHOUT_TORCH = {"core", "measures", "config"}
TORCH = {"torch", "torchvision", "segmentation_models_pytorch", "timm"}
FILES_AT_THE_TOP = {"__init__.py", "__main__.py", "py.typed"}


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
    return used - {name}


def violations(package: Path) -> list[str]:
    files = modules(package)
    found = []
    for name in files:
        room = name.partition(".")[0]
        if name in ("", "__main__"):
            continue  # the package's doors: they may show whatever is inside
        if room not in FLOORS:
            found.append(f"{name} is in no room: move it into one of the folders {', '.join(FLOORS)}")
            continue
        for used in sorted(uses(name, files, package)):
            other = used.partition(".")[0]
            if other not in FLOORS:
                found.append(f"{name} imports the package itself: import the module that it needs")
            elif FLOORS.index(other) > FLOORS.index(room):
                found.append(f"{name} imports {used}, but {other} comes after {room}")
    return found


def test_every_room_imports_only_rooms_before_it():
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def test_modules_never_import_each_other_in_a_circle():
    files = modules(PACKAGE)
    graph = {name: uses(name, files, PACKAGE) for name in files if name}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_package_has_one_folder_per_room_and_three_files_beside_them():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOORS)
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} <= FILES_AT_THE_TOP


def test_tests_stand_in_the_same_rooms():
    folders = {path.parent.name for path in PACKAGE.parent.glob("tests/*/test_*.py")}
    assert folders <= {*FLOORS, "faults", "fuzz"}  # these two try every room


@pytest.mark.parametrize("name", [name for name in modules(PACKAGE) if name.partition(".")[0] in WITHOUT_TORCH])
def test_core_measures_and_config_work_without_torch(name):
    path = modules(PACKAGE)[name]
    assert not TORCH & {imported.split(".")[0] for imported in imports(path, PACKAGE)}


def test_nobody_imports_a_script_and_no_file_is_called_utils():
    files = modules(PACKAGE)
    assert not [name for name in files if name.split(".")[-1] in ("utils", "helpers", "common")]
    for path in files.values():
        assert not {"scripts", "tests"} & {imported.split(".")[0] for imported in imports(path, PACKAGE)}


def test_the_library_speaks_of_fields_and_functions_not_of_flags_and_scripts():
    flag, script = re.compile(r"(?<![\w\-\"])--[a-z]"), re.compile(r"scripts/|\b\w+\.py\b")
    found = []
    for path in (path for room in FLOORS[:-1] for path in (PACKAGE / room).rglob("*.py")):
        raised = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)
        ]
        texts = [part.value for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant)]
        found += [f"{path}: {text}" for text in map(str, texts) if flag.search(text) or script.search(text)]
    assert found == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("models/codec.py", "from vertebra_kp.training.loop import fit", "models.codec imports training.loop"),
        ("core/geometry.py", "from vertebra_kp import config", "core.geometry imports config"),
        ("models/codec.py", "def late():\n    from ..training import loop", "models.codec imports training.loop"),
        ("data/record.py", "from ..training.loop import fit", "data.record imports training.loop"),
        ("training/loop.py", "from vertebra_kp import load", "training.loop imports the package itself"),
        ("core/__init__.py", "from vertebra_kp.data.record import Record", "core imports data.record"),
        ("novel.py", "", "novel is in no room"),
        ("training/loop.py", "from vertebra_kp.models.codec import x\nimport numpy", None),
        ("data/sources/csv.py", "from vertebra_kp.data.sources.other import x", None),
        ("__main__.py", "from vertebra_kp.training.loop import fit", None),
    ],
)
def test_the_walk_sees_a_wrong_import(tmp_path, file, text, complaint):
    package = tmp_path / PACKAGE.name
    known = (
        "core/geometry config/schema data/record data/sources/csv data/sources/other models/codec training/loop"
    )
    for module in known.split():
        path = package / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in (package, *package.rglob("*")):
        if folder.is_dir():
            (folder / "__init__.py").touch()
    (package / file).write_text(text)
    found = violations(package)
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(complaint)
