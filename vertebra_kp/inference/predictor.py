"""A trained network as one object: ``predict`` takes an image to its corners; ``loading.load`` makes one."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.anatomy import UNKNOWN, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.films import Film, LooseFilms, shrink, shrunk
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.loader import FilmDataset
from vertebra_kp.data.record import label_arrays, unknown_slips
from vertebra_kp.inference.batch import Prediction, predict_batch
from vertebra_kp.inference.doubts import doubts_by_channel, header_doubts, is_blank
from vertebra_kp.inference.refine import Refiner
from vertebra_kp.inference.streams import in_streams
from vertebra_kp.models.ensemble import Ensemble
from vertebra_kp.models.network import VertebraNetwork

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo

Image = np.ndarray | str | Path

_PLACED = ("points_xy_image", "covariances", "scores")
CPU_BATCH_SIZE = 1  # several streams run; larger batches are no faster there


class Predictor:
    """Predicts films of any size; ``schema`` says which levels and corners it knows, ``step`` its training."""

    def __init__(
        self,
        network: VertebraNetwork | Ensemble,
        config: Config,
        step: int,
        refiner: Refiner | None = None,
        members: Sequence[Config] = (),
    ) -> None:
        """``members`` are the configs of an ensemble's other networks."""
        self.network, self.config, self.step, self.refiner = network.eval(), config, step, refiner
        self.members = members

    def with_config(self, config: Config) -> "Predictor":
        """The same network under another decoding."""
        return Predictor(self.network, config, self.step, self.refiner, self.members)

    @property
    def configs(self) -> Sequence[Config | SpineConfig | LevelConfig]:
        """What each of its networks was trained by."""
        refinement = [] if self.refiner is None else [self.refiner.config]
        return [self.config, *self.members, *refinement]

    @property
    def recipe(self) -> dict[str, Any]:
        """What the network was trained by, as plain data."""
        return self.config.model_dump(mode="json")

    @property
    def mirrors(self) -> bool:
        """Whether it averages with the mirror image."""
        return self.config.inference.flip

    @property
    def fingerprint(self) -> str:
        """The same text, the same predictions: weights, decoding and flip. A calibration holds for one of them."""
        digest = hashlib.sha256()
        stages: list[tuple[nn.Module, Config]] = [(self.network, self.config)]
        if self.refiner is not None:
            stages.append((self.refiner.network, self.refiner.config))
        for network, config in stages:
            for tensor in network.state_dict().values():
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            digest.update(f"{config.codec}{config.inference.flip}".encode())
            if config.inference.chain:  # nothing where it is off: the option is younger than some calibrations
                digest.update(b"chain")
        return digest.hexdigest()[:16]

    @property
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels it asks for."""
        return self.config.data.input_size if self.refiner is None else self.refiner.film_size

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def batch_size(self) -> int:
        """Images at a time: as many as in training on a GPU, few on a CPU, where several streams run."""
        return CPU_BATCH_SIZE if self.device.type == "cpu" else self.config.train.batch_size

    @property
    def schema(self) -> Schema:
        return self.config.data.keypoint_schema

    def predict(self, image: Image, *, with_attention: bool = False) -> Prediction:
        """Corners of one image; see ``predict_many``."""
        (prediction,) = self.predict_films([self.film_of(image)], with_attention=with_attention)
        return prediction

    def predict_many(
        self, images: Iterable[Image], *, batch_size: int | None = None, with_attention: bool = False
    ) -> Iterator[Prediction]:
        """Corners of each image, in order: paths, or arrays ``[H, W]`` of uint8 or uint16 as displayed.

        Raises FilmError for a file that is no readable image, ValueError for an array of another kind, UserError
        where the network is one of single vertebrae.
        """

        def work(batch: list[Image]) -> list[Prediction]:
            return self.predict_films([self.film_of(image) for image in batch], with_attention=with_attention)

        return in_streams(work, images, batch_size=batch_size or self.batch_size)

    def predict_films(
        self, films: Sequence[Film], *, with_maps: bool = False, with_attention: bool = False
    ) -> list[Prediction]:
        """Corners of a batch of films, which are kept in the pixels of ``film_size``; all stages run here.

        What a film's header says against the network is among the doubts.
        """
        if not films:
            return []
        predictions = self._predicted(films, with_maps=with_maps, with_attention=with_attention)
        return [
            one
            if film.header is None
            else replace(one, doubts=one.doubts + header_doubts(film.header, self.schema))
            for one, film in zip(predictions, films, strict=True)
        ]

    def _predicted(self, films: Sequence[Film], *, with_maps: bool, with_attention: bool) -> list[Prediction]:
        size = self.config.data.input_size
        small = films if self.refiner is None else [shrunk(film, size) for film in films]
        batch = FilmDataset(LooseFilms(small), self.schema, size).batch([(0, i) for i in range(len(small))])
        predictions = predict_batch(
            self.network, batch, self.config, with_maps=with_maps, with_attention=with_attention
        )
        if self.refiner is not None:
            predictions = self.refiner.refine(predictions, films, self.schema)
        return [_doubted(one, film, self.schema) for one, film in zip(predictions, films, strict=True)]

    def film_of(self, image: Image, name: str = "image", *, header: "DicomInfo | None" = None) -> Film:
        """An unlabelled film in the pixels that the network asks for; raises as ``predict_many``.

        ``header`` is that of an array from a DICOM file; of a path it is read.
        """
        if self.config.data.patch is not None:
            raise UserError("the network is one of single vertebrae: load it as ``refine`` of one of whole images")
        if isinstance(image, (str, Path)):
            name, path = str(image), Path(image)
            if is_dicom(path):
                from vertebra_kp.data.dicom import read_dicom  # here: pydicom takes an eighth of a second

                dicom = read_dicom(path)
                image, header = dicom.pixels, dicom.info
            else:
                image = read_film(path)
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"film must be [H, W] of uint8 or uint16, got {image.shape} of {image.dtype}; "
                "take one channel, and scale floats to 0..255 first"
            )
        pixels, to_image = shrink(to_uint8(image), self.film_size)
        points, states = label_arrays(self.schema)
        return Film(
            id=name,
            file=name,
            group=name,
            image=pixels,
            points_xy=points,
            states=states,
            slips=unknown_slips(self.schema),
            view=UNKNOWN,
            to_image=to_image,
            size=(image.shape[0], image.shape[1]),
            header=header,
        )


def _doubted(prediction: Prediction, film: Film, schema: Schema) -> Prediction:
    """With reasons for a second opinion; an image that shows nothing has no vertebra, whatever is predicted."""
    if is_blank(film.image):
        nothing = {name: np.full_like(getattr(prediction, name), np.nan) for name in _PLACED}
        absent = np.zeros_like(prediction.presence)
        return replace(prediction, **nothing, presence=absent, doubts=("spine not found",))
    about = prediction.points_xy_image, prediction.scores, prediction.presence, schema, prediction.size
    return replace(prediction, doubts=doubts_by_channel(*about))
