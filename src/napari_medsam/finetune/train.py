"""One training run from a dataset of cases to a judged decoder file. Read `train` from top to bottom.

Whatever happens, a decoder file is whole or absent, and a run that was killed goes on from its last whole epoch.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import Split, read_split, split_cases
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import Cancelled, CaseError
from napari_medsam.finetune.checkpoint import drop_checkpoint, load_checkpoint, run_identity, save_checkpoint
from napari_medsam.finetune.data import Sample, samples_of
from napari_medsam.finetune.features import FeatureStore
from napari_medsam.finetune.loop import Fit, Progress
from napari_medsam.finetune.pictures import draw_worst
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.verdict import Contender, Judged, judge, verdict_of
from napari_medsam.model.decoder_file import DecoderInfo, rewrite_info, write_decoder
from napari_medsam.model.library import decoder_path, free_name
from napari_medsam.model.medsam import MedSAM, build_model, load_decoder
from napari_medsam.model.registry import find_model
from napari_medsam.model.weights import build_decoder
from napari_medsam.segment.predict import DEFAULT_POLICY

Event = dict[str, Any]
Emit = Callable[[Event], None]
Stopping = Callable[[], bool]

KEEP_EVERY_S = 5.0


@dataclass(frozen=True, eq=False)
class _Run:
    request: TrainingRequest
    folder: Path
    emit: Emit
    stopping: Stopping
    model: MedSAM
    cache: EmbeddingCache | None
    dataset_id: str
    split: Split
    cases: Mapping[str, Case]

    def side(self, stems: Sequence[str]) -> list[tuple[str, Case]]:
        return [(stem, self.cases[stem]) for stem in stems]


def train(
    request: TrainingRequest,
    folder: Path,
    emit: Emit,
    stopping: Stopping = lambda: False,
    cache: EmbeddingCache | None = None,
) -> Path | None:
    """Train, judge and file a decoder; returns its file, None when it was stopped before there was one.

    folder: of the run, for the checkpoint and the pictures. emit: receives events as JSON values: `dataset`,
    `embedding`, `training`, `judging`, and in the end `done` or `stopped`. stopping: asked often; once true, the
    best decoder so far is filed unjudged. cache: where embeddings are found and kept; None is the user's.
    Raises MedSAMError for a dataset, split, model or decoder that cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _prepared(request, folder, emit, stopping, EmbeddingCache() if cache is None else cache)
    try:
        train_side = _samples(run, run.split.train, request.config.views)
        validation = _samples(run, run.split.val, 1)
        if not train_side:
            raise CaseError(
                f"{request.dataset}: the training cases hold no objects. Export corrected masks first."
            )
        features = _embedded(run, [*train_side, *validation])
        fit = _fitted(run, train_side, validation, features)
    except Cancelled:
        emit(_stopped(request.name, None, "Stopped before there was a decoder."))
        return None
    path = _filed(run, fit)
    if stopping():
        emit(_stopped(path.stem, path, "Stopped; the best decoder so far is kept, not judged."))
        return path
    _judged(run, path, fit)
    drop_checkpoint(folder)
    return path


def sides_of(dataset: CuratedDataset, table: Path | None, seed: int) -> Split:
    """How a dataset is divided: as a table says, or by group and seed. Raises CaseError."""
    if table is not None:
        return read_split(table, dataset.cases)
    groups: dict[str, str | None] = dict.fromkeys(dataset.cases)
    groups.update({entry.stem: entry.group for entry in dataset.manifest.cases if entry.stem in groups})
    return split_cases(groups, seed)


def _prepared(
    request: TrainingRequest, folder: Path, emit: Emit, stopping: Stopping, cache: EmbeddingCache
) -> _Run:
    dataset = CuratedDataset(request.dataset)
    split = sides_of(dataset, request.split, request.config.seed)
    stems = [*split.train, *split.val, *split.test]
    cases = {stem: dataset.read(stem, predictions=False) for stem in stems}
    model = build_model(request.base, request.device)
    objects = sum(len(case.objects) for case in cases.values())
    sides = {role: list(members) for role, members in split.roles().items()}
    emit(
        {
            "kind": "dataset",
            "cases": len(cases),
            "objects": objects,
            "split": sides,
            "by": split.by,
            "device": model.device,
        }
    )
    return _Run(request, folder, emit, stopping, model, cache, _dataset_id(stems), split, cases)


def _samples(run: _Run, stems: Sequence[str], views: int) -> list[Sample]:
    frame, config = run.model.frame, run.request.config
    return [
        sample
        for stem, case in run.side(stems)
        for sample in samples_of(case, stem, config, frame, DEFAULT_POLICY, views)
    ]


