# SPDX-License-Identifier: MIT
"""Feed damaged files to the readers of GGUF files and checkpoints: nothing may come out but a result or a sentence.

Example: python -m tests.fuzz.readers --count 100000          # each reader, about half an hour on two cores

Input number I of seed S is always the same bytes: ``--seed S --only I --keep FILE`` makes it again. Every input has
5 seconds and, with the operating system's help, 1 GB of memory above the start. POSIX only.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from random import Random
from types import FrameType

from tqdm import tqdm

from tests.fuzz.mutate import damage, mutate_gguf, mutate_json, mutate_safetensors
from tests.support import fake_hub
from trit.base.errors import EXIT_FAILED, EXIT_OK, TritError, run_main
from trit.base.flags import ArgumentParser, a_path, whole
from trit.base.host import usable_cpus
from trit.convert import manifest
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.loadable import check_loadable
from trit.gguf.types import read_header
from trit.hub.command import download
from trit.hub.failures import BACKOFF_VARIABLE
from trit.inspect.command import inspect
from trit.models.checkpoint import Checkpoint

SEEDS = Path(__file__).parent / "seeds"
MEMORY_BYTES = 1 << 30
SECONDS = 5
# Files in memory where the system has a place for them: most of the time would go to the disk.
MEMORY_FOLDER = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)
# Values of a tensor that are read: what is larger cannot be in these files.
READ_VALUES = 1 << 20
# After so many dead processes a run gives up: something is wrong with all inputs.
MOST_DEATHS = 50


class TooSlow(BaseException):
    """An input took longer than its time."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        make: (random numbers, folder) -> writes a damaged input into the folder.
        read: Reads it; raises TritError for what it refuses.
    """

    make: Callable[[Random, Path], None]
    read: Callable[[Path], None]


def make_gguf(rng: Random, folder: Path) -> None:
    """One of the seeds, damaged."""
    seed = rng.choice(sorted(SEEDS.glob("*.gguf"))).read_bytes()
    (folder / "input.gguf").write_bytes(mutate_gguf(seed, rng))


def read_gguf(folder: Path) -> None:
    """What stands in front of the engine, the inspector, the header, and every tensor's data."""
    path = folder / "input.gguf"
    with suppress(TritError):
        check_loadable(path)
    inspect(path)
    for entry in read_header(path).tensors.values():
        entry.read(path)


# What people and attackers put in the place of a file.
STAND_INS: tuple[Callable[[Path], object], ...] = (
    os.mkfifo,
    Path.mkdir,
    Path.touch,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to(path.name),
    lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99999999999\n"),
    lambda path: path.write_text("<!DOCTYPE html><html><title>Log in</title></html>"),
    lambda path: path.write_text("Entry not found"),
    # A hole of a terabyte, which takes no room.
    lambda path: (path.touch(), os.truncate(path, 1 << 40)),
)


def clear(folder: Path) -> None:
    """Take away what the last input has left."""
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def make_checkpoint(rng: Random, folder: Path) -> None:
    """One of the seeds with one or two of its files damaged."""
    seed = rng.choice(sorted(path for path in SEEDS.iterdir() if path.is_dir()))
    clear(folder)
    for path in sorted(seed.iterdir()):
        shutil.copyfile(path, folder / path.name)
    for path in rng.sample(sorted(seed.iterdir()), rng.choice((1, 1, 1, 2))):
        data = path.read_bytes()
        if rng.random() < 0.03:
            (folder / path.name).unlink()
        elif rng.random() < 0.03:
            (folder / path.name).unlink()
            rng.choice(STAND_INS)(folder / path.name)
        elif rng.random() < 0.05:
            (folder / path.name).write_bytes(damage(bytearray(data), rng))
        elif path.suffix == ".json":
            (folder / path.name).write_bytes(mutate_json(data, rng))
        else:
            (folder / path.name).write_bytes(mutate_safetensors(data, rng))


