"""A folder of broken pairs: the good ones become cases, each bad one is reported by name, kind and reason."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from training_files import disc, folders, grey, run_curate, save_nifti

from napari_medsam.curation.dataset import CuratedDataset

MASK = disc()
LABELS = MASK.astype("u1")
IMAGE = grey(0, MASK)
BALL = disc((40, 44, 12), 9)


class Files:
    """Writes one broken pair."""

    def __init__(self, root: Path) -> None:
        self.images, self.masks, _ = folders(root)

    def png(self, stem: str, image: np.ndarray = IMAGE, mask: np.ndarray = LABELS * 255) -> None:
        Image.fromarray(image).save(self.images / f"{stem}.png")
        Image.fromarray(mask).save(self.masks / f"{stem}.png")

    def tif(self, stem: str, image: np.ndarray = IMAGE, mask: np.ndarray = LABELS) -> None:
        tifffile.imwrite(self.images / f"{stem}.tif", image, photometric="minisblack")
        tifffile.imwrite(self.masks / f"{stem}.tif", mask, photometric="minisblack")

    def nifti(
        self, stem: str, image: np.ndarray | None = None, mask: np.ndarray | None = None
    ) -> tuple[Path, Path]:
        paths = self.images / f"{stem}.nii.gz", self.masks / f"{stem}.nii.gz"
        save_nifti(paths[0], grey(1, BALL, "i2") if image is None else image)
        save_nifti(paths[1], BALL.astype("u1") if mask is None else mask)
        return paths


def image_without_mask(f: Files) -> None:
    f.png("case")
    (f.masks / "case.png").unlink()


def mask_without_image(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").unlink()


def truncated_png(f: Files) -> None:
    f.png("case")
    path = f.images / "case.png"
    path.write_bytes(path.read_bytes()[:900])


def truncated_mask(f: Files) -> None:
    f.tif("case")
    path = f.masks / "case.tif"
    path.write_bytes(path.read_bytes()[:700])


def text_named_png(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").write_text("<html>404 not found</html>")


def empty_file(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").write_bytes(b"")


def other_size(f: Files) -> None:
    f.png("case", mask=disc((64, 64)).astype("u1"))


def turned_mask(f: Files) -> None:
    f.png("case", mask=MASK.T.astype("u1"))


def empty_mask(f: Files) -> None:
    f.png("case", mask=np.zeros_like(IMAGE))


def all_foreground(f: Files) -> None:
    f.png("case", mask=np.full_like(IMAGE, 255))


def probabilities(f: Files) -> None:
    f.tif("case", mask=np.linspace(0, 1, IMAGE.size, dtype=np.float32).reshape(IMAGE.shape))


def mask_with_nan(f: Files) -> None:
    f.tif("case", mask=np.where(MASK, 1, np.nan).astype(np.float32))


def negative_labels(f: Files) -> None:
    f.tif("case", mask=MASK.astype("i2") - 1)


def coloured_mask(f: Files) -> None:
    f.png("case", mask=np.stack([MASK * 255, MASK * 10, MASK * 0], axis=2).astype("u1"))


def tiny_object(f: Files) -> None:
    f.png("case", mask=disc(radius=2).astype("u1"))


def two_images(f: Files) -> None:
    f.png("case")
    Image.fromarray(IMAGE).save(f.images / "case.bmp")


def two_masks(f: Files) -> None:
    f.png("case")
    Image.fromarray(MASK.astype("u1")).save(f.masks / "case.bmp")


def constant_image(f: Files) -> None:
    f.png("case", image=np.full_like(IMAGE, 7))


def image_of_nan(f: Files) -> None:
    f.tif("case", image=np.full(IMAGE.shape, np.nan, np.float32))


def five_channels(f: Files) -> None:
    f.tif("case")
    five = np.repeat(IMAGE[..., None], 5, axis=2)
    tifffile.imwrite(f.images / "case.tif", five, photometric="minisblack", planarconfig="contig")


def movie(f: Files) -> None:
    f.tif("case")
    tifffile.imwrite(f.images / "case.tif", np.stack([IMAGE] * 4), imagej=True, metadata={"axes": "TYX"})


def stack_and_flat_mask(f: Files) -> None:
    f.tif("case", image=np.stack([IMAGE] * 4))


def complex_numbers(f: Files) -> None:
    f.tif("case", image=IMAGE.astype(np.complex64))


def shifted_header(f: Files) -> None:
    _, path = f.nifti("case")
    save_nifti(path, BALL.astype("u1"), shift=5)


def other_spacing(f: Files) -> None:
    _, path = f.nifti("case")
    save_nifti(path, BALL.astype("u1"), spacing=(1, 1, 2.5))


def header_without_size(f: Files) -> None:
    path, _ = f.nifti("case")
    header = nib.Nifti1Header()
    header.set_sform(np.diag([1.0, 1, 0, 1]), code=1)
    nib.save(nib.Nifti1Image(grey(1, BALL, "i2"), None, header), path)


def four_axes(f: Files) -> None:
    f.nifti("case", image=np.stack([grey(1, BALL, "i2")] * 3, axis=3))


def truncated_nifti(f: Files) -> None:
    path, _ = f.nifti("case")
    path.write_bytes(path.read_bytes()[:2000])


def cropped_volume(f: Files) -> None:
    f.nifti("case", mask=BALL[:, :, :-1].astype("u1"))


def zarr_group_without_image(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").unlink()
    zarr.create_group(f.images / "case.zarr").create_array("raw", data=IMAGE)


def unknown_format(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").rename(f.images / "case.mhd")


def hidden_file(f: Files) -> None:
    (f.images / ".case.DS_Store").write_bytes(b"x")


def dangling_link(f: Files) -> None:
    f.png("case")
    (f.images / "case.png").unlink()
    (f.images / "case.png").symlink_to(f.images / "gone.png")


def damaged_dicom(f: Files) -> None:
    (f.images / "case.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 64)


# what it is: (who breaks it, its kind in the report, what its reason must say)
BROKEN: dict[Callable[[Files], None], tuple[str, str]] = {
    image_without_mask: ("no-mask", "No mask has this image's name"),
    mask_without_image: ("no-image", "No image has this mask's name"),
    truncated_png: ("unreadable", "cannot be read"),
    truncated_mask: ("unreadable", "cannot be read"),
    text_named_png: ("unreadable", "cannot identify"),
    empty_file: ("unreadable", "the file is empty"),
    other_size: ("shape-mismatch", "64 x 80, its mask 64 x 64"),
    turned_mask: ("shape-mismatch", "turned by a quarter"),
    empty_mask: ("empty-mask", "mask is empty"),
    all_foreground: ("all-foreground", "covers everything"),
    probabilities: ("not-labels", "fractions"),
    mask_with_nan: ("not-labels", "NaN"),
    negative_labels: ("negative-labels", "-1 the least"),
    coloured_mask: ("colour-mask", "coloured"),
    tiny_object: ("too-small", "100 pixels in the 256 frame"),
    two_images: ("ambiguous", "2 images and 1 masks"),
    two_masks: ("ambiguous", "1 images and 2 masks"),
    constant_image: ("constant-image", "All its pixels are 7"),
    image_of_nan: ("not-finite", "finite"),
    five_channels: ("many-channels", "5 channels"),
    movie: ("too-many-axes", "time point"),
    stack_and_flat_mask: ("shape-mismatch", "4 x 64 x 80, its mask 64 x 80"),
    complex_numbers: ("unreadable", "complex64"),
    shifted_header: ("wrong-geometry", "mm apart"),
    other_spacing: ("wrong-geometry", "mm apart"),
    header_without_size: ("wrong-geometry", "voxel has no size"),
    four_axes: ("too-many-axes", "40 x 44 x 12 x 3"),
    truncated_nifti: ("unreadable", "cannot be read"),
    cropped_volume: ("shape-mismatch", "12 x 44 x 40, its mask 11 x 44 x 40"),
    zarr_group_without_image: ("unreadable", "not an OME-Zarr image"),
    unknown_format: ("unknown-format", "not read"),
    hidden_file: ("hidden-file", "dot"),
    dangling_link: ("unreadable", "file not found"),
    damaged_dicom: ("unreadable", "cannot be read"),
}
if os.name == "nt":  # where making a link needs a privilege
    del BROKEN[dangling_link]


def test_good_pairs_become_cases_and_each_bad_one_is_reported_by_name_and_reason(tmp_path: Path) -> None:
    assert len(BROKEN) >= 20
    good = Files(tmp_path)
    for number in range(3):
        good.png(f"good-{number}", image=grey(number + 10, MASK))
    good.nifti("good-volume")
    for break_it in BROKEN:
        part = Files(tmp_path / "apart" / break_it.__name__)
        break_it(part)
        for kind, source in (("images", part.images), ("masks", part.masks)):
            source.rename(tmp_path / kind / break_it.__name__)
    assert run_curate(tmp_path) == 0

    dataset = CuratedDataset(tmp_path / "dataset")
    assert dataset.validate() == []
    assert sorted(stem[3:-17] for stem in dataset.cases) == ["good-0", "good-1", "good-2", "good-volume"]
    with (tmp_path / "dataset" / "curation" / "left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for break_it, (kind, reason) in BROKEN.items():
        own = [row for row in rows if row["name"].startswith(f"{break_it.__name__}/")]
        assert own, f"{break_it.__name__} was passed over in silence"
        assert any(row["kind"] == kind and reason in row["reason"] for row in own), own
        assert "case" in own[0]["name"]
        assert str(tmp_path) not in own[0]["reason"]
    page = (tmp_path / "dataset" / "curation" / "report.html").read_text()
    assert all(row["name"] in page for row in rows)


@pytest.mark.parametrize("options", [("--labels", "7"), ("--group", "patient([0-9]+)")])
def test_what_options_leave_out_is_reported_too(tmp_path: Path, options: tuple[str, str]) -> None:
    Files(tmp_path).png("case", mask=MASK.astype("u1"))
    assert run_curate(tmp_path, *options) == 1
    with (tmp_path / "dataset" / "curation" / "left_out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "case.png"
    assert row["kind"] == {"--labels": "no-such-label", "--group": "no-group"}[options[0]]


def test_a_jpeg_mask_is_black_and_white_and_no_labels(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.png("case")
    (files.masks / "case.png").unlink()
    Image.fromarray(MASK.astype("u1") * 255).save(files.masks / "case.jpg", quality=60)
    assert run_curate(tmp_path) == 0
    case = next(iter(CuratedDataset(tmp_path / "dataset")))
    assert np.count_nonzero((case.gts > 0) != MASK) < 20
    assert run_curate(tmp_path, "--per", "instance") == 1
    assert "lossy-labels" in (tmp_path / "dataset" / "curation" / "left_out.csv").read_text()
    assert not list((tmp_path / "dataset").glob("*.npz")), "the case of the earlier settings is still there"
