"""The command line: labels on disk, one-line errors, exit states."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
from command_line import complaint, run
from recorded_run import verdict, write_fake_decoder

from napari_medsam.cli import main as cli
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import ImageError, ModelError
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.samples import SAMPLES, read_sample
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt


@dataclass
class BoxFiller:
    """Stands in for a Segmenter: a box's mask is the whole box. Remembers what it was asked."""

    planes: list[Plane] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    details: list[int] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    hit: bool = False

    def predict_prompts(
        self, plane: Plane, prompts: list[Prompt], contrast: Contrast, region: str, detail: int
    ) -> list[Prediction]:
        assert region == "auto"
        self._note(plane, contrast)
        self.details.append(detail)
        self.prompts += prompts
        return [_filled(prompt.box or Box(0, 0, 2, 2), plane) for prompt in prompts]

    def embed(self, plane: Plane, contrast: Contrast) -> BoxFiller:
        if plane.dtype == bool:
            raise ModelError(f"{plane.name}: the encoder failed")
        self._note(plane, contrast)
        return self

    def _note(self, plane: Plane, contrast: Contrast) -> None:
        self.planes.append(plane)
        self.contrasts.append(contrast)


def _filled(box: Box, plane: Plane) -> Prediction:
    height, width = int(box.r1 - box.r0), int(box.c1 - box.c0)
    mask = np.ones((height, width), dtype=bool)
    return Prediction(box, int(box.r0), int(box.c0), mask, 0.875, "key", whole_field(plane.shape))


@pytest.fixture
def filler(monkeypatch: pytest.MonkeyPatch) -> BoxFiller:
    filler = BoxFiller()
    monkeypatch.setattr(cli, "_segmenter", lambda _: filler)
    return filler


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.arange(40 * 60, dtype=np.uint16).reshape(40, 60))
    return path


# segment


@pytest.mark.usefixtures("filler")
def test_labels_are_numbered_as_the_boxes_and_later_ones_win(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.tif"
    assert run("segment", image, "--box", "2,3,10,20", "--box", "5,10,12,30", "-o", out) == 0
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[2:10, 3:20] = 1
    expected[5:12, 10:30] = 2
    labels = tifffile.imread(out)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert "2,3,10,20" in lines[0]
    assert "predicted IoU 0.875" in lines[0]
    assert "area 136 px" in lines[0]


@pytest.mark.usefixtures("filler")
def test_more_objects_than_a_byte_holds(image: Path, tmp_path: Path) -> None:
    boxes = [word for i in range(300) for word in ("--box", f"{i % 40},{i % 60},{i % 40 + 1},{i % 60 + 1}")]
    assert run("segment", image, *boxes, "-o", tmp_path / "labels.tif") == 0
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.dtype == np.uint16
    assert labels.max() == 300


def test_clicks_belong_to_the_box_before_them(
    filler: BoxFiller, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (
        "--point",
        "5,6,+",
        "--box",
        "2,3,10,20",
        "--point",
        "4,5.5,-",
        "--point",
        "0,0,-",
        "--box",
        "1,1,4,4",
    )
    assert run("segment", image, *said, "-o", tmp_path / "labels.tif") == 0
    assert filler.prompts == [
        Prompt(None, (Point(5, 6),)),
        Prompt(Box(2, 3, 10, 20), (Point(4, 5.5, False), Point(0, 0, False))),
        Prompt(Box(1, 1, 4, 4)),
    ]
    assert "2  the box 2,3,10,20, the click 4,5.5,-, the click 0,0,-" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (("--point", "5,6,-"), "Object 1: A prompt needs a box, or a click on the object"),
        (("--box", "1,1,5,5", "--point", "50,6,+"), "Object 1: the click 50,6,+ lies outside"),
        (("--point", "-1,6,+"), "Object 1: the click -1,6,+ lies outside"),
    ],
)
def test_an_unusable_click_is_refused_before_a_model_is_loaded(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: tuple[str, ...], complaint: str
) -> None:
    assert run("segment", image, *said, "-o", tmp_path / "a.tif") == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "a.tif").exists()