def _embedded(run: _Run, samples: Sequence[Sample]) -> FeatureStore:
    store = FeatureStore(run.model, run.cache)
    began, made = time.monotonic(), 0
    for done, of, hit in store.fill(samples, run.stopping):
        made += not hit
        left = (time.monotonic() - began) / made * (of - done) if made else None
        run.emit({"kind": "embedding", "done": done, "of": of, "made": made, "left": left})
    return store


def _fitted(run: _Run, samples: list[Sample], validation: list[Sample], features: FeatureStore) -> Fit:
    """The fit, ended or stopped. Raises Cancelled when it was stopped within the first epoch."""
    config, model = run.request.config, run.model
    decoder = build_decoder(model.decoder_state(), model.frame.size, run.request.base)
    fit = Fit(decoder, samples, validation, features, model.frame, config, model.device)
    identity = run_identity(config, run.dataset_id, model.encoder_hash, model.device)
    known = load_checkpoint(run.folder, identity)
    if known is not None:
        fit.resume(known)
    kept = time.monotonic()
    try:
        for now in fit.run(run.stopping):
            run.emit(_training_event(now))
            if now.ended and time.monotonic() - kept > KEEP_EVERY_S:
                save_checkpoint(run.folder, fit.state(), identity)
                kept = time.monotonic()
    except Cancelled:
        if not fit.curve:
            raise
    return fit


def _training_event(now: Progress) -> Event:
    done = (now.epoch - 1) * now.of + now.samples
    left = now.seconds / done * (now.epochs * now.of - done) if done else None
    return {
        "kind": "training",
        "epoch": now.epoch,
        "epochs": now.epochs,
        "samples": now.samples,
        "of": now.of,
        "loss": now.loss,
        "validation": now.validation,
        "best": now.best,
        "seconds": now.seconds,
        "left": left,
        "ended": now.ended,
    }


def _filed(run: _Run, fit: Fit) -> Path:
    """Write the decoder, not judged yet."""
    request = run.request
    path = request.output or decoder_path(free_name(request.name))
    tuned = run.model.with_decoder(fit.best_state)
    info = DecoderInfo(
        name=path.stem,
        base=request.base,
        encoder_hash=run.model.encoder_hash,
        decoder_hash=tuned.decoder_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        detail=request.config.detail,
        dataset=str(request.dataset),
        dataset_id=run.dataset_id,
        cases=run.split.roles(),
        classes=tuple(sorted({item.class_name for case in run.cases.values() for item in case.objects})),
        config=request.config.to_json(),
        curve=tuple(fit.curve),
    )
    write_decoder(path, fit.best_state, info)
    return path


def _judged(run: _Run, path: Path, fit: Fit) -> None:
    """Judge the new decoder on the held-out cases and say so, in the file too."""
    contenders = _contenders(run, path, fit)
    cases = run.side(run.split.test)
    of = sum(len(case.objects) for _, case in cases)
    began = time.monotonic()
    judged: list[Judged] = []
    for one in judge(contenders, cases, run.cache, run.request.config.seed, run.stopping):
        judged.append(one)
        done = len(judged)
        left = (time.monotonic() - began) / done * max(of - done, 0)
        run.emit({"kind": "judging", "done": done, "of": max(of, done), "left": left})
    if run.stopping():
        run.emit(_stopped(path.stem, path, "Stopped; the best decoder so far is kept, not judged."))
        return
    names = {role: one.name for role, one in contenders.items()}
    verdict = verdict_of(judged, names, run.split.by, run.request.config.seed)
    verdict["pictures"] = draw_worst(judged, run.folder)
    rewrite_info(path, verdict=verdict)
    run.emit(
        {
            "kind": "done",
            "decoder": str(path),
            "name": path.stem,
            "adopted": verdict["decision"] == "adopt",
            "verdict": verdict,
        }
    )


def _stopped(name: str, path: Path | None, message: str) -> Event:
    return {
        "kind": "stopped",
        "decoder": None if path is None else str(path),
        "name": name,
        "message": message,
    }


def _contenders(run: _Run, path: Path, fit: Fit) -> dict[str, Contender]:
    """The new decoder, the one in use, and the released one."""
    released = Contender(run.request.base, run.model)
    spec = find_model(run.request.current)
    current = released
    if spec.decoder is not None:
        current = Contender(spec.name, load_decoder(run.model, spec.decoder), spec.detail)
    new = Contender(path.stem, run.model.with_decoder(fit.best_state), run.request.config.detail)
    return {"new": new, "current": current, "released": released}


def _dataset_id(stems: Sequence[str]) -> str:
    """Stems carry the hash of their content, so this names content, whatever the folder is called."""
    return hashlib.sha256("\n".join(sorted(stems)).encode()).hexdigest()
