# SPDX-License-Identifier: MIT
"""What ``run_inference.py`` and ``run_inference_server.py`` share: flags, checks, reading the engine's words.

Standard library only.
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import shlex
import signal
import struct
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from trit.base import by_name, flags
from trit.base.errors import EXIT_USAGE, UserError
from trit.base.files import check_input
from trit.base.flags import THREADS, a_path, hub_name, real, whole
from trit.base.host import free_memory_bytes, physical_cores, usable_cpus
from trit.base.places import BUNDLED_MODEL, MODELS_DIR, python_command
from trit.engine.confinement import DRAFT_FLAGS, LATE_FLAGS, attention_bytes, named
from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.known_order import refuse_other_order
from trit.gguf.loadable import check_loadable
from trit.gguf.made import default_model
from trit.gguf.validate import embeds

# The engine rounds contexts up to this, and fails on a batch longer than the number it was given before rounding.
_CONTEXT_STEP = 256
_LEAST_CONTEXT = 2  # a token of a prompt, and one of an answer
_BATCH = 2048  # the engine's default of -b
_NO_LIMIT, _TO_CONTEXT = -1, -2  # values of -n
TEMPERATURES = real(0, 1000)
# Flags of the engine that name the model, which is ours to name: it was looked at.
_MODEL_FLAGS = {
    *("-m", "--model", "-mu", "--model-url", "-dr", "--docker-repo", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"),
}
TEMPLATE_FLAGS = {"--chat-template", "--chat-template-file"}
# Without --no-jinja the engine takes a template's name for the template itself.
TEMPLATE_ADVICE = "name the template that it was trained with, such as: -- --no-jinja --chat-template llama3"
_TEMPLATE_KEY = b"tokenizer.chat_template"
_STRING_TYPE = 8
# Metadata comes first in a GGUF; no tokenizer's is larger than this.
_METADATA_BYTES = 64 << 20
_FIRST_PART = re.compile(r"-00001-of-\d{5}\.gguf$")
_LATER_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_MADE = re.compile(r"ggml-model-(\w+)\.gguf")
_LEVEL = re.compile(r"\d+\.\d+\.\d+\.\d+ ([A-Z]) ?(.*)")
_ARGUMENT = re.compile(r"^error: (arguments? .+)$", re.MULTILINE)
_ABORT = re.compile(r"\.(c|cpp|h):\d+: ")


# How the next tokens are guessed -> the engine's flags. What followed the last three tokens before is checked in one
# step of up to nine tokens; those that the model would not have said are dropped. A model that has a layer for that
# guesses by itself.
DRAFTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "ngram": ("--spec-type", "ngram-map-k", "--spec-ngram-map-k-size-n", "3", "--spec-ngram-map-k-size-m", "8"),
    "mtp": ("--spec-type", "draft-mtp"),
}


class ArgumentParser(flags.ArgumentParser):
    """A parser, but a prompt may begin with a dash, and what follows ``--`` is for the engine.

    Attributes:
        most_words: how many words that stand alone are taken, into args.words: the name of a model, a prompt.
    """

    most_words = 0

    def parse(self, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
        """Parse a command line; the options and what is for the engine.

        Raises:
            UserError: a flag is none of ours; says where one for the engine goes.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        engine: list[str] = []
        joined: list[str] = []
        position = 0
        while position < len(words):
            word = words[position]
            if word == "--":
                engine = words[position + 1 :]
                break
            if word in ("-p", "--prompt") and position + 1 < len(words):
                position += 1
                word = f"--prompt={words[position]}"
            joined.append(word)
            position += 1
        args, rest = self.parse_known_args(joined)
        args.words = []
        if not any(word.startswith("-") for word in rest):
            args.words, rest = rest[: self.most_words], rest[self.most_words :]
        if rest:
            self.refuse(args, rest)
        return args, engine

    def refuse(self, args: argparse.Namespace, rest: Sequence[str]) -> None:
        """Say what is wrong with words that are no flags of ours."""
        if not rest[0].startswith("-"):
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        if rest[0].partition("=")[0] in _MODEL_FLAGS:
            raise UserError(f"{self.prog} has no flag {rest[0]}; name the model's file with -m")
        raise UserError(
            f"{self.prog} has no flag {rest[0]}; one for the engine goes behind --, at the end: "
            f"{self.prog} ... -- {shlex.join(rest)}"
        )


