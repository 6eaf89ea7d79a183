"""The verbs `finetune` and `evaluate` of the command line."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medsam.errors import CaseError, MedSAMError

if TYPE_CHECKING:
    from napari_medsam.evaluate.verdict import Verdict
    from napari_medsam.finetune.events import Event


def add_verbs(verbs: Any) -> None:
    """Add both verbs to a parser's subparsers."""
    _add_finetune(verbs)
    _add_evaluate(verbs)


def _add_finetune(verbs: Any) -> None:
    parser = verbs.add_parser("finetune", help="train a decoder on a dataset of cases, and judge it")
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder of cases")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DECODER.safetensors")
    parser.add_argument("--model", default="lite-medsam", metavar="NAME", help="whose encoder is used")
    parser.add_argument(
        "--current", metavar="NAME", help="the decoder it has to beat (default: the model's own)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="default: by the number of objects")
    parser.add_argument(
        "--detail",
        type=int,
        default=1,
        metavar="K",
        help="2 to 32: learn large, finely structured objects in parts",
    )
    parser.add_argument("--views", type=int, default=1, metavar="N", help="2 to 8: also turned and mirrored")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--split", type=Path, metavar="TABLE.csv", help="lines of stem,train|val|test")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.set_defaults(run=_finetune)


def _add_evaluate(verbs: Any) -> None:
    parser = verbs.add_parser("evaluate", help="DSC and NSD of models and decoders on cases")
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder of cases")
    parser.add_argument("--model", action="append", metavar="NAME|FILE", help="repeat to compare")
    parser.add_argument("--split", default="all", choices=["all", "train", "val", "test"], help="which cases")
    parser.add_argument(
        "--table", type=Path, metavar="TABLE.csv", help="the split; default: by group and seed"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the split and the boxes")
    parser.add_argument("--csv", type=Path, metavar="OUT.csv", help="one line for each object and model")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.set_defaults(run=_evaluate)


def _finetune(arguments: argparse.Namespace) -> int:
    from napari_medsam.finetune.config import FinetuneConfig
    from napari_medsam.finetune.request import TrainingRequest
    from napari_medsam.finetune.train import train
    from napari_medsam.model.decoder_file import SUFFIX

    output: Path = arguments.output
    if output.suffix.lower() != SUFFIX or not output.absolute().parent.is_dir():
        raise CaseError(f"{output}: give the decoder a name ending in {SUFFIX}, in a folder that exists.")
    config = FinetuneConfig(
        epochs=arguments.epochs, detail=arguments.detail, views=arguments.views, seed=arguments.seed
    )
    request = TrainingRequest(
        dataset=arguments.dataset,
        name=output.stem,
        base=arguments.model,
        current=arguments.current or arguments.model,
        config=config,
        device=arguments.device,
        split=arguments.split,
        output=output,
    )
    with tempfile.TemporaryDirectory() as folder:
        train(request, Path(folder), _Printer())
    return 0


class _Printer:
    """Shows the events of a run on the terminal: bars for what takes time, lines for what is worth keeping."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._kind = ""

    def __call__(self, event: Event) -> None:
        from napari_medsam.finetune.events import Embedded, JudgedSoFar, Trained

        match event:
            case Embedded(done, of):
                self._advance("embedding", done, of)
            case JudgedSoFar(done, of):
                self._advance("judging", done, of)
            case Trained(ended=False):
                self._advance(f"epoch {event.epoch}/{event.epochs}", event.samples, event.of)
            case _:
                self._close()
                print(*_lines(event), sep="\n", flush=True)

    def _advance(self, kind: str, done: int, of: int) -> None:
        from tqdm import tqdm

        if kind != self._kind:
            self._close()
            self._bar, self._kind = tqdm(total=of, desc=kind, disable=None, leave=False), kind
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._kind = None, ""


def _lines(event: Event) -> list[str]:
    from napari_medsam.finetune.events import DatasetRead, Done, Failed, Stopped, Trained

    match event:
        case DatasetRead(cases, objects, split, by, device):
            sides = ", ".join(f"{len(stems)} {role}" for role, stems in split.items())
            return [f"{cases} cases, {objects} objects; by {by}: {sides}; on {device}"]
        case Trained(epoch, epochs):
            found = "" if event.validation is None else f"  validation DSC {event.validation:.3f}"
            return [f"epoch {epoch}/{epochs}  loss {event.loss:.3f}{found}  {event.seconds:.0f} s"]
        case Done(decoder, _, _, verdict):
            return [*_verdict_lines(verdict), f"written: {decoder}"]
        case Stopped(message=message) | Failed(message=message):
            return [message]
    return []


def _verdict_lines(verdict: Verdict) -> list[str]:
    lines = [f"{'':24}{'DSC':>8}{'NSD':>8}"]
    for role, scores in verdict.mean.items():
        title = f"{role}: {getattr(verdict, role)}"
        lines.append(f"{title:24.24}{scores.dsc:8.3f}{scores.nsd:8.3f}")
    return [*lines, f"{verdict.decision}: {verdict.reason}"]


def _evaluate(arguments: argparse.Namespace) -> int:
    from napari_medsam.curation.dataset import CuratedDataset
    from napari_medsam.curation.split import sides_of
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.finetune.candidates import candidates_of
    from napari_medsam.finetune.verdict import judge

    names = arguments.model or ["lite-medsam"]
    if len(set(names)) < len(names):
        raise MedSAMError(f"--model names {names} repeat. Name each model once.")
    if arguments.table is not None and arguments.split == "all":
        raise CaseError(
            "--table divides the cases, and --split all takes them all. Choose --split train, val or test."
        )
    if arguments.csv is not None and not arguments.csv.absolute().parent.is_dir():
        raise CaseError(f"{arguments.csv}: give a file in a folder that exists.")
    dataset = CuratedDataset(arguments.dataset)
    stems = dataset.cases
    if arguments.split != "all":
        stems = sides_of(dataset, arguments.table, arguments.seed).roles()[arguments.split]
    if not stems:
        raise CaseError(
            f"{arguments.dataset}: no cases on the side {arguments.split!r}. Choose another side."
        )
    candidates = candidates_of(names, arguments.device)
    cases = [(stem, dataset.read(stem, predictions=False)) for stem in stems]
    rows: list[dict[str, object]] = []
    for one in judge(candidates, cases, EmbeddingCache(), arguments.seed):
        for name, scores in one.scores.items():
            rows.append({"model": name, "case": one.case, "group": one.group, "plane": one.plane.name,
                         "label": one.label, "class": one.class_name, **vars(scores)})  # fmt: skip
    if not rows:
        raise CaseError(f"{arguments.dataset}: the chosen cases hold no objects.")
    _report(rows, arguments.csv)
    return 0


def _report(rows: list[dict[str, object]], path: Path | None) -> None:
    import pandas

    from napari_medsam.files import replacing

    table = pandas.DataFrame(rows)
    if path is not None:
        with replacing(path) as stream:
            stream.write(table.to_csv(index=False).encode())
    means = table.groupby(["model", "class"], sort=False).agg(
        objects=("label", "size"), dsc=("dsc", "mean"), nsd=("nsd", "mean")
    )
    print(means.to_string(float_format="{:.3f}".format))
    print(table.groupby("model", sort=False)[["dsc", "nsd"]].mean().to_string(float_format="{:.3f}".format))
    if path is not None:
        print(f"written: {path}", file=sys.stderr)
