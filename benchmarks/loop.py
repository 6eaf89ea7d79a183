"""The loop "annotate, correct, retrain, annotate less", with ground truth for the annotator.

    python benchmarks/loop.py [--json OUT] [--data DIR] [--parts bars epoch rounds] [--sets NAME ...] [--seeds N]

bars: fixed trainings on sets where adaptation shows and one where it does not pay, judged on cases never trained on,
by the product's own verdict; also with a third of the training masks replaced by random ones. Medians over seeds.
epoch: an epoch on cached embeddings against the same epoch encoding every image again, in turns.
rounds: the annotator corrects k cases a round; after each round the decoder is trained anew and meets the next, yet
untouched cases. DSC with and without retraining, pixels that would have to be repainted, seconds spent.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lib.cases import case_of, group_of, image_paths
from lib.images import data_folder
from lib.record import ROOT, Figure, options_of, publish

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Event
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.train import train
from napari_medsam.finetune.verdict import Candidate, judge
from napari_medsam.model.decoder_file import read_info
from napari_medsam.model.local import MedSAM, build_model, load_decoder

BASE = "lite-medsam-box"  # the decoder shipped with the package has learned from two of these sets
VESSELS = FinetuneConfig(detail=4, visits=12000, shares=(1.0,))
DEFAULT = FinetuneConfig()
ROUND_SETS = ("bact_trpl", "em_isbi2012", "fundus_chase", "nuclei_dsb2018", "us_breast_busi")
CORRECTED = (0, 2, 4, 8)  # cases corrected when a round is measured
NEXT_CASES = 4


@dataclass(frozen=True)
class Protocol:
    """A fixed training: which images train and which judge, by seed."""

    set_name: str
    config: FinetuneConfig
    noisy: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a training gave: DSC on the held-out cases before and after, decision, seconds of its parts."""

    before: float
    after: float
    decision: str
    fit_s: float
    embed_s: float


