"""The command predict: vertebra corners on images without labels; files, pictures and measurement reports."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.network_choice import choose_network, network_file
from vertebra_kp.core.anatomy import Side
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import DONE, DONE_IN_PART, INTERRUPTED
from vertebra_kp.core.files import write_image, write_text
from vertebra_kp.core.text import printable
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.films import Film
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.evaluation.uncertainty.store import Calibrated, find_calibrated
from vertebra_kp.inference.batch import Prediction
from vertebra_kp.inference.journal import Journal, open_journal
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, overlay_original
from vertebra_kp.inference.predictions import image_entry, write_predictions
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.streams import in_streams
from vertebra_kp.reports.film_page import film_page
from vertebra_kp.reports.interpretation import Interpretation, interpret
from vertebra_kp.reports.schema import ImageReport, image_report, write_measurement_report

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomFilm, DicomInfo


@dataclass(frozen=True)
class Item:
    """An image to predict, and the name that its files have in the results."""

    path: Path
    name: str


@dataclass
class Outcome:
    """What came of an image: its line in the journal, None where it was skipped, and what to say about it."""

    item: Item
    line: dict[str, Any] | None = None
    messages: list[str] = field(default_factory=list)
    troubled: bool = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Whatever is wrong with one image, the others are predicted."""
        try:
            yield
        except Exception as error:
            named = isinstance(error, UserError)
            told = str(error) if named else f"{self.item.path}: {type(error).__name__}: {error}"
            self.messages.append(f"{'skipped' if self.line is None else 'predicted, but'}: {told}")
            self.troubled = True


@dataclass(frozen=True)
class Measuring:
    """How predicted images are measured; ``folder`` gets a page for each."""

    folder: Path
    calibrated: Calibrated | None
    spacing_mm: float | None
    anterior_side: Side | None
    correct_shape: bool

    def interpret(
        self, prediction: Prediction, predictor: Predictor, header: "DicomInfo | None"
    ) -> Interpretation:
        is_lateral = predictor.schema.view == "LA"
        side = self.anterior_side or (header.anterior_side if header else None)
        return interpret(
            prediction,
            predictor.schema,
            prediction.size,
            spacing_mm=header.spacing_mm if header and self.spacing_mm is None else self.spacing_mm,
            anterior_side=side if is_lateral else None,
            calibrated=self.calibrated,
            correct_shape=self.correct_shape,
        )


@dataclass(frozen=True)
class Job:
    """What is done with every image: which files are written beside the predictions."""

    predictor: Predictor
    overlays: Path
    attention: Path | None
    measuring: Measuring | None
    states: Path | None
    keywords: tuple[str, ...]
    """Elements of a DICOM header that a presentation state needs."""

    def work(self, items: Sequence[Item]) -> list[Outcome]:
        """A batch, in one of several threads."""
        outcomes = [Outcome(item) for item in items]
        headers: list[DicomFilm | None] = [None] * len(items)
        images: dict[int, np.ndarray] = {}
        films: dict[int, Film] = {}
        for i, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
            with outcome.caught():
                if is_dicom(item.path):
                    from vertebra_kp.data.dicom import read_dicom  # here and below: pydicom is slow to import

                    headers[i] = read_dicom(item.path, self.keywords)
                dicom = headers[i]
                images[i] = to_uint8(read_film(item.path) if dicom is None else dicom.pixels)
                films[i] = self.predictor.film_of(images[i], str(item.path))
        try:
            wanted = self.attention is not None
            predictions = self.predictor.predict_films(list(films.values()), with_attention=wanted)
        except Exception:
            if len(items) > 1:  # one of them may be the cause: each alone
                return [outcome for item in items for outcome in self.work([item])]
            with outcomes[0].caught():
                raise
            return outcomes
        for i, prediction in zip(films, predictions, strict=True):
            with outcomes[i].caught():
                self.finish(outcomes[i], prediction, headers[i], images[i])
        return outcomes

    def finish(
        self, outcome: Outcome, prediction: Prediction, dicom: "DicomFilm | None", image: np.ndarray
    ) -> None:
        """Fill in the outcome and write the image's own files; one that cannot be written costs only itself."""
        path, name, schema = outcome.item.path, outcome.item.name, self.predictor.schema
        header = None if dicom is None else dicom.info
        outcome.messages += [f"note: {path}: {note}" for note in (header.notes if header else ())]
        if not np.isfinite(prediction.points_xy_image[schema.exists]).all():
            raise UserError(f"{path}: the network gave no finite corners; look at the image and the network")
        line: dict[str, Any] = {"image": image_entry(prediction, schema, header)}
        if self.measuring is not None:
            found = self.measuring.interpret(prediction, self.predictor, header)
            line["report"] = image_report(printable(prediction.file), found).model_dump(
                mode="json", exclude_none=True
            )
        outcome.line = line
        if self.measuring is not None:
            with outcome.caught():
                write_text(film_page(path.name, image, found), self.measuring.folder / f"{name}.html")
        with outcome.caught():
            picture = overlay_original(
                image,
                prediction.points_xy_image,
                prediction.presence,
                schema,
                covariances=prediction.covariances,
            )
            write_image(picture, self.overlays / f"{name}.jpg", jpeg_quality=95)
        if self.attention is not None:
            with outcome.caught():
                write_attention(prediction, self.predictor, path.name, self.attention / name)
        if self.states is not None and dicom is not None:
            from vertebra_kp.inference.gsps import write_presentation_state

            with outcome.caught():
                target = self.states / f"{name}.gsps.dcm"
                write_presentation_state(str(path), dicom.elements, target, prediction, schema)


