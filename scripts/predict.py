"""Find the vertebra corners on films: files, folders or globs, without labels."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vertebra_kp.data.dicom import is_dicom, read_header
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.sources.folder import find_films
from vertebra_kp.dicom_results import check_installed, write_presentation_state
from vertebra_kp.errors import UserError
from vertebra_kp.inference import Prediction
from vertebra_kp.predict import Predictor, load
from vertebra_kp.predictions import FilmPrediction, write_predictions
from vertebra_kp.visualise import FilmView, attention_panel, film_grid, overlay_original


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "Of a DICOM film's header only the size of a pixel, the view and the side get into the results, "
            "nothing of patient or study. But results name films by their paths as given: rename a film that is "
            "named after a patient. And pictures show the text that stands in a film's pixels. "
            "Exit codes: 0 all films predicted, 1 nothing done, 2 some films skipped."
        ),
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="PNG, JPG, TIFF, DICOM; folders (with subfolders); globs",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="best.pt or last.pt of a run")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
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


def predict_film(
    predictor: Predictor, path: Path, overlay_path: Path, attention_path: Path | None
) -> FilmPrediction:
    """The prediction of one film, with its pictures written; notes on a DICOM film's header go to stderr."""
    header = read_header(path) if is_dicom(path) else None
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
    return FilmPrediction(str(path), (image.shape[0], image.shape[1]), prediction, header)


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        films = find_films(arguments.inputs)
        overlays: Path = arguments.out / "overlays"
        overlays.mkdir(parents=True, exist_ok=True)
        states: Path = arguments.out / "gsps"
        if arguments.dicom_out:
            check_installed()
            states.mkdir(exist_ok=True)
        predictor = load(arguments.checkpoint, arguments.device)
        maps: Path = arguments.out / "attention"
        if arguments.attention:
            if not predictor.config.network.neck.depth:
                raise UserError("--attention: the network has a neck of depth 0, which attends to nothing")
            maps.mkdir(exist_ok=True)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done, skipped = [], 0
    named = zip(films, overlay_paths(films, overlays), strict=True)
    try:
        for path, overlay_path in tqdm(named, "predicting", len(films), unit="film"):
            try:
                attention_path = maps / overlay_path.stem if arguments.attention else None
                film = predict_film(predictor, path, overlay_path, attention_path)
                if arguments.dicom_out and film.header is not None:
                    state = states / f"{overlay_path.stem}.gsps.dcm"
                    write_presentation_state(
                        path, state, film.prediction, predictor.schema, keep_identity=arguments.keep_identity
                    )
                done.append(film)
            except Exception as error:  # whatever is wrong with one film, the others are predicted
                told = str(error) if isinstance(error, UserError) else f"{path}: {type(error).__name__}: {error}"
                tqdm.write(f"skipped: {told}", file=sys.stderr)
                skipped += 1
    finally:
        write_predictions(done, predictor.schema, arguments.out)
    print(f"{len(done)} films predicted, {skipped} skipped; written to {arguments.out}")
    return 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
