# SPDX-License-Identifier: MIT
"""Which models a server has, under which names, and the engine's flags for them. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trit.base import by_name
from trit.base.errors import UserError
from trit.base.host import usable_memory_bytes
from trit.engine import batching, inference
from trit.engine.batching import Batching
from trit.gguf.header import RawHeader
from trit.gguf.validate import embeds
from trit.models.registry import registry
from trit.run.serving.budget import Need, choose_loaded, choose_slots, shown

# Prompts of earlier chats that are kept to be continued; the engine alone would keep 8 GiB of them.
CACHE_MIB = 256
_CACHE_FLAGS = {"-cram", "--cache-ram"}
# What is ours to say, since memory and threads are shared out by it.
_OURS = {
    **dict.fromkeys(("-np", "--parallel"), "--parallel"),
    **dict.fromkeys(("-c", "--ctx-size"), "-c"),
    **dict.fromkeys(("-t", "--threads"), "-t"),
    **dict.fromkeys(("-a", "--alias"), "NAME=MODEL"),
    "--sleep-idle-seconds": "--unload-after",
}
# Texts that are embedded go through the engine whole, in one step.
_MOST_EMBEDDED = 2048
_MADE = re.compile(r"ggml-model-.*|model")
# What stands in requests, and in the engine's list of models.
_NAME = re.compile(r"[A-Za-z0-9_][\w.@/+-]*", re.ASCII)
_UNLISTED = re.compile(r"[;#\n\r]|^\s|\s$")


@dataclass(frozen=True)
class Model:
    """One of the models.

    Attributes:
        name: what requests call it.
        aliases: what they may call it, too.
        path: of the GGUF file.
        header: of that file.
        need: of memory.
        context: tokens of each slot; 0: what the engine finds.
        slots: answers that are made at the same time.
        vectors: whether it gives vectors instead of answers.
        flags: more flags of the engine, for this model alone.
        template: text of a chat template in the place of its own; None: its own.
    """

    name: str
    aliases: tuple[str, ...]
    path: Path
    header: RawHeader
    need: Need
    context: int
    slots: int
    vectors: bool
    flags: tuple[str, ...]
    template: str | None

    @property
    def total(self) -> int:
        """Bytes that it takes."""
        return self.need.total(self.context, self.slots)

    def command(self, threads: int, template: Path | None = None) -> list[str]:
        """The engine's flags for this model; ``template``: file that its template was written to."""
        command = ["-m", str(self.path), "-c", str(self.context * self.slots), "-np", str(self.slots)]
        command += ["-t", str(threads), *self.flags]
        if self.template is not None:
            command += ["--jinja"]
            command += ["--chat-template-file", str(template)] if template else ["--chat-template", self.template]
        return command

    def facts(self) -> dict[str, object]:
        """For the log."""
        facts = {"name": self.name, "aliases": list(self.aliases), "slots": self.slots, "context": self.context}
        bytes_of = {"weights": self.need.weights, "slot": self.need.slot(self.context), "work": self.need.work}
        return {**facts, "bytes": {**bytes_of, "total": self.total}}

    def __str__(self) -> str:
        slots = f"{self.slots} slots" if self.slots > 1 else "1 slot"
        return (
            f"{self.name}: weights {shown(self.need.weights)}, {slots} of {self.context} tokens at "
            f"{shown(self.need.slot(self.context))}, work {shown(self.need.work)}: {shown(self.total)}"
        )


