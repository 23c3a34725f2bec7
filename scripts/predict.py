"""Find the vertebra corners on films: files, folders or globs, without labels."""

import argparse
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vertebra_kp.cli.command_line import leave
from vertebra_kp.cli.network_choice import add_network_arguments, choose_network
from vertebra_kp.core.anatomy import Schema, Side
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.evaluation.uncertainty.store import Calibrated, find_calibrated
from vertebra_kp.inference.batch import Prediction
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, overlay_original
from vertebra_kp.inference.predictions import FilmPrediction, write_predictions
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.reports.film_page import film_page
from vertebra_kp.reports.interpretation import read
from vertebra_kp.reports.schema import FilmOf, film_of, write_readings


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "Of a DICOM film's header only the size of a pixel, the view and the side get into the results, "
            "nothing of patient or study. But results name films by their paths as given: rename a film that is "
            "named after a patient. And pictures show the text that stands in a film's pixels. "
            "Exit codes: 0 all films predicted, 1 nothing done, 2 some films skipped, or without all "
            "that was asked for."
        ),
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="PNG, JPG, TIFF, DICOM; folders (with subfolders); globs",
    )
    add_network_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--report",
        action="store_true",
        help="also measure: reports/NAME.html per film, and readings.json with all of it",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        help="for the report's intervals; default: calibration.json in the folder of the run, where it is",
    )
    parser.add_argument(
        "--correct-shape",
        action="store_true",
        help="measure corners where the calibration's shape model and the heatmaps agree; without intervals, "
        "which are those of the network's own corners",
    )
    parser.add_argument(
        "--spacing-mm", type=float, help="of a pixel, for measures in mm; default: what a DICOM header says"
    )
    parser.add_argument(
        "--anterior-side",
        choices=("left", "right"),
        help="where lateral films look to; default: what a DICOM header says. Without it nothing with a front is "
        "measured",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="also write attention/NAME.png, where the neck's last layer looks from a few vertebrae, and NAME.npz "
        "with the weights of every layer, [heads, N, N] for the N cells of a map, row by row from the top left",
    )
    parser.add_argument(
        "--dicom-out",
        choices=("gsps",),
        help="also write a Grayscale Softcopy Presentation State for each DICOM film, which viewers lay over it; "
        "it names study, series and film by their UIDs, its fields of patient and study are empty",
    )
    parser.add_argument(
        "--keep-identity",
        action="store_true",
        help="fill these fields from the film (name, id, birth date, sex of the patient; date, time, id, "
        "accession number, physician of the study): a PACS files by them",
    )
    arguments = parser.parse_args()
    of_report = ("calibration", "correct_shape", "spacing_mm", "anterior_side")
    given = [name for name in of_report if getattr(arguments, name) not in (None, False)]
    if given and not arguments.report:
        parser.error(f"--{given[0].replace('_', '-')} is about measures: give --report, too")
    if arguments.spacing_mm is not None and not 0 < arguments.spacing_mm < float("inf"):
        parser.error(f"--spacing-mm {arguments.spacing_mm:g}: must be the size of a pixel in mm, above 0")
    if arguments.keep_identity and not arguments.dicom_out:
        parser.error("--keep-identity is about presentation states: give --dicom-out gsps, too")
    return arguments


def overlay_paths(films: list[Path], folder: Path) -> list[Path]:
    """A name for each film's overlay; films of the same name in different folders get a number."""
    taken: set[str] = set()
    paths = []
    for film in films:
        name, number = film.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{film.name}-{number}"
        taken.add(name.lower())
        paths.append(folder / f"{name}.jpg")
    return paths


def write_attention(prediction: Prediction, predictor: Predictor, title: str, path: Path) -> None:
    """``path`` with .png, a picture, and with .npz, an array F4_layer1 and so on per encoded map and layer."""
    assert prediction.image is not None
    view = FilmView(
        title=title,
        film=prediction.image,
        heatmaps=None,
        points_xy=prediction.points_xy,
        presence=prediction.presence,
        true_points_xy=None,
        error_px=None,
        attention=prediction.attention,
    )
    attention = prediction.attention or {}
    panels = [attention_panel(view, predictor.schema, name) for name in attention]
    if not cv2.imwrite(f"{path}.png", film_grid(panels, columns=1)[..., ::-1]):
        raise UserError(f"{path}.png: the picture cannot be written; check the folder and the space")
    layers = {f"{name}_layer{i}": w for name, weights in attention.items() for i, w in enumerate(weights, 1)}
    np.savez_compressed(f"{path}.npz", **layers)


