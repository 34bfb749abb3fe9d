# SPDX-License-Identifier: MIT
r"""Ask a model: ``python3 run_inference.py -p "Where is Mary?\nAnswer:" -n 6``.

Prints the text that the model adds to the prompt, and nothing else. ``-cnv`` starts a chat instead, for models that
come with a chat template. Standard library only.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from trit.base.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, TritError, UserError
from trit.base.files import stand_in
from trit.base.flags import real, some_text, whole
from trit.base.places import BUNDLED_MODEL, engine_binary, python_command
from trit.engine import confinement, inference, token_profile
from trit.run.engine_log import EngineLog

# How the engine ends its output: after an end-of-generation token, or after the last token asked for.
_MOST_BYTES = 64 << 20  # of a prompt
_ENDED = b" [end of text]\n\n\n"
_CUT = b"\n\n"
# Defaults of -n: a model that only continues texts seldom ends one, a chat model ends its replies.
ANSWER, NO_LIMIT = 128, -1
# How a file of text says that it is not UTF-8; what Windows' editors and shells put in front.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The engine's words when the prompt's own text begins with the token that it puts in front.
_TWICE = "the prompt also starts with a BOS token"
# All that the bundled model has learned.
_STORY_QUESTION = re.compile(r"Where is \w+\?\s+Answer:\s*\Z")


class _Parser(inference.ArgumentParser):
    def take_words(self, args: argparse.Namespace) -> None:
        """The words that stand alone are a model's name and a message to it; after a name alone comes a chat.

        Raises:
            UserError: there is a word too many.
        """
        words = list(args.words)
        named = args.model is None and bool(words)
        if named:
            args.model = Path(words.pop(0))
        args.message = bool(words)
        if words and (args.prompt is not None or args.file is not None):
            raise UserError(f"{words[0]!r} stands alone beside -p or -f; give one prompt")
        if words:
            args.prompt = words.pop(0)
        if words:
            self.refuse(args, words)
        args.only_named = False
        if named and args.prompt is None and args.file is None and not args.conversation:
            if sys.stdin.isatty():
                args.only_named = args.conversation = True
            else:
                args.message, args.file = True, "-"

    def refuse(self, args: argparse.Namespace, rest: Sequence[str]) -> None:
        """Text that stands alone is a prompt, or the rest of one whose quotation marks were forgotten."""
        if not any(word.startswith("-") for word in rest):
            prompt = shlex.quote(" ".join([*([args.prompt] if args.prompt else []), *rest]))
            script = f"{self.prog} ..." if self.most_words else python_command("run_inference.py")
            command = f"{script} -p {prompt}"
            raise UserError(f"{rest[0]!r} stands alone; a prompt goes behind -p, in quotation marks: {command}")
        super().refuse(args, rest)


def build_parser() -> _Parser:
    """The argument parser."""
    parser = _Parser(
        prog="run_inference.py",
        description="Ask a ternary model. What follows -- is for the engine: llama-completion; llama-server with -cnv.",
    )
    inference.add_common_flags(parser, n_predict=ANSWER, in_chats=NO_LIMIT)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "-p", "--prompt", metavar="TEXT", help=r"prompt, \n in it is a newline; with -cnv the system prompt"
    )
    prompt.add_argument(
        "-f", "--file", type=some_text, metavar="FILE", help="file with the prompt, taken as it is; - is stdin"
    )
    parser.add_argument("-cnv", "--conversation", action="store_true", help="chat, by the model's chat template")
    parser.add_argument("--system", type=some_text, metavar="TEXT", help="system prompt of a chat or a message")
    parser.add_argument(
        "--no-history", action="store_true", help="keep none of this chat's messages for later ones (arrow up)"
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "-temp",
        "--temperature",
        type=inference.TEMPERATURES,
        default=0.8,
        metavar="T",
        help="0: greedy (default: %(default)s)",
    )
    sampling.add_argument(
        "--seed", type=whole(0, (1 << 32) - 1, also=(-1,)), metavar="N", help="seed of the sampling (default: random)"
    )
    sampling.add_argument(
        "--top-k", type=whole(0), metavar="N", help="only the N likeliest tokens (engine's default: 40)"
    )
    sampling.add_argument(
        "--top-p", type=real(0, 1), metavar="P", help="likeliest tokens up to P in sum (default: 0.95)"
    )
    sampling.add_argument("--repeat-penalty", type=real(0, 1000, above=True), metavar="X", help="1: none (default: 1)")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON object: text, counts, speeds, settings")
    output.add_argument(
        "--profile", action="store_true", help="where a token's time goes, on standard error; with --json in the object"
    )
    output.add_argument("--verbose", action="store_true", help="the engine's log and the timings on standard error")
    confinement.add_flags(parser, default=False)
    return parser


def command(argv: Sequence[str] | None = None) -> int:
    """``trit run NAME [PROMPT]``: as :func:`main`, but a model and a message to it may stand alone."""
    parser = build_parser()
    parser.prog, parser.usage, parser.most_words = "trit run", "trit run [NAME [PROMPT]] [FLAGS] [-- ENGINE_FLAGS]", 2
    return _run(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one prompt or a chat; the engine's exit code."""
    return _run(build_parser(), argv)


