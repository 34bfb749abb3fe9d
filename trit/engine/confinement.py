# SPDX-License-Identifier: MIT
"""What the engine needs while it runs, as the rules of a sandbox: ``--sandbox`` and ``--memory-limit``.

Standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.places import BUILD_DIR, ENGINE_BIN, ROOT, document
from trit.base.processes import capture
from trit.base.sandbox import Rules, Sandbox, landlock_version
from trit.gguf.header import read_raw_header
from trit.gguf.parts import parts_beside

# The engine's flags whose values name files: docs/security.md lists what is left out, and why.
DRAFT_FLAGS = {"-md", "--model-draft", "--spec-draft-model"}
# Opened when the model is loaded; the others while the flags are read.
LATE_FLAGS = {
    *("-mm", "--mmproj", "--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled"),
    "--path",
}
READ_FLAGS = {
    *("-m", "--model", *DRAFT_FLAGS, *LATE_FLAGS),
    *("-f", "--file", "-bf", "--binary-file", "-sysf", "--system-prompt-file", "--image", "--audio", "--video"),
    *("--grammar-file", "-jf", "--json-schema-file", "--chat-template-file", "-lcs", "--lookup-cache-static"),
    *("--ui-config-file", "--webui-config-file", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"),
    *("--media-path", "--models-preset"),
}
WRITE_FLAGS = {
    *("--save-all-logits", "--kl-divergence-base", "--log-file", "--prompt-cache"),
    *("-lcd", "--lookup-cache-dynamic", "-o", "--output", "--output-file"),
}
FOLDER_FLAGS = {"--slot-save-path", "--log-prompts-dir"}
# The variable that leaves the programs of measuring tools unconfined.
_SWITCH = "TRIT_SANDBOX"
# Where libraries, their settings, and facts about the machine are.
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/locale", "/usr/share/zoneinfo"),
    *("/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system", "/dev/random", "/dev/urandom"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/tty")
# Buffers of a batch, copies of the vocabulary, requests, and 10 MB for each of the server's threads.
_ROOM = 3 << 30
# What the engine's server keeps of finished chats unless --cache-ram says otherwise.
_CACHE_FLAGS, _CACHE_MIB = ("-cram", "--cache-ram"), 8192
_THREAD_FLAGS = {"-t", "--threads", "-tb", "--threads-batch", "--threads-http", "-np", "--parallel"}
_STACK = 8 << 20  # bytes of a thread's stack where the shell sets no limit
_ELEMENT = 4  # bytes; the largest type that an attention cache can have
# With less its threads do not start.
_LEAST_LIMIT, _MOST_LIMIT = 16 << 20, 1 << 50
# What the engine takes beside these: buffers of a batch, the vocabulary.
_BASE = 512 << 20
_CACHE_TYPES = {"-ctk", "--cache-type-k", "-ctv", "--cache-type-v"}
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NO_MEMORY = re.compile(
    r"memory limit|bad_alloc|mem_buffer != NULL|resource temporarily unavailable|insufficient memory|"
    r"(failed|unable) to allocate|cannot allocate memory",
    re.I,
)


def add_flags(parser: argparse.ArgumentParser, default: bool) -> None:
    """Add the flags; ``default``: whether the engine is confined where the kernel can do it."""
    group = parser.add_argument_group("confinement (Linux)")
    group.add_argument(
        "--sandbox",
        action=argparse.BooleanOptionalAction,
        help="let the engine open no files but those that the flags name, and connect to nothing; "
        f"{document('security.md')} (default: {'on where the kernel has Landlock' if default else 'off'})",
    )
    group.add_argument(
        "--memory-limit",
        type=parse_bytes,
        metavar="SIZE",
        help="most memory of a confined engine, without mapped weights: 900M, 12G; 0: no limit "
        "(default: from model and context)",
    )
    parser.set_defaults(sandbox_by_default=default)


def parse_bytes(text: str) -> int:
    """For argparse: a size such as 900M or 12G in bytes; 0 stands for no limit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([MGT])", text.upper().removesuffix("IB").removesuffix("B"))
    if match is None and text != "0":
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 900M or 12G, or 0 for no limit")
    size = float(match[1]) * _UNITS[match[2]] if match else 0
    if size and not _LEAST_LIMIT <= size <= _MOST_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 16M to 1024T, or 0 for no limit")
    return int(size)


