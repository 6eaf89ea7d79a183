"""A wrong hit is impossible: what the cache gives is what a fresh encode of the same request would give."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from embedding_fakes import FakeModel, fingerprint
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.embedding.embed import FieldRequest, embed
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import Field, Frame, read_field, whole_field
from napari_medsam.image.plane import Plane


@dataclass(frozen=True, eq=False)
class Ask:
    """All that an embedding may depend on, as a user would choose it."""

    pixels: np.ndarray
    contrast: Contrast
    field: Field | None
    encoder_hash: str
    precision: str
    size: int

    @property
    def request(self) -> FieldRequest:
        plane = Plane.from_array(self.pixels, channel_axis=2 if self.pixels.ndim == 3 else None)
        return FieldRequest(plane, self.contrast, self.field)

    @property
    def model(self) -> FakeModel:
        return FakeModel(encoder_hash=self.encoder_hash, precision=self.precision, frame=Frame(self.size))

    def prepared(self) -> np.ndarray:
        """What the encoder eats, put together without the code under test."""
        plane, model = self.request.plane, self.model
        field = self.field or whole_field(plane.shape)
        centred = Box(field.row, field.col, field.row + field.height, field.col + field.width)
        window = resolve_contrast(plane, self.contrast, centred if field.kind == "centred" else None)
        return model.prepare(read_field(plane, field, window, model.frame))

    def fresh(self) -> np.ndarray:
        return fingerprint(self.prepared(), self.encoder_hash, self.precision)


CONTRASTS = [
    Contrast(),
    Contrast("window", (0.0, 255.0)),
    Contrast("window", (0.0, 250.0)),
    Contrast("window", (10.0, 255.0)),
    Contrast(percentiles=(10.0, 90.0)),
]
KINDS: tuple[Literal["grid"], Literal["centred"]] = ("grid", "centred")
DTYPES = ["uint8", "int16", "uint16", "float32", "float64"]


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    shape = draw(st.sampled_from([(6, 8), (8, 6), (8, 8), (8, 8, 2), (8, 6, 3)]))
    return Ask(
        pixels=rng.integers(0, 256, shape).astype(draw(st.sampled_from(DTYPES))),
        contrast=draw(st.sampled_from(CONTRASTS)),
        field=draw(st.sampled_from([None, *(Field(n, n, 4, 4, kind) for n in (0, 1) for kind in KINDS)])),
        encoder_hash=draw(st.sampled_from(["e0", "e1"])),
        precision=draw(st.sampled_from(["torch-float32", "torch-float16"])),
        size=draw(st.sampled_from([8, 16])),
    )


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Ask, Ask]:
    """Two requests that differ in one thing, in nothing, or in everything."""
    one, other = draw(asks()), draw(asks())
    what = draw(
        st.sampled_from(
            ["nothing", "pixel", "dtype", "shape", "channels", "all", "contrast", "field", "model"]
        )
    )
    pixels = one.pixels.copy()
    if what == "pixel":
        where = tuple(draw(st.integers(0, n - 1)) for n in pixels.shape)
        pixels[where] = draw(st.integers(0, 255))
    elif what == "dtype":
        pixels = pixels.astype(draw(st.sampled_from(DTYPES)))
    elif what == "shape":
        pixels = (
            np.swapaxes(pixels, 0, 1)
            if draw(st.booleans())
            else pixels.reshape(pixels.shape[1::-1] + pixels.shape[2:])
        )
    elif what == "channels" and pixels.ndim == 3:
        chosen = draw(st.sampled_from([(0,), (1,), (1, 0), (0, 1)]))
        return one, replace(one, contrast=replace(one.contrast, channels=chosen))
    elif what == "contrast":
        return one, replace(one, contrast=other.contrast)
    elif what == "field":
        return one, replace(one, field=other.field)
    elif what == "model":
        return one, replace(one, encoder_hash=other.encoder_hash, precision=other.precision, size=other.size)
    elif what == "all":
        return one, other
    return one, replace(one, pixels=pixels)


@settings(max_examples=120, deadline=None)
@given(neighbours())
def test_a_wrong_hit_is_impossible(pair: tuple[Ask, Ask]) -> None:
    one, other = pair
    same_input = (
        one.prepared().shape == other.prepared().shape
        and one.prepared().dtype == other.prepared().dtype
        and one.prepared().tobytes() == other.prepared().tobytes()
        and (one.encoder_hash, one.precision) == (other.encoder_hash, other.precision)
    )
    with tempfile.TemporaryDirectory() as folder:
        warm = EmbeddingCache(Path(folder))
        first = embed(one.model, warm, one.request)
        assert not first.hit
        for cache in (warm, EmbeddingCache(Path(folder))):  # from memory, and as another process from disk
            model = other.model
            found = embed(model, cache, other.request, lookup_only=True)
            assert (found is not None) == same_input
            assert model.calls == 0
            if found is not None:
                assert np.array_equal(found.features, other.fresh())
        second = embed(other.model, warm, other.request)
    assert (first.key == second.key) == same_input == second.hit
    assert np.array_equal(first.features, one.fresh())
    assert np.array_equal(second.features, other.fresh())


TENSORS = st.tuples(
    st.sampled_from([(4,), (2, 2), (1, 4), (4, 1), (1, 2, 2)]),
    st.sampled_from(["float32", "float64", "float16", "uint8", "int32", ">f4"]),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.sampled_from(["", "e", "ep", 'e"', "é", "p"]),
    st.sampled_from(["", "p", "pp", 'p"', "e"]),
)


@settings(max_examples=500, deadline=None)
@given(TENSORS, TENSORS)
def test_keys_are_equal_only_for_equal_tensor_encoder_and_precision(one: tuple, other: tuple) -> None:
    def tensor(drawn: tuple) -> np.ndarray:
        return np.array(drawn[2]).astype(drawn[1]).reshape(drawn[0])

    (a, b) = tensor(one), tensor(other)
    same = (a.shape, a.dtype, a.tobytes(), one[3:]) == (b.shape, b.dtype, b.tobytes(), other[3:])
    assert (embedding_key(a, *one[3:]) == embedding_key(b, *other[3:])) == same


def test_a_key_is_of_values_not_of_memory_layout() -> None:
    tensor = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert embedding_key(tensor, "e", "p") == embedding_key(np.asfortranarray(tensor), "e", "p")
    assert embedding_key(tensor, "e", "p") != embedding_key(tensor.transpose(0, 2, 1), "e", "p")


def test_keys_stay_the_same_from_release_to_release() -> None:
    """Change this only together with FORMAT_VERSION: everybody's cache depends on it."""
    key = embedding_key(np.arange(12, dtype="<f4").reshape(3, 2, 2), "encoder", "torch-float32")
    assert key == "ecb48ff5773952599d7cc8127e610d629bede2e5e01dba8fbeffa86c498b6fc6"


def test_a_new_decoder_keeps_all_entries(cache: EmbeddingCache) -> None:
    plane = Plane.from_array(np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8))
    requests = [FieldRequest(plane, Contrast(), Field(0, 4 * i, 8, 8, "grid")) for i in range(3)]
    for request in requests:
        embed(FakeModel(decoder_hash="d0"), cache, request)
    tuned = FakeModel(decoder_hash="d1")
    assert all(embed(tuned, EmbeddingCache(cache.folder), request).hit for request in requests)
    assert tuned.calls == 0


def test_pixels_changed_in_place_are_seen(cache: EmbeddingCache) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    request = FieldRequest(Plane.from_array(pixels), Contrast())
    before = embed(FakeModel(), cache, request)
    pixels[3, 3] ^= 255
    after = embed(FakeModel(), cache, request)
    assert not after.hit
    assert not np.array_equal(before.features, after.features)
    pixels[3, 3] ^= 255
    assert embed(FakeModel(), cache, request).key == before.key