def sides(name: str, paths: Sequence[Path], seed: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Training, validation and test images; groups are never divided, and a movie's test frames come last."""
    rng = np.random.default_rng(seed)
    if name == "bact_trpl":
        chosen = sorted(rng.permutation(10)[:6].tolist())
        return [paths[n] for n in chosen], [], list(paths[-8:])
    groups = sorted({group_of(name, path.stem) for path in paths})
    order = [groups[n] for n in rng.permutation(len(groups))]
    if name == "fundus_chase":
        train, val, test = order[:5], [], order[5:9]
    else:
        train, val, test = order[:10], order[10:13], order[13:]
    return tuple([p for p in paths if group_of(name, p.stem) in side] for side in (train, val, test))  # type: ignore[return-value]


def run_protocol(protocol: Protocol, data: Path, seed: int, work: Path, cache: EmbeddingCache) -> Outcome:
    """Train as the product does and read its own verdict."""
    name = protocol.set_name
    folder = work / f"{name}-{seed}{'-noisy' if protocol.noisy else ''}"
    roles: dict[str, str] = {}
    dataset = CuratedDataset(folder / "dataset", create=True)
    rng = np.random.default_rng([seed, 9])
    for role, paths in zip(("train", "val", "test"), sides(name, image_paths(data, name), seed), strict=True):
        for number, path in enumerate(paths):
            case = case_of(name, path)
            if protocol.noisy and role == "train" and number % 3 == 0:
                case = with_random_masks(case, rng)
            roles[dataset.append(case).stem] = role
    table = folder / "split.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(roles.items())
    config = replace(protocol.config, seed=seed)
    output = folder / "decoder.safetensors"
    request = TrainingRequest(dataset.path, "decoder", BASE, BASE, config=config, split=table, output=output)
    clock = Clock()
    train(request, folder / "run", clock, cache=cache)
    verdict = read_info(output).verdict
    assert verdict is not None
    mean = verdict.mean
    return Outcome(
        mean["released"].dsc,
        mean["new"].dsc,
        verdict.decision,
        clock.spent["training"],
        clock.spent["embedding"],
    )


class Clock:
    """Seconds from the first to the last event of each kind."""

    def __init__(self) -> None:
        self.spent = {"training": 0.0, "embedding": 0.0}
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if (kind := event.kind) in self.spent:
            self.spent[kind] += now - self._last
        self._last = now


def with_random_masks(case: Case, rng: np.random.Generator) -> Case:
    """Each object's mask replaced by a random ellipse of about its size, somewhere in the plane."""
    labels = np.zeros_like(case.gts)
    height, width = labels.shape
    rows, cols = np.ogrid[:height, :width]
    for item in case.objects:
        size = np.sqrt(np.count_nonzero(case.gts == item.label) / np.pi)
        tall, wide = size * rng.uniform(0.6, 1.6), size * rng.uniform(0.6, 1.6)
        row, col = rng.uniform(0, height), rng.uniform(0, width)
        labels[((rows - row) / tall) ** 2 + ((cols - col) / wide) ** 2 <= 1] = item.label
    left = set(np.unique(labels).tolist())
    return replace(case, gts=labels, objects=tuple(item for item in case.objects if item.label in left))


def bars(data: Path, seeds: int, work: Path, cache: EmbeddingCache) -> Iterator[Figure]:
    """The fixed trainings."""
    bacteria = _outcomes(Protocol("bact_trpl", replace(DEFAULT, visits=200)), data, seeds, work, cache)
    yield Figure(
        "bact_trpl, 6 frames of the first half, last 8 frames: released", _median(bacteria, "before"), "DSC"
    )
    gain = median(one.after - one.before for one in bacteria)
    yield Figure("bact_trpl: gain by retraining", gain, "DSC", 0.10, at_least=True)
    yield Figure("bact_trpl: seconds of training", _median(bacteria, "fit_s"), "s", 30)
    vessels = _outcomes(Protocol("fundus_chase", VESSELS), data, seeds, work, cache)
    yield Figure(
        "fundus_chase, 10 images of 5 children, 8 of 4 others: released", _median(vessels, "before"), "DSC"
    )
    yield Figure("fundus_chase: retrained", _median(vessels, "after"), "DSC", 0.66, at_least=True)
    spent = median(one.fit_s + one.embed_s for one in vessels)
    yield Figure("fundus_chase: seconds, embedding included", spent, "s", 600)
    breast = _outcomes(Protocol("us_breast_busi", DEFAULT), data, seeds, work, cache)
    yield from _never_worse("us_breast_busi", breast)
    for name in ("us_breast_busi", "polyp_kvasir"):
        noisy = _outcomes(Protocol(name, DEFAULT, noisy=True), data, seeds, work, cache)
        adopted = sum(one.decision == "adopt" for one in noisy)
        yield Figure(f"{name}, a third of the masks random: adopted of {seeds}", adopted, "", 0)


def _never_worse(name: str, outcomes: Sequence[Outcome]) -> Iterator[Figure]:
    yield Figure(f"{name}: released", _median(outcomes, "before"), "DSC")
    yield Figure(f"{name}: retrained, adopted or not", _median(outcomes, "after"), "DSC")
    losses = [one.before - one.after for one in outcomes if one.decision == "adopt"]
    yield Figure(f"{name}: adopted of {len(outcomes)}", len(losses))
    yield Figure(f"{name}: most lost by an adopted decoder", max(losses, default=0.0), "DSC", 0.005)


def _outcomes(protocol: Protocol, data: Path, seeds: int, work: Path, cache: EmbeddingCache) -> list[Outcome]:
    found = []
    for seed in range(seeds):
        found.append(run_protocol(protocol, data, seed, work, cache))
        print(
            protocol.set_name, "noisy" if protocol.noisy else "", seed, found[-1], file=sys.stderr, flush=True
        )
    return found


def _median(outcomes: Sequence[Outcome], name: str) -> float:
    return float(median(getattr(one, name) for one in outcomes))


def epoch(data: Path, cache: EmbeddingCache) -> Iterator[Figure]:
    """Samples of one epoch with their embeddings cached, against encoding the image before each sample.

    The rival encodes as stock code does: the published network in torch eager float32. Turn by turn.
    """
    from lib.paired import ratio, take_turns
    from lib.published import published_lite

    from napari_medsam.finetune.features import FeatureStore
    from napari_medsam.finetune.fit import Fit
    from napari_medsam.finetune.samples import samples_of
    from napari_medsam.model.networks.weights import build_decoder
    from napari_medsam.segment.fields import DEFAULT_POLICY

    model = build_model(BASE, "cpu")
    config = FinetuneConfig(epochs=1000, batch=4)
    samples = []
    for path in image_paths(data, "nuclei_dsb2018"):
        if len(samples) < 100:
            samples += samples_of(
                case_of("nuclei_dsb2018", path), path.stem, config, model.frame, DEFAULT_POLICY
            )
    samples = samples[:100]
    store = FeatureStore(model, cache)
    for _ in store.fill(samples):
        pass
    fits = [
        Fit(build_decoder(model.decoder_state(), 256, "stock"), samples, [], features, model.frame, config)
        for features in (store, _encoding_again(published_lite(), store))
    ]
    times = take_turns(
        {"cached": lambda: _one_epoch(fits[0]), "encoding again": lambda: _one_epoch(fits[1])},
        rounds=1,
        warm=0,
    )
    yield Figure("epoch of 100 objects on cached embeddings", times["cached"][0], "s")
    yield Figure("the same epoch, each image encoded again", times["encoding again"][0], "s")
    yield Figure("encoding again / cached", ratio(times, "encoding again", "cached"), "x", 6.0, at_least=True)


def _encoding_again(published: Any, store: Any) -> Any:
    import torch

    def features(sample: Any) -> np.ndarray:
        with torch.inference_mode():
            published.image_encoder(
                torch.zeros(1, 3, 256, 256)
            )  # its time; the values are those of the cache
        return store(sample)

    return features


def _one_epoch(fit: Any) -> None:
    for now in fit.run():
        if now.ended:
            return


def rounds(
    data: Path, names: Sequence[str], seeds: int, work: Path, cache: EmbeddingCache, path: Path
) -> None:
    """For each set, seed and number of corrected cases: DSC on the next cases, released and retrained.

    Rows are added to the JSON file as they come; those of other sets that it holds stay.
    """
    model = build_model(BASE, "cpu")
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [row for row in rows if row["set"] not in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        for seed in range(seeds):
            for row in _rounds_of(name, data, seed, work, cache, model):
                rows.append(row)
                path.write_text(json.dumps(rows, indent=1) + "\n")
                print(row, file=sys.stderr, flush=True)


def _rounds_of(
    name: str, data: Path, seed: int, work: Path, cache: EmbeddingCache, model: MedSAM
) -> Iterator[dict[str, Any]]:
    paths = image_paths(data, name)
    groups = sorted({group_of(name, path.stem) for path in paths})
    rng = np.random.default_rng([seed, 4])
    order = groups if name == "bact_trpl" else [groups[n] for n in rng.permutation(len(groups))]
    queue = [path for group in order for path in paths if group_of(name, path.stem) == group]
    config = replace(VESSELS, visits=2000) if name == "fundus_chase" else DEFAULT
    config = replace(config, seed=seed)
    dataset = CuratedDataset(work / f"rounds-{name}-{seed}", create=True)
    spent, done = 0.0, 0
    for corrected in CORRECTED:
        for path in queue[done:corrected]:
            dataset.append(case_of(name, path))
        done = corrected
        tuned = model
        if corrected:
            began = time.monotonic()
            output = work / f"{name}-{seed}-{corrected}.safetensors"
            table = work / f"{name}-{seed}-{corrected}.csv"
            table.write_text("".join(f"{stem},train\n" for stem in dataset.cases))
            request = TrainingRequest(
                dataset.path, "decoder", BASE, BASE, config=config, split=table, output=output
            )
            train(request, work / f"run-{name}-{seed}-{corrected}", lambda _: None, cache=cache)
            tuned = load_decoder(model, output)
            spent += time.monotonic() - began
        coming = [(path.stem, case_of(name, path)) for path in queue[corrected : corrected + NEXT_CASES]]
        candidates = {
            "released": Candidate("released", model, config.detail),
            "new": Candidate("retrained", tuned, config.detail),
        }
        judged = list(judge(candidates, coming, cache, seed))
        yield {
            "set": name,
            "seed": seed,
            "corrected": corrected,
            "seconds": round(spent, 1),
            **{
                role: round(float(np.mean([one.scores[role].dsc for one in judged])), 4)
                for role in candidates
            },
            **{f"repaint {role}": _repaint(judged, role) for role in candidates},
        }


def _repaint(judged: Sequence[Any], role: str) -> int:
    """Pixels that a person would have to paint or erase, a case, on average."""
    wrong = 0
    for one in judged:
        predicted = one.predictions[role].full(one.plane.shape)
        wrong += int(np.count_nonzero(one.full_truth() != predicted))
    return round(wrong / max(1, len({one.case for one in judged})))


def main() -> int:
    parser = options_of(__doc__, data=True)
    parser.add_argument("--parts", nargs="+", default=["bars", "epoch"], choices=["bars", "epoch", "rounds"])
    parser.add_argument("--sets", nargs="+", default=list(ROUND_SETS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = data_folder(options.data)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cache = EmbeddingCache(work / "embeddings")
        if "epoch" in options.parts:
            figures += epoch(data, cache)
        if "bars" in options.parts:
            figures += bars(data, options.seeds, work, cache)
        if "rounds" in options.parts:
            rounds(data, options.sets, options.seeds, work, cache, ROOT / "docs" / "loop_rounds.json")
    if options.json:
        options.json.write_text(json.dumps([figure.__dict__ for figure in figures], indent=1))
    if not figures:
        return 0
    return publish("loop", "Correct, retrain, annotate less", figures, "Medians over the seeds.")


if __name__ == "__main__":
    sys.exit(main())
