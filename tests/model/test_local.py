from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomise

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.model.local import MedSAM, build_model
from napari_medsam.model.names import find_model
from napari_medsam.model.networks.decoder import FAR, SamDecoder
from napari_medsam.model.runtime.device import trains_in_bfloat16
from napari_medsam.model.runtime.encoders import choose_backend
from napari_medsam.model.runtime.host import EncoderHost

Save = Callable[[object, str], Path]
BOXES = np.array([[30, 40, 90, 120], [0, 0, 256, 256]], np.float32)
FEATURES = (0.3 * np.random.default_rng(0).standard_normal((256, 64, 64))).astype(np.float16)
PREPARED = np.zeros((3, 256, 256), np.float32)


class FakeEncoder:
    """Fails as told on a GPU; on the CPU it gives ones."""

    def __init__(self, device: str, failure: Exception | None) -> None:
        self.device = device
        self.precision = "torch-float32" if device == "cpu" else "torch-cuda-float16"
        self._failure = failure

    def __call__(self, _prepared: np.ndarray) -> np.ndarray:
        if self._failure is not None:
            raise self._failure
        return np.ones((256, 64, 64), np.float16)


def fake_host(
    gpu: Exception | None = None,
    cpu: Exception | None = None,
    device: str = "cuda",
    notices: list[str] | None = None,
) -> EncoderHost:
    def make(on_device: str, _backend: str) -> FakeEncoder:
        return FakeEncoder(on_device, cpu if on_device == "cpu" else gpu)

    say = notices.append if notices is not None else (lambda _: None)
    return EncoderHost(make, device, "torch", "lite-medsam", say)


def fake_model(host: EncoderHost) -> MedSAM:
    decoder = randomise(SamDecoder(256))
    assert isinstance(decoder, SamDecoder)
    return MedSAM(find_model("lite-medsam"), host, decoder, ("e", "d"))


def test_a_gpu_out_of_memory_moves_to_the_cpu_once() -> None:
    notices: list[str] = []
    model = fake_model(fake_host(torch.OutOfMemoryError("CUDA out of memory"), notices=notices))
    assert (model.precision, model.device) == ("torch-cuda-float16", "cuda")
    for _ in range(2):
        assert model.encode(PREPARED).precision == "torch-float32"
    assert (model.precision, model.device) == ("torch-float32", "cpu")
    assert len(notices) == 1
    assert "lite-medsam" in notices[0]
    assert "cuda" in notices[0]
    assert model.decode(FEATURES, BOXES).logits.shape == (2, 256, 256)


def test_out_of_memory_while_building_on_the_gpu_falls_back_too() -> None:
    def make(device: str, _backend: str) -> FakeEncoder:
        if device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return FakeEncoder(device, None)

    model = fake_model(EncoderHost(make, "cuda", "torch", "lite-medsam", lambda _: None))
    assert model.encode(PREPARED).precision == "torch-float32"


def test_mps_reports_its_lack_of_memory_as_a_plain_error() -> None:
    host = fake_host(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), device="mps")
    assert fake_model(host).encode(PREPARED).precision == "torch-float32"


@pytest.mark.parametrize(
    ("gpu", "cpu"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")),
    ],
)
def test_other_errors_become_model_errors(gpu: Exception, cpu: Exception | None) -> None:
    with pytest.raises(ModelError, match="lite-medsam") as caught:
        fake_model(fake_host(gpu, cpu)).encode(PREPARED)
    assert not isinstance(caught.value, RuntimeError)


def test_a_decoder_out_of_memory_moves_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    host = fake_host()
    model = fake_model(host)
    monkeypatch.setattr(model, "_follow_device", lambda: None)
    calls = []
    real = SamDecoder.image_side

    def failing_once(self: SamDecoder, *args: object) -> object:
        calls.append(host.device)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SamDecoder, "image_side", failing_once)
    assert model.decode(FEATURES, BOXES).iou.shape == (2,)
    assert calls == ["cuda", "cpu"]


