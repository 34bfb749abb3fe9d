# SPDX-License-Identifier: MIT
"""The error after each block: hidden states of the engine, running the file cut off behind that block.

A cut file has the first blocks of the original and its last norm; the engine then answers with normed hidden states.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.engine.server import Server
from trit.verify import engine
from trit.verify.reference import Reference
from trit.verify.report import Check, judged
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

NOISE_FACTOR = 3.0
# Quantiles of the engine's errors, and of float32's that they are judged by. A value half way between two integers
# moves its token and those behind it: where half of the tokens are moved, the others still tell.
SHARES = ((1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 3 / 4))
# Relative error that summing in float32 in another order explains.
FLOOR = 1e-5
# Up to this many blocks all are looked at, else the powers of two and the last.
ALL_BLOCKS = 4


def truncate(file: GgufFile, blocks: int, target: Path) -> None:
    """Write a copy of a file with only its first blocks."""
    block = re.compile(r"blk\.(\d+)\.")
    kept = []
    for entry in file.entries():
        match = block.match(entry.name)
        if match is None or int(match[1]) < blocks:
            kept.append(entry)
    head = file.header_bytes(blocks)
    struct.pack_into("<Q", head, 8, len(kept))
    offset = 0
    for entry in kept:
        name = entry.name.encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(entry.dimensions))
        head += struct.pack(f"<{len(entry.dimensions)}QIQ", *entry.dimensions, entry.type, offset)
        offset += entry.span
    with target.open("wb") as out, file.path.open("rb") as source:
        out.write(head + bytes(-len(head) % file.alignment))
        for entry in kept:
            source.seek(entry.offset)
            data = source.read(entry.span)
            out.write(data + bytes(entry.span - len(data)))


def chosen_blocks(count: int) -> list[int]:
    """Behind which blocks to look."""
    if count <= ALL_BLOCKS:
        return list(range(1, count + 1))
    powers = [1 << i for i in range(count.bit_length()) if 1 << i < count]
    return [*powers, count]


def errors(found: Floats, wanted: Floats) -> Floats:
    """|found - wanted| / |wanted| of every token of [sequences, length, hidden]."""
    lengths = np.linalg.norm(wanted, axis=-1)
    return np.asarray(np.linalg.norm(found - wanted, axis=-1) / lengths).reshape(-1)


def check_layers(
    reference: Reference,
    file: GgufFile,
    sequences: Sequence[Sequence[int]],
    whole: Server,
    folder: Path,
    threads: int,
) -> list[Check]:
    """One check for each chosen block; ``whole`` is a server of hidden states of the whole file."""
    wanted = reference.hidden(sequences)
    with reference.in_float32():
        rounded = reference.hidden(sequences)
    with reference.without_rounding():
        plain = reference.hidden(sequences)
    checks = []
    for blocks in chosen_blocks(file.blocks):
        if blocks == file.blocks:
            found = engine.hidden(whole, sequences)
        else:
            cut = folder / f"first-{blocks}-blocks.gguf"
            truncate(file, blocks, cut)
            with engine.hidden_server(cut, threads, len(sequences[0])) as server:
                found = engine.hidden(server, sequences)
            cut.unlink()
        here = wanted[blocks - 1]
        others = (errors(states[blocks - 1], here) for states in (rounded, plain))
        checks.append(judge(blocks, errors(np.stack(found), here), *others))
    return checks


def judge(blocks: int, error: Floats, noise: Floats, plain: Floats) -> Check:
    """Judge the engine's errors by those of the reference in float32; ``plain``: without the rounding to int8."""
    shares = [share for share, _ in SHARES]
    got = [float(value) for value in np.quantile(error, shares)]
    bounds = [max(FLOOR, NOISE_FACTOR * float(np.quantile(noise, share))) for _, share in SHARES]
    without = [float(value) for value in np.quantile(plain, shares)]
    most = float(error.max())
    return judged(
        f"layer {blocks}",
        all(value <= bound for value, bound in zip(got, bounds, strict=True)),
        f"relative error: {_list(got)} at 1/8, 1/4 and 1/2 of {error.size} tokens, largest {most:.1e}; leaving out the "
        f"rounding to int8 would be {without[-1]:.1e}",
        f"at most {_list(bounds)}",
        errors=got, largest=most, bounds=bounds, float32_median=float(np.median(noise)), without_rounding=without,
    )  # fmt: skip


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1e}" for value in values)