def read_checkpoint(folder: Path) -> None:
    """Every tensor; what the inspector says; all that a conversion does before it writes (it wants a tokenizer)."""
    with suppress(TritError):
        checkpoint = Checkpoint.open(folder)
        for tensor in checkpoint.tensors.values():
            with suppress(TritError):
                tensor.read(0, min(tensor.size, READ_VALUES))
                if tensor.size <= READ_VALUES:
                    list(tensor.floats())
    with suppress(TritError):
        inspect(folder)
    convert(folder, folder / "out.gguf", Options(ENCODINGS["f16"], None), progress=False)


def make_hub(rng: Random, folder: Path) -> None:
    """What a Hub says of the seed "whole", damaged: the listing, a file, or the headers of the answers."""
    clear(folder)
    hub = fake_hub.answers_for({path.name: path.read_bytes() for path in sorted((SEEDS / "whole").iterdir())})
    for name in rng.sample(sorted(hub), rng.choice((1, 1, 2))):
        answer, roll = hub[name], rng.random()
        if roll < 0.1:
            answer.content = rng.choice(fake_hub.PAGES)
        elif roll < 0.2:
            answer.headers = {**answer.headers, **rng.choice(fake_hub.ODD_HEADERS)}
        elif roll < 0.25:
            answer.status = rng.choice((200, 204, 206, 302, 304, 400, 401, 403, 404, 416, 429, 500))
        elif name == fake_hub.LISTING and roll < 0.9:
            answer.content = mutate_json(answer.content, rng)
        else:
            answer.content = bytes(damage(bytearray(answer.content), rng))
        answer.ranges = rng.random() < 0.7
    (folder / "hub.pickle").write_bytes(pickle.dumps(hub))


def read_hub(folder: Path) -> None:
    """Download; whatever came of it, the next run, from a Hub in order, has the files as they are."""
    hub: dict[str, fake_hub.Answer] = pickle.loads((folder / "hub.pickle").read_bytes())
    good = {path.name: path.read_bytes() for path in sorted((SEEDS / "whole").iterdir())}
    into = folder / "model"
    refused: TritError | None = None
    with redirect_stdout(io.StringIO()):
        try:
            with fake_hub.answering(hub):
                download(fake_hub.REPO, "main", str(into), "i2_s", lambda note: None)
        except TritError as error:
            refused = error
        with fake_hub.answering(fake_hub.answers_for(good)):
            download(fake_hub.REPO, "main", str(into), "i2_s", lambda note: None)
    got = {path.name: path.read_bytes() for path in into.iterdir() if path.name != "trit-source.json"}
    assert got == good, f"the next run left {sorted(got)}"
    assert {path.name for path in folder.iterdir()} == {"hub.pickle", "model"}, "something is outside of the folder"
    if refused:
        raise refused


READERS = {
    "hub": Reader(make_hub, read_hub),
    "gguf": Reader(make_gguf, read_gguf),
    "checkpoint": Reader(make_checkpoint, read_checkpoint),
}


def _time_is_up(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS} s of CPU time")


def limit_memory(extra_bytes: int) -> None:
    """Let this process have so much more address space than it has now."""
    now = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:"))
    limit = int(now.split()[1]) * 1024 + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run_one(reader: Reader, rng: Random, folder: Path) -> str | None:
    """What is wrong with the reader on this input: a traceback; None if it returned or refused as it should."""
    reader.make(rng, folder)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(folder)
    except TritError as error:
        text = str(error)
        return None if text and "\n" not in text else f"not one sentence: {text!r}"
    except (Exception, TooSlow):
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def work(name: str, seed: int, start: int, stop: int, at: Synchronized[int], found: list[tuple[int, str]]) -> None:
    """Inputs start to stop, in a process of their own; failures go to ``found``, the present number to ``at``."""
    logging.disable()
    os.environ[BACKOFF_VARIABLE] = "0"
    # What a crash leaves and what git says are not looked at here.
    os.fsync = lambda fd: None
    manifest.converter_commit = lambda: ""
    signal.signal(signal.SIGPROF, _time_is_up)
    if sys.platform == "linux":
        limit_memory(MEMORY_BYTES)
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER) as folder:
        for i in range(start, stop):
            at.value = i
            # A hang in compiled code does not see the alarm, nor does one that only waits: CPU time counts, as
            # other programs may run beside.
            faulthandler.dump_traceback_later(20 * SECONDS, exit=True)
            fault = run_one(READERS[name], Random(f"{seed}/{i}"), Path(folder))
            faulthandler.cancel_dump_traceback_later()
            if fault is not None:
                found.append((i, fault))