@pytest.mark.usefixtures("filler")
def test_a_box_may_hang_over_the_edge(image: Path, tmp_path: Path) -> None:
    assert run("segment", image, "--box", "-5,-5,3,4", "-o", tmp_path / "labels.tif") == 0
    assert np.argwhere(tifffile.imread(tmp_path / "labels.tif")).max(axis=0).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "window"), [("ct-soft", (-160, 240)), ("-100,300", (-100, 300)), ("auto", None)]
)
def test_contrast_and_channels_reach_the_model(
    image: Path, tmp_path: Path, filler: BoxFiller, text: str, window: tuple[float, float] | None
) -> None:
    options = ("--contrast", text, "--channels", "0")
    assert run("segment", image, "--box", "2,3,10,20", "-o", tmp_path / "a.tif", *options) == 0
    assert filler.contrasts[0].window == window
    assert filler.contrasts[0].channels == (0,)


def test_detail_reaches_the_segmenter_and_is_off_by_default(
    image: Path, tmp_path: Path, filler: BoxFiller
) -> None:
    for options in ((), ("--detail", "1"), ("--detail", "32")):
        assert run("segment", image, "--box", "2,3,10,20", "-o", tmp_path / "a.tif", *options) == 0
    assert filler.details == [1, 1, 32]


def test_a_plane_of_a_stack_and_the_channel_axis(tmp_path: Path, filler: BoxFiller) -> None:
    data = np.random.default_rng(0).integers(0, 255, (5, 2, 40, 60), dtype=np.uint8)
    np.save(tmp_path / "a.npy", data)
    options = ("--plane", "3", "--channel-axis", "1", "--box", "2,3,10,20")
    assert run("segment", tmp_path / "a.npy", *options, "-o", tmp_path / "a.tif") == 0
    np.testing.assert_array_equal(filler.planes[0].read(0, 0, 40, 60), np.moveaxis(data[3], 0, -1))


@pytest.mark.usefixtures("filler")
def test_a_failed_write_leaves_the_earlier_file(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.tif"
    out.write_bytes(b"earlier")

    def half(stream: object, *_: object, **__: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", half)
    assert run("segment", image, "--box", "2,3,10,20", "-o", out) == 1
    assert "No space left" in complaint(capsys)
    assert out.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tif", "labels.tif"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--box", "1,2,3"], "four numbers"),
        (["--box", "a,2,3,4"], "not a list of numbers"),
        ([], "--box"),
        (["--point", "1,2"], "R,C,+"),
        (["--point", "1,2,x"], "R,C,+"),
        (["--point", "1,+"], "R,C,+"),
        (["--point", "nan,1,+"], "R,C,+"),
        (["--box", "1,2,3,4", "--contrast", "bright"], "ct-lung"),
        (["--box", "1,2,3,4", "--contrast", "9,1"], "9,1"),
        (["--box", "1,2,3,4", "--channels", "0,1,2,3"], "channels"),
        (["--box", "1,2,3,4", "--field", "all"], "--field"),
        (["--box", "1,2,3,4", "--detail", "0"], "from 1 to 32"),
        (["--box", "1,2,3,4", "--detail", "33"], "from 1 to 32"),
        (["--box", "1,2,3,4", "--detail", "2.5"], "from 1 to 32"),
        (["--box", "1,2,3,4", "--device", "tpu"], "--device"),
        (["--box", "1,2,3,4", "--colour", "red"], "--colour"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run("segment", image, *words, "-o", tmp_path / "a.tif") == 2
    assert said in complaint(capsys)
    assert not (tmp_path / "a.tif").exists()


@pytest.mark.parametrize(
    ("output", "said"), [("a.png", ".tif"), ("missing/a.tif", "make it first"), ("image.tif", "image itself")]
)
def test_outputs_that_cannot_be(
    image: Path, capsys: pytest.CaptureFixture[str], output: str, said: str
) -> None:
    before = image.read_bytes()
    assert run("segment", image, "--box", "1,2,3,4", "-o", image.parent / output) == 2
    assert said in complaint(capsys)
    assert image.read_bytes() == before


@pytest.mark.parametrize("box", ["5,5,5,9", "9,9,1,1", "100,100,120,120", "nan,0,4,4"])
def test_an_unusable_box_is_refused_before_a_model_is_loaded(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], box: str
) -> None:
    monkeypatch.setattr(cli, "_segmenter", lambda _: pytest.fail("the model was loaded"))
    assert run("segment", image, "--box", "1,1,5,5", "--box", box, "-o", tmp_path / "a.tif") == 1
    assert "Object 2" in complaint(capsys)


