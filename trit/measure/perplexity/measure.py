# SPDX-License-Identifier: MIT
"""Models over texts, against a reference: which runs of llama-perplexity that takes, and what comes out of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.engine import perplexity_output
from trit.engine.llama_perplexity import Engine, TooShort
from trit.engine.logprobs import LogprobsFile, counted_positions, row_bytes
from trit.engine.perplexity_output import Measured
from trit.measure.perplexity import passages
from trit.measure.perplexity.models import Model
from trit.measure.perplexity.texts import Text

CONTEXT = 512
_LEAST_CONTEXT = 16
# llama-perplexity says nothing about the divergence of fewer.
_LEAST_COUNTED = 100
# Share of tokens whose log-probability the reference's file does not hold. Each is off by some units, so one in a
# thousand already shifts ln(perplexity) by more than what usually is to be measured.
_MOST_CLIPPED = 1e-4
# Ordinary text has more bytes than this per token.
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class Row:
    """One model over one text, or over the parts of it behind a mark.

    Attributes:
        model: Path of the file.
        matrices: Type of the layers' matrices.
        head: Type of the head.
        nbytes: Size of the file.
        vocabulary: How many tokens it knows.
        text: Name of the text.
        context: Tokens of each piece of the text.
        part: Empty for the whole text, else the mark behind which tokens were counted.
        counted: Tokens that were predicted.
        perplexity: And its standard error.
        right: Share of tokens that are the model's likeliest; for parts only.
        log_ratio: ln(perplexity / the reference's), both of the same tokens, so its error is smaller than theirs; None
            where the reference's file ends above the log-probabilities of more than a few tokens of the text.
        kl: Mean Kullback-Leibler divergence from the reference.
        same_top: Share of tokens at which model and reference find the same token the likeliest.
        divergence: All that the engine says about it; for whole texts only.
        is_reference: The others are compared with it.
    """

    model: str
    matrices: str
    head: str
    nbytes: int
    vocabulary: int
    text: str
    context: int
    part: str
    counted: int
    perplexity: Measured
    right: Measured | None = None
    log_ratio: Measured | None = None
    kl: Measured | None = None
    same_top: Measured | None = None
    divergence: perplexity_output.Divergence | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        engine: That runs llama-perplexity.
        context: Tokens of each piece; a shorter text gets smaller pieces unless ``strict``.
        strict: The user has named the context.
        chunks: Pieces of each text; None for all.
        mark: Count the tokens between it and the end of its line apart.
        save: Folder that keeps the log-probabilities of the model.
        folder: For temporary files.
        say: Gets a line about each step.
    """

    engine: Engine
    context: int
    strict: bool
    chunks: int | None
    mark: str | None
    save: Path | None
    folder: Path
    say: Callable[[str], None]


def logprobs_name(text: Text) -> str:
    """The file for the log-probabilities of a text in the folder of --save-logits; another name for every text."""
    return f"{quote(text.name, safe=' ')}.logits"


def measure(
    models: Sequence[Model], texts: Sequence[Text], reference: Model | Path | None, settings: Settings
) -> Iterator[Row]:
    """Every model over every text.

    Args:
        models: with the same vocabulary as the reference.
        texts: to predict.
        reference: a model, or a folder or file of --save-logits.
        settings: how.

    Raises:
        UserError: a text is too short, or saved log-probabilities are of another text, context or vocabulary.
    """
    if isinstance(reference, Model):
        for model in models:
            _check_vocabulary(model, reference.vocabulary, reference.path)
    for text in texts:
        base, now = None, settings
        if isinstance(reference, Model):
            base = settings.folder / "reference.logits"
            rows = _rows(reference, text, now, keep=base)
            yield from rows
            now = replace(now, context=rows[0].context, strict=True)
        elif reference is not None:
            base = _saved(reference, text)
            file = _open_saved(base, text, models, settings)
            now = replace(now, context=file.context, chunks=file.chunks, strict=True)
        for model in models:
            # Of a reference that is measured, too, nothing new would come out.
            if isinstance(reference, Model) and model.path.samefile(reference.path):
                continue
            rows = _rows(model, text, now, base)
            yield from rows
            now = replace(now, context=rows[0].context, strict=True)
        if base and isinstance(reference, Model):
            base.unlink()


def _rows(
    model: Model, text: Text, settings: Settings, base: Path | None = None, keep: Path | None = None
) -> list[Row]:
    """One model over one text: the rows of the whole text and of its parts.

    Args:
        model: any.
        text: any.
        settings: how; a text that is too short for the context gets another one.
        base: log-probabilities of the reference.
        keep: where those of this model, which then is the reference, stay.
    """
    saved = keep
    if saved is None and settings.save:
        saved = settings.save / logprobs_name(text)
    elif saved is None and settings.mark:
        saved = settings.folder / "model.logits"
    settings.say(f"{model.path} over {text.name}")
    context, plain, found = settings.context, None, None
    if saved or base is None:
        context, lines = _plain(model, text, settings, saved)
        plain = perplexity_output.estimate(lines)
    if base:
        lines = _compared(model, text, settings, base)
        found = perplexity_output.divergence(lines)
    count, _ = perplexity_output.pieces(lines)
    perplexity = plain or (found.perplexity if found else None)
    assert perplexity is not None
    facts = (str(model.path), model.matrices, model.head, model.nbytes, model.vocabulary, text.name, context)
    counted = count * counted_positions(context)
    whole = Row(*facts, "", counted, perplexity, is_reference=keep is not None)
    rows = [whole]
    if base and found:
        clipped = LogprobsFile.open(base).clipped() > _MOST_CLIPPED
        log_ratio = None if clipped else found.log_ratio
        rows = [replace(whole, log_ratio=log_ratio, kl=found.kl, same_top=found.same_top, divergence=found)]
    if settings.mark and saved:
        reference = LogprobsFile.open(base) if base else None
        pieces = passages.token_bytes(model.header, model.path)
        part = passages.measure(LogprobsFile.open(saved), reference, pieces, settings.mark)
        rows.append(replace(whole, part=settings.mark, **vars(part)))
    if saved and saved.parent == settings.folder and saved != keep:
        saved.unlink()
    return rows


def _plain(model: Model, text: Text, settings: Settings, saved: Path | None) -> tuple[int, list[str]]:
    """The context that fits the text, and what llama-perplexity says."""

    def run(context: int) -> list[str]:
        words = (model.path, text.path, context, settings.chunks)
        if saved is None:
            return settings.engine.perplexity(*words)
        with atomic_output(saved) as partial:  # a run that fails leaves an older file as it is
            return settings.engine.perplexity(*words, partial)

    if saved:
        saved.parent.mkdir(parents=True, exist_ok=True)
        _check_space(model, text, settings, saved.parent)
    try:
        return settings.context, run(settings.context)
    except TooShort as error:
        largest = 1 << max(error.tokens // 2, 1).bit_length() - 1
        if settings.strict or largest < _LEAST_CONTEXT:
            raise
        settings.say(f"  {text.path} has {error.tokens} tokens: -c {largest} instead of {settings.context}")
        return largest, run(largest)


def _compared(model: Model, text: Text, settings: Settings, base: Path) -> list[str]:
    """What llama-perplexity says of a model beside the reference's log-probabilities."""
    reference = LogprobsFile.open(base)
    if reference.counted < _LEAST_COUNTED:
        raise UserError(
            f"{text.path}: only {reference.counted} tokens count in {reference.chunks} pieces of "
            f"{reference.context}, a divergence needs {_LEAST_COUNTED}; take a longer text or more --chunks"
        )
    return settings.engine.divergence(model.path, base, reference.context)


def _check_space(model: Model, text: Text, settings: Settings, folder: Path) -> None:
    """Raise UserError if the log-probabilities of the text do not fit on the disk."""
    tokens = text.path.stat().st_size // _BYTES_PER_TOKEN
    pieces = max(1, tokens // settings.context)
    pieces = min(pieces, settings.chunks) if settings.chunks else pieces
    wanted = pieces * counted_positions(settings.context) * row_bytes(model.vocabulary)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{folder}: has {free / 1e9:.1f} GB left, and the log-probabilities of {text.name} take about "
            f"{wanted / 1e9:.1f} GB; take fewer --chunks, or set TMPDIR to a folder with room"
        )


def _check_vocabulary(model: Model, wanted: int, of: Path) -> None:
    if model.vocabulary != wanted:
        raise UserError(
            f"-m {model.path}: knows {model.vocabulary} tokens, --reference {of} {wanted}; they are not the same model"
        )


def _saved(reference: Path, text: Text) -> Path:
    path = reference / logprobs_name(text) if reference.is_dir() else reference
    if not path.is_file():
        raise UserError(
            f"--reference {reference}: has no {path.name}; make it: --save-logits {reference} with this text"
        )
    return path


def _open_saved(path: Path, text: Text, models: Sequence[Model], settings: Settings) -> LogprobsFile:
    """Saved log-probabilities of a text; raises UserError if they are of anything else."""
    file = LogprobsFile.open(path)
    if settings.strict and settings.context != file.context:
        raise UserError(f"-c {settings.context}: {path} was made with {file.context}; leave -c away")
    if settings.chunks and settings.chunks != file.chunks:
        raise UserError(f"--chunks {settings.chunks}: {path} has {file.chunks}; leave --chunks and -q away")
    for model in models:
        _check_vocabulary(model, file.vocabulary, path)
    if not _is_of(file, text, models[0]):
        raise UserError(f"--reference {path}: is not of {text.path}; make it again: --save-logits with this text")
    return file


def _is_of(file: LogprobsFile, text: Text, model: Model) -> bool:
    """Whether saved tokens spell out the beginning of a text; True, too, where tokens cannot be spelled out."""
    try:
        pieces = passages.token_bytes(model.header, model.path)
    except UserError:
        return True
    unknown = model.header.metadata.get("tokenizer.ggml.unknown_token_id")
    known = takewhile(lambda token: token != unknown, file.tokens.reshape(-1).tolist())
    # Some vocabularies put a space in front.
    said = b"".join(pieces[token] for token in known).lstrip()
    return text.path.read_bytes().lstrip().startswith(said)
