"""What a fit at scale is to do, checked before any process is started."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from napari_medsam.errors import CaseError, CheckpointError, ModelError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.image.field import Frame
from napari_medsam.model.decoder_file import SUFFIX
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.weights import build_decoder, decoder_state, state_hash
from napari_medsam_training.corpus.fit_state import CHECKPOINT, Kept, kept_in
from napari_medsam_training.corpus.stream import Corpus, open_corpus, steps_of
from napari_medsam_training.toml_file import read_settings


@dataclass(frozen=True, eq=False)
class Beginning:
    """What training begins with: a decoder, the frame of its boxes, the hash of the encoder it belongs to, and whether
    it has learned clicks."""

    base: str
    decoder: SamDecoder
    frame: Frame
    encoder_hash: str
    knows_clicks: bool = False


class Start(Protocol):
    """A model by name, loaded where it is trained."""

    def load(self, name: str) -> Beginning: ...


class ModelStart:
    """One of the package's models, or a checkpoint file."""

    def load(self, name: str) -> Beginning:
        from napari_medsam.model.api import knows_clicks
        from napari_medsam.model.local import build_model

        model = build_model(name, "cpu", backend="torch")
        if model.spec.decoder is not None:
            raise ModelError(
                f"{name} is a decoder, and training starts with a model's own. Give {model.spec.base}."
            )
        decoder = build_decoder(model.decoder_state(), model.frame.size, name)
        return Beginning(name, decoder, model.frame, model.encoder_hash, knows_clicks(model))


@dataclass(frozen=True, eq=False)
class FitJob:
    """A run, checked. visits: samples shown in all. half: compute in bfloat16. settings: must be equal for a run to go
    on. kept: where to go on."""

    corpus: Corpus
    start: Beginning
    config: FinetuneConfig
    visits: int
    output: Path
    run: Path
    half: bool
    settings: Mapping[str, object]
    kept: Kept | None

    @property
    def steps(self) -> int:
        return steps_of(len(self.corpus), self.config.batch, self.visits)


def prepared(args: Namespace, start: Start) -> FitJob:
    """All that can be wrong is found here. args: of the command `fit`. Raises MedSAMError, OSError."""
    world = args.devices * args.num_nodes
    if min(args.devices, args.num_nodes, args.keep_every) < 1 or args.readers < 0:
        raise CaseError("--devices, --num-nodes and --keep-every are whole numbers from 1, --readers from 0.")
    if args.batch < world:
        raise CaseError(
            f"A batch of {args.batch} leaves some of {world} processes idle. Give --batch {world} or more."
        )
    if args.output.suffix != SUFFIX:
        raise CheckpointError(f"The decoder's file is {args.output}. Give it a name that ends with {SUFFIX}.")
    corpus = open_corpus(args.store, args.split)
    config = _config(args, corpus)
    begin = start.load(args.model or corpus.model)
    if begin.encoder_hash != corpus.encoder_hash:
        raise ModelError(
            f"{args.store} was embedded by {corpus.model}, whose encoder is {corpus.encoder_hash[:12]}, and that of "
            f"{begin.base} is {begin.encoder_hash[:12]}. Give the same --model to embed.py and here."
        )
    if not begin.knows_clicks:
        config = replace(config, clicks=0.0)
    visits = args.visits or config.epochs_for(len(corpus)) * len(corpus)
    weights = state_hash(decoder_state(begin.decoder.state_dict()))
    settings = {"samples": corpus.content, "model": weights, "visits": visits, "precision": args.precision}
    settings |= {f"setting {name}": value for name, value in config.to_json().items()}
    run = args.resume or args.output.with_suffix(".run")
    kept = kept_in(run, settings) if args.resume else None
    if args.resume is None and (run / CHECKPOINT).exists():
        raise CaseError(
            f"{run} holds a run that has not ended. Go on with --resume {run}, or remove that folder."
        )
    half = args.precision == "bf16-mixed"
    return FitJob(corpus, begin, config, visits, args.output, run, half, settings, kept)


def _config(args: Namespace, corpus: Corpus) -> FinetuneConfig:
    given = {} if args.config is None else read_settings(args.config)
    given |= {"epochs": args.epochs, "batch": args.batch, "seed": args.seed, "shares": (1.0,)}
    given |= {"detail": corpus.detail, "views": corpus.views, "precision": "float32"}
    config = FinetuneConfig.from_json(given | ({"visits": args.visits} if args.visits is not None else {}))
    return config if args.learning_rate is None else replace(config, learning_rate=args.learning_rate)