def test_an_unreadable_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", tmp_path / "no.tif", "--box", "1,1,5,5", "-o", tmp_path / "a.tif") == 1
    assert "no.tif" in complaint(capsys)


def test_an_unknown_model_lists_the_known_ones(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--box", "1,1,5,5", "-o", tmp_path / "a.tif", "--model", "foo")
    assert run("segment", image, *words) == 1
    assert "lite-medsam" in complaint(capsys)


def test_interruption_ends_with_130(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_segmenter", interrupt)
    assert run("segment", image, "--box", "1,1,5,5", "-o", tmp_path / "a.tif") == 130
    assert "interrupted" in complaint(capsys)
    assert not (tmp_path / "a.tif").exists()


def test_the_built_in_model_finds_the_coins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "coins.npy", read_sample("coins"))
    boxes = SAMPLES["coins"].boxes
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    assert run("segment", tmp_path / "coins.npy", *words, "-o", tmp_path / "a.tif", "--device", "cpu") == 0
    labels = tifffile.imread(tmp_path / "a.tif")
    assert labels.shape == read_sample("coins").shape
    for label, (r0, c0, r1, c1) in enumerate(boxes, start=1):
        disc = np.pi / 4 * (r1 - r0) * (c1 - c0)
        assert np.count_nonzero(labels == label) == pytest.approx(disc, rel=0.15)
    assert capsys.readouterr().out.count("predicted IoU 0.9") == len(boxes)
    assert EmbeddingCache().stats().entries > 1  # a field for each coin that lies apart


# embed, models, cache


def test_embed_walks_files_folders_and_stacks_and_goes_on_after_a_bad_file(
    tmp_path: Path, filler: BoxFiller, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set" / "deep"
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "stack.tif", np.zeros((3, 20, 30), np.uint8), photometric="minisblack")
    (folder / "notes.txt").write_text("not an image")
    (tmp_path / "set" / "broken.png").write_bytes(b"broken")
    np.save(tmp_path / "set" / "mask.npy", np.ones((20, 30), dtype=bool))  # the filler's encoder refuses it
    single = tmp_path / "single.npy"
    np.save(single, np.zeros((20, 30), np.float32))
    assert run("embed", tmp_path / "set", single, "--contrast", "0,5") == 1
    assert [plane.name for plane in filler.planes] == ["stack.tif"] * 3 + ["single.npy"]
    assert {contrast.window for contrast in filler.contrasts} == {(0, 5)}
    printed = capsys.readouterr()
    assert "4 planes embedded, 0 already cached, 2 files failed" in printed.out
    assert "broken.png" in printed.err
    assert "mask.npy" in printed.err
    assert "Traceback" not in printed.err


def test_embed_counts_what_was_cached(
    image: Path, filler: BoxFiller, capsys: pytest.CaptureFixture[str]
) -> None:
    filler.hit = True
    assert run("embed", image, image.parent) == 0
    assert "0 planes embedded, 1 already cached, 0 files failed" in capsys.readouterr().out


@pytest.mark.usefixtures("filler")
def test_embed_without_any_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("embed", tmp_path) == 1
    assert "No images in" in complaint(capsys)


def test_models_lists_the_users_decoders(capsys: pytest.CaptureFixture[str]) -> None:
    found = verdict("keep", "mine")
    write_fake_decoder("mine", detail=4, cases={"train": ("a", "b")}, verdict=found, notes="for Tuesdays")
    write_fake_decoder("orphan")
    path = write_fake_decoder("lost")
    path.write_bytes(path.read_bytes().replace(b"lite-medsam", b"lost-medsam"))
    assert run("models") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    note = "your decoder for lite-medsam, detail 4, trained on 2 cases, kept aside - for Tuesdays"
    assert lines["mine"].endswith(note)
    assert "yours" in lines["mine"]
    assert lines["orphan"].endswith("trained on 0 cases, not judged")
    assert "Unknown model 'lost-medsam'" in lines["lost"]


def test_models_lists_each_model_with_its_terms(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    built_in = next(line for line in lines if line.startswith("lite-medsam"))
    assert "yes" in built_in
    assert "Apache-2.0" in built_in
    large = next(line for line in lines if line.startswith("sam-vit-h"))
    assert " no " in large
    assert "box, point" in large


def test_cache_says_where_and_how_much_and_clears(capsys: pytest.CaptureFixture[str]) -> None:
    cache = EmbeddingCache()
    cache.put("0" * 64, np.zeros((256, 64, 64), np.float16))
    assert run("cache") == 0
    shown = capsys.readouterr().out
    assert str(cache.stats().folder) in shown
    assert " 1 embeddings" in shown
    assert run("cache", "--clear") == 0
    assert " 0 embeddings" in capsys.readouterr().out
    assert not EmbeddingCache().has("0" * 64)


# open, demo


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Replaces the modules that open a window; holds what they were called with."""
    calls: list[tuple] = []
    launch, demo = ModuleType("napari_medsam.ui.launch"), ModuleType("napari_medsam.demo.demo")
    launch.open_window = lambda *arguments: calls.append(arguments)  # type: ignore[attr-defined]
    demo.run_demo = lambda _: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, launch.__name__, launch)
    monkeypatch.setitem(sys.modules, demo.__name__, demo)
    return calls


def test_open_passes_images_and_sample(image: Path, window: list[tuple]) -> None:
    assert run("open", image) == 0
    assert run("open", "--sample", "ihc") == 0
    assert window == [([image], None), ([], "ihc")]


@pytest.mark.parametrize(("words", "said"), [(["--sample", "cat"], "coins"), (["gone.tif"], "gone.tif")])
def test_open_refuses_before_a_window_is_made(
    window: list[tuple], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run("open", *words) == 1
    assert said in complaint(capsys)
    assert window == []


@pytest.mark.usefixtures("window")
def test_demo_passes_its_status_on(tmp_path: Path) -> None:
    assert run("demo", tmp_path) == 3


@pytest.mark.parametrize("verb", [["open"], ["demo", "out"]])
def test_a_missing_qt_binding_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    def no_qt(*_: object) -> None:
        raise ImportError("No Qt bindings could be found")

    for name, function in (("launch", "open_window"), ("demo", "run_demo")):
        module = ModuleType(f"napari_medsam.ui.{name}")
        setattr(module, function, no_qt)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert run(*verb) == 1
    assert 'pip install "napari-medsam[all]"' in complaint(capsys)


# errors of every kind


@pytest.mark.parametrize(("error", "status"), [(ImageError("no\nlines"), 1), (OSError("disk"), 1)])
def test_errors_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    def fail(_: EmbeddingCache) -> None:
        raise error

    monkeypatch.setattr(EmbeddingCache, "stats", fail)
    assert run("cache") == status
    complaint(capsys)


def test_no_verb_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "VERB" in complaint(capsys)
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out.startswith("napari-medsam ")