def fuzz(name: str, seed: int, start: int, stop: int, jobs: int) -> list[tuple[int, str]]:
    """(number, what happened) of every input in [start, stop) that a reader did not take or refuse as it should."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Manager() as manager:
        found = manager.list()
        step = -(-(stop - start) // jobs)
        slices = [(begin, min(begin + step, stop)) for begin in range(start, stop, step)]
        places = [context.Value("q", begin) for begin, _ in slices]
        running, deaths = {}, 0
        for i, (begin, end) in enumerate(slices):
            running[i] = context.Process(target=work, args=(name, seed, begin, end, places[i], found))
            running[i].start()
        bar = tqdm(total=stop - start, desc=name, disable=None)
        while running:
            bar.n = sum(place.value - begin for place, (begin, _) in zip(places, slices, strict=True))
            bar.refresh()
            for i, process in list(running.items()):
                process.join(0.1)
                if process.exitcode is None:
                    continue
                del running[i]
                if process.exitcode != 0:
                    number, deaths = places[i].value, deaths + 1
                    found.append((number, f"the process died with exit code {process.exitcode}"))
                    if number + 1 < slices[i][1] and deaths < MOST_DEATHS:
                        arguments = (name, seed, number + 1, slices[i][1], places[i], found)
                        running[i] = context.Process(target=work, args=arguments)
                        running[i].start()
        bar.close()
        return sorted(found)


def _show(found: Sequence[tuple[int, str]]) -> None:
    """Failures grouped by the last line of what happened, a few numbers each."""
    groups: dict[str, list[int]] = {}
    for number, text in found:
        lines = text.strip().splitlines()
        place = next((line.strip() for line in reversed(lines) if line.strip().startswith("File ")), "")
        groups.setdefault(f"{lines[-1][:200]}  {place}", []).append(number)
    for line, numbers in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        print(f"{len(numbers):6} x {line}; inputs {numbers[:5]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, report, exit 1 if anything was found."""
    parser = ArgumentParser(prog="python -m tests.fuzz.readers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--reader", choices=[*READERS, "all"], default="all")
    parser.add_argument("--count", type=whole(1), default=100_000, help="inputs for each reader (default: %(default)s)")
    parser.add_argument("--start", type=whole(0), default=0, help="first input, to run slices beside each other")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--jobs", type=whole(1), default=usable_cpus())
    parser.add_argument("--only", type=whole(0), metavar="I", help="this input only, with its traceback")
    parser.add_argument("--keep", type=a_path, metavar="DIR", help="with --only: leave the input in this new folder")
    args = parser.parse_args(argv)
    names = list(READERS) if args.reader == "all" else [args.reader]
    failed = False
    for name in names:
        if args.only is not None:
            with tempfile.TemporaryDirectory() as folder:
                signal.signal(signal.SIGPROF, _time_is_up)
                fault = run_one(READERS[name], Random(f"{args.seed}/{args.only}"), Path(folder))
                if args.keep:
                    shutil.copytree(folder, args.keep)
            print(f"{name} {args.only}: {fault or 'fine'}")
            failed |= fault is not None
            continue
        begun = time.monotonic()
        found = fuzz(name, args.seed, args.start, args.start + args.count, args.jobs)
        taken = time.monotonic() - begun
        print(f"{name}: {args.count} inputs of seed {args.seed} in {taken:.0f} s, {len(found)} failures")
        _show(found)
        failed |= bool(found)
    return EXIT_FAILED if failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