def prepare(
    args: argparse.Namespace,
    command: Sequence[str],
    *,
    read: Sequence[Path] = (),
    write: Sequence[Path] = (),
    children: Sequence[Sequence[str]] = (),
) -> Confinement | None:
    """The sandbox that the flags ask for; None where there is to be none, with a line that says so if that is news.

    A router reaches its models by TCP, on the ports that the system gives away: it connects to these alone.

    Args:
        args: with the flags of :func:`add_flags`.
        command: the engine's program and flags; the files that they name stay open to it.
        read: more files and folders that it reads.
        write: more files that it writes.
        children: the commands of engines that it starts; the memory limit is for each.

    Raises:
        UserError: --sandbox was asked for where the system has none, --memory-limit without it, or less memory than
            the engine needs to start.
        TritError: the kernel refuses the rules.
    """
    wanted = args.sandbox_by_default if args.sandbox is None else args.sandbox
    if not wanted:
        if args.memory_limit is not None:
            raise UserError("--memory-limit is part of the confinement; give --sandbox as well")
        return None
    if landlock_version() == 0:
        linux = sys.platform.startswith("linux")
        why = f"this {'kernel or container' if linux else 'system'} has no Landlock"
        if args.sandbox:
            raise UserError(f"--sandbox: {why}, so the engine cannot be confined; leave --sandbox away")
        print(f"note: the engine is not confined: {why}", file=sys.stderr, flush=True)
        return None
    engines = [(one, list(named(one))) for one in children or (command,)]
    if args.memory_limit:
        for engine, files in engines:
            check_memory_limit(args.memory_limit, engine, files)
    limit: int | None = args.memory_limit or None
    if args.memory_limit is None:
        limits = [memory_limit(engine, files) for engine, files in engines]
        limit = None if None in limits else max(one or 0 for one in limits)
    reads = {*read, *named(command), *(file for _, files in engines for file in files)}
    # What a process reads of itself has another place for each.
    reads |= {Path("/proc")} if children else set()
    try:
        return Confinement(_rules(command, list(reads), write, limit, starts=bool(children)), limit)
    except OSError as error:
        raise TritError(f"the kernel refuses to confine the engine ({error.strerror}); give --no-sandbox") from error


def of_tool(
    command: Sequence[str | Path], env: Mapping[str, str | None] | None = None, *, read: Sequence[Path] = ()
) -> Confinement | None:
    """The sandbox of an engine's program that a tool starts on a model; None where there is to be none.

    Without a word and without a memory limit: what a measurement keeps is not known from model and context. The
    programs of another folder than the build's are whoever's, and so is what they open.

    Args:
        command: the program and its flags; the files that they name stay open to it.
        env: variables that are set on top of ours; None takes one away.
        read: more files that it reads.

    Raises:
        TritError: the kernel refuses the rules.
    """
    words = [str(word) for word in command]
    variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    if Path(words[0]).parent != ENGINE_BIN or variables.get(_SWITCH) == "off" or landlock_version() == 0:
        return None
    tuning = tuning_file(variables)
    # Some tools start programs in the checkout's folder, some in ours.
    reads = [*named(words), *read, tuning, ROOT / tuning]
    try:
        return Confinement(_rules(words, reads, (), None), None)
    except OSError as error:
        raise TritError(f"the kernel refuses to confine the engine ({error.strerror}); set {_SWITCH}=off") from error


class Confinement(Sandbox):
    """A sandbox for the engine; ``limit`` is its memory limit in bytes, or None."""

    def __str__(self) -> str:
        """For the line of a server that starts."""
        most = f"at most {_size(self.limit)} of memory" if self.limit else "no memory limit"
        return f"confined to its model and libraries, {most} (--no-sandbox, --memory-limit)"

    def __init__(self, rules: Rules, limit: int | None) -> None:
        super().__init__(rules)
        self.limit = limit

    def explain(self, said: str) -> str | None:
        """Whether what the engine said at its end means that it has met its memory limit; a sentence, or None."""
        if self.limit is None or not _NO_MEMORY.search(said):
            return None
        return (
            f"the engine has met its memory limit of {_size(self.limit)}; give a smaller -c or a larger --memory-limit"
        )


