"""TinyViT as an OpenVINO graph, straight from the module's weights.

Tracing the module takes many times longer than compiling it, and a user waits for it before the first mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_medsam.model.networks.tinyvit import (
        ConvNorm,
        MBConv,
        Mlp,
        PatchMerging,
        TinyViT,
        TinyViTBlock,
        WindowAttention,
    )

Node = Any  # openvino ships no usable types for its operators


class _Graph:
    """Small words over openvino's operators. Maps are (1, C, H, W), sequences (..., C)."""

    def __init__(self, operators: Any) -> None:
        self.op = operators

    def constant(self, value: Tensor | npt.ArrayLike) -> Node:
        array = value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)
        return self.op.constant(np.asarray(array, order="C"), shared_memory=False)

    def reshape(self, x: Node, *shape: int) -> Node:
        return self.op.reshape(x, self.constant(np.array(shape, np.int64)), special_zero=False)

    def transpose(self, x: Node, *axes: int) -> Node:
        return self.op.transpose(x, self.constant(np.array(axes, np.int64)))

    def gelu(self, x: Node) -> Node:
        return self.op.gelu(x, "erf")

    def linear(self, x: Node, layer: nn.Linear) -> Node:
        return self.op.add(
            self.op.matmul(x, self.constant(layer.weight), False, True), self.constant(layer.bias)
        )

    def norm(self, x: Node, layer: Any, axis: int = -1) -> Node:
        """Layer norm over one axis, with the weights of `layer`."""
        shape = (-1, 1, 1) if axis == 1 else (-1,)
        axes = self.constant(np.array([axis], np.int64))
        flat = self.op.mvn(x, axes, True, layer.eps, "inside_sqrt")
        scaled = self.op.multiply(flat, self.constant(layer.weight.view(shape)))
        return self.op.add(scaled, self.constant(layer.bias.view(shape)))

    def conv(self, x: Node, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d) -> Node:
        pads, strides = list(layer.padding), list(layer.stride)
        if layer.groups > 1:
            kernel = weight.view(layer.groups, -1, *weight.shape[1:])
            y = self.op.group_convolution(x, self.constant(kernel), strides, pads, pads, [1, 1])
        else:
            y = self.op.convolution(x, self.constant(weight), strides, pads, pads, [1, 1])
        return y if bias is None else self.op.add(y, self.constant(bias.view(1, -1, 1, 1)))

    def conv_norm(self, x: Node, pair: ConvNorm) -> Node:
        conv, norm = pair.c, pair.bn
        assert norm.running_var is not None
        assert norm.running_mean is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self.conv(x, conv.weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain, conv)


def tinyvit_graph(ov: Any, module: TinyViT, size: int) -> Any:
    """A Model of openvino, the module `ov`: (1, 3, size, size) to (1, C, n, n), float32."""
    import torch

    graph = _Graph(ov.opset13)
    pixels = graph.op.parameter([1, 3, size, size], np.float32, name="pixels")
    with torch.no_grad():
        embed: Any = module.patch_embed["seq"]
        x = graph.conv_norm(graph.gelu(graph.conv_norm(pixels, embed[0])), embed[2])
        for stage in module.layers:
            x = _stage(graph, x, stage)
        neck: Any = module.neck
        first, norm1, second, norm2 = neck
        x = graph.norm(graph.conv(x, first.weight, None, first), norm1, axis=1)
        x = graph.norm(graph.conv(x, second.weight, None, second), norm2, axis=1)
    return ov.Model([graph.op.result(x)], [pixels], "tinyvit")


def _stage(graph: _Graph, x: Node, stage: Any) -> Node:
    for block in stage.blocks:
        x = _block(graph, x, block) if hasattr(block, "attn") else _mbconv(graph, x, block)
    return x if stage.downsample is None else _merge(graph, x, stage.downsample)


def _mbconv(graph: _Graph, x: Node, block: MBConv) -> Node:
    hidden = graph.gelu(graph.conv_norm(graph.gelu(graph.conv_norm(x, block.conv1)), block.conv2))
    return graph.gelu(graph.op.add(graph.conv_norm(hidden, block.conv3), x))


def _merge(graph: _Graph, x: Node, merge: PatchMerging) -> Node:
    hidden = graph.gelu(graph.conv_norm(graph.gelu(graph.conv_norm(x, merge.conv1)), merge.conv2))
    return graph.conv_norm(hidden, merge.conv3)


def _block(graph: _Graph, x: Node, block: TinyViTBlock) -> Node:
    last = graph.transpose(x, 0, 2, 3, 1)
    x = graph.transpose(graph.op.add(last, _windowed(graph, last, block.attn)), 0, 3, 1, 2)
    x = graph.transpose(graph.conv_norm(x, block.local_conv), 0, 2, 3, 1)
    return graph.transpose(graph.op.add(x, _mlp(graph, x, block.mlp)), 0, 3, 1, 2)


def _mlp(graph: _Graph, x: Node, mlp: Mlp) -> Node:
    return graph.linear(graph.gelu(graph.linear(graph.norm(x, mlp.norm), mlp.fc1)), mlp.fc2)


def _windowed(graph: _Graph, x: Node, attn: WindowAttention) -> Node:
    """Window attention over (1, H, W, C), padded to whole windows."""
    _, height, width, dim = list(x.shape)
    side = attn.window
    down, right = -height % side, -width % side
    if down or right:
        begin, end = graph.constant(np.zeros(4, np.int64)), graph.constant(np.array([0, down, right, 0]))
        x = graph.op.pad(x, begin, end, "constant", graph.constant(np.float32(0)))
    rows, cols = (height + down) // side, (width + right) // side
    tiles = graph.transpose(graph.reshape(x, rows, side, cols, side, dim), 0, 2, 1, 3, 4)
    tiles = _attention(graph, graph.reshape(tiles, rows * cols, side * side, dim), attn)
    whole = graph.transpose(graph.reshape(tiles, rows, cols, side, side, dim), 0, 2, 1, 3, 4)
    whole = graph.reshape(whole, 1, rows * side, cols * side, dim)
    if not (down or right):
        return whole
    zero, stop, step = (graph.constant(np.array(v, np.int64)) for v in ([0, 0], [height, width], [1, 1]))
    return graph.op.slice(whole, zero, stop, step, graph.constant(np.array([1, 2], np.int64)))


def _attention(graph: _Graph, x: Node, attn: WindowAttention) -> Node:
    windows, places, dim = list(x.shape)
    qkv = graph.linear(graph.norm(x, attn.norm), attn.qkv)
    qkv = graph.reshape(qkv, windows, places, attn.heads, 3, dim // attn.heads)
    parts = graph.transpose(qkv, 3, 0, 2, 1, 4)
    q, k, v = (
        graph.reshape(part, windows, attn.heads, places, dim // attn.heads)
        for part in graph.op.split(parts, graph.constant(np.int64(0)), 3).outputs()
    )
    out = graph.op.scaled_dot_product_attention(q, k, v, graph.constant(attn.bias().contiguous()))
    out = graph.reshape(graph.transpose(out, 0, 2, 1, 3), windows, places, dim)
    return graph.linear(out, attn.proj)