def _run(parser: _Parser, argv: Sequence[str] | None) -> int:
    args, extra = parser.parse(argv)
    parser.take_words(args)
    inference.check_engine_flags(extra)
    wanted = args.n_predict
    if wanted is None and not args.conversation:  # a chat's default is its model's
        args.n_predict = ANSWER
    context = inference.whole_context(args.ctx_size)
    if wanted and 0 < context <= wanted and "--context-shift" not in extra:
        raise UserError(
            f"-n {wanted}: the context has {context} tokens for prompt and answer together; give a larger -c, or "
            "-n -1 to fill it"
        )
    if args.draft != "none" and not args.conversation:
        raise UserError(f"--draft {args.draft} is for chats and the server; add -cnv, or leave --draft away")
    # Only now: a model may have to be fetched.
    inference.check_common(args)
    if inference.is_embedding_model(args.model):
        raise UserError(
            f"{args.model} is an embedding model: it gives vectors, not answers; serve it with: "
            f"{python_command('run_inference_server.py')} -m {shlex.quote(str(args.model))} -- --embeddings"
        )
    if args.conversation:
        from trit.run.chat import chat  # which needs this module

        return chat(args, extra)
    raw = not args.message or inference.lacks_chat_template(args.model, extra)
    if args.system is not None and raw:
        why = "has no chat template" if args.message else "continues a prompt as it is"
        raise UserError(
            f"--system: {args.model if args.message else parser.prog} {why}; put the text in front of the prompt"
        )
    if wanted is None and not raw:
        args.n_predict = NO_LIMIT
    with tempfile.TemporaryDirectory(prefix="trit-prompt-") as name:
        folder = Path(name)
        prompt = read_prompt(args, folder)
        # A message is put into the model's own template, if it has one; a prompt is continued as it is.
        turn = ["-no-cnv"] if raw else ["-cnv", "-st", "--jinja"]
        if args.system is not None:
            turn += ["-sys", inference.unescape(args.system)]
        command = [*engine_command("llama-completion", args), *prompt, *turn, "--no-display-prompt", "--simple-io"]
        # The prompt itself is the first run: another in front of it only delays the answer.
        command += ["--perf", *([] if args.profile else ["--no-warmup"]), *extra]
        return complete(args, command, folder / "counters.json" if args.profile else None)


def engine_command(program: str, args: argparse.Namespace) -> list[str]:
    """The engine with the flags that one prompt and a chat have in common."""
    command = [str(engine_binary(program)), "-m", str(args.model), "-t", str(args.threads), "-c", str(args.ctx_size)]
    command += ["-n", str(args.n_predict), "--temp", str(args.temperature)]
    for flag in ("seed", "top_k", "top_p", "repeat_penalty"):
        if (value := getattr(args, flag)) is not None:
            command += [f"--{flag.replace('_', '-')}", str(value)]
    if args.no_repack:
        command.append("--no-repack")
    return command


def read_prompt(args: argparse.Namespace, folder: Path) -> list[str]:
    """The engine's flags for the prompt; what comes from a file goes through one in ``folder``.

    Raises:
        UserError: there is none, or its file cannot be read.
    """
    if args.file is None:
        if not args.prompt:
            command = python_command("run_inference.py")
            raise UserError(f'the prompt is empty; give one with -p TEXT or -f FILE: {command} -p "Once upon a time"')
        note_purpose(args, inference.unescape(args.prompt))
        return ["-p", args.prompt]
    text = read_file(args.file)
    note_purpose(args, text)
    # The engine reads bytes as they are, and an argument cannot be as long as a file.
    cleaned = folder / "prompt.txt"
    cleaned.write_text(text, encoding="utf-8", newline="")
    # A file comes from an editor or a program, not through a shell: its backslashes are meant.
    return ["--no-escape", "-f", str(cleaned)]


