"""Films and labels of public data sets and of one's own, each format in its own file, all as records.

What its file says is not repeated here. For all of them: corners that a data set does not give are unlabelled,
levels that the keypoint schema lacks are left out, a film without a patient is a group of its own, and lateral
films have their anterior side at the left of the image. ``read_records(root, schema)`` of a file returns the
films that have labels, sorted by id: their paths relative to ``root``, unless it says otherwise. It raises
SourceError for a missing layout, for a schema that the data set cannot fill, and one that lists every entry that
is wrong, with its place.
"""

from collections.abc import Callable
from pathlib import Path

from vertebra_kp.core.anatomy import SCHEMAS, Schema
from vertebra_kp.data.record import Record
from vertebra_kp.data.sources import (
    aasce,
    buu_lspine,
    centres,
    coco,
    corners,
    csv,
    csxa,
    cvat,
    json,
    label_studio,
    labelme,
    lateral_whole,
    mendeley,
    slicer,
    spinal_ai2024,
)
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.data.sources.problems import SourceError

__all__ = ["SOURCES", "SourceError", "find_films", "read_records", "schema_of"]

_FORMATS = (
    buu_lspine,
    centres,
    coco,
    corners,
    csv,
    csxa,
    cvat,
    json,
    label_studio,
    labelme,
    lateral_whole,
    mendeley,
    slicer,
    spinal_ai2024,
)
READERS: dict[str, Callable[[Path, Schema], list[Record]]] = {
    module.__name__.rpartition(".")[2]: module.read_records for module in _FORMATS
}
SOURCES = ("aasce", *READERS)


def schema_of(source: str, anatomy: str | None) -> Schema:
    """The keypoint schema that is named for a source; AASCE has its own. Raises SourceError when none is named."""
    if anatomy is None and source != "aasce":
        raise SourceError(f"source {source} needs an anatomy, one of {', '.join(SCHEMAS)}")
    return SCHEMAS[anatomy or "ap_whole_spine"]


def read_records(
    source: str, root: Path | None, schema: Schema, part: str | None = None, *, stored_order: bool = False
) -> list[Record]:
    """Every labelled film of a data set, sorted by id; pixels are not read.

    ``part`` ("training" or "test", default "training") and ``stored_order`` (vertebrae as the files have them,
    T1 last in some) are known to AASCE only. Raises SourceError, which lists every problem found, when the
    layout or a label is not as the format says.
    """
    if source == "aasce":
        return aasce.read_records(root, schema, part or aasce.PARTS[0], stored_order=stored_order)
    if source not in SOURCES:
        raise SourceError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    if part is not None:
        raise SourceError(f"source {source} has no parts, got part {part!r}; choose films by a split file")
    if root is None:
        raise SourceError(f"source {source} needs the folder of the data set: set data.root, or name the root")
    return READERS[source](Path(root).expanduser(), schema)