def named(films: Sequence[Path]) -> list[Item]:
    """A name for each image's files; images of the same name in different folders get a number."""
    taken: set[str] = set()
    items = []
    for film in films:
        name, number = film.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{film.name}-{number}"
        taken.add(name.lower())
        items.append(Item(film, name))
    return items


def write_attention(prediction: Prediction, predictor: Predictor, title: str, path: Path) -> None:
    """``path`` with .png, a picture, and with .npz, an array F4_layer1 and so on per encoded map and layer."""
    view = FilmView(title, prediction)
    attention = prediction.attention or {}
    panels = [attention_panel(view, predictor.schema, name) for name in attention]
    write_image(film_grid(panels, columns=1), path.with_name(f"{path.name}.png"))
    layers = {f"{name}_layer{i}": w for name, weights in attention.items() for i, w in enumerate(weights, 1)}
    np.savez_compressed(f"{path}.npz", **layers)  # type: ignore[arg-type]  # numpy's stub takes it for a flag


def measuring_of(arguments: argparse.Namespace, predictor: Predictor) -> Measuring | None:
    """None where no reports are asked for."""
    calibrated = None
    if arguments.report:
        about = arguments.calibration, network_file(arguments), predictor.schema, predictor.fingerprint
        calibrated = find_calibrated(*about)
        if calibrated is None:
            print("note: no calibration, so no intervals; the command calibrate makes one")
    if arguments.correct_shape and calibrated is None:
        raise UsageError("--correct-shape needs a calibration: give --calibration, or make one with calibrate")
    if not arguments.report:
        return None
    folder = arguments.out / "reports"
    return Measuring(folder, calibrated, arguments.spacing_mm, arguments.anterior_side, arguments.correct_shape)


def settings_of(arguments: argparse.Namespace, predictor: Predictor) -> dict[str, Any]:
    """What results depend on: only results of the same are put together in one folder."""
    names = ("report", "calibration", "correct_shape", "spacing_mm", "anterior_side")
    values = {name.replace("_", " "): getattr(arguments, name) for name in names}
    return {"network": predictor.fingerprint} | {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def run(arguments: argparse.Namespace) -> int:
    items = named(find_films(arguments.inputs))
    out: Path = arguments.out
    keywords: tuple[str, ...] = ()
    if arguments.dicom_out:
        from vertebra_kp.inference import gsps

        gsps.check_installed()
        keywords = (*gsps.KEYWORDS, *(gsps.IDENTITY if arguments.keep_identity else ()))
    predictor = choose_network(arguments)
    if arguments.attention and not predictor.config.network.neck.depth:
        raise UsageError("--attention: the network has a neck of depth 0, which attends to nothing")
    job = Job(
        predictor,
        out / "overlays",
        out / "attention" if arguments.attention else None,
        measuring_of(arguments, predictor),
        out / "gsps" if arguments.dicom_out else None,
        keywords,
    )
    asked = {"resume": arguments.resume, "overwrite": arguments.overwrite}
    with open_journal(out, settings_of(arguments, predictor), **asked) as journal:
        folders = job.overlays, job.attention, job.states, job.measuring.folder if job.measuring else None
        for folder in filter(None, folders):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            troubled = predict_missing(job, items, journal)
        except KeyboardInterrupt:
            print(f"{len(journal.done)} images are done; go on with --resume", file=sys.stderr)
            return INTERRUPTED
        write_results(journal, items, out)
    done = sum(str(item.path) in journal.done for item in items)
    print(f"{done} images predicted, {len(items) - done} skipped; written to {out}")
    return DONE_IN_PART if troubled else DONE


def predict_missing(job: Job, items: Sequence[Item], journal: Journal) -> bool:
    """Predict what the journal lacks; whether anything went wrong."""
    todo = [item for item in items if str(item.path) not in journal.done]
    troubled = False
    results = in_streams(job.work, todo, batch_size=job.predictor.batch_size)
    for outcome in tqdm(results, "predicting", len(todo), unit="image"):
        if outcome.line is not None:
            journal.add(str(outcome.item.path), outcome.line)
        for message in outcome.messages:
            tqdm.write(printable(message), file=sys.stderr)
        troubled |= outcome.troubled
    return troubled


def write_results(journal: Journal, items: Sequence[Item], out: Path) -> None:
    """Everything that the journal holds, in the order that was asked for, as the files that other tools read."""
    order = [*(str(item.path) for item in items), *journal.done]
    lines = [journal.done[name] for name in dict.fromkeys(order) if name in journal.done]
    write_predictions([line["image"] for line in lines], out)
    reports = [ImageReport.model_validate(line["report"], strict=False) for line in lines if "report" in line]
    if reports:
        write_measurement_report(reports, out / "readings.json")
