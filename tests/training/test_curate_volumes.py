"""Volumes: Hounsfield units, planes, orientation, spacing, small outlines."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr
from training_files import disc, folders, grey, run_curate, save_nifti

from napari_medsam.curation.case import Case, ContrastRecord
from napari_medsam.curation.dataset import CuratedDataset

BALL = disc((40, 44, 14), 9)  # (x, y, z)


def only_case(root: Path) -> Case:
    dataset = CuratedDataset(root / "dataset")
    assert dataset.validate() == []
    assert len(dataset) == 1
    return dataset[0]


def hounsfield() -> np.ndarray:
    """Air, water at exactly 0 HU, and a brighter ball; (x, y, z) int16."""
    data = np.full(BALL.shape, -1000, np.int16)
    data[5:35, 5:40] = 0
    data[BALL] = 500
    return data


def curate_nifti(
    root: Path, image: np.ndarray, mask: np.ndarray, *more: str, modality: str = "CT", **how: object
) -> Case:
    images, masks, _ = folders(root)
    save_nifti(images / "one.nii.gz", image, **how)  # type: ignore[arg-type]
    save_nifti(masks / "one.nii.gz", mask.astype("u1"), **how)  # type: ignore[arg-type]
    assert run_curate(root, *more, modality=modality) == 0
    return only_case(root)


def test_water_stays_grey_and_every_slice_is_kept(tmp_path: Path) -> None:
    """The published code makes raw zeros black, and water is 0 HU; and it drops each volume's last slice."""
    case = curate_nifti(tmp_path, hounsfield(), BALL, spacing=(0.5, 0.5, 3))
    assert case.gts.shape == case.imgs.shape == (14, 44, 40)
    assert set(np.unique(case.imgs)) == {0, 85, 170}  # -1000, 0 and 500 HU through -500..1000
    assert case.contrast == ContrastRecord("ct", "window", ((-500.0, 1000.0),), (0,))
    assert (case.spacing, case.unit) == ((3.0, 0.5, 0.5), "mm")
    # z from head to feet, y to the back, x to the left: all three are turned against RAS
    np.testing.assert_array_equal(case.gts > 0, BALL[::-1, ::-1, ::-1].transpose(2, 1, 0))


@pytest.mark.parametrize("codes", ["LPS", "PSR", "SAL"])
def test_how_a_file_is_stored_makes_no_difference(tmp_path: Path, codes: str) -> None:
    image, mask = hounsfield(), BALL.copy()
    image[20:, :10, 3:] += 100
    one = curate_nifti(tmp_path / "one", image, mask, spacing=(0.5, 0.7, 3))
    images, masks, _ = folders(tmp_path / "two")
    for folder, data in ((images, image), (masks, mask.astype("u1"))):
        file = nib.Nifti1Image(data, np.diag([0.5, 0.7, 3, 1]))
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(file.affine), nib.orientations.axcodes2ornt(tuple(codes))
        )
        nib.save(file.as_reoriented(turn), folder / "one.nii.gz")
    assert run_curate(tmp_path / "two", modality="CT") == 0
    two = only_case(tmp_path / "two")
    np.testing.assert_array_equal(one.imgs, two.imgs)
    np.testing.assert_array_equal(one.gts, two.gts)
    assert one.spacing == pytest.approx(two.spacing)


@pytest.mark.parametrize(
    ("spacing", "axis", "shape"),
    [
        ((1, 1, 1), "auto", (14, 44, 40)),
        ((1, 3, 1), "auto", (44, 14, 40)),
        ((3, 1, 1), "auto", (40, 14, 44)),
        ((3, 1, 1), "z", (14, 44, 40)),
        ((1, 1, 3), "col", (40, 14, 44)),
    ],
)
def test_planes_lie_across_the_coarsest_spacing_or_the_chosen_axis(
    tmp_path: Path, spacing: tuple[float, ...], axis: str, shape: tuple[int, ...]
) -> None:
    case = curate_nifti(tmp_path, hounsfield(), BALL, "--axis", axis, spacing=spacing)
    assert case.gts.shape == shape
    if axis == "auto":
        assert case.spacing[0] == max(spacing)


