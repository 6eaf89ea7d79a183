"""SAM's prompt encoder: boxes, clicks, mask prompts and places as vectors, with the published parameter names."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from napari_medsam.model.networks.norms import PlaneNorm


class Token(nn.Module):
    """Learned vectors (n, C). Unlike nn.Embedding it has no initialiser, which would be slow and replaced."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n, dim))


class PlaceCode(nn.Module):
    """Random Fourier features of positions: (..., 2) in XY, scaled to [0, 1], to (..., C)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, dim // 2))

    def forward(self, xy: Tensor) -> Tensor:
        angles = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Boxes, clicks, mask prompts and places as vectors."""

    def __init__(self, dim: int = 256, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = PlaceCode(dim)
        self.point_embeddings = nn.ModuleList(Token(1, dim) for _ in range(4))
        self.not_a_point_embed = Token(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            PlaneNorm(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            PlaneNorm(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = Token(1, dim)

    def corners(self, boxes_xy: Tensor, size: int) -> Tensor:
        """Boxes (n, 4) as x0, y0, x1, y1 in frame pixels to (n, 2, C); half a pixel is added as published."""
        _, _, upper_left, lower_right = (token.weight for token in cast(list[Token], self.point_embeddings))
        places: Tensor = self.pe_layer((boxes_xy.view(-1, 2, 2) + 0.5) / size)
        return places + torch.cat([upper_left, lower_right])

    def clicks(self, points_xy: Tensor, positive: Tensor, size: int) -> Tensor:
        """Clicks (k, 2) in frame pixels, whole numbers at pixel centres, and (k,) bool to (k, C)."""
        minus, plus, _, _ = (token.weight for token in cast(list[Token], self.point_embeddings))
        places: Tensor = self.pe_layer((points_xy + 0.5) / size)
        return places + torch.where(positive[:, None], plus, minus)

    def mask_channels(self, logits: Tensor) -> tuple[Tensor, nn.Conv2d]:
        """A mask prompt, logits (4 h, 4 w): few channels (n, 16) of each image place, and the 1 x 1 convolution that
        makes of them what the prompt adds to the place."""
        *first, wide = self.mask_downscaling
        dense: Tensor = logits[None, None]
        for layer in first:
            dense = layer(dense)
        return dense[0].flatten(1).mT, cast(nn.Conv2d, wide)
