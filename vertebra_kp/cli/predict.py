"""The command predict: vertebra corners on images without labels; files, pictures and measurement reports."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.network_choice import choose_network, find_calibration
from vertebra_kp.core.anatomy import Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import DONE, DONE_IN_PART, INTERRUPTED
from vertebra_kp.core.files import write_image, write_text
from vertebra_kp.core.memory import keep_freed_memory
from vertebra_kp.core.text import printable
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.films import Film
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.inference.doubts import MEANINGS
from vertebra_kp.inference.journal import Journal, open_journal
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, overlay_original
from vertebra_kp.inference.prediction import Prediction, check_finite
from vertebra_kp.inference.predictions import JSON_FILE, REPORT_FILE, ImageEntry, image_entry, write_predictions
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.inference.spine import SpinePredictor
from vertebra_kp.inference.streams import in_streams
from vertebra_kp.reports.film_page import film_page
from vertebra_kp.reports.interpretation import Interpretation, interpret
from vertebra_kp.reports.schema import ImageReport, image_report, write_measurement_report

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomFilm, DicomInfo

LONGEST_NAME = 200  # bytes; file systems take 255, and the longest ending is .gsps.dcm.partial

Read = tuple[Film, np.ndarray, "DicomFilm | None"]  # as the network takes it, as displayed, and its header


@dataclass
class Item:
    """An image to predict, under the name that its files have in the results, and what came of it."""

    path: Path
    name: str = ""
    line: dict[str, Any] | None = None
    """In the journal; None where the image was skipped."""
    messages: list[str] = field(default_factory=list)
    troubled: bool = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Whatever is wrong with one image, the others are predicted."""
        try:
            yield
        except Exception as error:
            told = str(error) if isinstance(error, UserError) else f"{self.path}: {type(error).__name__}: {error}"
            self.messages.append(f"{'skipped' if self.line is None else 'predicted, but'}: {told}")
            self.troubled = True


