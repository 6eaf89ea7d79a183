"""Files on disk to planes: formats, axes, laziness, and what a bad file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_medsam.errors import ImageError
from napari_medsam.image.read import is_image, read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60000, (40, 50), dtype=np.uint16)
RGB = RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8)
STACK = RNG.integers(0, 255, (3, 40, 50), dtype=np.uint8)


def pixels(path: Path, *position: int) -> np.ndarray:
    plane = read_image(path).plane(position or None)
    return plane.read(0, 0, *plane.shape)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}]
)
def test_grey_tiff(tmp_path: Path, options: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, **options)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), GREY)


def test_an_uncompressed_tiff_is_mapped_not_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    assert isinstance(read_image(tmp_path / "a.tif").levels[0], np.memmap)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_tiff_in_either_planar_configuration(tmp_path: Path, planar: str) -> None:
    data = RGB if planar == "contig" else np.moveaxis(RGB, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar)
    image = read_image(tmp_path / "a.tif")
    assert image.rgb
    assert image.plane().rgb
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), RGB)


def test_a_stack_gives_its_planes_in_order_and_asks_for_a_choice(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    planes = [plane.read(0, 0, 40, 50) for plane in image.planes()]
    np.testing.assert_array_equal(np.stack(planes), STACK)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif", 2), STACK[2])
    with pytest.raises(ImageError, match=r"a\.tif is a stack of 3 planes"):
        image.plane()
    with pytest.raises(ImageError, match=r"no plane \(3,\)"):
        image.plane((3,))


def test_ome_tiff_tells_channels_and_spacing(tmp_path: Path) -> None:
    data = RNG.integers(0, 255, (4, 2, 40, 50), dtype=np.uint8)
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata)
    image = read_image(tmp_path / "a.ome.tif")
    plane = image.plane((3,))
    assert (image.stack_shape, plane.n_channels, plane.spacing) == ((4,), 2, (0.25, 0.5))
    assert (image.depth, image.unit) == (2.0, "um")
    np.testing.assert_array_equal(plane.read(0, 0, 40, 50), np.moveaxis(data[3], 0, -1))


def test_a_pyramidal_tiff_keeps_its_levels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(GREY, subifds=1, metadata={"axes": "YX"}, tile=(16, 16), compression="zlib")
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib")
    plane = read_image(tmp_path / "a.ome.tif").plane()
    assert [plane.level_shape(level) for level in range(len(plane.levels))] == [(40, 50), (20, 25)]
    np.testing.assert_array_equal(plane.read(5, 6, 7, 8, level=1), GREY[::2, ::2][5:12, 6:14])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_each_mode(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(GREY) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / "a.png")
    plane = read_image(tmp_path / "a.png").plane()
    coloured = mode in ("P", "RGB", "RGBA")
    assert (plane.shape, plane.rgb, plane.n_channels) == ((40, 50), coloured, 3 if coloured else 1)
    expected = {"RGB": RGB, "RGBA": RGB, "I;16": GREY, "1": np.asarray(picture)}.get(mode)
    if expected is not None:
        np.testing.assert_array_equal(plane.read(0, 0, 40, 50), expected)


def test_jpeg_with_print_colours_is_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").plane().rgb


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 50), "YX"),
        ((40, 50, 3), "YXS"),
        ((40, 50, 2), "YXC"),
        ((3, 40, 50), "QYX"),
        ((2, 3, 40, 50), "QQYX"),
    ],
)
def test_axes_of_an_array_without_names_are_guessed(
    tmp_path: Path, shape: tuple[int, ...], axes: str
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    image = read_image(tmp_path / "a.npy")
    assert image.axes == axes
    assert isinstance(image.levels[0], np.memmap)


def test_the_channel_axis_can_be_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    image = read_image(tmp_path / "a.npy")
    plane = image.with_channel_axis(0).plane()
    np.testing.assert_array_equal(plane.read(0, 0, 40, 50), np.moveaxis(STACK, 0, -1))
    with pytest.raises(ImageError, match="Choose one of 0"):
        image.with_channel_axis(2)


def test_zarr_array_and_ome_zarr_group(tmp_path: Path) -> None:
    plain = zarr.create_array(tmp_path / "plain.zarr", shape=(40, 50), chunks=(16, 16), dtype="u2")
    plain[:] = GREY
    np.testing.assert_array_equal(pixels(tmp_path / "plain.zarr"), GREY)
    group = zarr.create_group(tmp_path / "ome.zarr")
    for name, data in (("0", STACK), ("1", STACK[:, ::2, ::2])):
        group.create_array(name, data=data)
    scale = [{"type": "scale", "scale": [1, 0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}, {"path": "1"}]
    group.attrs["ome"] = {"multiscales": [{"axes": [{"name": n} for n in "cyx"], "datasets": datasets}]}
    plane = read_image(tmp_path / "ome.zarr").plane()
    assert (plane.n_channels, len(plane.levels), plane.spacing) == (3, 2, (0.5, 0.25))
    np.testing.assert_array_equal(plane.read(0, 0, 40, 50), np.moveaxis(STACK, 0, -1))


def test_an_ome_zarr_volume_tells_its_depth_and_unit(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "ome.zarr")
    group.create_array("0", data=STACK)
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [3, 0.5, 0.25]}]}]
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    image = read_image(tmp_path / "ome.zarr")
    assert (image.depth, image.spacing, image.unit) == (3.0, (0.5, 0.25), "um")


def test_a_zarr_group_that_is_no_image_names_its_arrays(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("first", data=GREY)
    with pytest.raises(ImageError, match="first"):
        read_image(tmp_path / "g.zarr")
    np.testing.assert_array_equal(pixels(tmp_path / "g.zarr" / "first"), GREY)


def test_what_counts_as_an_image(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x", shape=(4, 4), dtype="u1")
    (tmp_path / "folder.zarr").mkdir()
    for name in ("a.TIF", "b.jpg", "c.txt", "d.zarr"):
        (tmp_path / name).touch()
    assert {p.name for p in tmp_path.iterdir() if is_image(p)} == {"x", "a.TIF", "b.jpg"}


def damaged(tmp_path: Path, suffix: str) -> Path:
    """A file of random pixels, cut in the middle."""
    path = tmp_path / f"cut{suffix}"
    noise = RNG.integers(0, 255, (200, 300), dtype=np.uint8)
    if suffix == ".tif":
        tifffile.imwrite(path, noise)
    elif suffix == ".tiff":
        tifffile.imwrite(path, noise, compression="zlib", rowsperstrip=10)
    elif suffix == ".npy":
        np.save(path, noise)
    else:
        Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".jpg", ".npy", ".bmp"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = damaged(tmp_path, suffix)
    with pytest.raises(ImageError, match=f"cut{suffix}: cannot be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
def test_a_file_of_something_else_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(b"this is no image at all, whatever its name says" * 4)
    with pytest.raises(ImageError, match=f"wrong{suffix}: cannot be read"):
        read_image(path)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"a\.npy: cannot be read"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("missing.tif", None, "file not found"),
        ("empty.tif", b"", "the file is empty"),
        ("scan.dcm", b"DICM", r"files of this kind cannot be read\. Convert it to one of \.tif"),
    ],
)
def test_files_that_are_no_images_say_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, match: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name}: {match}"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("shape", [(0, 5), (7,), (5, 0, 3)])
def test_arrays_that_are_no_2d_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ImageError, match=r"a\.npy: this is not a 2D image"):
        read_image(tmp_path / "a.npy")


def test_a_folder_of_other_things_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not a Zarr image"):
        read_image(tmp_path)
