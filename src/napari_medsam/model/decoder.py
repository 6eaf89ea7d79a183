"""The mask decoder of SAM, arranged so that a box costs as little as possible, with the published weights.

Same function as Kirillov et al., "Segment Anything" (arXiv 2304.02643), one mask per prompt:
- what depends on the image alone is computed once (`image_side`);
- a projection of the 4096 image places followed by a product with a few prompt tokens is regrouped, so
  that the small side is projected instead: (x W) t = x (W t);
- only mask token 0 is turned into a mask, and the 2x2 stride-2 transposed convolutions are matrix products;
- boxes are decoded one after the other, because a batch falls out of the CPU's caches.

Parameter names are those of the published checkpoints, and autograd works through `forward`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rows of image places upscaled at a time: their 16-fold children then stay in a core's cache.
_ROWS_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class ImageSide:
    """What decoding needs of one embedding, prompt-independent. n = h * w image places, C channels.

    keys and keys_pe are (n, C): image features, without and with their position. first_k and first_v are
    (heads, n, d), first_q is (heads, n, d): the first layer's projections of the untouched image.
    """

    grid: tuple[int, int]
    keys: Tensor
    keys_pe: Tensor
    pe: Tensor
    first_k: Tensor
    first_v: Tensor
    first_q: Tensor


class Attention(nn.Module):
    """Projections of one attention; how they are combined is chosen by the caller."""

    def __init__(self, dim: int, heads: int, reduce: int = 1) -> None:
        super().__init__()
        self.heads, self.inner = heads, dim // reduce
        self.q_proj = nn.Linear(dim, self.inner)
        self.k_proj = nn.Linear(dim, self.inner)
        self.v_proj = nn.Linear(dim, self.inner)
        self.out_proj = nn.Linear(self.inner, dim)

    @property
    def scale(self) -> float:
        return 1.0 / math.sqrt(self.inner // self.heads)

    def split(self, x: Tensor) -> Tensor:
        """(..., n, inner) to (..., heads, n, d)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(-3, -2)

    def merge(self, x: Tensor) -> Tensor:
        """(..., heads, n, d) to (..., n, dim), projected."""
        return self.out_proj(x.transpose(-3, -2).flatten(-2))  # type: ignore[no-any-return]

    def among_tokens(self, qk: Tensor, v: Tensor) -> Tensor:
        """Plain attention of a few tokens (t, C) among themselves."""
        q, k = self.split(self.q_proj(qk)), self.split(self.k_proj(qk))
        return self.merge(torch.softmax(q @ k.mT * self.scale, -1) @ self.split(self.v_proj(v)))

    def from_image(self, tokens: Tensor, keys_pe: Tensor, keys: Tensor) -> Tensor:
        """Tokens (t, C) look at image places (n, C)."""
        # The bias of k shifts all scores of a token alike, which softmax ignores: it is left out.
        t, dim = tokens.shape
        q = self.split(self.q_proj(tokens)) * self.scale
        looked_for = (q @ self.k_proj.weight.view(self.heads, -1, dim)).view(-1, dim)
        seen = torch.softmax(looked_for @ keys_pe.mT, -1) @ keys
        v = seen.view(self.heads, t, dim) @ self.v_proj.weight.view(self.heads, -1, dim).mT
        return self.merge(v + self.v_proj.bias.view(self.heads, 1, -1))

    def from_image_projected(self, tokens: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same, with the image's k and v (heads, n, d) at hand."""
        q = self.split(self.q_proj(tokens)) * self.scale
        return self.merge(torch.softmax(q @ k.mT, -1) @ v)

    def to_image(self, keys_pe: Tensor, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """Image places (n, C) look at tokens (t, C); what they see is added to keys."""
        k = self.split(self.k_proj(tokens)) * self.scale
        offset = k @ self.q_proj.bias.view(self.heads, -1, 1)
        wanted = (k @ self.q_proj.weight.view(self.heads, -1, keys_pe.shape[-1])).flatten(0, 1)
        scores = (wanted @ keys_pe.mT).view(self.heads, tokens.shape[0], -1) + offset
        return self._spread(scores, keys, values)

    def to_image_projected(self, q: Tensor, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """The same, with the image's q (heads, n, d) at hand."""
        k = self.split(self.k_proj(tokens)) * self.scale
        return self._spread(k @ q.mT, keys, values)

    def _spread(self, scores: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """keys plus the attention with scores (heads, t, n), a softmax over t: values and output in one product.

        A place's weights add up to 1 in each head, so the bias may ride on the values, a share in each head.
        """
        v = self.split(self.v_proj(values))
        out = self.out_proj.weight.view(-1, self.heads, v.shape[-1]).permute(1, 2, 0)
        mixed = (v @ out).flatten(0, 1) + self.out_proj.bias / self.heads
        return torch.addmm(keys, torch.softmax(scores, 1).flatten(0, 1).mT, mixed)


class Token(nn.Module):
    """Learned vectors (n, C). Unlike nn.Embedding it has no initialiser, which would be slow and replaced."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n, dim))


class TwoWayLayer(nn.Module):
    """Tokens among themselves, tokens to image, MLP, image to tokens."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(dim, mlp_dim), "lin2": nn.Linear(mlp_dim, dim)})
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, 2)

    def forward(
        self, tokens: Tensor, prompt: Tensor, keys: Tensor, image: ImageSide
    ) -> tuple[Tensor, Tensor]:
        """tokens, prompt (t, C) and keys (n, C) to the new tokens and keys."""
        look, write = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        if self.first:  # tokens are the prompt itself, keys the untouched image
            tokens = self.norm1(self.self_attn.among_tokens(tokens, tokens))
            seen = look.from_image_projected(tokens + prompt, image.first_k, image.first_v)
        else:
            tokens = self.norm1(tokens + self.self_attn.among_tokens(tokens + prompt, tokens))
            keys_pe = keys + image.pe
            seen = look.from_image(tokens + prompt, keys_pe, keys)
        tokens = self.norm2(tokens + seen)
        tokens = self.norm3(tokens + self.mlp["lin2"](F.relu(self.mlp["lin1"](tokens))))
        if self.first:
            keys = write.to_image_projected(image.first_q, keys, tokens + prompt, tokens)
        else:
            keys = write.to_image(keys_pe, keys, tokens + prompt, tokens)
        return tokens, self.norm4(keys)


class Transformer(nn.Module):
    """The two-way transformer between prompt tokens and image places."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(dim, heads, mlp_dim, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, prompt: Tensor, image: ImageSide) -> tuple[Tensor, Tensor]:
        tokens, keys = prompt, image.keys
        for layer in self.layers:
            tokens, keys = layer(tokens, prompt, keys, image)
        seen = self.final_attn_token_to_image.from_image(tokens + prompt, keys + image.pe, keys)
        return self.norm_final_attn(tokens + seen), keys


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class ChannelNorm(nn.Module):
    """Weights of a layer norm over channels; applied by `Upscaling` where channels come last."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def _double(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 2x2 transposed convolution of stride 2: (n, C) to (n * 4, C'), the children of a place in a row."""
    c_in, c_out = conv.weight.shape[:2]
    weight = conv.weight.permute(0, 2, 3, 1).reshape(c_in, 4 * c_out)
    assert conv.bias is not None
    return torch.addmm(conv.bias.repeat(4), x, weight).view(-1, c_out)


class MaskDecoder(nn.Module):
    """Learned tokens, transformer, upscaling and the heads."""

    def __init__(
        self, dim: int = 256, heads: int = 8, mlp_dim: int = 2048, depth: int = 2, masks: int = 4
    ) -> None:
        super().__init__()
        self.transformer = Transformer(dim, heads, mlp_dim, depth)
        self.iou_token = Token(1, dim)
        self.mask_tokens = Token(masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            ChannelNorm(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP((dim, dim, dim, dim // 8)) for _ in range(masks))
        self.iou_prediction_head = MLP((dim, dim, dim, masks))

    def forward(self, prompt: Tensor, image: ImageSide) -> tuple[Tensor, Tensor]:
        """prompt (t, C): embedded clicks and corners. Logits (4 h, 4 w) and the predicted IoU ()."""
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight, prompt])
        tokens, keys = self.transformer(tokens, image)
        h, w = image.grid
        wanted = self.output_hypernetworks_mlps[0](tokens[1])
        flat = torch.cat([self._upscaled(part) @ wanted for part in keys.split(_ROWS_AT_ONCE * w)])
        logits = flat.view(h, w, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * h, 4 * w)
        return logits, self.iou_prediction_head(tokens[0])[0]

    def _upscaled(self, keys: Tensor) -> Tensor:
        """Image places (n, C) to their 4 x 4 children (n * 16, C / 8)."""
        first, norm, act, second, _ = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d)
        assert isinstance(second, nn.ConvTranspose2d)
        return act(_double(second, act(norm(_double(first, keys)))))  # type: ignore[no-any-return]


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
            ChannelNorm(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            ChannelNorm(mask_channels),
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

    def mask(self, logits: Tensor) -> Tensor:
        """A mask prompt, logits (4 h, 4 w), to what it adds to each image place: (n, C)."""
        dense: Tensor = logits[None]
        for layer in self.mask_downscaling:
            last = isinstance(layer, ChannelNorm)  # it wants its channels last
            dense = layer(dense.movedim(0, -1)).movedim(-1, 0) if last else layer(dense)
        return dense.flatten(1).mT


class SamDecoder(nn.Module):
    """Prompt encoder and mask decoder, with the checkpoint's names `prompt_encoder.*` and `mask_decoder.*`.

    size is the side in pixels of the encoder's input, to which boxes refer.
    """

    def __init__(self, size: int, mask_decoder: MaskDecoder | None = None, dim: int = 256) -> None:
        super().__init__()
        self.size = size
        self.prompt_encoder = PromptEncoder(dim)
        self.mask_decoder = mask_decoder or MaskDecoder(dim)

    def image_side(self, features: Tensor) -> ImageSide:
        """The prompt-independent part of decoding features (C, h, w)."""
        _, h, w = features.shape
        rows = (torch.arange(h, device=features.device, dtype=torch.float32) + 0.5) / h
        cols = (torch.arange(w, device=features.device, dtype=torch.float32) + 0.5) / w
        xy = torch.stack(torch.meshgrid(cols, rows, indexing="xy"), -1).view(-1, 2)
        keys = features.flatten(1).mT + self.prompt_encoder.no_mask_embed.weight
        return self._sided((h, w), keys, self.prompt_encoder.pe_layer(xy))

    def with_mask(self, image: ImageSide, logits: Tensor) -> ImageSide:
        """The image side under a mask prompt, logits (4 h, 4 w): it takes the place of "no mask"."""
        dense = self.prompt_encoder.mask(logits) - self.prompt_encoder.no_mask_embed.weight
        return self._sided(image.grid, image.keys + dense, image.pe)

    def _sided(self, grid: tuple[int, int], keys: Tensor, pe: Tensor) -> ImageSide:
        keys_pe = keys + pe
        layer = cast(TwoWayLayer, self.mask_decoder.transformer.layers[0])
        look, write = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        first_k = look.split(look.k_proj(keys_pe))
        first_v = look.split(look.v_proj(keys))
        first_q = write.split(write.q_proj(keys_pe))
        return ImageSide(grid, keys, keys_pe, pe, first_k, first_v, first_q)

    def forward(self, image: ImageSide, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """boxes (n, 4) as (r0, c0, r1, c1) in frame pixels, n >= 1: logits (n, 4 h, 4 w), IoU (n,)."""
        decoded = [self.decode_box(image, box) for box in boxes]
        return torch.stack([logits for logits, _ in decoded]), torch.stack([iou for _, iou in decoded])

    def decode_box(self, image: ImageSide, box: Tensor) -> tuple[Tensor, Tensor]:
        """box (4,) as (r0, c0, r1, c1) in frame pixels: logits (4 h, 4 w), IoU ()."""
        return self.decode_prompt(image, box, box.new_zeros(0, 2), box.new_zeros(0))

    def decode_prompt(
        self, image: ImageSide, box: Tensor | None, points: Tensor, signs: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One object from a box (4,) or none, clicks, and logits (4 h, 4 w) of an earlier mask or none.

        points (k, 2) as (row, col) in frame pixels, whole numbers at pixel centres; signs (k,): above 0 where the
        object is, else where it is not. Logits (4 h, 4 w), IoU ().
        """
        encoder, parts = self.prompt_encoder, []
        if len(points):
            parts.append(encoder.clicks(points.flip(1), signs > 0, self.size))
            if box is None:  # as published: clicks without a box are followed by a token that says so
                parts.append(encoder.not_a_point_embed.weight)
        if box is not None:
            parts.append(encoder.corners(box[None, [1, 0, 3, 2]], self.size)[0])
        if mask is not None:
            image = self.with_mask(image, mask)
        logits, iou = self.mask_decoder(torch.cat(parts), image)
        return logits, iou