class Job:
    """What is done with every image: which files are written beside the predictions."""

    def __init__(self, arguments: argparse.Namespace, predictor: Predictor, keywords: tuple[str, ...]) -> None:
        """``keywords`` are the elements of a DICOM header that a presentation state needs."""
        self.asked, self.predictor, self.keywords = arguments, predictor, keywords
        self.out: Path = arguments.out
        self.calibrated = find_calibration(arguments, predictor) if arguments.report else None
        if arguments.report and self.calibrated is None:
            print("note: no calibration, so no intervals; the command calibrate makes one")
        if arguments.correct_shape and self.calibrated is None:
            raise UsageError("--correct-shape needs a calibration: give --calibration, or make one with calibrate")

    def work(self, items: list[Item]) -> list[Item]:
        """A batch, in one of several threads."""
        read = []
        for item in items:
            with item.caught():
                read.append((item, self.read(item.path)))
        self.predict(read)
        return items

    def read(self, path: Path) -> Read:
        dicom = None
        if is_dicom(path):
            from vertebra_kp.data.dicom import read_dicom  # here and below: pydicom is slow to import

            dicom = read_dicom(path, self.keywords)
        image = to_uint8(read_film(path) if dicom is None else dicom.pixels)
        header = None if dicom is None else dicom.info
        return self.predictor.film_of(image, str(path), header=header), image, dicom

    def predict(self, read: list[tuple[Item, Read]]) -> None:
        films = [film for _, (film, *_) in read]
        try:
            predictions = self.predictor.predict_films(films, with_attention=self.asked.attention)
        except Exception:
            if len(read) > 1:  # one of them may be the cause: each alone
                for one in read:
                    self.predict([one])
                return
            with read[0][0].caught():
                raise
            return
        for (item, (_, image, dicom)), prediction in zip(read, predictions, strict=True):
            with item.caught():
                self.finish(item, prediction, image, dicom)

    def finish(self, item: Item, prediction: Prediction, image: np.ndarray, dicom: "DicomFilm | None") -> None:
        """Fill in the item and write the image's own files; one that cannot be written costs only itself."""
        path, name, schema = item.path, item.name, self.predictor.schema
        header = None if dicom is None else dicom.info
        item.messages += [f"note: {path}: {note}" for note in (header.notes if header else ())]
        check_finite(prediction, schema)
        entry = image_entry(prediction, schema, header)
        if name != path.name:
            entry["results_name"] = printable(name)
        line: dict[str, Any] = {"image": entry}
        if self.asked.report:
            interpretation = self.interpret(prediction, header)
            report = image_report(printable(prediction.file), interpretation)
            line["report"] = report.model_dump(mode="json", exclude_none=True)
        json.dumps(line, allow_nan=False)  # what the journal could not keep costs this image alone
        item.line = line
        if self.asked.report:
            with item.caught():
                write_text(film_page(path.name, image, interpretation), self.out / "reports" / f"{name}.html")
        with item.caught():
            points, presence, covariances = prediction.points_xy_image, prediction.presence, prediction.covariances
            picture = overlay_original(image, points, presence, schema, covariances=covariances)
            write_image(picture, self.out / "overlays" / f"{name}.jpg", jpeg_quality=95)
        if self.asked.attention:
            with item.caught():
                write_attention(prediction, schema, path.name, self.out / "attention" / name)
        if self.asked.dicom_out and dicom is not None:
            from vertebra_kp.inference.gsps import write_presentation_state

            with item.caught():
                target = self.out / "gsps" / f"{name}.gsps.dcm"
                write_presentation_state(str(path), dicom.elements, target, prediction, schema)

    def interpret(self, prediction: Prediction, header: "DicomInfo | None") -> Interpretation:
        spacing_mm, side = self.asked.spacing_mm, self.asked.anterior_side
        if header is not None:
            spacing_mm, side = spacing_mm or header.spacing_mm, side or header.anterior_side
        found = interpret(
            prediction,
            self.predictor.schema,
            prediction.size,
            spacing_mm=spacing_mm,
            anterior_side=side if self.predictor.schema.view == "LA" else None,
            calibrated=self.calibrated,
            correct_shape=self.asked.correct_shape,
        )
        return found if header is None else replace(found, remarks=(*found.remarks, *header.notes))