def note_purpose(args: argparse.Namespace, prompt: str) -> None:
    """Say what the bundled model is for to somebody who asks it something else."""
    if args.model.parent == BUNDLED_MODEL and not args.json and not _STORY_QUESTION.search(prompt):
        command = python_command("setup_env.py -hr")
        print(
            "note: the bundled model only knows where somebody is at the end of a short story; for other prompts get "
            f"another one: {command} microsoft/BitNet-b1.58-2B-4T",
            file=sys.stderr,
        )


def read_file(name: str, flag: str = "-f") -> str:
    """The text of a prompt file, UTF-8 or what its byte order mark says, with LF and without its last newline.

    Raises:
        UserError: unreadable, no text, or empty.
    """
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UserError(f"{flag} {name} has more than {_MOST_BYTES >> 20} MiB; give a shorter prompt")
        encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
    except OSError as error:
        raise UserError(f"{flag} {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {name} is not {error.encoding} text (byte {error.start}); save it as UTF-8") from error
    # A page may be meant, a pointer is not.
    if reason := stand_in(text[:1024].encode(), pages=False):
        raise UserError(f"{flag} {name} {reason}")
    text = text.replace("\r\n", "\n").removesuffix("\n")
    if not text or "\0" in text:
        raise UserError(f"{flag} {name} is empty or no text; give a file with the prompt in it, saved as UTF-8")
    return text


def complete(args: argparse.Namespace, command: list[str], counters: Path | None = None) -> int:
    """Run the engine on one prompt, stream its text, and report; counters: where it is to write its profile."""
    if not args.json:
        inference.note_if_busy(args.threads)
    # On a failure the engine would start a debugger, which writes into our output.
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    if counters is not None:
        env |= token_profile.environment(counters, command)
    sandbox = confinement.prepare(args, command, write=[counters] if counters else [])
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            preexec_fn=sandbox.enter if sandbox else None,
        )
    except subprocess.SubprocessError as error:
        raise TritError("the kernel refuses to confine the engine; leave --sandbox away") from error
    except OSError as error:
        raise UserError(f"the engine does not start ({error.strerror}); give a long prompt with -f FILE") from error
    assert engine.stdout is not None and engine.stderr is not None
    log = EngineLog(engine.stderr, args.verbose)
    text = Text(engine.stdout)
    try:
        for part in text:
            if not args.json:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
        code = engine.wait()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if engine.poll() is None:
            engine.terminate()
            engine.wait()
    stderr = log.read()
    if code != 0 and sandbox and (met := sandbox.explain(stderr)):
        print(f"error: {met}", file=sys.stderr)
        return inference.shell_code(code)
    if code != 0:
        return failed(args.model, code, stderr)
    result = describe(args, text, stderr)
    profile = add_profile(result, counters) if counters is not None else None
    print(json.dumps(result, ensure_ascii=False) if args.json else "")
    report(args, result, stderr)
    if profile and not args.json:
        print(f"\n{profile}", file=sys.stderr)
    return EXIT_OK


def add_profile(result: dict[str, Any], counters: Path) -> str:
    """Add the profile to what ``--json`` prints; the same as a table."""
    limits = None
    try:
        limits = token_profile.measure_limits(result["threads"])
    except TritError as error:
        print(f"note: this machine's limits were not measured: {error}", file=sys.stderr)
    columns = token_profile.columns(counters, result, limits)
    result["profile"] = token_profile.as_json(columns, limits)
    return token_profile.table(columns, limits, result["threads"])


class Text:
    """The generated text of a running engine, without what the engine adds to it.

    Iterating yields it as it comes. The tail that might still turn out to be the engine's own ending is held back.

    Attributes:
        whole: everything generated, after the iteration.
        ended: whether the model itself ended (else the count or the context did).
    """

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.whole = b""
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        while block := os.read(self._stream.fileno(), 65536):
            held += block.replace(b"\r", b"") if os.name == "nt" else block
            keep = max(_overlap(held, _ENDED), _overlap(held, _CUT))
            yield self._give(held[: len(held) - keep])
            held = held[len(held) - keep :]
        self.ended = held.endswith(_ENDED)
        yield self._give(held.removesuffix(_ENDED if self.ended else _CUT))

    def _give(self, part: bytes) -> bytes:
        # The space that parts the first word from the prompt is no part of an answer that stands alone.
        shown = part.removeprefix(b" ") if not self.whole else part
        self.whole += part
        return shown


