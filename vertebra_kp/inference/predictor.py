"""A trained network as one object: ``predict`` takes an image to its corners; ``loading.load`` makes one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig
from vertebra_kp.core.anatomy import UNKNOWN, Schema
from vertebra_kp.core.errors import UserError
from vertebra_kp.data.film_file import is_dicom
from vertebra_kp.data.films import Film, shrink
from vertebra_kp.data.images import read_film, to_uint8
from vertebra_kp.data.record import label_arrays, unknown_slips
from vertebra_kp.inference.doubts import header_doubts
from vertebra_kp.inference.prediction import Prediction
from vertebra_kp.inference.streams import in_streams

if TYPE_CHECKING:
    from vertebra_kp.data.dicom import DicomInfo

Image = np.ndarray | str | Path

CPU_BATCH_SIZE = 1  # several streams run; larger batches are no faster there


class Predictor(ABC):
    """Predicts films of any size; ``schema`` says which levels and corners it knows, ``step`` its training."""

    config: Config
    step: int

    @abstractmethod
    def with_config(self, config: Config) -> "Predictor":
        """The same network under another decoding."""

    @property
    @abstractmethod
    def configs(self) -> Sequence[Config | SpineConfig | LevelConfig]:
        """What each of its networks was trained by."""

    @property
    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What the network was trained by, as plain data."""

    @property
    @abstractmethod
    def mirrors(self) -> bool:
        """Whether it averages with the mirror image."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The same text, the same predictions: weights, decoding and flip. A calibration holds for one of them."""

    @property
    @abstractmethod
    def film_size(self) -> tuple[int, int]:
        """Height and width whose pixels it asks for."""

    @property
    @abstractmethod
    def device(self) -> str:
        """``cpu`` or ``cuda``."""

    @property
    def batch_size(self) -> int:
        """Images at a time: as many as in training on a GPU, few on a CPU, where several streams run."""
        return CPU_BATCH_SIZE if self.device == "cpu" else self.config.train.batch_size

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

    @abstractmethod
    def _predicted(self, films: Sequence[Film], *, with_maps: bool, with_attention: bool) -> list[Prediction]:
        """As ``predict_films``, before the header has its say."""

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
