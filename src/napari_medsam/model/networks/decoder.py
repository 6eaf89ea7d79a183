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
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_medsam.model.networks.norms import ChannelNorm
from napari_medsam.model.networks.prompt_encoder import PromptEncoder, Token

# Image places upscaled at a time: their 16-fold children then stay in a core's cache.
_PLACES_AT_ONCE = 256

FAR = -32.0
"""Logit of what lies too far from a box to be looked at."""

Part = tuple[int, int, int, int]
"""Half-open (r0, c0, r1, c1) of image places, not empty."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A projection of all image places, (heads, n, d).

    A mask prompt adds the product of few channels (n, c) with (heads, c, d), and (heads, 1, d). They are kept apart:
    adding them to each place would cost more than using them.
    """

    places: Tensor
    added: tuple[Tensor, Tensor, Tensor] | None = None

    def scores(self, x: Tensor) -> Tensor:
        """Products of (heads, t, d) with each place: (heads, t, n)."""
        scores = x @ self.places.mT
        if self.added is None:
            return scores
        few, weight, bias = self.added
        return scores + (x @ weight.mT @ few.mT + x @ bias.mT)

    def mean(self, shares: Tensor) -> Tensor:
        """The places' mean under shares (heads, t, n) that add up to 1 over n: (heads, t, d)."""
        mean = shares @ self.places
        if self.added is None:
            return mean
        few, weight, bias = self.added
        return mean + (shares @ few @ weight + bias)