def _size(nbytes: int) -> str:
    return f"{nbytes / _UNITS['G']:.1f} GiB" if nbytes >= _UNITS["G"] else f"{nbytes / _UNITS['M']:.0f} MiB"


def _rules(
    command: Sequence[str], reads: Sequence[Path], write: Sequence[Path], limit: int | None, starts: bool = False
) -> Rules:
    hosts = [host for value in values(command, {"--host"}) for host in value.split(",")]
    ports = [int(value) for value in values(command, {"--port"}) if value.isdecimal()]
    return Rules(
        reads=[*map(Path, _SETTINGS), tuning_file(), *reads],
        runs=[*map(Path, _LIBRARIES), *_library_folders(command[0])],
        writes=[*write, *written(command)],
        devices=map(Path, _DEVICES),
        # The engine listens on a file if the host's name ends so.
        sockets=[Path(host).absolute().parent for host in hosts if host.endswith(".sock")],
        ports=[*ports, *([0] if starts else [])],
        peers=_given_away() if starts else (),
        memory=limit,
    )


def _given_away() -> range:
    """The TCP ports that the system gives to programs that ask for any, which is to listen on port 0."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    return range(first, last + 1)


def values(command: Sequence[str], flags: set[str]) -> Iterator[str]:
    """What stands behind these flags; the engine knows no ``--flag=value``."""
    # A prompt can be the name of a flag; what follows it then is the next flag.
    return (value for flag, value in pairwise(command) if flag in flags and not value.startswith("-"))


def named(command: Sequence[str]) -> Iterator[Path]:
    """The files that a command's flags name to be read, of split models with all parts; those that are there.

    Values may be lists with commas and have scales behind colons.
    """
    for value in values(command, READ_FLAGS):
        for name in {value, *value.split(",")}:
            for path in {Path(name), Path(name.rpartition(":")[0])} - {Path()}:
                yield from (part for part in parts_beside(path) if part.exists())


def written(command: Sequence[str]) -> Iterator[Path]:
    """The files and folders that a command's flags name to be written; made if need be, as a rule needs something.

    The engine takes an empty file for none, and says so itself where nothing can be made.
    """
    # llama-bench's -o is a format.
    flags = WRITE_FLAGS - {"-o", "--output"} if Path(command[0]).stem == "llama-bench" else WRITE_FLAGS
    for value in values(command, flags):
        with suppress(OSError):
            Path(value).touch()
        yield Path(value)
    for value in values(command, FOLDER_FLAGS):
        with suppress(OSError):
            Path(value).mkdir(exist_ok=True)
        yield Path(value)


def tuning_file(environment: Mapping[str, str] = os.environ) -> Path:
    """The file of measured choices that the engine opens; a name that is no file is one of its words."""
    return Path(environment.get("TRIT_TUNING") or BUILD_DIR / "tuning.json")


def _library_folders(program: str) -> Iterator[Path]:
    """Folders of the program and of the libraries that the loader finds for it: compilers bring theirs along."""
    yield from (ENGINE_BIN, Path(program).parent)
    yield from (Path(name) for name in os.environ.get("LD_LIBRARY_PATH", "").split(":") if name)
    for line in capture(["ldd", program])[1].splitlines():
        if match := re.search(r"(/\S+) \(0x", line):
            yield Path(match[1]).resolve().parent


def memory_limit(command: Sequence[str], files: Sequence[Path]) -> int | None:
    """Bytes that an engine needs at most, with room; None where its cache of chats has no limit.

    Weights twice (as read and as packed), attention caches twice (their buffers grow alike), finished chats, and the
    stacks of the threads: 512 of them are 4 GiB.
    """
    weights, caches = _needs(command, files)
    stacks = _threads(command, _THREAD_FLAGS) * _stack()
    flags = dict(pairwise(command))
    cache = next((flags[flag] for flag in _CACHE_FLAGS if flag in flags), str(_CACHE_MIB))
    chats = 0
    if Path(command[0]).stem != "llama-completion":
        if not cache.isdigit():
            return None
        chats = int(cache) << 20
    return 2 * (weights + caches) + chats + stacks + _ROOM


def check_memory_limit(limit: int, command: Sequence[str], files: Sequence[Path]) -> None:
    """Refuse a limit in bytes with which the engine cannot start; what is between that and enough it says itself.

    Raises:
        UserError: says what is needed.
    """
    weights, caches = _needs(command, files)
    stacks = _threads(command, {"-t", "--threads"}) * _stack()
    caches = 0 if _CACHE_TYPES & set(command) else caches // 2  # half precision, unless a flag says otherwise
    if limit < caches + stacks + _LEAST_LIMIT:
        enough = caches + stacks + weights + _BASE
        raise UserError(
            f"--memory-limit {_size(limit)}: the attention cache takes {_size(caches)}, the stacks of the threads "
            f"{_size(stacks)} and packed weights up to {_size(weights)}; give {_size(enough)}"
        )


def _needs(command: Sequence[str], files: Sequence[Path]) -> tuple[int, int]:
    """Bytes of weights as they are in files, and of attention caches in float32."""
    context = int(dict(pairwise(command)).get("-c", 0))
    models = [path for path in files if path.is_file() and path.open("rb").read(4) == b"GGUF"]
    weights = sum(path.stat().st_size for path in models)
    caches = sum(attention_bytes(read_raw_header(path, arrays=False).metadata, context) for path in models)
    return weights, caches


def _threads(command: Sequence[str], flags: set[str]) -> int:
    return sum(int(text) for text in values(command, flags) if text.isdecimal() and len(text) < 8)


def _stack() -> int:
    """Bytes that the C library takes for a thread's stack."""
    if sys.platform == "win32":
        return _STACK
    import resource

    size = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return _STACK if size == resource.RLIM_INFINITY else size


