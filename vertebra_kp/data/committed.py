"""Files that come with the package, named without path and suffix, or files of one's own by their path."""

from pathlib import Path


def committed_or_own(folder: Path, name_or_path: str) -> Path:
    """``NAME.json`` of a folder of the package, else the path. Raises FileNotFoundError that lists the names."""
    committed, own = folder / f"{name_or_path}.json", Path(name_or_path).expanduser()
    for path in (committed, own):
        if path.is_file():
            return path
    names = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
    raise FileNotFoundError(f"{name_or_path}: no such file and no committed name ({names})")