def test_openvino_that_cannot_be_used_gives_way_to_torch() -> None:
    notices: list[str] = []

    def make(device: str, backend: str) -> FakeEncoder:
        if backend == "openvino":
            raise RuntimeError("no such plugin")
        return FakeEncoder(device, None)

    host = EncoderHost(make, "cpu", "openvino", "lite-medsam", notices.append)
    model = fake_model(host)
    assert model.precision.startswith("openvino-")
    assert model.encode(PREPARED).precision == "torch-float32"
    assert model.precision == "torch-float32"
    assert "OpenVINO" in notices[0]


def test_absent_and_unknown_devices_list_the_choices() -> None:
    for device in ("tpu", "cuda" if not torch.cuda.is_available() else "mps"):
        with pytest.raises(ModelError, match="cpu"):
            build_model("lite-medsam", device)


def test_backends_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="torch"):
        choose_backend("onnx", "cpu")
    monkeypatch.setattr("napari_medsam.model.runtime.encoders.find_spec", lambda _: None)
    assert choose_backend("auto", "cpu") == "torch"
    with pytest.raises(ModelError, match="pip install"):
        choose_backend("openvino", "cpu")
    monkeypatch.setattr("napari_medsam.model.runtime.encoders.find_spec", lambda _: object())
    assert choose_backend("auto", "cpu") == "openvino"
    assert choose_backend("auto", "cuda") == "torch"
    with pytest.raises(ModelError, match="CPU"):
        choose_backend("openvino", "cuda")


@pytest.mark.parametrize("bad", [np.zeros((3, 256, 128), np.float32), np.zeros((3, 256, 256))])
def test_only_prepared_pixels_are_encoded(lite: MedSAM, bad: np.ndarray) -> None:
    with pytest.raises(ModelError, match="prepare"):
        lite.encode(bad)


def test_no_box_gives_no_mask(lite: MedSAM) -> None:
    out = lite.decode(FEATURES, np.zeros((0, 4), np.float32))
    assert (out.logits.shape, out.iou.shape) == ((0, 256, 256), (0,))
    with pytest.raises(ModelError, match="boxes"):
        lite.decode(FEATURES, np.zeros((2, 3), np.float32))


def test_boxes_are_decoded_independently_and_the_key_changes_nothing(lite: MedSAM) -> None:
    both = lite.decode(FEATURES, BOXES, key="a")
    for i in range(2):
        alone = lite.decode(FEATURES, BOXES[i : i + 1])
        np.testing.assert_array_equal(alone.logits[0], both.logits[i])
    again = lite.decode(np.zeros_like(FEATURES), BOXES, key="a")
    np.testing.assert_array_equal(again.logits, both.logits)  # proves that the kept part is used
    for other in range(15):
        lite.decode(np.zeros_like(FEATURES), BOXES[:1], key=str(other))
    assert len(lite._image_sides) <= 12


def test_a_box_is_decoded_as_published_around_it_and_far_below_zero_elsewhere(lite: MedSAM) -> None:
    box = np.array([[200, 30, 236, 70]], np.float32)  # so logits 180 to 256 and 10 to 90 are its surroundings
    near, iou = (part[0] for part in (lite.decode(FEATURES, box).logits, lite.decode(FEATURES, box).iou))
    decoder = lite._decoder
    with torch.inference_mode():
        everywhere, expected_iou = decoder(
            decoder.image_side(torch.from_numpy(FEATURES.astype(np.float32))), torch.from_numpy(box)
        )
    part = np.s_[180:, 8:92]
    np.testing.assert_allclose(near[part], everywhere[0].numpy()[part], atol=2e-5)
    elsewhere = np.ones((256, 256), bool)
    elsewhere[part] = False
    assert (near[elsewhere] == FAR).all()
    assert iou == pytest.approx(expected_iou.item(), abs=1e-6)


