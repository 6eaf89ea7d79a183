"""The encoder of LiteMedSAM: TinyViT at stride 4, with the parameter names of the published checkpoint.

Written anew after Wu et al., "TinyViT" (arXiv 2207.10666), and the layout of the checkpoint, so that neither
timm (two seconds to import) nor weight initialisation stands between a user and the first mask. The tests
compare it with the published network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_medsam.model.networks.norms import PlaneNorm


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, which `fuse_batch_norms` folds into one."""

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(c_out))


class MBConv(nn.Module):
    """Inverted bottleneck with a depthwise convolution: (B, C, H, W) to the same shape."""

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim * expand)
        self.conv2 = ConvNorm(dim * expand, dim * expand, 3, groups=dim * expand)
        self.conv3 = ConvNorm(dim * expand, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(self.conv3(hidden) + x)


class PatchMerging(nn.Module):
    """Widen and, with stride 2, halve the grid: (B, C, H, W) to (B, C', H / stride, W / stride)."""

    def __init__(self, dim: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim_out)
        self.conv2 = ConvNorm(dim_out, dim_out, 3, stride, groups=dim_out)
        self.conv3 = ConvNorm(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Attention inside windows of side `window`, with a learned bias for each |row|, |col| distance."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def bias(self) -> Tensor:
        """(1, heads, window^2, window^2): the bias between every two places of a window."""
        steps = torch.arange(self.window, device=self.attention_biases.device)
        apart = (steps[:, None] - steps[None, :]).abs()
        index = apart[:, None, :, None] * self.window + apart[None, :, None, :]
        return self.attention_biases[:, index.reshape(self.window**2, -1)][None]

    def forward(self, x: Tensor) -> Tensor:
        """(windows, window^2, dim) to the same shape."""
        windows, places, dim = x.shape
        # The checkpoint interleaves q, k and v head by head.
        qkv = self.qkv(self.norm(x)).view(windows, places, self.heads, 3, dim // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias())
        return self.proj(out.transpose(1, 2).reshape(windows, places, dim))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Layer norm and two linear layers over the last axis."""

    def __init__(self, dim: int, expand: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim * expand)
        self.fc2 = nn.Linear(dim * expand, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))  # type: ignore[no-any-return]


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, an MLP: (B, C, H, W) to the same shape."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._windowed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        out: Tensor = x + self.mlp(x)
        return out.permute(0, 3, 1, 2)

    def _windowed(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        side = self.attn.window
        down, right = -height % side, -width % side
        if down or right:  # padded places take part as the bias-only rows that training has seen
            x = F.pad(x, (0, 0, 0, right, 0, down))
        rows, cols = (height + down) // side, (width + right) // side
        tiles = x.view(batch, rows, side, cols, side, dim).transpose(2, 3).reshape(-1, side * side, dim)
        tiles = self.attn(tiles).view(batch, rows, cols, side, side, dim)
        whole: Tensor = tiles.transpose(2, 3).reshape(batch, rows * side, cols * side, dim)
        return whole[:, :height, :width]


class Stage(nn.Module):
    """Blocks at one width, then the step to the next width."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """(B, 3, 4 n, 4 n) pixels in [0, 1] to (B, out_channels, n, n) features.

    The first stage is convolutional at full resolution; the step into a width of 320 keeps the grid.
    """

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        embed = nn.Sequential(ConvNorm(3, dims[0] // 2), nn.GELU(), ConvNorm(dims[0] // 2, dims[0]))
        self.patch_embed = nn.ModuleDict({"seq": embed})
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            blocks = [
                MBConv(dim) if i == 0 else TinyViTBlock(dim, heads[i], windows[i]) for _ in range(depth)
            ]
            last = i == len(dims) - 1
            stride = 1 if i == len(dims) - 2 else 2
            stages.append(Stage(blocks, None if last else PatchMerging(dim, dims[i + 1], stride)))
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_channels, 1, bias=False),
            PlaneNorm(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            PlaneNorm(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["seq"](x)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)  # type: ignore[no-any-return]
