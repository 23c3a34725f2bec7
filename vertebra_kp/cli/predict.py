"""The command predict: vertebra corners on films without labels; files, pictures and measurement reports."""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vertebra_kp.cli.arguments import UsageError
from vertebra_kp.cli.network_choice import choose_network, network_file
from vertebra_kp.core.anatomy import Schema, Side
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.exit_codes import DONE, DONE_IN_PART
from vertebra_kp.core.files import write_image
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.evaluation.uncertainty.store import Calibrated, find_calibrated
from vertebra_kp.inference.batch import Prediction
from vertebra_kp.inference.overlays import FilmView, attention_panel, film_grid, overlay_original
from vertebra_kp.inference.predictions import FilmPrediction, write_predictions
from vertebra_kp.inference.predictor import Predictor
from vertebra_kp.reports.film_page import film_page
from vertebra_kp.reports.interpretation import interpret
from vertebra_kp.reports.schema import ImageReport, image_report, write_measurement_report


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
    write_image(film_grid(panels, columns=1), path.with_name(f"{path.name}.png"))
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

    def read(self, film: FilmPrediction, schema: Schema, image: np.ndarray, name: str) -> ImageReport:
        """What goes into ``readings.json``; the film's page is written."""
        spacing_mm, side = self.spacing_mm, self.anterior_side
        if film.header is not None:
            spacing_mm = film.header.spacing_mm if spacing_mm is None else spacing_mm
            side = side or film.header.anterior_side
        found = interpret(
            film.prediction,
            schema,
            film.size,
            spacing_mm=spacing_mm,
            anterior_side=side if schema.view == "LA" else None,
            calibrated=self.calibrated,
            correct_shape=self.correct_shape,
        )
        page = film_page(Path(film.file).name, image, found)
        (self.folder / f"{name}.html").write_text(page, encoding="utf-8")
        return image_report(film.file, found)


def reader_of(arguments: argparse.Namespace, calibrated: Calibrated | None) -> Reader:
    if calibrated is None:
        print("note: no calibration, so no intervals; the command calibrate makes one")
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
    write_image(picture, overlay_path, jpeg_quality=95)
    if attention_path is not None:
        write_attention(prediction, predictor, path.name, attention_path)
        prediction = replace(prediction, image=None, attention=None)  # large; they are on disk now
    return FilmPrediction(str(path), (image.shape[0], image.shape[1]), prediction, header), image


def run(arguments: argparse.Namespace) -> int:
    films = find_films(arguments.inputs)
    overlays: Path = arguments.out / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    states, maps = arguments.out / "gsps", arguments.out / "attention"
    if arguments.dicom_out:
        from vertebra_kp.inference.gsps import check_installed, write_presentation_state

        check_installed()
        states.mkdir(exist_ok=True)
    predictor = choose_network(arguments)
    if arguments.attention:
        if not predictor.config.network.neck.depth:
            raise UsageError("--attention: the network has a neck of depth 0, which attends to nothing")
        maps.mkdir(exist_ok=True)
    calibrated = None
    if arguments.report:
        about = arguments.calibration, network_file(arguments), predictor.schema, predictor.mark
        calibrated = find_calibrated(*about)
    if arguments.correct_shape and calibrated is None:
        raise UsageError("--correct-shape needs a calibration: give --calibration, or make one with calibrate")
    reader = reader_of(arguments, calibrated) if arguments.report else None
    done: list[FilmPrediction] = []
    reports: list[ImageReport] = []
    troubled = 0
    named = zip(films, overlay_paths(films, overlays), strict=True)
    try:
        for path, overlay_path in tqdm(named, "predicting", len(films), unit="image"):
            try:
                attention_path = maps / overlay_path.stem if arguments.attention else None
                film, image = predict_film(predictor, path, overlay_path, attention_path)
                done.append(film)
                if reader is not None:
                    reports.append(reader.read(film, predictor.schema, image, overlay_path.stem))
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
            write_measurement_report(reports, arguments.out / "readings.json")
    print(f"{len(done)} images predicted, {len(films) - len(done)} skipped; written to {arguments.out}")
    return DONE_IN_PART if troubled else DONE
