"""The command line: the same verbs as the window, without one.

Torch, napari and Qt are imported inside the verbs that need them, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_medsam import __version__
from napari_medsam.cli.finetune import add_verbs
from napari_medsam.cli.models import list_models
from napari_medsam.cli.prompts import box, numbers, point, prompts_of
from napari_medsam.errors import ImageError, MedSAMError, PromptError
from napari_medsam.model.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    import numpy as np

    from napari_medsam.image.contrast import Contrast
    from napari_medsam.image.plane import Plane
    from napari_medsam.image.read import ImageFile
    from napari_medsam.segment.prediction import Prediction
    from napari_medsam.segment.segmenter import Segmenter

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_SIGNED = (
    "--box",
    "--point",
    "--contrast",
    "--channel-axis",
)  # options whose value may begin with a minus sign


class _UsageError(Exception):
    """The command line itself is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0, 1 failed, 2 wrong command line, 130 interrupted."""
    keep_freed_memory()
    try:
        arguments = _parser().parse_args(_join_signed(sys.argv[1:] if argv is None else argv))
        return int(arguments.run(arguments) or 0)
    except _UsageError as error:
        return _complain(error, _USAGE)
    except (MedSAMError, OSError) as error:
        return _complain(error, _FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)


def _complain(error: object, status: int) -> int:
    print(f"napari-medsam: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _join_signed(argv: Sequence[str]) -> list[str]:
    """Write "--contrast -160,240" as "--contrast=-160,240": argparse takes a leading minus for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in _SIGNED and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += "=" + word
        else:
            joined.append(word)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="napari-medsam", description="Boxes to masks with MedSAM.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    _add_segment(verbs)
    _add_embed(verbs)
    add_verbs(verbs)
    models = verbs.add_parser("models", help="list the models, and the decoders you trained")
    models.set_defaults(run=list_models)
    cache = verbs.add_parser("cache", help="show the embedding cache, or clear it")
    cache.add_argument("--clear", action="store_true", help="remove every cached embedding")
    cache.set_defaults(run=_cache)
    opener = verbs.add_parser("open", help="open napari with the MedSAM dock")
    opener.add_argument("images", nargs="*", metavar="IMAGE", type=Path)
    opener.add_argument("--sample", metavar="NAME", help="open a sample image with suggested boxes")
    opener.set_defaults(run=_open)
    demo = verbs.add_parser("demo", help="drive the real window by itself: sample, boxes, masks, export")
    demo.add_argument("out_dir", metavar="OUT_DIR", type=Path)
    demo.set_defaults(run=_demo)
    return parser


def _add_segment(verbs: Any) -> None:
    parser = verbs.add_parser("segment", help="boxes on an image to a label TIFF")
    parser.add_argument("image", metavar="IMAGE", type=Path, help="TIFF, PNG, JPEG, BMP, .npy or Zarr")
    parser.add_argument(
        "--box", action="append", dest="prompts", type=box, metavar="R0,C0,R1,C1",
        help="half-open box in pixels, rows first; repeat for more objects: label i is the i-th box, "
        "and a later box wins where masks overlap",
    )  # fmt: skip
    parser.add_argument(
        "--point", action="append", dest="prompts", type=point, metavar="R,C,+|-",
        help="a click on the object (+) or beside it (-), row and column of a pixel; it corrects the mask of the box "
        "before it, and clicks before the first box describe an object of their own",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT.tif")
    parser.add_argument(
        "--field",
        default="auto",
        choices=["auto", "whole"],
        help="auto: small boxes get a field of their own",
    )
    parser.add_argument(
        "--detail", default=1, type=_detail, metavar="K",
        help="from 2 to 32: decode each box on many overlapping fields of about 1/K of its longer side, "
        "for thin parts of large objects (default: 1, off)",
    )  # fmt: skip
    parser.add_argument("--plane", type=_integers, metavar="I[,J]", help="which plane of a stack, from 0")
    _add_model_options(parser)
    parser.set_defaults(run=_segment)


def _add_embed(verbs: Any) -> None:
    parser = verbs.add_parser("embed", help="fill the embedding cache ahead of time")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", type=Path, help="image files, and folders of them"
    )
    _add_model_options(parser)
    parser.set_defaults(run=_embed)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="lite-medsam", metavar="NAME|FILE", help="see napari-medsam models"
    )
    parser.add_argument(
        "--contrast", default="auto", metavar="auto|ct|ct-soft|ct-lung|ct-bone|LO,HI",
        help="how raw intensities become what the model sees",
    )  # fmt: skip
    parser.add_argument("--channels", type=_integers, metavar="I[,J[,K]]", help="channels to use, from 0")
    parser.add_argument("--channel-axis", type=int, metavar="AXIS", help="for files that do not state it")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])


def _detail(text: str) -> int:
    from napari_medsam.segment.detail import check_detail

    try:
        return check_detail(int(text))
    except (ValueError, PromptError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a detail: give a whole number from 1 to 32"
        ) from None


def _integers(text: str) -> tuple[Any, ...]:
    return numbers(text, int)


def _segment(arguments: argparse.Namespace) -> int:
    from napari_medsam.image.read import read_image

    if not arguments.prompts:
        raise _UsageError("give a --box or a --point for each object (see napari-medsam segment --help)")
    contrast = _contrast(arguments)
    _check_output(arguments.output, arguments.image)
    image = _with_channels(read_image(arguments.image), arguments)
    plane = image.plane(arguments.plane)
    prompts = prompts_of(arguments.prompts, plane.shape)  # before the model is loaded
    segmenter = _segmenter(arguments)
    predictions = segmenter.predict_prompts(plane, prompts, contrast, arguments.field, arguments.detail)
    _write_labels(arguments.output, _labels(predictions, plane))
    for label, (prompt, found) in enumerate(zip(prompts, predictions, strict=True), start=1):
        print(f"{label}  {prompt}  predicted IoU {found.iou:.3f}  area {found.area} px")
    return 0