def name_files(items: Sequence[Item], done: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each image a name for its files: its own, shortened where no file system would take the longest of
    them; of images of the same name, all but the first get a number. Those that are ``done`` keep theirs.
    """
    kept = {file: line["image"].get("results_name", Path(file).name) for file, line in done.items()}
    taken, numbers = {name.lower() for name in kept.values()}, Counter[str]()
    for item in items:
        base = shortened(item.path.name)
        item.name = kept.get(str(item.path), base)
        while str(item.path) not in kept and item.name.lower() in taken:
            numbers[base.lower()] += 1
            item.name = f"{base}-{numbers[base.lower()] + 1}"
        taken.add(item.name.lower())


def shortened(name: str) -> str:
    """A file's name of at most ``LONGEST_NAME`` bytes."""
    stored = os.fsencode(name)
    return name if len(stored) <= LONGEST_NAME else stored[:LONGEST_NAME].decode(errors="ignore")


def write_attention(prediction: Prediction, schema: Schema, title: str, path: Path) -> None:
    """``path`` with .png, a picture, and with .npz, an array F4_layer1 and so on per encoded map and layer."""
    view = FilmView(title, prediction)
    attention = prediction.attention or {}
    panels = [attention_panel(view, schema, name) for name in attention]
    write_image(film_grid(panels, columns=1), path.with_name(f"{path.name}.png"))
    layers = {f"{name}_layer{i}": w for name, weights in attention.items() for i, w in enumerate(weights, 1)}
    np.savez_compressed(f"{path}.npz", **layers)  # type: ignore[arg-type]  # numpy's stub takes it for a flag


def run(arguments: argparse.Namespace) -> int:
    keep_freed_memory()
    out: Path = arguments.out
    items = [Item(path) for path in find_films(arguments.inputs, results=out)]
    keywords: tuple[str, ...] = ()
    if arguments.dicom_out:
        from vertebra_kp.inference import gsps

        gsps.check_installed()
        keywords = (*gsps.KEYWORDS, *(gsps.IDENTITY if arguments.keep_identity else ()))
    predictor = choose_network(arguments)
    if arguments.pin is not None:
        predictor = pinned(predictor, arguments.pin, items)
    if arguments.attention and isinstance(predictor, SpinePredictor):
        raise UsageError("--attention: a spine network does not show where it attends; leave it out")
    if arguments.attention and not predictor.config.network.neck.depth:
        raise UsageError("--attention: the network has a neck of depth 0, which attends to nothing")
    job = Job(arguments, predictor, keywords)
    # What results depend on: only results of the same are put together in one folder.
    about = {
        "network": predictor.fingerprint,
        "report": arguments.report,
        "calibration": arguments.calibration and str(arguments.calibration),
        "correct shape": arguments.correct_shape,
        "spacing mm": arguments.spacing_mm,
        "anterior side": arguments.anterior_side,
        "pin": arguments.pin,
    }
    with open_journal(out, about, resume=arguments.resume, overwrite=arguments.overwrite) as journal:
        name_files(items, journal.done)
        todo = [item for item in items if str(item.path) not in journal.done]
        results = in_streams(job.work, todo, batch_size=predictor.batch_size)
        try:
            for item in tqdm(results, "predicting", len(todo), unit="image"):
                if item.line is not None:
                    journal.add(str(item.path), item.line)
                for message in item.messages:
                    tqdm.write(printable(message), file=sys.stderr)
        except KeyboardInterrupt:
            print(f"{len(journal.done)} images are done; go on with --resume", file=sys.stderr)
            return INTERRUPTED
        write_results(journal, items, out)
    done = sum(str(item.path) in journal.done for item in items)
    print(f"{done} images predicted, {len(items) - done} skipped; written to {out}")
    images = [journal.done[name]["image"] for item in items if (name := str(item.path)) in journal.done]
    for line in second_opinions(images):
        print(line)
    return DONE_IN_PART if any(item.troubled for item in items) else DONE


def pinned(predictor: Predictor, pin: str, items: Sequence[Item]) -> Predictor:
    """The network with the name of one vertebra fixed, on the only image. Raises UsageError."""
    if len(items) != 1:
        raise UsageError(f"--pin names a vertebra of one image, got {len(items)} images; give it alone")
    if not isinstance(predictor, SpinePredictor):
        raise UsageError("--pin: this network names vertebrae by its channels; take one like ap-spine")
    try:
        level, _, place = pin.partition("=")
        x, y = (float(number) for number in place.split(","))
        return predictor.with_pin(level, (x, y))
    except ValueError as error:
        raise UsageError(
            f"--pin {pin}: must be LEVEL=X,Y in pixels of the image, such as L5=410,1955 ({error})"
        ) from None


def second_opinions(images: Sequence[ImageEntry]) -> Iterator[str]:
    """Lines that say how many images are doubtful, and why; none where no image is."""
    doubtful = [image for image in images if image.get("doubts")]
    if doubtful:
        yield f"need a second opinion: {len(doubtful)} of {len(images)} images (doubts in {JSON_FILE})"
    for doubt, meaning in MEANINGS.items():
        if files := [image["file"] for image in doubtful if doubt in image["doubts"]]:
            yield f"  {len(files)} {doubt}: {meaning} ({', '.join(files[:3])}{' ...' if len(files) > 3 else ''})"


def write_results(journal: Journal, items: Sequence[Item], out: Path) -> None:
    """Everything that the journal holds, in the order that was asked for, as the files that other tools read."""
    order = [*(str(item.path) for item in items), *journal.done]
    lines = [journal.done[name] for name in dict.fromkeys(order) if name in journal.done]
    write_predictions([line["image"] for line in lines], out)
    reports = [ImageReport.model_validate(line["report"], strict=False) for line in lines if "report" in line]
    if reports:
        write_measurement_report(reports, out / REPORT_FILE)
