"""Corners to heatmaps and back: one object, one pixel convention.

Cell (row i, column j) of a map of stride s has its centre at ((j + 0.5) s, (i + 0.5) s) of the input image.
Decoders: windowed soft-argmax (Bulat et al. 2021), DARK (Zhang et al., CVPR 2020), argmax.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# A peak that is squared has 1 / sqrt(2) of its width: a window of 4 of those fits where the map ends at 3
# sigma, and a noise floor far below the peak loses its pull.
SHARPEN = 2.0
WINDOW_EFFECTIVE_SIGMAS = 4.0
LOG_FLOOR = 1e-12  # of the peak: below it a float32 map carries no shape


@dataclass(frozen=True)
class Decoded:
    """``points_xy`` [B, K, 2] input px; ``peak`` [B, K] in 0..1; ``covariance`` [B, K, 2, 2] input px²."""

    points_xy: Tensor
    peak: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class HeatmapCodec:
    """Gaussian targets of ``sigma`` heatmap cells on a grid of ``stride`` input pixels."""

    stride: int
    sigma: float
    method: Literal["soft_argmax", "dark", "argmax"] = "soft_argmax"
    dark_blur: bool = False

    @property
    def window_radius(self) -> int:
        """Cells from the peak that the soft-argmax sums over."""
        return math.ceil(WINDOW_EFFECTIVE_SIGMAS * (self.sigma / math.sqrt(SHARPEN)))

    def encode(self, points_xy: Tensor, map_size: tuple[int, int]) -> Tensor:
        """Gaussians of peak 1, ``[B, K, H, W]`` float32, of points ``[B, K, 2]`` in input px; nan gives zeros."""
        H, W = map_size
        cells = points_xy.float() / self.stride
        x = torch.arange(W, device=cells.device) + 0.5 - cells[..., 0, None]  # [B, K, W]
        y = torch.arange(H, device=cells.device) + 0.5 - cells[..., 1, None]  # [B, K, H]
        gauss_x = torch.exp(-0.5 * (x / self.sigma) ** 2)
        gauss_y = torch.exp(-0.5 * (y / self.sigma) ** 2)
        return torch.nan_to_num(gauss_y[..., :, None] * gauss_x[..., None, :])

    def decode(self, heatmaps: Tensor) -> Decoded:
        """Points, peaks and covariances of non-negative maps ``[B, K, H, W]``.

        Maps may be probabilities (sum 1) or Gaussians of peak 1, the scale does not matter: ``peak`` is the
        share of the map's mass inside the window. An empty map has peak 0 and no meaningful point.
        """
        maps = heatmaps.float()
        highest, W = maps.flatten(-2).argmax(dim=-1), maps.shape[-1]
        column, row = (highest % W).float(), (highest // W).float()
        window, x, y = self._window(maps, column, row, self.window_radius)
        mass = window.sum(dim=(-2, -1)) / maps.sum(dim=(-2, -1)).clamp_min(LOG_FLOOR)

        sharp = (window / window.amax(dim=(-2, -1), keepdim=True).clamp_min(LOG_FLOOR)) ** SHARPEN
        sharp = sharp / sharp.sum(dim=(-2, -1), keepdim=True).clamp_min(LOG_FLOOR)
        mean_x, mean_y = (sharp * x).sum(dim=(-2, -1)), (sharp * y).sum(dim=(-2, -1))
        dx, dy = x - mean_x[..., None, None], y - mean_y[..., None, None]
        xx, xy, yy = ((sharp * term).sum(dim=(-2, -1)) for term in (dx * dx, dx * dy, dy * dy))
        covariance = torch.stack([xx, xy, xy, yy], dim=-1).unflatten(-1, (2, 2))

        if self.method == "soft_argmax":
            cells = torch.stack([mean_x, mean_y], dim=-1)
        elif self.method == "dark":
            cells = self._dark(maps, column, row)
        else:
            cells = torch.stack([column, row], dim=-1) + 0.5
        # An empty map knows nothing: no covariance of 0, but one as wide as the window.
        nothing = torch.eye(2, device=maps.device) * self.window_radius**2
        covariance = torch.where((mass == 0)[..., None, None], nothing, covariance)
        # Squaring divided the covariance of a Gaussian peak by SHARPEN: give it back.
        return Decoded(cells * self.stride, mass, covariance * SHARPEN * self.stride**2)

    def local_mean(self, heatmaps: Tensor, points_xy: Tensor) -> Tensor:
        """Soft-argmax ``[B, K, 2]`` in input px around given points, not the peak; differentiable for losses."""
        maps = heatmaps.float()
        H, W = maps.shape[-2:]
        cells = torch.nan_to_num(points_xy / self.stride)
        column = cells[..., 0].floor().clamp(0, W - 1)
        row = cells[..., 1].floor().clamp(0, H - 1)
        window, x, y = self._window(maps, column, row, self.window_radius)
        weight = window / window.sum(dim=(-2, -1), keepdim=True).clamp_min(LOG_FLOOR)
        return torch.stack([(weight * x).sum((-2, -1)), (weight * y).sum((-2, -1))], dim=-1) * self.stride

    @staticmethod
    def _window(maps: Tensor, column: Tensor, row: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cells ``[B, K, D, D]`` up to ``r`` away, 0 past the edge, at x ``[B, K, 1, D]``, y ``[B, K, D, 1]``."""
        offsets = torch.arange(-r, r + 1, device=maps.device)
        x, y = column[..., None] + offsets, row[..., None] + offsets  # [B, K, D]
        H, W = maps.shape[-2:]
        inside_x, inside_y = (x >= 0) & (x < W), (y >= 0) & (y < H)
        flat = (y.clamp(0, H - 1)[..., :, None] * W + x.clamp(0, W - 1)[..., None, :]).long()
        window = maps.flatten(-2).gather(-1, flat.flatten(-2)).view_as(flat)
        window = window * (inside_y[..., :, None] & inside_x[..., None, :])
        return window, x[..., None, :] + 0.5, y[..., :, None] + 0.5

    def _dark(self, maps: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """Newton step on the log of the map at its peak, exact for a Gaussian; cells ``[B, K, 2]``."""
        if self.dark_blur:
            maps = self._blur(maps)
        H, W = maps.shape[-2:]
        # One cell in from the edge every neighbour exists; the parabola is the same one there.
        column, row = column.clamp(1, W - 2), row.clamp(1, H - 2)
        peak = maps.amax(dim=(-2, -1), keepdim=True).clamp_min(LOG_FLOOR)
        logs = torch.log((self._window(maps, column, row, 1)[0] / peak).clamp_min(LOG_FLOOR))
        (up_left, up, up_right), (left, centre, right), (down_left, down, down_right) = (
            line.unbind(-1) for line in logs.unbind(-2)
        )
        gx, gy = (right - left) / 2, (down - up) / 2
        hxx, hyy = right - 2 * centre + left, down - 2 * centre + up
        hxy = (down_right - down_left - up_right + up_left) / 4
        determinant = hxx * hyy - hxy * hxy
        proper = (determinant > 1e-9) & (hxx < 0)  # a maximum, not a saddle or a plateau
        safe = torch.where(proper, determinant, torch.ones_like(determinant))
        newton = -torch.stack([hyy * gx - hxy * gy, hxx * gy - hxy * gx], dim=-1) / safe[..., None]
        step = torch.where(proper[..., None], newton, 0.0).clamp(-2, 2)
        return torch.stack([column, row], dim=-1) + 0.5 + step

    def _blur(self, maps: Tensor) -> Tensor:
        """Gaussian blur by the target's own sigma: averages noise, keeps a Gaussian a Gaussian."""
        radius = math.ceil(WINDOW_EFFECTIVE_SIGMAS * self.sigma)
        offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
        kernel = torch.exp(-0.5 * (offsets / self.sigma) ** 2)
        kernel = kernel / kernel.sum()
        B, K, H, W = maps.shape
        flat = maps.reshape(B * K, 1, H, W)
        flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        return F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, radius)).view(B, K, H, W)
