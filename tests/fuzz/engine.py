# SPDX-License-Identifier: MIT
"""Load damaged model files of all our types, but for those that our own check refuses, in the engine.

Example: python -m tests.fuzz.engine --build /tmp/plain --plain --count 20000   # the engine that set-up has built
Example: python -m tests.fuzz.engine --build /tmp/asan --count 20000   # compiled first with the sanitizers

What counts as a failure is that the engine ends by a signal, an abort included, hangs, or that a sanitizer reports
memory used wrongly or undefined behaviour. With --unchecked every file goes to the engine; its aborts (GGML_ASSERT, an
exception that nobody catches) are upstream's way to refuse, and are only counted by their place. POSIX only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutate_gguf
from trit.base.errors import EXIT_FAILED, EXIT_OK, TritError, UserError, run_main
from trit.base.flags import ArgumentParser, a_path, whole
from trit.base.host import usable_cpus
from trit.base.places import BUNDLED_MODEL, ENGINE_BIN, ENGINE_DIR, ROOT
from trit.base.processes import call
from trit.convert.from_random import generate
from trit.gguf.encodings import ENCODINGS
from trit.gguf.loadable import check_loadable
from trit.models.shapes import Shape

FLAGS = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined"
# No leak check: upstream leaves memory behind where it refuses. Allocations over 2 GB fail, as on a small machine.
SUPPRESSED = ROOT / "tests/fuzz/undefined.supp"
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=99:max_allocation_size_mb=2048:allocator_may_return_null=1:handle_abort=0",
    "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:exitcode=99:suppressions={SUPPRESSED}",
}
MEMORY_ERROR, ABORT, WEIGHTS, CHECKED = "exit 99", "signal 6", "exit 2", "refused by our check"
BATCH = 50
SHAPE = Shape("bitnet-b1.58", 1, 256, 256, 2, 1, 512, True, 10000.0, 64, 1e-5, BUNDLED_MODEL)


def build(folder: Path, plain: bool) -> Path:
    """Compile the program, and the engine's library with the sanitizers before unless ``plain``; the program."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = ["-DTRIT_SANITIZE=ON", "-DGGML_OPENMP=OFF", "-DGGML_LLAMAFILE=OFF"]
    steps: list[list[str | Path]] = [
        ["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *settings],
        ["cmake", "--build", folder, "--target", "llama", "--parallel", str(usable_cpus())],
    ]
    bin_dir, flags = folder / "bin", FLAGS.split()
    if plain:
        bin_dir, flags, steps = ENGINE_BIN, ["-O1"], []
    includes = [f"-I{ENGINE_DIR / 'include'}", f"-I{ENGINE_DIR / 'ggml' / 'include'}"]
    links = [f"-L{bin_dir}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{bin_dir}"]
    program = folder / "load"
    steps.append(["c++", "-std=c++17", *flags, *includes, ROOT / "tests/fuzz/load.cpp", *links, "-o", program])
    for step in steps:
        if call(step) != EXIT_OK:
            raise TritError(f"{step[0]} failed; see above")
    return program


def seeds(folder: Path) -> list[bytes]:
    """One valid model of each encoding and two types of head."""
    files = []
    pairs = (("i2_s", "q6_k"), ("tq2_0", "f16"), ("tq1_0", "q8_0"), ("q2_0", "q4_k"), ("i2_s", "f16"))
    for name, head in (*pairs, ("tl1", "f16"), ("tl2", "q8_0")):
        path = folder / f"{name}-{head}.gguf"
        generate(name, SHAPE, ENCODINGS[name], head, path)
        files.append(path.read_bytes())
    return files


def results(
    program: Path, files: Sequence[bytes], seed: int, numbers: range, checked: bool = True
) -> Iterator[tuple[int, str, str]]:
    """(number, how it ended, why) of damaged files of a seed; ``checked``: our check stands in front."""
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, len(numbers), BATCH):
            names = {}
            for i in numbers[begin : begin + BATCH]:
                path = Path(folder) / f"{i}.gguf"
                path.write_bytes(damaged(files, seed, i))
                if checked and (reason := refused(path)):
                    path.unlink()
                    yield i, CHECKED, reason
                    continue
                names[str(path)] = i
            environment = {**os.environ, **OPTIONS, "GGML_NO_BACKTRACE": "1"}
            listed = "".join(f"{name}\n" for name in names)
            done = subprocess.run(
                [str(program)], input=listed, stdout=subprocess.PIPE, text=True, errors="replace", env=environment
            )
            for line in done.stdout.splitlines():
                name, how, why = line.split("\t", 2)
                yield names[name], how, why
                Path(name).unlink()


def refused(path: Path) -> str | None:
    """What our check says of a file that it refuses; None if the engine gets it."""
    try:
        check_loadable(path)
    except UserError as error:
        return str(error)
    return None


def damaged(files: Sequence[bytes], seed: int, number: int) -> bytes:
    """File number ``number`` of a seed."""
    rng = Random(f"{seed}/{number}")
    return mutate_gguf(rng.choice(files), rng)


def place(why: str) -> str:
    """What tells one kind of end from another: numbers and names of this file's tensors taken out."""
    return re.sub(r"'[^']*'|0x[0-9a-f]+|==\d+==|\b\d+\b", "_", why)[:160]


def main(argv: Sequence[str] | None = None) -> int:
    """Build, run, report; exit 1 if anything but loading, refusing and aborting was seen."""
    parser = ArgumentParser(prog="python -m tests.fuzz.engine", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", type=a_path, required=True, help="folder to compile in, kept for the next run")
    parser.add_argument("--no-build", action="store_true", help="take the program that is there")
    parser.add_argument("--plain", action="store_true", help="the engine that set-up has built, without the sanitizers")
    parser.add_argument("--unchecked", action="store_true", help="also files that our own check refuses")
    parser.add_argument("--count", type=whole(1), default=20_000)
    parser.add_argument("--start", type=whole(0), default=0, help="first input, to run slices beside each other")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--keep", type=a_path, metavar="DIR", help="where files that failed go")
    args = parser.parse_args(argv)
    program = args.build / "load" if args.no_build else build(args.build, args.plain)
    ends: Counter[str] = Counter()
    aborts: Counter[str] = Counter()
    failures: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = seeds(Path(folder))
    numbers = range(args.start, args.start + args.count)
    for number, how, why in results(program, files, args.seed, numbers, not args.unchecked):
        ends[how] += 1
        if how == ABORT and args.unchecked:
            aborts[place(why)] += 1
            print(f"{number}: abort: {why[:300]}", flush=True)
        elif how not in {"loaded", "refused", WEIGHTS, CHECKED}:
            failures.setdefault(f"{how}: {place(why) if how != MEMORY_ERROR else why[:600]}", []).append(number)
            print(f"{number}: FAILURE: {how}: {why}", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{args.seed}-{number}.gguf").write_bytes(damaged(files, args.seed, number))
        if sum(ends.values()) % 500 == 0:
            print(dict(ends), flush=True)
    print(f"{sum(ends.values())} files of seed {args.seed}: {dict(ends)}")
    for text, count in aborts.most_common():
        print(f"{count:6} x abort: {text}")
    for text, numbers in failures.items():
        print(f"{len(numbers):6} x FAILURE {text}; inputs {numbers[:5]}")
    return EXIT_FAILED if failures else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
