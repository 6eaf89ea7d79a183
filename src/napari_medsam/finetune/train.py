"""One training run from a dataset of cases to a judged decoder file. Read `train` from top to bottom.

Whatever happens, a decoder file is whole or absent, and a run that was killed goes on from its last whole epoch.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import Split, sides_of
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import Cancelled, CaseError, CheckpointError, ModelError
from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.finetune.checkpoint import drop_checkpoint, load_checkpoint, run_identity, save_checkpoint
from napari_medsam.finetune.events import DatasetRead, Done, Embedded, Event, JudgedSoFar, Stopped, Trained
from napari_medsam.finetune.features import FeatureStore
from napari_medsam.finetune.fit import Fit, Progress
from napari_medsam.finetune.pictures import draw_worst
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.samples import Sample, samples_of
from napari_medsam.finetune.verdict import Candidate, Judged, judge, objects_to_judge, verdict_of
from napari_medsam.model.decoder_file import CurvePoint, DecoderInfo, rewrite_info, write_decoder
from napari_medsam.model.library import decoder_path, free_name, own_decoders
from napari_medsam.model.local import MedSAM, build_model, load_decoder
from napari_medsam.model.names import find_model
from napari_medsam.model.networks.weights import build_decoder
from napari_medsam.records import from_plain
from napari_medsam.segment.fields import DEFAULT_POLICY

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
    split: Split
    cases: Mapping[str, Case]
    current: Candidate

    @property
    def dataset_id(self) -> str:
        """Stems carry the hash of their content, so this names content, whatever the folder is called."""
        return hashlib.sha256("\n".join(sorted(self.cases)).encode()).hexdigest()

    def side(self, stems: Sequence[str]) -> list[tuple[str, Case]]:
        return [(stem, self.cases[stem]) for stem in stems]


def train(
    request: TrainingRequest,
    folder: Path,
    emit: Emit,
    stopping: Stopping = lambda: False,
    cache: EmbeddingCache | None = None,
    build: Callable[[str, str], MedSAM] = build_model,
) -> Path | None:
    """Train, judge and file a decoder; returns its file, None when it was stopped before there was one.

    folder: of the run, for the checkpoint and the pictures. emit: receives the events, in the end `Done` or `Stopped`.
    stopping: asked often; once true, the best decoder so far is filed unjudged. cache: where embeddings are found and
    kept; None is the user's. build: makes a model of its name and device.
    Raises MedSAMError for a dataset, split, model or decoder that cannot be used, or a loss that is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model = _model(request, build)
        run = _prepared(request, folder, emit, stopping, model, EmbeddingCache() if cache is None else cache)
        train_side = _samples(run, run.split.train, request.config.views)
        validation = _samples(run, run.split.val, 1)
        if not train_side:
            raise CaseError(
                f"{request.dataset}: the training cases hold no objects. Export corrected masks first."
            )
        features = _embedded(run, [*train_side, *validation])
        fit = _fitted(run, train_side, validation, features)
    except Cancelled:
        emit(Stopped(None, request.name, "Stopped before the first decoder was saved."))
        return None
    path = _filed(run, fit)
    verdict = _judged(run, path, fit)
    drop_checkpoint(folder)  # before the last word: who hears it may end the process
    if verdict is None:
        emit(Stopped(path, path.stem, "Stopped; the best decoder so far is kept, not judged."))
    else:
        emit(Done(path, path.stem, verdict.decision == "adopt", verdict))
    return path


def _model(request: TrainingRequest, build: Callable[[str, str], MedSAM]) -> MedSAM:
    """The model to start from. What would fail at the end of the run fails here, before it has cost time."""
    spec = find_model(request.base)
    if spec.decoder is not None:
        raise ModelError(
            f"{request.base} is a decoder, and training starts with a model's own. Choose {spec.base} as the model."
        )
    _check_writable(request.output or decoder_path(free_name(request.name)))
    return build(request.base, request.device)


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CheckpointError(
            f"The decoder {path} cannot be written ({error.strerror or error}). Choose another file or folder."
        ) from error


