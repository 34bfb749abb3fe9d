# SPDX-License-Identifier: MIT
"""The generated kernels' part of a search: compiled and looked at before it, the winners built in after it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from pathlib import Path
from statistics import median

from trit.engine import kept_kernels
from trit.engine.tuning_file import Shape
from trit.tune.library import Library, build_library
from trit.tune.recipe import cmake_program
from trit.tune.report import contest_line
from trit.tune.search import Contest, contest
from trit.tune.timer import Product, Timer
from trit.tune.tuner import PANEL_ROWS, PREFILL_TOKENS
from trit.tune.variants import variants

# Part of a search's time in which compilers may be started.
COMPILE_PART = 1 / 3
# Rounds of the first look at a variant, and how much slower than its preset noise may make it seem.
ROUNDS = 12
SLACK = 0.02
# Part of the search's time that goes to the kernels for few tokens.
TABLES_PART = 0.1


def compile_for(program: Path, shapes: Iterable[Shape], seconds: float) -> Library:
    """Compile the variants for these shapes and this CPU's tier; says what came of it.

    Args:
        program: ``trit-tune``, in the folder ``bin`` of the engine's build.
        shapes: (n, k) of the matrices.
        seconds: of the whole search.
    """
    start = time.monotonic()
    with Timer(program.parent, megabytes=1) as timer:
        wanted = variants(timer.tier, shapes)
    library = build_library(wanted, program.resolve().parent.parent, seconds * COMPILE_PART)
    if library.compiled:
        print(f"generated variants: {library.compiled} compiled in {time.monotonic() - start:.1f} s", flush=True)
    if library.note:
        print(f"note: generated variants: {library.note}; the search goes on without them", flush=True)
    return library


def first_look(
    timer: Timer, library: Library, shapes: Collection[Shape], threads: int, seconds: float, without: Collection[str]
) -> dict[str, str]:
    """Settle what does not depend on a matrix's shape, so that less is left to the search.

    Args:
        timer: measures; kernels that are not worth more of it are taken out.
        library: what it has besides the engine's kernels.
        shapes: (n, k) of the matrices.
        threads: on which.
        seconds: of the whole search.
        without: kernels to leave out.

    Returns:
        "tl1" and "tl2" -> the kernel for few tokens, where one beats the usual one.
    """
    out = {*without, *hopeless(timer, library, shapes, threads)}
    timer.kernels = [kernel for kernel in timer.kernels if kernel.name not in out]
    contests = best_tables(timer, shapes, threads, seconds * TABLES_PART, out)
    for one in contests:
        print(contest_line(one), flush=True)
    return {one.default: one.winner for one in contests if one.winner != one.default}


def hopeless(timer: Timer, library: Library, shapes: Collection[Shape], threads: int) -> set[str]:
    """The variants that a few rounds on the largest matrix show to be slower than their presets.

    A contest has to be long because it decides between ways that are nearly alike; these are not worth its time.
    """
    n, k = _largest(shapes)
    panels = {kernel.name: f"{kernel.name}@{min(kernel.panels, -(-n // PANEL_ROWS))}:1" for kernel in timer.kernels}
    ways = panels | {name: name for names in timer.tables.values() for name in names}
    slow = set()
    for preset in dict.fromkeys(variant.preset for variant in library.variants):
        names = {ways[v.name]: v.name for v in library.variants if v.preset == preset and v.name in ways}
        product = Product(n, k, PREFILL_TOKENS if preset == "lookup" else 1, threads)
        times = timer.rounds(product, [preset, *names], ROUNDS) if names else {}
        for way in names.keys() & times.keys() if preset in times else ():
            ratios = [own / other for own, other in zip(times[way], times[preset], strict=True)]
            if median(ratios) > 1 + SLACK:
                slow.add(names[way])
    return slow


def best_tables(
    timer: Timer, shapes: Collection[Shape], threads: int, seconds: float, without: Collection[str]
) -> list[Contest]:
    """A contest for each of TL1 and TL2: the kernel for one token of the largest matrix.

    Args:
        timer: measures.
        shapes: (n, k) of the matrices.
        threads: on which.
        seconds: budget.
        without: kernels to leave out.
    """
    product = Product(*_largest(shapes), 1, threads)
    fields = {packing: [name for name in names[1:] if name not in without] for packing, names in timer.tables.items()}
    fields = {packing: names for packing, names in fields.items() if names}
    return [contest(timer, product, packing, names, seconds / len(fields)) for packing, names in fields.items()]


def _largest(shapes: Collection[Shape]) -> Shape:
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def verdict(library: Library, known: Collection[str], used: Collection[str]) -> str:
    """The line that says what they were good for.

    Args:
        library: what was compiled.
        known: kernels that could be timed.
        used: kernels that won something.
    """
    tried = [variant.name for variant in library.variants if variant.name in known]
    won = [name for name in tried if name in used]
    return f"generated variants: {len(tried)} tried, won: {', '.join(won) or 'none, the presets stay'}"


def build_in(library: Library, build_dir: Path, used: Collection[str]) -> bool:
    """Build the engine with those kernels that are used, without those that no longer are; whether it was built."""
    old = kept_kernels.sources(build_dir)
    wanted = {name: text for name, text in {**old, **library.sources}.items() if name in used}
    if old == wanted:
        return False
    print(f"building the engine with {', '.join(wanted) or 'its presets only'}", flush=True)
    kept_kernels.keep(build_dir, wanted, cmake_program(build_dir))
    return True
