# SPDX-License-Identifier: MIT
"""What utils/codegen_tl1.py and codegen_tl2.py do: bitnet.cpp's flags, its rules, our kernels.

There a tile (BM, BK, bm) belongs to a matrix of a model, and a kernel to a tile and a matrix. Here a kernel takes any
matrix, so every different tile gives one source file.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

from trit.base.errors import EXIT_OK, UserError
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import ROOT
from trit.models.shapes import SHAPES, matrices
from trit.tune.codegen.configuration import PANEL_ROWS, TABLE_ISA_OF_TIER, Table
from trit.tune.codegen.render import write

# bitnet.cpp's names and its order of each model's matrices, [rows, inputs]: a list of tiles is in this order.
MODELS = {
    "bitnet_b1_58-large": [(1536, 4096), (1536, 1536), (4096, 1536)],
    "bitnet_b1_58-3B": [(3200, 8640), (3200, 3200), (8640, 3200)],
    "Llama3-8B-1.58-100B-tokens": [(14336, 4096), (4096, 14336), (1024, 4096), (4096, 4096)],
}
BLOCKS = {"tl1": (32, 64), "tl2": (32,)}


def shapes_of(model: str) -> list[tuple[int, int]]:
    """The model's matrices, each shape once."""
    for name, shapes in MODELS.items():
        if model.lower() == name.lower():
            return shapes
    if model in SHAPES:
        return list(dict.fromkeys(matrices(SHAPES[model]).values()))
    raise UserError(f"--model {model}: expected one of {', '.join([*MODELS, *SHAPES])}")


def check(packing: str, rows: int, inputs: int, tile: tuple[int, int, int]) -> None:
    """bitnet.cpp's rules for a tile (BM, BK, bm) of a matrix; raises UserError with the one that is broken."""
    big_m, big_k, block = tile
    matrix = f"the matrix of {rows} x {inputs}"
    if big_m < 1 or big_k < 1:
        raise UserError(f"--BM {big_m} --BK {big_k}: expected numbers from 1 on for {matrix}")
    if rows % big_m:
        raise UserError(f"--BM {big_m}: expected a divisor of the {rows} rows of {matrix}")
    if packing == "tl1" and inputs % big_k:
        raise UserError(f"--BK {big_k}: expected a divisor of the {inputs} inputs of {matrix}")
    if packing == "tl2" and inputs % big_k % 32:
        raise UserError(f"--BK {big_k}: {inputs} % {big_k} = {inputs % big_k} of {matrix}, expected a multiple of 32")
    if block not in BLOCKS[packing]:
        raise UserError(f"--bm {block}: expected {' or '.join(map(str, BLOCKS[packing]))} for {packing}")
    if big_m % block:
        raise UserError(f"--bm {block}: expected a divisor of BM = {big_m} for {matrix}")


def configuration(packing: str, tier: str, tile: tuple[int, int, int]) -> Table:
    """Our kernel for a tile: rows in whole panels, inputs in whole steps of a panel, at least a register of rows."""
    big_m, big_k, block = tile
    table = Table(packing, tier)
    return Table(
        packing, tier, _up(big_m, PANEL_ROWS), _up(big_k, table.step_inputs), max(block, table.isa.register_bytes)
    )


def tl1(argv: Sequence[str] | None = None) -> int:
    """The command ``utils/codegen_tl1.py``."""
    return _write("tl1", argv)


def tl2(argv: Sequence[str] | None = None) -> int:
    """The command ``utils/codegen_tl2.py``."""
    return _write("tl2", argv)


def _write(packing: str, argv: Sequence[str] | None) -> int:
    """Parse bitnet.cpp's flags, check every tile, write one file for each different one."""
    args = _parser(packing).parse_args(argv)
    shapes = shapes_of(args.model)
    lists = [_numbers(flag, getattr(args, flag), shapes) for flag in ("BM", "BK", "bm")]
    tiles = [(big_m, big_k, block) for big_m, big_k, block in zip(*lists, strict=True)]
    for (rows, inputs), tile in zip(shapes, tiles, strict=True):
        check(packing, rows, inputs, tile)
    made = {tile: configuration(packing, args.tier, tile) for tile in tiles}
    for kernel in dict.fromkeys(made.values()):
        print(write(kernel, args.outdir))
    print(f"to compile them in: cmake -S . -B build -DTRIT_KERNELS_DIR={args.outdir.resolve()}; cmake --build build")
    return EXIT_OK


def _parser(packing: str) -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=f"trit codegen-{packing}",
        description=f"Write the {packing} kernels for tiles in bitnet.cpp's way of naming them: one BM, BK and bm for "
        "each of the model's matrices, with commas between them.",
    )
    parser.add_argument("--model", required=True, help=", ".join([*MODELS, *SHAPES]))
    parser.add_argument("--BM", required=True, help="rows of a call; divides the matrix's rows")
    parser.add_argument("--BK", required=True, help="inputs whose tables are there at the same time")
    parser.add_argument("--bm", required=True, help=f"rows in registers: {' or '.join(map(str, BLOCKS[packing]))}")
    arm = platform.machine().lower() in ("aarch64", "arm64")
    parser.add_argument("--tier", default="neon" if arm else "avx2", help=", ".join(TABLE_ISA_OF_TIER))
    parser.add_argument("--outdir", type=a_path, default=ROOT / "build" / "generated", help="(default: %(default)s)")
    return parser


def _numbers(flag: str, text: str, shapes: Sequence[tuple[int, int]]) -> list[int]:
    matrices_text = ", ".join(f"{rows}x{inputs}" for rows, inputs in shapes)
    expected = f"expected {len(shapes)} whole numbers with commas, one for each of {matrices_text}"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--{flag} {text}: {expected}") from error
    if len(numbers) != len(shapes):
        raise UserError(f"--{flag} {text}: {expected}")
    return numbers


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