@dataclass(frozen=True)
class Plan:
    """All models of a server.

    Attributes:
        models: at least one.
        loaded: how many of them may be in memory at the same time.
        threads: of each.
        free: bytes of memory that were free; None: nobody knows.
        chats: most bytes of earlier chats that each keeps.
        environment: the engine's variables.
    """

    models: tuple[Model, ...]
    loaded: int
    threads: int
    free: int | None
    chats: int
    environment: Mapping[str, str]

    @property
    def several(self) -> bool:
        """Whether the engine's router serves them."""
        return len(self.models) > 1

    @property
    def most(self) -> int:
        """Bytes of the largest models that are loaded together."""
        return sum(sorted((model.total for model in self.models), reverse=True)[: self.loaded])

    def lines(self) -> list[str]:
        """The budget, for people."""
        lines = [str(model) for model in self.models]
        if self.several:
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
            lines.append(f"at most {self.loaded} loaded at a time, {threads} each: {shown(self.most)}")
        free = f" of {shown(self.free)} that are free" if self.free is not None else ""
        chats = f", and up to {shown(self.chats * self.loaded)} for earlier chats" if self.chats else ""
        return [*lines, f"memory: {shown(self.most)}{free}{chats}"]


def check_flags(engine_flags: Sequence[str]) -> None:
    """Raise UserError for a flag behind ``--`` that stands in front of it."""
    for word in engine_flags:
        if ours := _OURS.get(word.partition("=")[0]):
            raise UserError(f"-- {word.partition('=')[0]}: is given in front of --, as {ours}")


def make(args: argparse.Namespace, texts: Sequence[str | None], engine_flags: Sequence[str]) -> Plan:
    """Find the models, look at them, and share out memory and threads.

    Args:
        args: with the flags of ``trit serve``; the threads are filled in.
        texts: what the user gave: ``MODEL`` or ``NAME=MODEL``; None: the bundled model.
        engine_flags: what follows ``--``.

    Raises:
        UserError: there is no such model, it cannot be served, or does not fit; two have one name.
        TritError: the Hub did not deliver it, or a step failed.
    """
    free = usable_memory_bytes()
    args.ctx_size = inference.whole_context(args.ctx_size)
    given = [_split(text) for text in texts]
    by_name.check_all(path for _, path in given if path)
    models = [_model(args, name, path, engine_flags, free) for name, path in given]
    _check_names(models)
    inference.choose_threads(args)
    loaded = choose_loaded([model.total for model in models], args.models_max, free) if len(models) > 1 else 1
    cache = next((value for flag, value in _pairs(engine_flags) if flag in _CACHE_FLAGS), str(CACHE_MIB))
    chats = int(cache) << 20 if cache.isdecimal() else 0
    threads = max(1, args.threads // loaded)
    models, steps = _with_steps(models, threads, args.draft != "none", engine_flags)
    return Plan(tuple(models), loaded, threads, free, chats, steps.environment)


def _with_steps(
    models: Sequence[Model], threads: int, guesses: bool, engine_flags: Sequence[str]
) -> tuple[list[Model], Batching]:
    """The models with their flags for steps, and what the slowest of them needs."""
    rate = batching.multiply_rate(threads)
    steps = [
        batching.choose(model.path, model.slots, rate, guesses=guesses, engine_flags=[*model.flags, *engine_flags])
        for model in models
    ]
    changed = [replace(model, flags=(*model.flags, *one.flags)) for model, one in zip(models, steps, strict=True)]
    return changed, min(steps, key=lambda one: one.step)


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(words[::-1][1:], words[::-1], strict=False))  # the last first: the engine takes that


def _model(
    args: argparse.Namespace, name: str | None, given: Path | None, engine_flags: Sequence[str], free: int | None
) -> Model:
    path, header = inference.find_checked(given)
    inference.check_draft(args.draft, path, header)
    vectors = embeds(header)
    need = Need.of(path, header, engine_flags)
    trained = inference.whole_context(need.trained)
    # The engine gives no slot more than the model was trained for.
    context = min(args.ctx_size or trained, trained or args.ctx_size)
    names = _names(name, given, path)
    slots = choose_slots(names[0], need, context, args.parallel, free)
    flags = _embedding_flags(header, context, engine_flags) if vectors or args.embeddings else ()
    template = None
    if args.prompt and not vectors:
        template = with_system_prompt(path, inference.unescape(args.prompt))
    return Model(names[0], names[1:], path, header, need, context, slots, bool(flags), flags, template)