def test_mr_percentiles_are_of_the_foreground(tmp_path: Path) -> None:
    data = np.zeros(BALL.shape, np.float32)
    head = np.random.default_rng(0).uniform(100, 200, data[10:30, 12:32].shape)
    data[10:30, 12:32] = head
    case = curate_nifti(tmp_path, data, BALL, modality="MR")
    low, high = np.percentile(head, (0.5, 99.5))
    assert case.contrast.mode == "auto"
    # fields around the objects show the air too, so the case keeps it; what is bright follows from the foreground
    assert case.contrast.limits[0][1] == pytest.approx(high, rel=0.02)
    assert case.contrast.limits[0][0] <= low


def test_8_bit_ct_has_no_hounsfield_units(tmp_path: Path) -> None:
    case = curate_nifti(tmp_path, grey(0, BALL), BALL)
    assert case.contrast.mode == "auto"
    table = (tmp_path / "dataset" / "curation" / "cases.csv").read_text()
    assert "8-bit CT" in table


def test_a_ct_that_the_window_leaves_nothing_of_is_left_out(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    save_nifti(images / "one.nii.gz", BALL.astype(np.float32))
    save_nifti(masks / "one.nii.gz", BALL.astype("u1"))
    assert run_curate(tmp_path, modality="CT") == 1
    table = (tmp_path / "dataset" / "curation" / "left_out.csv").read_text()
    assert "flat-image" in table
    assert "0 to 1" in table
    assert run_curate(tmp_path, "--contrast", "0,1", modality="CT") == 0


def test_small_outlines_go_from_their_planes_alone(tmp_path: Path) -> None:
    mask = BALL.copy()
    mask[2:4, 2:4, 5] = True  # 4 px, of 44 px to 256: 135 in the frame, so it stays
    mask[2, 2, 9] = True  # 34 in the frame
    case = curate_nifti(tmp_path, hounsfield(), mask, "--per", "component")
    kept = case.gts[::-1, ::-1, ::-1].transpose(2, 1, 0) > 0
    assert kept[2, 2, 5]
    assert not kept[2, 2, 9]
    assert (
        "1 outlines on single planes under 100 px"
        in (tmp_path / "dataset" / "curation" / "cases.csv").read_text()
    )
    all_of_it = curate_nifti(tmp_path / "all", hounsfield(), mask, "--least-pixels", "0")
    assert np.count_nonzero(all_of_it.gts) == np.count_nonzero(mask)


def test_labels_are_merged_or_named_and_parts_are_told_apart(tmp_path: Path) -> None:
    mask = np.zeros(BALL.shape, np.uint8)
    mask[5:15, 5:15], mask[20:30, 20:30], mask[31:38, 5:15] = 1, 2, 3
    image = grey(0, mask > 0, "i2")
    named = curate_nifti(tmp_path / "named", image, mask, "--labels", "liver=1,3", "tumour=2")
    assert [(item.class_name, item.class_id) for item in named.objects] == [("liver", 1), ("tumour", 2)]
    assert np.count_nonzero(named.gts == 1) == np.count_nonzero((mask == 1) | (mask == 3))
    parts = curate_nifti(tmp_path / "parts", image, mask, "--labels", "liver=1,3", "--per", "component")
    assert [item.class_name for item in parts.objects] == ["liver", "liver"]
    values = curate_nifti(tmp_path / "values", image, mask, "--per", "instance", "--labels", "2,3")
    assert [(item.class_name, item.source_label) for item in values.objects] == [("lesion", 2), ("lesion", 3)]


def test_an_ome_zarr_volume_and_its_labels(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    volume = BALL.transpose(2, 1, 0)
    for folder, data in ((images, grey(0, volume, "u2")), (masks, volume.astype("u1"))):
        group = zarr.create_group(folder / "one.ome.zarr")
        group.create_array("0", data=data)
        datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2, 0.5, 0.25]}]}]
        axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
        group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    assert run_curate(tmp_path, modality="EM") == 0
    case = only_case(tmp_path)
    np.testing.assert_array_equal(case.gts > 0, volume)
    assert (case.spacing, case.unit) == ((2.0, 0.5, 0.25), "um")
    about = json.loads((tmp_path / "dataset" / "curation" / "em-lesion" / "run.json").read_text())
    assert about["settings"]["modality"] == "EM"