def _contrast(arguments: argparse.Namespace) -> Contrast:
    from napari_medsam.image.contrast import Contrast

    try:
        contrast = Contrast.parse(arguments.contrast)
        return contrast if arguments.channels is None else replace(contrast, channels=arguments.channels)
    except ImageError as error:
        raise _UsageError(error) from None


def _check_output(output: Path, image: Path) -> None:
    if output.suffix.lower() not in (".tif", ".tiff"):
        raise _UsageError(f"{output}: the labels are written as TIFF, give a name ending in .tif")
    if not output.parent.is_dir():
        raise _UsageError(f"{output}: the folder {output.parent} does not exist, make it first")
    if output.exists() and image.exists() and output.samefile(image):
        raise _UsageError(f"{output}: this is the image itself, choose another output")


def _with_channels(image: ImageFile, arguments: argparse.Namespace) -> ImageFile:
    return image if arguments.channel_axis is None else image.with_channel_axis(arguments.channel_axis)


def _segmenter(arguments: argparse.Namespace) -> Segmenter:
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.checkpoint import progress_bar
    from napari_medsam.model.local import build_model
    from napari_medsam.segment.segmenter import Segmenter

    model = build_model(
        arguments.model,
        arguments.device,
        on_notice=lambda text: print(f"napari-medsam: {text}", file=sys.stderr),
        progress=_lazy(lambda: progress_bar(arguments.model)),
    )
    return Segmenter(model, EmbeddingCache())


def _lazy(make: Any) -> Any:
    """A callback that makes its progress bar on the first call: no download, no bar."""
    made: list[Any] = []

    def update(done: int, total: int) -> None:
        if not made:
            made.append(make())
        made[0](done, total)

    return update


def _labels(predictions: Sequence[Prediction], plane: Plane) -> np.ndarray:
    import numpy as np

    labels = np.zeros(plane.shape, np.min_scalar_type(len(predictions)))
    for label, prediction in enumerate(predictions, start=1):
        height, width = prediction.mask.shape
        region = labels[prediction.row : prediction.row + height, prediction.col : prediction.col + width]
        region[prediction.mask] = label
    return labels


def _write_labels(path: Path, labels: np.ndarray) -> None:
    import tifffile

    from napari_medsam.files import replacing

    with replacing(path) as stream:
        tifffile.imwrite(stream, labels, compression="zlib", photometric="minisblack")


def _embed(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    contrast, paths = _contrast(arguments), _image_paths(arguments.paths)
    if not paths:
        raise ImageError(f"No images in {', '.join(map(str, arguments.paths))}. Name image files or folders.")
    segmenter = _segmenter(arguments)
    made = cached = failed = 0
    with tqdm(paths, unit="image", disable=None) as bar:
        for path in bar:
            try:
                for hit in _embed_file(segmenter, path, contrast, arguments):
                    made, cached = made + (not hit), cached + hit
                    bar.set_postfix_str(f"{made + cached} planes")
            except MedSAMError as error:
                failed += 1
                bar.write(f"napari-medsam: {error}", file=sys.stderr)
    print(f"{made} planes embedded, {cached} already cached, {failed} files failed")
    return _FAILED if failed else 0


def _embed_file(
    segmenter: Segmenter, path: Path, contrast: Contrast, arguments: argparse.Namespace
) -> Iterator[bool]:
    """Embed each plane of a file; yields whether it was in the cache."""
    from napari_medsam.image.read import read_image

    for plane in _with_channels(read_image(path), arguments).planes():
        yield segmenter.embed(plane, contrast).hit


def _image_paths(paths: Sequence[Path]) -> list[Path]:
    """Files as named, and every image under a folder in the order of names; a Zarr folder is one image."""
    from napari_medsam.image.read import is_image

    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not is_image(path):
            found += _image_paths([p for p in sorted(path.iterdir()) if p.is_dir() or is_image(p)])
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _cache(arguments: argparse.Namespace) -> int:
    from napari_medsam.embedding.cache import EmbeddingCache

    cache = EmbeddingCache()
    if arguments.clear:
        print(f"{cache.clear()} embeddings removed")
    stats = cache.stats()
    used, most = stats.bytes / 2**20, stats.max_bytes / 2**20
    print(f"{stats.folder}: {stats.entries} embeddings, {used:.1f} MiB of at most {most:.0f} MiB")
    return 0


def _open(arguments: argparse.Namespace) -> int:
    from napari_medsam.samples import find_sample

    if arguments.sample is not None:
        find_sample(arguments.sample)
    for path in arguments.images:
        if not path.exists():
            raise ImageError(f"{path}: file not found. Check the path.")
    with _qt_binding():
        from napari_medsam.ui.launch import open_window

        open_window(arguments.images, arguments.sample)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    with _qt_binding():
        from napari_medsam.demo.demo import run_demo

        return int(run_demo(arguments.out_dir))


@contextmanager
def _qt_binding() -> Iterator[None]:
    """Say what to install where no Qt binding is: napari itself does not bring one."""
    try:
        yield
    except ImportError as error:
        if "qt" not in str(error).lower():
            raise  # a fault of the program, not of the installation
        raise MedSAMError(f'Qt is missing ({error}). Install it: pip install "napari-medsam[all]"') from error


if __name__ == "__main__":
    sys.exit(main())