def test_a_box_and_its_clicks_are_decoded_around_them_and_a_lone_click_everywhere(lite: MedSAM) -> None:
    box = np.array([200, 30, 236, 70], np.float32)

    def near(box: np.ndarray | None, row: float, col: float) -> np.ndarray:
        said = FramePrompt(box, np.array([[row, col]], np.float32), np.array([True]))
        return lite.decode_prompt(FEATURES, said).logits[0] != FAR

    alone = lite.decode(FEATURES, box[None]).logits[0] != FAR
    np.testing.assert_array_equal(near(box, 210, 50), alone)
    further = near(box, 210, 150)
    assert further[180:, 10:190].all()
    assert not further[:100].any()
    assert near(None, 210, 50).all()


@pytest.mark.parametrize(
    ("box", "places"),
    [
        ((0, 0, 256, 256), (0, 0, 64, 64)),
        ((-500, 300, -400, 400), (0, 63, 1, 64)),  # beside the frame: one place is the least
        ((9, 10, 9, 10), (2, 2, 3, 3)),
    ],
)
def test_the_places_of_bounds_are_at_least_one_and_within_the_grid(
    box: tuple[int, ...], places: tuple[int, ...]
) -> None:
    assert SamDecoder(256).part_within((64, 64), box) == places


def test_a_box_that_is_no_number_is_decoded_everywhere(lite: MedSAM) -> None:
    logits = lite.decode(FEATURES, np.array([[np.nan, 0, 10, 10]], np.float32)).logits
    assert not (logits == FAR).any()


def test_a_warmed_embedding_is_decoded_from_what_was_kept(lite: MedSAM) -> None:
    expected = lite.decode(FEATURES, BOXES)
    lite.warm(FEATURES, key="warm")
    decoded = lite.decode(np.zeros_like(FEATURES), BOXES, key="warm")
    np.testing.assert_array_equal(decoded.logits, expected.logits)


def test_another_decoder_shares_the_encoder(lite: MedSAM) -> None:
    state = lite.decoder_state()
    same = lite.with_decoder(state)
    assert same.decoder_hash == lite.decoder_hash
    state["mask_decoder.mask_tokens.weight"] += 0.1
    other = lite.with_decoder(state)
    assert other.decoder_hash != lite.decoder_hash
    assert (other.encoder_hash, other.precision, other._host) == (
        lite.encoder_hash,
        lite.precision,
        lite._host,
    )
    ours, theirs = lite.decode(FEATURES, BOXES, key="x"), other.decode(FEATURES, BOXES, key="x")
    assert np.abs(ours.logits - theirs.logits).max() > 0.1
    np.testing.assert_array_equal(same.decode(FEATURES, BOXES).logits, ours.logits)
    del state["mask_decoder.mask_tokens.weight"]
    with pytest.raises(CheckpointError, match="the new decoder"):
        lite.with_decoder(state)


def test_a_local_file_is_loaded_and_hashed_by_its_weights(
    save: Save, tiny_state: dict[str, torch.Tensor], lite: MedSAM
) -> None:
    plain = build_model(save(tiny_state, "a.pth"), "cpu", backend="torch")
    wrapped = build_model(save({"model": tiny_state}, "b.pth"), "cpu", backend="torch")
    assert plain.encoder_hash == wrapped.encoder_hash != lite.encoder_hash
    assert plain.name == "a.pth"
    changed = dict(tiny_state)
    changed["image_encoder.neck.3.bias"] = tiny_state["image_encoder.neck.3.bias"] + 1
    other = build_model(save(changed, "c.pth"), "cpu", backend="torch")
    assert other.encoder_hash != plain.encoder_hash
    assert other.decoder_hash == plain.decoder_hash


