"""``evaluation.npz``: what an evaluation found, film by film, for reports and comparisons without the network."""

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vertebra_kp.core.anatomy import SCHEMAS, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import JPEG_QUALITY, replacing
from vertebra_kp.data.films import Films
from vertebra_kp.evaluation.metrics import FilmResult, film_errors

FILE = "evaluation.npz"
VERSION = 1
MAX_BYTES = 2**30  # unpacked; 100,000 images take 300 MiB
SHOWN = 6  # worst films that keep their picture, and as many around the median
ARRAYS = ("true_points", "true_states", "points", "presence", "covariances")


@dataclass(frozen=True)
class Picture:
    """A film as it was kept in memory, uint8 ``[H, W]``, and the 3x3 matrix from the original's frame to it."""

    image: np.ndarray
    to_image: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """``results`` in the order of evaluation; ``worst`` and ``median`` are places in it, with their pictures.

    ``ood_scores`` ``[films]``, out-of-distribution scores, are None where there was no calibration.
    """

    schema: Schema
    results: list[FilmResult]
    worst: dict[int, Picture]
    median: dict[int, Picture]
    ood_scores: np.ndarray | None


def evaluation_of(
    schema: Schema, results: Sequence[FilmResult], films: Films, ood_scores: Sequence[float] | None = None
) -> Evaluation:
    """What was found on ``films``, in whose order ``results`` are; the shown films' pictures come from there."""

    def pictures(places: list[int]) -> dict[int, Picture]:
        shown = {i: films.at(0, i) for i in places}
        return {i: Picture(film.image, film.to_image) for i, film in shown.items()}

    worst, median = _shown(results, range(len(results)), range(len(results)))
    scores = None if ood_scores is None else np.asarray(ood_scores)
    return Evaluation(schema, list(results), pictures(worst), pictures(median), scores)


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations as one, such as those of the folds of a cross-validation; scores are left out.

    Shown are the worst films of all, and of those that were shown as median the ones nearest to the new median.
    """
    results = [result for evaluation in evaluations for result in evaluation.results]
    starts = np.cumsum([0, *(len(evaluation.results) for evaluation in evaluations)])
    both = list(zip(starts[:-1].tolist(), evaluations, strict=True))
    worst = {start + i: picture for start, one in both for i, picture in one.worst.items()}
    median = {start + i: picture for start, one in both for i, picture in one.median.items()}
    shown_worst, shown_median = _shown(results, worst, median)
    pictures = {i: worst[i] for i in shown_worst}, {i: median[i] for i in shown_median}
    return Evaluation(evaluations[0].schema, results, *pictures, None)


def _shown(
    results: Sequence[FilmResult], worst_of: Iterable[int], median_of: Iterable[int]
) -> tuple[list[int], list[int]]:
    """Places of the worst films, the worst first, and of those nearest to the median error, of those given."""
    errors = [film_errors(result)["mre_px"] for result in results]
    known = {i: error for i, error in enumerate(errors) if error is not None}
    middle = np.median(list(known.values())) if known else 0.0
    worst = sorted((i for i in worst_of if i in known), key=lambda i: -known[i])
    median = sorted((i for i in median_of if i in known), key=lambda i: abs(known[i] - middle))
    return worst[:SHOWN], sorted(median[:SHOWN], key=lambda i: -known[i])


def save_evaluation(evaluation: Evaluation, path: Path) -> str:
    """Returns the file's checksum, which ``metrics.json`` beside it names: the two belong together."""
    results = evaluation.results
    content: dict[str, Any] = {name: np.stack([getattr(result, name) for result in results]) for name in ARRAYS}
    for i, picture in {**evaluation.worst, **evaluation.median}.items():
        encoded = cv2.imencode(".jpg", picture.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        content |= {f"picture_{i}": encoded, f"to_image_{i}": picture.to_image}
    content |= {
        "version": VERSION,
        "schema": evaluation.schema.name,
        "id": [result.id for result in results],
        "group": [result.group for result in results],
        "size": [result.size for result in results],
        "spacing_mm": np.array([result.spacing_mm for result in results], dtype=float),  # nan for None
        "anterior_side": [result.anterior_side or "" for result in results],
        "worst": list(evaluation.worst),
        "median": list(evaluation.median),
        "distrust": [] if evaluation.ood_scores is None else evaluation.ood_scores,
    }
    with replacing(path) as file:
        np.savez_compressed(file, **content)
    return checksum(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_evaluation(folder: Path) -> Path:
    """The folder itself, or the ``evaluation`` in a run's folder."""
    inside = folder / "evaluation"
    return inside if (inside / FILE).is_file() and not (folder / FILE).is_file() else folder


def load_evaluation(folder: Path) -> Evaluation:
    """Raises UserError where there is none, or one of another version."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist; evaluate a network into {folder} first")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES // 2**20} MiB")
        with np.load(path) as content:
            arrays = dict(content)
        if int(arrays["version"]) != VERSION:
            raise ValueError("it is of another version of vertebra_kp")
        _check_shapes(arrays)
        results = [_result(arrays, i) for i in range(len(arrays["id"]))]
        worst, median = ({int(i): _picture(arrays, int(i)) for i in arrays[name]} for name in ("worst", "median"))
        scores = arrays["distrust"] if len(arrays["distrust"]) else None
        return Evaluation(SCHEMAS[str(arrays["schema"])], results, worst, median, scores)
    except Exception as error:  # numpy raises many kinds, by what is damaged
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); evaluate again") from None


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    n, levels = len(arrays["id"]), SCHEMAS[str(arrays["schema"])].num_levels
    corners = (n, levels, 4)
    wanted = {
        "true_points": (*corners, 2),
        "true_states": corners,
        "points": (*corners, 2),
        "presence": (n, levels),
    }
    wanted |= {"covariances": (*corners, 2, 2), "group": (n,), "size": (n, 2), "spacing_mm": (n,)}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is of shape {arrays[name].shape}, wanted {shape}")
    for name in ("worst", "median"):
        if not all(0 <= i < n for i in arrays[name]):
            raise ValueError(f"{name} names an image that is not there")


def _result(arrays: dict[str, np.ndarray], i: int) -> FilmResult:
    spacing, side = float(arrays["spacing_mm"][i]), str(arrays["anterior_side"][i])
    height, width = arrays["size"][i]
    return FilmResult(
        id=str(arrays["id"][i]),
        group=str(arrays["group"][i]),
        size=(int(height), int(width)),
        spacing_mm=None if np.isnan(spacing) else spacing,
        anterior_side=side or None,  # type: ignore[arg-type]
        **{name: arrays[name][i] for name in ARRAYS},
    )


def _picture(arrays: dict[str, np.ndarray], i: int) -> Picture:
    image = cv2.imdecode(arrays[f"picture_{i}"], cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"picture_{i} is no image")
    return Picture(image, arrays[f"to_image_{i}"])