def _overlap(data: bytes, ending: bytes) -> int:
    """How many of the last bytes may be the start of an ending."""
    return next(size for size in range(min(len(data), len(ending)), -1, -1) if data.endswith(ending[:size]))


def failed(model: Path, code: int, stderr: str) -> int:
    """Say why the engine failed; its exit code.

    Raises:
        UserError: the prompt does not fit the context, or the file does not load or computes no numbers.
    """
    if match := re.search(r"prompt is too long \((\d+) tokens, max (\d+)\)", stderr):
        raise UserError(f"the prompt has {match[1]} tokens, the context has room for {match[2]}; give a larger -c")
    if match := re.search(r"logits are not finite, first in (\S+)(?: \(from (\S+)\))?", stderr):
        place = f"{match[1]}, of {match[2]}" if match[2] else match[1]
        raise UserError(
            f"{model}: the engine computes numbers that are not finite, first in {place}; the file is damaged: "
            "download or convert it again"
        )
    cause = inference.first_error(stderr) or ""
    if code == EXIT_USAGE and cause:
        # A flag behind --, or a variable: the engine's sentence says which.
        raise UserError(cause)
    if code > 0 and ("error loading model" in cause or "the file is damaged" in cause):
        reason = cause.removeprefix("llama_model_load: error loading model: ").removeprefix("error: ")
        raise UserError(f"{model}: the engine does not load it: {reason}")
    if code not in (EXIT_INTERRUPTED, -signal.SIGINT):
        print(f"error: {inference.explain_exit(code, stderr)}", file=sys.stderr)
    return inference.shell_code(code)


def describe(args: argparse.Namespace, text: Text, stderr: str) -> dict[str, Any]:
    """What ``--json`` prints, from the engine's text and its log."""

    def timing(name: str) -> tuple[float, int]:
        match = re.search(rf"{name} time = +([\d.]+) ms(?: / +(\d+))?", stderr)
        return (float(match[1]), int(match[2] or 0)) if match else (0.0, 0)

    def number(pattern: str) -> int | None:
        match = re.search(pattern, stderr)
        return int(match[1]) if match else None

    prompt_ms, prompt_tokens = timing("prompt eval")
    # Of N generated tokens N - 1 are fed back; the first comes out of the prompt's evaluation.
    decode_ms, _ = timing(" {8}eval")
    sampled = timing("samplers")[1] - prompt_tokens
    return {
        "text": text.whole.decode("utf-8", errors="replace"),
        "stop": "end" if text.ended else "context" if "context full" in stderr else "length",
        "prompt_tokens": prompt_tokens,
        "generated_tokens": sampled - text.ended,
        "prompt_tokens_per_second": _rate(prompt_tokens, prompt_ms),
        "generated_tokens_per_second": _rate(sampled - 1, decode_ms),
        "prompt_ms": prompt_ms,
        "generation_ms": decode_ms,
        "sampling_ms": timing("sampling")[0],
        "unaccounted_ms": timing("unaccounted")[0],
        "load_ms": timing("load")[0],
        "total_ms": timing("total")[0],
        "model": str(args.model),
        "threads": args.threads,
        "ctx_size": number(r"generate: n_ctx = (\d+)"),
        "seed": number(r"sampler seed: (\d+)"),
        "temperature": args.temperature,
    }


def _rate(count: int, milliseconds: float) -> float | None:
    return round(1000 * count / milliseconds, 2) if count > 0 and milliseconds > 0 else None


def report(args: argparse.Namespace, result: dict[str, Any], stderr: str) -> None:
    """Notes and timings for people, on standard error."""
    if result["stop"] == "context":
        print(f"note: the context of {result['ctx_size']} tokens is full; -c sets a larger one", file=sys.stderr)
    if _TWICE in stderr:
        print(
            "note: the prompt begins with the model's bos token, which every prompt gets anyway: it is there twice; "
            "leave it away",
            file=sys.stderr,
        )
    trained = re.search(r"n_ctx_train \((\d+)\)", stderr)
    used = result["prompt_tokens"] + result["generated_tokens"]
    if trained and used > int(trained[1]):
        print(f"note: {used} tokens, but the model was trained for {trained[1]}: do not trust it here", file=sys.stderr)
    if args.verbose:
        for name in ("prompt", "generated"):
            speed = result[f"{name}_tokens_per_second"]
            print(f"{name}: {result[f'{name}_tokens']} tokens, {speed or '-'} tokens/s", file=sys.stderr)
