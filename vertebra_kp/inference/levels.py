"""Evidence for the names of vertebrae that were found, by a level network."""

from dataclasses import dataclass

import numpy as np
import torch

from vertebra_kp.config.spine import LevelConfig
from vertebra_kp.data.reformation import reformat
from vertebra_kp.models.level_network import LevelNetwork

ROWS_OF = 4  # rows of a reformation are a multiple of it, so that the network takes its height


@dataclass(frozen=True)
class LevelReader:
    """A level network and its config."""

    network: LevelNetwork
    config: LevelConfig

    @torch.inference_mode()
    def evidence(self, image: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Log-probabilities ``[n, L]`` of ``LEVELS`` for vertebrae at ``centres`` ``[n, 2]``, n >= 2, of an image.

        ``image`` ``[H, W]`` uint8; centres in its pixels, from head to foot.
        """
        n = len(centres)
        rows = max(self.config.reformation.rows, -(-n // ROWS_OF) * ROWS_OF)
        above = (rows - n) // 2
        seen = reformat(image, centres, -above, self.config.reformation, rows=rows).astype(np.float32) / 255
        found = np.zeros(rows, dtype=bool)
        found[above : above + n] = True
        device = next(self.network.parameters()).device
        tensor = torch.from_numpy(seen)[None, None].to(device).contiguous(memory_format=torch.channels_last)
        is_found = torch.from_numpy(found)[None].to(device)
        told = self.network(tensor, is_found)
        if self.config.reformation.flip:
            told = (told + self.network(tensor.flip(-1), is_found)) / 2
        return told[0, found].float().cpu().numpy()
