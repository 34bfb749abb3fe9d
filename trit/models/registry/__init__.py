# SPDX-License-Identifier: MIT
"""The models that we know by name: ``models.json`` beside this file, read and checked.

A model that is not in it works, too; the registry adds what its files do not say: a short name, whether it answers or
only continues text, its licence and size before anything is downloaded. Standard library only. ``python -m
trit.models.registry`` writes the documents' table of models from it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from trit.base.errors import TritError, UserError
from trit.gguf.encoding_table import holding
from trit.models.source_note import read_manifest

FILE = Path(__file__).with_name("models.json")
KINDS = ("base", "instruct", "embedding")


@dataclass(frozen=True)
class Family:
    """Models that one part of the converter and one graph of the engine serve.

    Attributes:
        name: key in ``models.json``.
        architectures: values of ``architectures`` in config.json.
        storage: in what form checkpoints may hold the weights.
        outputs: encodings that the converter writes; empty while the family cannot be converted. Without the key: all.
        verified: how we know that a converted model is right; None while we do not.
        verified_gguf: the same for ready-made GGUF files.
    """

    name: str
    architectures: tuple[str, ...]
    storage: tuple[str, ...]
    outputs: tuple[str, ...]
    verified: str | None
    verified_gguf: str | None


@dataclass(frozen=True)
class Model:
    """One repository on the Hub. What is not known for sure is None.

    Attributes:
        repo: ``ORG/NAME``.
        alias: a shorter name than the repository's, to be typed; None: it has none.
        family: see :class:`Family`.
        architecture: ``architectures`` in its config.json.
        kind: ``base`` (continues text), ``instruct`` (answers) or ``embedding`` (makes vectors).
        chat_template: which one it comes with.
        stop_tokens: texts of the tokens that end an answer.
        licence: as the model card names it.
        parameters: their number, as the model card gives it.
        download_bytes: of the files that set-up fetches, to three digits.
        storage: how this repository holds the weights.
        columns: of most of its matrices, if that is not whole blocks of every encoding.
        group: inputs that share a scale; None: the whole matrix does.
        outputs: encodings, where others are made of it than the family, its columns and its groups say.
        verified: how we know that it is right, where that is not as of its family.
        note: what a user should know, in one sentence.
    """

    repo: str
    alias: str | None
    family: str
    architecture: str | None
    kind: str | None
    chat_template: str | None
    stop_tokens: tuple[str, ...] | None
    licence: str | None
    parameters: int | None
    download_bytes: int | None
    storage: str | None
    columns: int | None
    group: int | None
    outputs: tuple[str, ...] | None
    verified: str | None
    note: str | None

    @property
    def name(self) -> str:
        """The short name: that of the repository without its owner."""
        return self.repo.split("/")[1]

    @property
    def short(self) -> str:
        """What is typed: the alias, else the short name."""
        return self.alias or self.name

    @property
    def ready_made(self) -> bool:
        """Whether it is a GGUF that is used as it is."""
        return (self.storage or "").startswith("GGUF")

    def advice(self) -> str | None:
        """One line for those who would expect a chat from it; None where they may."""
        if self.kind == "base":
            return f"{self.name} is a base model: base models continue text, they do not answer"
        if self.kind == "embedding":
            return f"{self.name} is an embedding model: it turns text into vectors and answers nothing"
        return None


@dataclass(frozen=True)
class Registry:
    """Everything in ``models.json``."""

    families: Mapping[str, Family]
    models: tuple[Model, ...]

    def find(self, name: str) -> Model | None:
        """A model by ``ORG/NAME``, short name or alias, in any case of letters."""
        wanted = name.lower()
        return next((model for model in self.models if wanted in _names(model)), None)

    def close_names(self, name: str) -> list[str]:
        """Names that may have been meant, best first: short ones, or whole ones if ``name`` has an owner."""
        whole = "/" in name
        known = {(model.repo if whole else model.name).lower(): model for model in self.models}
        found = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        return [known[key].repo if whole else known[key].name for key in found]

    def outputs(self, model: Model) -> tuple[str, ...]:
        """The encodings that the converter makes of a model."""
        if model.outputs is not None:
            return model.outputs
        fitting = holding(model.columns or 0, model.group or 0)
        return tuple(name for name in self.families[model.family].outputs if name in fitting)


@cache
def registry() -> Registry:
    """Read ``models.json``.

    Raises:
        TritError: it is not what the classes here say; names the entry.
    """
    return parse(json.loads(FILE.read_text(encoding="utf-8")))


def parse(values: Mapping[str, Any]) -> Registry:
    """Check and type the content of ``models.json``; see :func:`registry`."""
    families = {
        name: Family(name, **_typed(Family, name, {"outputs": list(holding()), **entry}))
        for name, entry in values["families"].items()
    }
    models = tuple(Model(**_typed(Model, entry.get("repo", "?"), entry)) for entry in values["models"])
    for model in models:
        if model.family not in families or model.kind not in (*KINDS, None) or model.repo.count("/") != 1:
            raise TritError(f"{FILE.name}: {model.repo} has an unknown family or kind, or no ORG/NAME")
    names = [name for model in models for name in _names(model)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TritError(f"{FILE.name}: {', '.join(sorted(twice))} is there twice")
    return Registry(families, models)


def _names(model: Model) -> set[str]:
    """All names of a model, in small letters."""
    return {name.lower() for name in (model.repo, model.name, model.short)}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "tuple[str, ...]": (tuple,),
    "tuple[str, ...] | None": (tuple, type(None)),
}


def _typed(kind: type, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's values with lists as tuples; keys that are left out are None.

    Raises:
        TritError: a key that the class lacks, or a value of another type.
    """
    wanted = {field.name: str(field.type) for field in fields(kind) if (kind, field.name) != (Family, "name")}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    for key in wanted.keys() | values.keys():
        values.setdefault(key, None)
        if key not in wanted or not isinstance(values[key], _TYPES[wanted[key]]):
            raise TritError(f"{FILE.name}: {name}: {key} is {values[key]!r}, expected {wanted.get(key, 'no such key')}")
    return values


def model_in(folder: Path) -> Model | None:
    """The known model that a folder holds: by the note of its download, else by the folder's name."""
    source = read_manifest(folder)
    return registry().find(source.repo if source else folder.resolve().name)


def resolve(text: str) -> str:
    """``ORG/NAME`` for what a user typed: that itself, known or not, or the short name of a known model.

    Raises:
        UserError: neither; names the closest ones.
    """
    known = registry()
    if model := known.find(text):
        return model.repo
    if text.count("/") == 1 and all(text.split("/")):
        return text
    close = known.close_names(text)
    hint = f"did you mean {' or '.join(close)}" if close else "--list-models shows those with a short name"
    raise UserError(
        f"--hf-repo {text}: expected ORG/NAME[@REVISION], such as microsoft/BitNet-b1.58-2B-4T, or a known name; {hint}"
    )