def test_weights_that_do_not_fit_name_the_file(save: Save, tiny_state: dict[str, torch.Tensor]) -> None:
    lacking = {k: v for k, v in tiny_state.items() if "iou_prediction_head" not in k}
    with pytest.raises(CheckpointError, match=r"lacking\.pth"):
        build_model(save(lacking, "lacking.pth"), "cpu")
    bent = tiny_state | {"mask_decoder.mask_tokens.weight": torch.zeros(4, 8)}
    with pytest.raises(CheckpointError, match=r"bent\.pth"):
        build_model(save(bent, "bent.pth"), "cpu")


def test_openvino_and_torch_give_the_same_features_and_the_compiled_encoder_is_kept(
    lite: MedSAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("NAPARI_MEDSAM_MODELS", str(tmp_path))
    monkeypatch.setattr("napari_medsam.model.runtime.openvino_encoder.openvino_dtype", lambda: "float32")
    image = np.random.default_rng(1).integers(0, 255, (256, 200, 3), dtype=np.uint8)
    prepared = lite.prepare(image)
    expected = lite.encode(prepared).features.astype(np.float32)
    results = []
    for damage in (False, False, True):
        if damage:
            blob = next((tmp_path / "compiled").glob("*.ovblob"))
            content = bytearray(blob.read_bytes())
            content[len(content) // 2] ^= 1
            blob.write_bytes(content)
        model = build_model("lite-medsam", "cpu", backend="openvino")
        assert model.precision == "openvino-float32" != lite.precision
        results.append(model.encode(prepared).features)
    np.testing.assert_allclose(results[0].astype(np.float32), expected, atol=2e-3)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    assert len(list((tmp_path / "compiled").iterdir())) == 1


def test_encode_and_decode_run_side_by_side() -> None:
    """A decode finishes while an encode is held up."""
    started, release = threading.Event(), threading.Event()

    class Held(FakeEncoder):
        def __call__(self, _prepared: np.ndarray) -> np.ndarray:
            started.set()
            assert release.wait(30)
            return super().__call__(_prepared)

    host = EncoderHost(lambda *_: Held("cpu", None), "cpu", "torch", "held", lambda _: None)
    model = fake_model(host)
    thread = threading.Thread(target=model.encode, args=(PREPARED,))
    thread.start()
    assert started.wait(30)
    assert model.decode(FEATURES, BOXES).iou.shape == (2,)
    assert thread.is_alive()
    release.set()
    thread.join()


@pytest.mark.parametrize("arch", ["vit_b"])
def test_a_vit_encoder_is_built_without_initialising_it(arch: str) -> None:
    from segment_anything.modeling import ImageEncoderViT

    from napari_medsam.model.networks.vit import vit_encoder
    from napari_medsam.model.networks.weights import build_encoder

    with torch.device("meta"):
        like = ImageEncoderViT(
            embed_dim=768, depth=12, num_heads=12, use_rel_pos=True, window_size=14,
            global_attn_indexes=(2, 5, 8, 11), img_size=1024, out_chans=256,
        )  # fmt: skip
    state = {name: torch.zeros(value.shape) for name, value in like.state_dict().items()}
    module = build_encoder(lambda: vit_encoder(arch), state, "vit.pth")
    assert not any(value.is_meta for value in module.parameters())
    with pytest.raises(CheckpointError, match=r"vit\.pth"):
        build_encoder(
            lambda: vit_encoder(arch), {k: v for k, v in state.items() if k != "pos_embed"}, "vit.pth"
        )


@pytest.mark.parametrize(
    ("device", "flags", "quick"),
    [
        ("cpu", "avx2 avx512_bf16", True),
        ("cpu", "amx_bf16", True),
        ("cpu", "avx2", False),
        ("cuda", "amx_bf16", False),
    ],
)
def test_bfloat16_is_for_cpus_that_have_instructions_for_it(
    tmp_path: Path, device: str, flags: str, quick: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags} vme\n")
    assert trains_in_bfloat16(device, tmp_path / "cpuinfo") is quick
    assert not trains_in_bfloat16(device, tmp_path / "missing")
