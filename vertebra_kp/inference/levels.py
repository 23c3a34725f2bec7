"""Evidence for the names of vertebrae that were found, by a level network."""

from dataclasses import dataclass

import numpy as np

from vertebra_kp.config.spine import LevelConfig
from vertebra_kp.core.geometry import apply_affine
from vertebra_kp.data.reformation import reformat
from vertebra_kp.data.spine_films import in_kept_pixels
from vertebra_kp.inference.stages import LevelStage

ROWS_OF = 4  # rows of a reformation are a multiple of it, so that the network takes its height


@dataclass(frozen=True)
class LevelReader:
    """A level network and its config."""

    stage: LevelStage
    config: LevelConfig

    def evidence(self, image: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Log-probabilities ``[n, L]`` of ``LEVELS`` for vertebrae at ``centres`` ``[n, 2]``, n >= 2, of an image.

        ``image`` ``[H, W]`` uint8; centres in its pixels, from head to foot.
        """
        n = len(centres)
        rows = max(self.config.reformation.rows, -(-n // ROWS_OF) * ROWS_OF)
        above = (rows - n) // 2
        step = float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1)))
        small, matrix = in_kept_pixels(image, step)  # as in training: finer pixels look different
        along = reformat(small, apply_affine(matrix, centres), -above, self.config.reformation, rows=rows)
        seen = along.astype(np.float32) / 255
        found = np.zeros(rows, dtype=bool)
        found[above : above + n] = True
        return self.stage.log_probabilities(seen, found)[found]
