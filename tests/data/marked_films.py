"""Folders of films with a file of marks, and what reading a wrong entry says."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra_kp.data.sources.problems import SourceError

SIZE = (40, 30)  # height, width


def save(root, file, entries, films=None):
    """``entries`` by film in ``file``, and the films (all that are named, unless said otherwise)."""
    (root / "films").mkdir(parents=True, exist_ok=True)
    for name in entries if films is None else films:
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(root / "films" / name)
    (root / file).write_text(json.dumps(entries))


def check_faults(read_records, root, file, faults, schema):
    """One error names every film of ``faults`` (film -> (entry, what is said)), and one more that is missing."""
    entries = {name: entry for name, (entry, _) in faults.items()}
    save(root, file, {**entries, "gone.png": {}, "lost.png": {}}, films=entries)
    with pytest.raises(SourceError) as caught:
        read_records(root, schema)
    lines = {line.split(":")[0].strip(): line for line in str(caught.value).splitlines()[1:]}
    for name, (_, said) in faults.items():
        assert said in lines[name], name
    for name in ("gone.png", "lost.png"):
        assert f"film 'films/{name}' is not in" in lines[name]
    assert len(lines) == len(faults) + 2
