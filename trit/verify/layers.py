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
from trit.verify import engine, noise
from trit.verify.reference import MORE_RUNS, Reference
from trit.verify.report import PASSED, Check, judged
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

NOISE_FACTOR = 3.0
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
    chosen = [blocks for blocks in chosen_blocks(file.blocks) if blocks >= file.least_blocks]

    def states() -> list[Floats]:
        every = reference.hidden(sequences)
        return [every[blocks - 1] for blocks in chosen]

    runs = [states(), *reference.runs(states)]
    with reference.without_rounding():
        plain = states()
    found = []
    for blocks in chosen:
        if blocks == file.blocks:
            found.append(np.stack(engine.hidden(whole, sequences)))
            continue
        cut = folder / f"first-{blocks}-blocks.gguf"
        truncate(file, blocks, cut)
        with engine.hidden_server(cut, threads, len(sequences[0])) as server:
            found.append(np.stack(engine.hidden(server, sequences)))
        cut.unlink()
    near = [noise.nearest(noise.all_distances(each, errors)) for each in zip(*runs, found, strict=True)]

    def judged_by(more: Sequence[Sequence[Floats]]) -> list[Check]:
        return [
            judge(blocks, np.min([error, *(run[i] for run in more)], axis=0), others, errors(plain[i], runs[0][i]))
            for i, (blocks, (error, others)) in enumerate(zip(chosen, near, strict=True))
        ]

    checks = judged_by([])
    if all(check.status == PASSED for check in checks):
        return checks
    return judged_by(reference.runs(lambda: [errors(*pair) for pair in zip(found, states(), strict=True)], MORE_RUNS))


def judge(blocks: int, error: Floats, others: Floats, plain: Floats) -> Check:
    """Judge the engine's errors by those of the reference's runs; ``plain``: of it without the rounding to int8."""
    found = noise.judge(error, others, plain, NOISE_FACTOR, FLOOR)
    without = [float(value) for value in np.quantile(plain, noise.SHARES)]
    return judged(
        f"layer {blocks}",
        found.passed,
        f"relative error of {error.size} tokens: {found.measured}; leaving out the rounding to int8 would be "
        f"{without[-1]:.1e}",
        found.bounds,
        errors=found.shares, largest=found.largest, float32_median=float(np.median(others)), without_rounding=without,
        **found.values(),
    )  # fmt: skip