def _prepared(
    request: TrainingRequest,
    folder: Path,
    emit: Emit,
    stopping: Stopping,
    model: MedSAM,
    cache: EmbeddingCache,
) -> _Run:
    current = _current(request, model)
    dataset = CuratedDataset(request.dataset)
    split = sides_of(dataset, request.split, request.config.seed)
    cases = {}
    for stem in (*split.train, *split.val, *split.test):
        if stopping():
            raise Cancelled("Training was stopped while it read the cases.")
        cases[stem] = dataset.read(stem, predictions=False)
    objects = sum(len(case.objects) for case in cases.values())
    emit(DatasetRead(len(cases), objects, split.roles(), split.by, model.device))
    return _Run(request, folder, emit, stopping, model, cache, split, cases, current)


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
        run.emit(Embedded(done, of, made, left))
    return store


def _fitted(run: _Run, samples: list[Sample], validation: list[Sample], features: FeatureStore) -> Fit:
    """The fit, ended or stopped. Raises Cancelled when it was stopped within the first epoch, ModelError when torch
    fails."""
    config, model = run.request.config, run.model
    decoder = build_decoder(model.decoder_state(), model.frame.size, run.request.base)
    clicks = "point" in model.prompts
    fit = Fit(decoder, samples, validation, features, model.frame, config, model.device, clicks=clicks)
    weights = (model.encoder_hash, model.decoder_hash)
    identity = run_identity(config, run.split.roles(), weights, model.device)
    known = load_checkpoint(run.folder, identity)
    if known is not None:
        fit.resume(known)
        for now in fit.past():  # so that the curve is shown from its beginning
            run.emit(_trained(now))
    kept = -math.inf
    try:
        for now in fit.run(run.stopping):
            run.emit(_trained(now))
            if now.ended and time.monotonic() - kept > KEEP_EVERY_S:
                save_checkpoint(run.folder, fit.state(), identity)
                kept = time.monotonic()
    except Cancelled:
        if not fit.curve:
            raise
    except RuntimeError as error:
        raise ModelError(
            f"{model.name} failed while training on {model.device}: {error}. Train on the device 'cpu'."
        ) from error
    return fit


def _trained(now: Progress) -> Trained:
    done = (now.epoch - 1) * now.of + now.samples
    left = now.seconds / done * (now.epochs * now.of - done) if done else None
    return Trained(**vars(now), left=left)


def _filed(run: _Run, fit: Fit) -> Path:
    """Write the decoder, not judged yet; over the one that this run had filed before it was killed."""
    request = run.request
    tuned = run.model.with_decoder(fit.best_state)
    path = request.output or _filed_before(tuned.decoder_hash) or decoder_path(free_name(request.name))
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
        curve=tuple(from_plain(CurvePoint, point, "curve") for point in fit.curve),
        prompts=fit.trained.prompts,
    )
    write_decoder(path, fit.best_state, info)
    return path


def _filed_before(decoder_hash: str) -> Path | None:
    """The user's decoder of just these weights that nobody has judged."""
    for known in own_decoders():
        if known.info.decoder_hash == decoder_hash and known.info.verdict is None:
            return known.path
    return None


def _judged(run: _Run, path: Path, fit: Fit) -> Verdict | None:
    """Judge the new decoder on the held-out cases and keep that in its file; None when it was stopped."""
    candidates = _candidates(run, path, fit)
    cases = run.side(run.split.test)
    of = objects_to_judge(cases)
    began = time.monotonic()
    judged: list[Judged] = []
    for one in judge(candidates, cases, run.cache, run.request.config.seed, run.stopping):
        judged.append(one)
        done = len(judged)
        left = (time.monotonic() - began) / done * (of - done)
        run.emit(JudgedSoFar(done, of, left))
    if run.stopping():
        return None
    names = {role: one.name for role, one in candidates.items()}
    verdict = verdict_of(judged, names, run.split.by, run.request.config.seed)
    verdict = replace(verdict, pictures=tuple(draw_worst(judged, run.folder)))
    rewrite_info(path, verdict=verdict)
    return verdict


def _candidates(run: _Run, path: Path, fit: Fit) -> dict[str, Candidate]:
    """The new decoder, the one in use, and the released one."""
    released = Candidate(run.request.base, run.model)
    new = Candidate(path.stem, run.model.with_decoder(fit.best_state), run.request.config.detail)
    return {"new": new, "current": run.current, "released": released}


def _current(request: TrainingRequest, model: MedSAM) -> Candidate:
    """The decoder in use. Raises ModelError when it is gone, or belongs to another encoder."""
    spec = find_model(request.current)
    if spec.decoder is None:
        return Candidate(request.base, model)
    return Candidate(spec.name, load_decoder(model, spec.decoder), spec.detail)