@dataclass(frozen=True, eq=False)
class ImageSide:
    """What decoding needs of one embedding, prompt-independent. n = h * w image places, C channels.

    keys and pe are (n, C): image features and their position. first_k, first_v and first_q are the first layer's
    projections of the untouched image.
    """

    grid: tuple[int, int]
    keys: Tensor
    pe: Tensor
    first_k: Projection
    first_v: Projection
    first_q: Projection


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

    def from_image_projected(self, tokens: Tensor, k: Projection, v: Projection) -> Tensor:
        """The same, with the image's k and v at hand."""
        q = self.split(self.q_proj(tokens)) * self.scale
        return self.merge(v.mean(torch.softmax(k.scores(q), -1)))

    def to_image(self, keys_pe: Tensor, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """Image places (n, C) look at tokens (t, C); what they see is added to keys."""
        k = self.split(self.k_proj(tokens)) * self.scale
        offset = k @ self.q_proj.bias.view(self.heads, -1, 1)
        wanted = (k @ self.q_proj.weight.view(self.heads, -1, keys_pe.shape[-1])).flatten(0, 1)
        scores = (wanted @ keys_pe.mT).view(self.heads, tokens.shape[0], -1) + offset
        return self._spread(scores, keys, values)

    def to_image_projected(self, q: Projection, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """The same, with the image's q at hand."""
        k = self.split(self.k_proj(tokens)) * self.scale
        return self._spread(q.scores(k), keys, values)

    def _spread(self, scores: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """keys plus the attention with scores (heads, t, n), a softmax over t: values and output in one product.

        A place's weights add up to 1 in each head, so the bias may ride on the values, a share in each head.
        """
        v = self.split(self.v_proj(values))
        out = self.out_proj.weight.view(-1, self.heads, v.shape[-1]).permute(1, 2, 0)
        mixed = (v @ out).flatten(0, 1) + self.out_proj.bias / self.heads
        return torch.addmm(keys, torch.softmax(scores, 1).flatten(0, 1).mT, mixed)


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

    def forward(self, prompt: Tensor, image: ImageSide, part: Part | None = None) -> tuple[Tensor, Tensor]:
        """prompt (t, C): embedded clicks and corners. Logits (4 h, 4 w) and the predicted IoU ().

        part: the image places that the object can reach; the logits elsewhere are FAR.
        """
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight, prompt])
        tokens, keys = self.transformer(tokens, image)
        wanted = self.output_hypernetworks_mlps[0](tokens[1])
        r0, c0, r1, c1 = part or (0, 0, *image.grid)
        near = keys.view(*image.grid, -1)[r0:r1, c0:c1].flatten(0, 1)
        flat = torch.cat([self._upscaled(places) @ wanted for places in near.split(_PLACES_AT_ONCE)])
        h, w = r1 - r0, c1 - c0
        logits = flat.view(h, w, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * h, 4 * w)
        if part is not None:
            margins = (c0, image.grid[1] - c1, r0, image.grid[0] - r1)
            logits = F.pad(logits, [4 * margin for margin in margins], value=FAR)
        return logits, self.iou_prediction_head(tokens[0])[0]

    def _upscaled(self, keys: Tensor) -> Tensor:
        """Image places (n, C) to their 4 x 4 children (n * 16, C / 8)."""
        first, norm, act, second, _ = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d)
        assert isinstance(second, nn.ConvTranspose2d)
        return act(_double(second, act(norm(_double(first, keys)))))  # type: ignore[no-any-return]


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
        keys = features.flatten(1).mT.contiguous() + self.prompt_encoder.no_mask_embed.weight
        pe = self.prompt_encoder.pe_layer(xy)
        keys_pe = keys + pe
        look, write = self._first_attentions()
        first_k = Projection(look.split(look.k_proj(keys_pe)))
        first_v = Projection(look.split(look.v_proj(keys)))
        first_q = Projection(write.split(write.q_proj(keys_pe)))
        return ImageSide((h, w), keys, pe, first_k, first_v, first_q)

    def with_mask(self, image: ImageSide, logits: Tensor) -> ImageSide:
        """The image side under a mask prompt, logits (4 h, 4 w): it takes the place of "no mask"."""
        few, wide = self.prompt_encoder.mask_channels(logits)
        assert wide.bias is not None
        weight, bias = wide.weight.flatten(1), wide.bias - self.prompt_encoder.no_mask_embed.weight[0]

        def added(projection: Projection, attention: Attention, linear: nn.Linear) -> Projection:
            maps = attention.split((linear.weight @ weight).mT), attention.split((linear.weight @ bias)[None])
            return Projection(projection.places, (few, *maps))

        look, write = self._first_attentions()
        return replace(
            image,
            keys=image.keys + torch.addmm(bias, few, weight.mT),
            first_k=added(image.first_k, look, look.k_proj),
            first_v=added(image.first_v, look, look.v_proj),
            first_q=added(image.first_q, write, write.q_proj),
        )

    def _first_attentions(self) -> tuple[Attention, Attention]:
        layer = cast(TwoWayLayer, self.mask_decoder.transformer.layers[0])
        return layer.cross_attn_token_to_image, layer.cross_attn_image_to_token

    def part_within(self, grid: tuple[int, int], bounds: Sequence[float]) -> Part:
        """The image places of a grid (h, w) that bounds (r0, c0, r1, c1) in frame pixels touch, at least one."""
        low = [math.floor(edge * side / self.size) for edge, side in zip(bounds[:2], grid, strict=True)]
        high = [math.ceil(edge * side / self.size) for edge, side in zip(bounds[2:], grid, strict=True)]
        r0, c0 = (min(max(edge, 0), side - 1) for edge, side in zip(low, grid, strict=True))
        r1, c1 = (min(max(edge, 1), side) for edge, side in zip(high, grid, strict=True))
        return r0, c0, max(r1, r0 + 1), max(c1, c0 + 1)

    def forward(
        self, image: ImageSide, boxes: Tensor, parts: Sequence[Part | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """boxes (n, 4) as (r0, c0, r1, c1) in frame pixels, n >= 1, and the part of the image for each, or all of it.

        Logits (n, 4 h, 4 w), FAR outside the parts, and IoU (n,).
        """
        parts = parts or [None] * len(boxes)
        decoded = [self.decode_box(image, box, part) for box, part in zip(boxes, parts, strict=True)]
        return torch.stack([logits for logits, _ in decoded]), torch.stack([iou for _, iou in decoded])

    def decode_box(self, image: ImageSide, box: Tensor, part: Part | None = None) -> tuple[Tensor, Tensor]:
        """box (4,) as (r0, c0, r1, c1) in frame pixels: logits (4 h, 4 w), FAR outside the part, and IoU ()."""
        return self.decode_prompt(image, box, box.new_zeros(0, 2), box.new_zeros(0), part=part)

    def decode_prompt(
        self,
        image: ImageSide,
        box: Tensor | None,
        points: Tensor,
        signs: Tensor,
        mask: Tensor | None = None,
        part: Part | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One object from a box (4,) or none, clicks, and logits (4 h, 4 w) of an earlier mask or none.

        points (k, 2) as (row, col) in frame pixels, whole numbers at pixel centres; signs (k,): above 0 where the
        object is, else where it is not. part: the image places where logits are wanted; None for all. Logits
        (4 h, 4 w), FAR outside it, and IoU ().
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
        logits, iou = self.mask_decoder(torch.cat(parts), image, part)
        return logits, iou