def add_common_flags(parser: argparse.ArgumentParser, n_predict: int, *, in_chats: int | None = None) -> None:
    """The flags of both commands, with bitnet.cpp's names.

    Args:
        parser: gets them.
        n_predict: default of ``-n``.
        in_chats: default of ``-n`` with ``-cnv``; args.n_predict is None where none is given, then.
    """
    add = parser.add_argument
    text = "GGUF file, or a folder with one in it (default: the bundled model)"
    add("-m", "--model", type=a_path, help=text)
    text = "most tokens to generate; -1: until the model ends or the context is full "
    text += f"(default: {n_predict}{'' if in_chats is None else f', with -cnv {in_chats}'})"
    number = whole(1, also=(_NO_LIMIT, _TO_CONTEXT))
    add("-n", "--n-predict", type=number, default=n_predict if in_chats is None else None, metavar="N", help=text)
    text = f"threads (default: physical cores, here {physical_cores()})"
    add("-t", "--threads", type=THREADS, metavar="N", help=text)
    text = "tokens of prompt and answer together; 0: what the model was trained for (default: %(default)s)"
    add("-c", "--ctx-size", type=whole(_LEAST_CONTEXT, also=(0,)), default=2048, metavar="N", help=text)
    text = "leave ternary weights in the mapped file as they are: starts sooner, answers slower"
    add("--no-repack", action="store_true", help=text)
    text = (
        "guess what comes next, in chats and the server; the greedy answer stays the same; ngram: from what was said "
    )
    text += "before; mtp: by the model's own layer for that, if it has one (default: %(default)s)"
    add("--draft", choices=DRAFTS, default="none", help=text)


def check_common(args: argparse.Namespace) -> None:
    """Check the common flags; fills in the threads and rounds the context up.

    Raises:
        UserError: one of them cannot be right.
    """
    args.model, header = find_checked(args.model)
    choose_threads(args)
    check_draft(args.draft, args.model, header)
    args.ctx_size = whole_context(args.ctx_size)
    _check_cache(header, args.ctx_size)


def check_draft(draft: str, path: Path, header: RawHeader) -> None:
    """Raise UserError for a way to guess that a model has no layer for."""
    layers = f"{header.metadata.get('general.architecture')}.nextn_predict_layers"
    if draft == "mtp" and not header.metadata.get(layers):
        raise UserError(
            f"--draft mtp: {path} has no layer that predicts further tokens ({layers}); use --draft ngram or none"
        )


def find_checked(given: Path | None) -> tuple[Path, RawHeader]:
    """The file of what the user gave (None: the bundled model) and its header, once it was looked at.

    Raises:
        UserError: there is no such model, or the engine does not load it.
    """
    path = default_model() if given is None else find_model(by_name.model_file(given))
    return path, check_model(path)


def choose_threads(args: argparse.Namespace) -> None:
    """Fill in the threads where none were given; say that more of them than CPUs are slow."""
    if args.threads is None:
        args.threads = physical_cores()
    elif args.threads > (os.cpu_count() or 1):
        print(f"note: -t {args.threads} is more than this machine's {os.cpu_count()} CPUs: slow", file=sys.stderr)