def attending_layers(layers: int, interval: int, further: int) -> int:
    """How many layers keep keys and values: of a hybrid every so manieth, and those for further tokens behind them."""
    return layers if interval < 1 else (layers - further) // interval + further


def attention_bytes(metadata: Mapping[str, Any], context: int) -> int:
    """Bytes of a model's attention cache in float32; 0 for a file without layers (a later part, an adapter).

    Args:
        metadata: of a GGUF file.
        context: tokens; 0: what the model was trained for.
    """
    number = _numbers_of(metadata)
    heads = number("attention.head_count", 1)
    size = -(-number("embedding_length") // max(1, heads))
    widths = number("attention.key_length", size) + number("attention.value_length", size)
    layers = attending_layers(number("block_count"), number("full_attention_interval"), number("nextn_predict_layers"))
    per_token = layers * number("attention.head_count_kv", heads) * widths * _ELEMENT
    return per_token * (context or number("context_length"))


def state_bytes(metadata: Mapping[str, Any]) -> int:
    """Bytes of what a hybrid's linear attention keeps of a text, in float32; 0 for a model without it.

    A matrix for each value head, and the last inputs of the short convolution: n_embd_s and n_embd_r of the engine's
    llama-hparams.cpp.
    """
    number = _numbers_of(metadata)
    if (interval := number("full_attention_interval")) < 1:
        return 0
    layers = number("block_count")
    linear = layers - attending_layers(layers, interval, number("nextn_predict_layers"))
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    inputs = (number("ssm.conv_kernel", 1) - 1) * (inner + 2 * number("ssm.group_count") * state)
    return linear * (inner * state + inputs) * _ELEMENT


def _numbers_of(metadata: Mapping[str, Any]) -> Callable[..., int]:
    """Integers of a model's own keys by their names; what is not there is 0, or what is given."""
    arch = metadata.get("general.architecture")

    def number(key: str, default: int = 0) -> int:
        value: Any = metadata.get(f"{arch}.{key}")
        return value if isinstance(value, int) else default

    return number
