"""DICOM: series, segmentations, missing slices, patients."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from training_files import disc, folders, run_curate, save_nifti

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset

BALL = disc(
    (10, 40, 44), 9, (5, 20, 18)
)  # (z, row, col): slices go up, rows to the back, columns to the left
HU = np.where(BALL, 300, np.where(np.arange(44) < 30, 0, -800)).astype(np.int16)


def save_series(
    folder: Path, values: np.ndarray, patient: str = "p", series: str | None = None
) -> list[Dataset]:
    """One file a slice, 2.5 mm apart, written in an order that is not theirs in space."""
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "PatientID": patient,
        "PatientName": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": series or generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "StudyID": "1",
        "StudyDate": "20200101",
        "StudyTime": "000000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "SeriesNumber": 1,
        "Manufacturer": "",
        "Modality": "CT",
    }
    return [_save_slice(folder, values, number, common) for number in range(len(values))]


def _save_slice(folder: Path, values: np.ndarray, number: int, common: dict[str, object]) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    for name, value in common.items():
        setattr(image, name, value)
    image.InstanceNumber = number + 1
    image.ImagePositionPatient = [-10, -20, 2.5 * number]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.SliceThickness = [0.5, 0.5], 2.5
    image.Rows, image.Columns = values.shape[1:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    image.PixelData = (values[number].astype(np.int32) + 1024).astype("<u2").tobytes()
    image.save_as(folder / f"{(number * 7) % 100:02d}.dcm", enforce_file_format=True)
    return image


def save_segmentation(path: Path, series: list[Dataset], masks: dict[int, np.ndarray]) -> None:
    code = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"s{number}",
            segmented_property_category=code,
            segmented_property_type=code,
            algorithm_type="MANUAL",
        )
        for number in masks
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=series,
        pixel_array=np.stack(list(masks.values()), axis=3).astype("u1"),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def only_case(root: Path) -> Case:
    dataset = CuratedDataset(root / "dataset")
    assert dataset.validate() == []
    return dataset[0]


def left_out(root: Path) -> str:
    return (root / "dataset" / "curation" / "left_out.csv").read_text()


def test_a_series_and_its_segmentation_find_each_other(tmp_path: Path) -> None:
    """The segmentation is named otherwise and leaves out slices without an object, as most do."""
    images, masks, _ = folders(tmp_path)
    series = save_series(images / "patient one" / "ct", HU, "secret-17")
    save_segmentation(masks / "anything.dcm", series, {1: BALL})
    assert run_curate(tmp_path, modality="CT") == 0
    case = only_case(tmp_path)
    np.testing.assert_array_equal(case.gts > 0, BALL[::-1])
    np.testing.assert_array_equal(np.unique(case.imgs), [0, 85, 136])
    assert (case.spacing, case.unit) == ((2.5, 0.5, 0.5), "mm")
    assert case.group
    assert "secret" not in case.group
    assert "2D" not in CuratedDataset(tmp_path / "dataset").cases[0][:2]


def test_series_of_one_patient_are_one_group(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    for name, patient in (("a", "p1"), ("b", "p1"), ("c", "p2")):
        series = save_series(images / name, HU + ord(name) - 97, patient)
        save_segmentation(masks / f"{name}.dcm", series, {1: BALL})
    assert run_curate(tmp_path, modality="CT") == 0
    groups = {entry.stem[3]: entry.group for entry in CuratedDataset(tmp_path / "dataset").manifest.cases}
    assert groups["a"] == groups["b"] != groups["c"]


def test_two_segments_are_two_labels(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    other = np.roll(BALL, 18, axis=2) & ~BALL
    save_segmentation(masks / "s.dcm", save_series(images / "ct", HU), {1: BALL, 2: other})
    assert run_curate(tmp_path, "--labels", "organ=1", "tumour=2", modality="CT") == 0
    case = only_case(tmp_path)
    assert [item.class_name for item in case.objects] == ["organ", "tumour"]
    np.testing.assert_array_equal(case.gts == 2, other[::-1])


def test_overlapping_segments_are_no_label_image(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    save_segmentation(masks / "s.dcm", save_series(images / "ct", HU), {1: BALL, 2: np.roll(BALL, 3, axis=2)})
    assert run_curate(tmp_path, modality="CT") == 1
    assert "unusable-segmentation" in left_out(tmp_path)


@pytest.mark.parametrize("break_it", ["missing", "doubled", "truncated", "foreign"])
def test_a_broken_series_is_left_out(tmp_path: Path, break_it: str) -> None:
    images, masks, _ = folders(tmp_path)
    series = save_series(images / "ct", HU)
    save_segmentation(masks / "s.dcm", series, {1: BALL})
    path = sorted((images / "ct").glob("*.dcm"))[4]
    if break_it == "missing":
        path.unlink()
    elif break_it == "doubled":
        copy = pydicom.dcmread(path)
        copy.SOPInstanceUID = generate_uid()
        copy.save_as(images / "ct" / "copy.dcm")
    elif break_it == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    else:
        moved = pydicom.dcmread(path)
        moved.ImagePositionPatient = [40, 0, moved.ImagePositionPatient[2]]
        moved.save_as(path)
    assert run_curate(tmp_path, modality="CT") == 1
    text = left_out(tmp_path)
    assert ("unreadable" if break_it == "truncated" else "irregular-series") in text, text
    assert "ct/" in text


def test_a_segmentation_of_another_place_is_left_out(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    series = save_series(images / "ct", HU)
    for image in series:
        image.ImagePositionPatient = [image.ImagePositionPatient[0] + 0.2, -20, image.ImagePositionPatient[2]]
    save_segmentation(masks / "s.dcm", series, {1: BALL})
    assert run_curate(tmp_path, modality="CT") == 1
    assert "wrong-geometry" in left_out(tmp_path)


def test_a_nifti_mask_of_a_series_is_matched_by_name_and_checked_by_place(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    save_series(images / "ct", HU)
    to_ras = np.diag([-0.5, -0.5, 2.5, 1])
    to_ras[:3, 3] = [10, 20, 0]
    save_nifti(masks / "ct_seg.nii.gz", BALL.transpose(2, 1, 0).astype("u1"), affine=to_ras)
    assert run_curate(tmp_path, modality="CT") == 0
    np.testing.assert_array_equal(only_case(tmp_path).gts > 0, BALL[::-1])


def test_a_single_image_is_a_plane(tmp_path: Path) -> None:
    images, masks, _ = folders(tmp_path)
    for folder, values in ((images, HU[5:6]), (masks, BALL[5:6].astype(np.int16))):
        (image,) = save_series(folder, values)
        del image.ImagePositionPatient
        if folder == masks:
            image.RescaleIntercept = 0
            image.PixelData = BALL[5].astype("<u2").tobytes()
        image.save_as(folder / "00.dcm", enforce_file_format=True)
    assert run_curate(tmp_path, modality="CT") == 0
    case = only_case(tmp_path)
    np.testing.assert_array_equal(case.gts > 0, BALL[5])
    assert case.spacing == (0.5, 0.5)