def whole_context(tokens: int) -> int:
    """The context that the engine makes of a number of tokens; 0 stays what it means."""
    return -(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP


def check_engine_flags(engine_flags: Sequence[str]) -> None:
    """Look at what follows ``--`` as far as the engine itself would not, or too late.

    Raises:
        UserError: names the flag.
    """
    for word in engine_flags:
        if (flag := word.partition("=")[0]) in _MODEL_FLAGS:
            raise UserError(f"-- {flag}: the model goes in front of --, behind -m; there can be only one")
    _check_batches(engine_flags)
    for flag, value in pairwise(engine_flags):
        if flag in DRAFT_FLAGS:
            check_model(_path_of(flag, value), flag)
        elif flag in LATE_FLAGS and not any(True for _ in named([flag, value])):
            raise UserError(f"{flag} {_path_of(flag, value)}: is not there; check the name")


def _check_batches(engine_flags: Sequence[str]) -> None:
    """Raise UserError for a -ub beyond -b, which the engine would cut to it in silence."""
    given = dict(pairwise(engine_flags))
    whole_batch = given.get("-b", given.get("--batch-size", str(_BATCH)))
    part = given.get("-ub", given.get("--ubatch-size", ""))
    if part.isdecimal() and whole_batch.isdecimal() and int(part) > int(whole_batch):
        raise UserError(f"-ub {part}: is a part of -b, which is {whole_batch}; give a larger -b, too")


def _path_of(flag: str, value: str) -> Path:
    """The value of a flag of the engine; raises UserError as our own flags do."""
    try:
        return a_path(value)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{flag} {error}") from None


def _check_cache(header: RawHeader, context: int) -> None:
    """Raise UserError for a context whose attention cache, in half precision, is larger than the free memory."""
    free, per_token = free_memory_bytes(), attention_bytes(header.metadata, 1) // 2
    # Layers with a window keep less than all tokens.
    windowed = any(key.endswith("attention.sliding_window") for key in header.metadata)
    if free is not None and not windowed and per_token * context > free:
        raise UserError(
            f"-c {context}: the attention cache takes {per_token * context / 1e9:.1f} GB, but {free / 1e9:.1f} GB of "
            f"memory are free; give at most -c {free // per_token // _CONTEXT_STEP * _CONTEXT_STEP}"
        )


def gguf_files(folder: Path) -> list[Path]:
    """The models among the GGUF files of a folder: whole ones, and the first part of each split one."""
    found = [path for path in sorted(folder.glob("*.gguf")) if not path.name.startswith(".")]
    return [path for path in found if _FIRST_PART.search(path.name) or not _LATER_PART.search(path.name)]


def find_model(path: Path) -> Path:
    """The file that is meant: of a folder, or of a model's name or address on the Hub, the only GGUF that is there."""
    name = hub_name(str(path)).partition("@")[0]
    folder = path if path.is_dir() else MODELS_DIR / name.split("/")[-1] if _REPO.fullmatch(name) else None
    files = gguf_files(folder) if folder and not path.is_file() else []
    return files[0] if len(files) == 1 else path


def _how_to_make(path: Path) -> str:
    fetch = python_command("setup_env.py -hr")
    name = hub_name(str(path))
    if _REPO.fullmatch(name) and not path.parent.is_dir() and path.suffix != ".gguf":
        return f"if that is a model on the Hub, fetch it with: {fetch} {name}"
    beside = [other.name for other in gguf_files(path.parent)]
    there = f"beside it is {beside[0]}; " if beside else ""
    command = python_command("setup_env.py")
    if path.parent != BUNDLED_MODEL:
        if not (path.parent / "config.json").is_file() and not (beside and _MADE.fullmatch(path.name)):
            return f"{there}give the path of a GGUF file, or fetch a model from the Hub with: {fetch} ORG/NAME"
        command = f"{python_command('setup_env.py -md')} {_quoted(path.parent)}"
    # Set-up makes what is fastest, unless it is told a type.
    if (made := _MADE.fullmatch(path.name)) and path != default_model():
        command += f" -q {made[1]}"
    return f"{there}make it with: {command}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def check_model(path: Path, flag: str = "-m") -> RawHeader:
    """Refuse a model file that is not there, is no GGUF, or is one that the engine does not load; else its header.

    Args:
        path: the file.
        flag: that named it.

    Raises:
        UserError: names the file and the command that makes it.
    """
    make = python_command("setup_env.py -md")
    if path.is_dir():
        if files := gguf_files(path):
            names = ", ".join(file.name for file in files)
            raise UserError(f"{flag} {path} is a folder; name one of the GGUF files in it: {names}")
        if (path / "config.json").is_file():
            raise UserError(f"{flag} {path} is a folder without a GGUF file; make one with: {make} {_quoted(path)}")
        raise UserError(f"{flag} {path} is a folder without a model in it; give the path of a GGUF file")
    if not path.exists():
        raise UserError(f"the model {path} is not there; {_how_to_make(path)}")
    check_input(path)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            folder = path.parent
            how = "give the path of a GGUF file"
            if (folder / "config.json").is_file():
                how = f"convert its folder with: {make} {_quoted(folder)}"
            raise UserError(f"{flag} {path} is not a GGUF file; {how}")
    header = check_loadable(path)
    refuse_other_order(path, header)
    return header


def chat_template(path: Path) -> str | None:
    """The chat template in a GGUF file, None if it has none.

    Looks for the key's bytes (length, name, value type) instead of reading all metadata, which for a vocabulary of
    a hundred thousand words takes Python longer than the engine needs for its start.
    """
    needle = struct.pack("<Q", len(_TEMPLATE_KEY)) + _TEMPLATE_KEY + struct.pack("<I", _STRING_TYPE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(needle, 0, _METADATA_BYTES)
        if place < 0:
            return None
        start = place + len(needle)
        (length,) = struct.unpack_from("<Q", data, start)
        return data[start + 8 : start + 8 + length].decode("utf-8", errors="replace")


def lacks_chat_template(path: Path, engine_flags: Sequence[str]) -> bool:
    """Whether neither the model nor a flag for the engine says how a chat becomes a prompt.

    The engine then takes ChatML without a word, which a model that was trained on something else answers badly.
    """
    return not TEMPLATE_FLAGS & set(engine_flags) and chat_template(path) is None


def is_embedding_model(path: Path) -> bool:
    """Whether a GGUF file that was checked gives vectors: then it answers nothing, llama-completion would abort."""
    return embeds(read_raw_header(path, arrays=False))


def note_if_busy(threads: int) -> None:
    """Say to somebody at a terminal that other programs leave fewer CPUs free than there are threads."""
    if not (hasattr(os, "getloadavg") and sys.stderr.isatty()):
        return
    cpus, load = usable_cpus(), os.getloadavg()[0]
    if load > max(0, cpus - threads) + 0.5:
        print(
            f"note: other programs are busy here (load {load:.1f} on {cpus} CPUs, and {threads} threads are wanted): "
            "answers will be slower, and fewer threads run while that is faster",
            file=sys.stderr,
        )


def unescape(text: str) -> str:
    r"""Turn ``\n \r \t \' \" \\`` into what they stand for, as the engine does for prompts."""
    meaning = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}
    return re.sub(r"\\([nrt'\"\\])", lambda match: meaning[match[1]], text)


def first_error(stderr: str) -> str | None:
    """The engine's own first error line, the one nearest to the cause, without time and level.

    A sentence about an argument comes before what the log says of it.
    """
    if argument := _ARGUMENT.search(stderr):
        return argument[1].strip()
    for line in stderr.splitlines():
        match = _LEVEL.match(line)
        if match and match[1] == "E":
            return match[2].strip()
        if line.startswith("error:"):
            return line.removeprefix("error:").strip()
        if _ABORT.search(line):
            return line.strip()
    return None


def explain_exit(code: int, stderr: str) -> str:
    """One sentence about an engine that ended with an error; ``code`` as subprocess gives it (negative: a signal)."""
    cause = first_error(stderr)
    if code < 0:
        name = signal.Signals(-code).name
        hints = {
            "SIGILL": f"; it was compiled for another CPU; make one for this: {python_command('setup_env.py --clean')}",
            "SIGKILL": "; probably for want of memory: try a smaller -c or a smaller model",
        }
        return f"the engine was ended by {name}{hints.get(name, '')}{f': {cause}' if cause else ''}"
    if code == EXIT_USAGE and f"error: {cause}\n" in stderr:
        return str(cause)  # a sentence of ours, for people
    return f"the engine ended with exit code {code}{f': {cause}' if cause else '; see what it says with --verbose'}"


def shell_code(code: int) -> int:
    """Exit code to pass on: a signal N is 128 + N, as in shells."""
    return 128 - code if code < 0 else code
