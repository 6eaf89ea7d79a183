"""The package as others meet it: light to import, a valid manifest, samples that are there."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import metadata, resources

import pytest
import yaml

from napari_medsam.errors import ImageError
from napari_medsam.samples import SAMPLES, find_sample, read_sample, sample_layers

HEAVY = ["torch", "napari", "qtpy", "PyQt6", "PySide6", "magicgui", "superqt", "zarr", "skimage", "timm"]


def imported_by(statement: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys\nprint(' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["napari_medsam", "napari_medsam.cli.main"])
def test_importing_is_light(module: str) -> None:
    assert imported_by(f"import {module}") == set()


@pytest.mark.parametrize("room", ["errors", "image.read", "curation", "document", "samples"])
def test_rooms_without_models_import_neither_torch_nor_qt(room: str) -> None:
    loaded = imported_by(f"import napari_medsam.{room}")
    assert not loaded & {"torch", "napari", "qtpy", "PyQt6", "PySide6"}


def test_lazy_names_are_real_and_unknown_ones_are_not() -> None:
    import napari_medsam

    assert napari_medsam.load_model.__module__ == "napari_medsam.segment.segmenter"
    assert napari_medsam.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no_such_name"):
        napari_medsam.no_such_name  # noqa: B018


def test_help_is_fast_and_light() -> None:
    seconds = []
    for _ in range(3):  # the best of three: other work on the machine is not what is measured
        start = time.perf_counter()
        command = [sys.executable, "-m", "napari_medsam.cli.main", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert "segment" in done.stdout
    assert min(seconds) < 1.0
    assert (
        imported_by("import napari_medsam.cli.main as c\ntry: c.main(['--help'])\nexcept SystemExit: pass")
        == set()
    )


@pytest.fixture(scope="module")
def manifest() -> dict:
    text = (resources.files("napari_medsam") / "napari.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def test_the_manifest_is_valid_and_found_through_the_entry_point() -> None:
    from npe2 import PluginManifest

    found = PluginManifest.from_distribution("napari-medsam")
    assert found.name == "napari-medsam"
    assert [widget.display_name for widget in found.contributions.widgets] == ["MedSAM", "Retrain"]


def test_every_command_of_the_manifest_is_used_and_every_use_is_a_command(manifest: dict) -> None:
    parts = manifest["contributions"]
    commands = {command["id"] for command in parts["commands"]}
    menu_items = [item for items in parts["menus"].values() for item in items]
    used = {entry["command"] for entry in [*parts["widgets"], *parts["sample_data"], *menu_items]}
    assert used == commands


def test_samples_of_the_manifest_are_those_of_the_table(manifest: dict) -> None:
    listed = {entry["key"]: entry["display_name"] for entry in manifest["contributions"]["sample_data"]}
    assert listed == {name: sample.title for name, sample in SAMPLES.items()}
    paths = {entry["id"]: entry["python_name"] for entry in manifest["contributions"]["commands"]}
    for name in SAMPLES:
        assert paths[f"napari-medsam.sample.{name}"] == f"napari_medsam.samples:{name}"


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_boxes_lie_inside_their_image(name: str) -> None:
    sample, pixels = find_sample(name), read_sample(name)
    height, width = pixels.shape[:2]
    assert pixels.dtype == "uint8"
    assert len(sample.boxes) == len(sample.classes) > 0
    for r0, c0, r1, c1 in sample.boxes:
        assert 0 <= r0 < r1 <= height
        assert 0 <= c0 < c1 <= width
    assert f"{height} x {width}" in sample.title or f"{width} x {height}" in sample.title


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_layers_are_an_image_and_its_boxes(name: str) -> None:
    (pixels, options, kind), (boxes, box_options, box_kind) = sample_layers(name)
    assert (kind, box_kind) == ("image", "shapes")
    assert options["rgb"] == (pixels.ndim == 3)
    assert box_options["metadata"]["napari_medsam"]["role"] == "prompts"
    r0, c0, r1, c1 = SAMPLES[name].boxes[0]
    # napari puts the centre of pixel i at i, so the edge of the first pixel of a box lies half a pixel before
    assert boxes[0].min(axis=0).tolist() == [r0 - 0.5, c0 - 0.5]
    assert boxes[0].max(axis=0).tolist() == [r1 - 0.5, c1 - 0.5]
    assert boxes[0].shape == (4, 2)


def test_an_unknown_sample_names_the_known_ones() -> None:
    with pytest.raises(ImageError, match="ihc, retina, cell, coins"):
        find_sample("cat")


def test_no_qt_binding_is_a_hard_dependency_and_all_brings_one() -> None:
    lines = metadata.requires("napari-medsam") or []
    hard = [line for line in lines if "extra ==" not in line]
    assert not [line for line in hard if line.lower().startswith(("pyqt", "pyside"))]
    assert not [line for line in hard if line.lower().startswith("napari[")]
    assert [
        line
        for line in lines
        if line.startswith("napari[pyqt6]") and 'extra == "all"' in line.replace("'", '"')
    ]