@dataclass(frozen=True)
class Reader:
    """Measures predicted films, with what the command line says of all of them."""

    folder: Path
    calibrated: Calibrated | None
    spacing_mm: float | None
    anterior_side: Side | None
    correct_shape: bool

    def read(self, film: FilmPrediction, schema: Schema, image: np.ndarray, name: str) -> FilmOf:
        """What goes into ``readings.json``; the film's page is written."""
        spacing_mm, side = self.spacing_mm, self.anterior_side
        if film.header is not None:
            spacing_mm = film.header.spacing_mm if spacing_mm is None else spacing_mm
            side = side or film.header.anterior_side
        reading = read(
            film.prediction,
            schema,
            film.size,
            spacing_mm=spacing_mm,
            anterior_side=side if schema.view == "LA" else None,
            calibrated=self.calibrated,
            correct_shape=self.correct_shape,
        )
        page = film_page(Path(film.file).name, image, reading)
        (self.folder / f"{name}.html").write_text(page, encoding="utf-8")
        return film_of(film.file, reading)


def reader_of(arguments: argparse.Namespace, calibrated: Calibrated | None) -> Reader:
    if calibrated is None:
        print("note: no calibration, so no intervals; scripts/calibrate.py makes one")
    folder = arguments.out / "reports"
    folder.mkdir(exist_ok=True)
    return Reader(folder, calibrated, arguments.spacing_mm, arguments.anterior_side, arguments.correct_shape)


def predict_film(
    predictor: Predictor,
    path: Path,
    overlay_path: Path,
    attention_path: Path | None,
) -> tuple[FilmPrediction, np.ndarray]:
    """The prediction of one film, with its pictures written, and the film ``[H, W]`` as displayed.

    Notes on a DICOM film's header go to stderr.
    """
    header = None
    if is_dicom(path):
        from vertebra_kp.data.dicom import read_header  # here and below: slow to import

        header = read_header(path)
    for note in header.notes if header else ():
        tqdm.write(f"note: {path}: {note}", file=sys.stderr)
    image = to_uint8(read_film(path))
    prediction = predictor.predict(image, with_attention=attention_path is not None)
    if not np.isfinite(prediction.points_xy_image[predictor.schema.exists]).all():
        raise UserError(f"{path}: the network gave no finite corners; look at the film and the checkpoint")
    picture = overlay_original(
        image,
        prediction.points_xy_image,
        prediction.presence,
        predictor.schema,
        covariances=prediction.covariances,
    )
    if not cv2.imwrite(str(overlay_path), picture[..., ::-1]):
        raise UserError(f"{overlay_path}: the overlay cannot be written; check the folder and the space")
    if attention_path is not None:
        write_attention(prediction, predictor, path.name, attention_path)
        prediction = replace(prediction, image=None, attention=None)  # large; they are on disk now
    return FilmPrediction(str(path), (image.shape[0], image.shape[1]), prediction, header), image


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        films = find_films(arguments.inputs)
        overlays: Path = arguments.out / "overlays"
        overlays.mkdir(parents=True, exist_ok=True)
        states: Path = arguments.out / "gsps"
        if arguments.dicom_out:
            from vertebra_kp.inference.gsps import check_installed, write_presentation_state

            check_installed()
            states.mkdir(exist_ok=True)
        predictor = choose_network(arguments)
        maps: Path = arguments.out / "attention"
        if arguments.attention:
            if not predictor.config.network.neck.depth:
                raise UserError("--attention: the network has a neck of depth 0, which attends to nothing")
            maps.mkdir(exist_ok=True)
        calibrated = None
        if arguments.report:
            about = arguments.calibration, arguments.checkpoint, predictor.schema, predictor.mark
            calibrated = find_calibrated(*about)
        if arguments.correct_shape and calibrated is None:
            raise UserError(
                "--correct-shape needs a calibration: give --calibration, or make one with calibrate.py"
            )
        reader = reader_of(arguments, calibrated) if arguments.report else None
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done: list[FilmPrediction] = []
    readings: list[FilmOf] = []
    troubled = 0
    named = zip(films, overlay_paths(films, overlays), strict=True)
    try:
        for path, overlay_path in tqdm(named, "predicting", len(films), unit="film"):
            try:
                attention_path = maps / overlay_path.stem if arguments.attention else None
                film, image = predict_film(predictor, path, overlay_path, attention_path)
                done.append(film)
                if reader is not None:
                    readings.append(reader.read(film, predictor.schema, image, overlay_path.stem))
                if arguments.dicom_out and film.header is not None:
                    state = states / f"{overlay_path.stem}.gsps.dcm"
                    write_presentation_state(
                        path, state, film.prediction, predictor.schema, keep_identity=arguments.keep_identity
                    )
            except Exception as error:  # whatever is wrong with one film, the others are predicted
                told = str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"
                whole = not done or done[-1].file != str(path)
                tqdm.write(f"{'skipped' if whole else 'predicted, but'}: {told}", file=sys.stderr)
                troubled += 1
    finally:
        write_predictions(done, predictor.schema, arguments.out)
        if reader is not None:
            write_readings(readings, arguments.out / "readings.json")
    print(f"{len(done)} films predicted, {len(films) - len(done)} skipped; written to {arguments.out}")
    return 2 if troubled else 0


if __name__ == "__main__":
    leave(main())