def _split(text: str | None) -> tuple[str | None, Path | None]:
    """The name that was given to a model, and the model; a file with such a name is itself."""
    if text is None:
        return None, None
    name, equals, rest = text.partition("=")
    if not equals or os.path.lexists(text):
        return None, Path(text)
    if not _NAME.fullmatch(name) or not rest:
        raise UserError(f"{text}: expected NAME=MODEL, with a name of letters, digits and . _ - + @ /")
    return name, Path(rest)


def _names(name: str | None, given: Path | None, path: Path) -> tuple[str, ...]:
    """What a model is called: as it was told to, by its name, by its file; then the other names of a known model."""
    # A name that is known to nobody but the file system is a path.
    known = registry().find(str(given)) if given and not given.is_file() else None
    whole = path.stem if not _MADE.fullmatch(path.stem) else path.absolute().parent.name
    own = known.short if known else str(given) if given and not given.exists() and given != path else whole
    found = [name, own, *((known.name, known.repo) if known else ())]
    usable = [re.sub(r"[^\w.@/+-]", "-", one, flags=re.ASCII).lstrip(".@/+-") or "model" for one in found if one]
    return tuple(dict.fromkeys(usable))


def _check_names(models: Sequence[Model]) -> None:
    """Raise UserError where a request's name could mean two models, or a path does not fit into the list."""
    seen: dict[str, Path] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if name in seen:
                raise UserError(
                    f"{seen[name]} and {model.path} are both called {name}; call one of them otherwise: NAME={name}"
                )
            seen[name] = model.path
        if len(models) > 1 and _UNLISTED.search(str(model.path)):
            raise UserError(f"{model.path}: of several models, none can have ; or # in its path; move or rename it")


def _embedding_flags(header: RawHeader, context: int, engine_flags: Sequence[str]) -> tuple[str, ...]:
    """For vectors; a model that was not made for them gives the mean of its tokens', unless a flag says otherwise."""
    flags = ["--embeddings"]
    architecture = header.metadata.get("general.architecture")
    if "--pooling" not in engine_flags and not header.metadata.get(f"{architecture}.pooling_type"):
        flags += ["--pooling", "mean"]
    if not {"-b", "--batch-size", "-ub", "--ubatch-size"} & set(engine_flags):
        flags += [word for flag in ("-b", "-ub") for word in (flag, str(min(context or 512, _MOST_EMBEDDED)))]
    return tuple(flags)


def write_list(plan: Plan, folder: Path) -> Path:
    """Write the router's list of models, and templates beside it; the file.

    Args:
        plan: several models.
        folder: nobody else's.
    """
    lines = []
    for number, model in enumerate(plan.models):
        template = None
        if model.template is not None:
            template = folder / f"template-{number}.jinja"
            template.write_text(model.template, encoding="utf-8")
        lines.append(f"[{model.name}]")
        if model.aliases:
            lines.append(f"alias = {','.join(model.aliases)}")
        words = model.command(plan.threads, template)
        while words:
            flag = words.pop(0).lstrip("-")
            lines.append(f"{flag} = {words.pop(0) if words and not words[0].startswith('-') else 'true'}")
    path = folder / "models.ini"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def with_system_prompt(model: Path, prompt: str) -> str:
    """The model's chat template with a default system message in front.

    llama-server takes no system prompt of its own; a template is where one can be put for every chat.

    Raises:
        UserError: the model has no chat template.
    """
    template = inference.chat_template(model)
    if template is None:
        raise UserError(f"{model} has no chat template, so a system prompt has no place in it; leave -p away")
    message = f"{{'role': 'system', 'content': {json.dumps(prompt, ensure_ascii=False)}}}"
    return (
        "{%- if messages and messages[0]['role'] != 'system' -%}"
        f"{{%- set messages = [{message}] + messages -%}}"
        "{%- endif -%}"
        f"{template}"
    )
