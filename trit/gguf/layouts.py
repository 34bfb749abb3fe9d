# SPDX-License-Identifier: MIT
"""The table of ternary layouts that GGUF files hold: our encodings, and those of other engines, which are only read.

Standard library only: ``run_inference.py`` looks here before it starts the engine. A new layout of another engine is a
row of ``LAYOUTS`` and a function in ``trit.gguf.decode``; docs/formats.md says where each one's bytes are established.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trit.gguf.encoding_table import BITNET_CPP, TABLE, TERNARY, EncodingRow

PUBLISHED_I2_S = "i2_s"
# What the published layout is where rows are no whole blocks (3B's ffn_down): the packer does not see rows.
FLAT_I2_S = "i2_s_flat"
# --i2-s-layout VALUE -> name of the layout; nothing in a file tells these apart.
I2_S_LAYOUTS = {"published": PUBLISHED_I2_S, "arm": "i2_s_arm", "rows4": "i2_s_rows4"}


@dataclass(frozen=True)
class Layout:
    """One way in which the bytes of a GGUF tensor mean a ternary matrix [n, k].

    Attributes:
        name: Our name.
        ids: Tensor type numbers under which files carry it.
        writer: Who writes it.
        columns: k is a multiple of this.
        sizes: (n, k) -> sizes in bytes, without padding, that such a tensor can have in a file.
        scales: What shares a scale: "tensor", "row" or "group of N".
        loads: Whether our engine loads it as it is.
        outtype: The --outtype to convert it to.
        holds_two: Whether a weight can be +2.
    """

    name: str
    ids: tuple[int, ...]
    writer: str
    columns: int
    sizes: Callable[[int, int], tuple[int, ...]]
    scales: str
    loads: bool
    outtype: str
    holds_two: bool = False


def _blocks(block: int, block_bytes: int, row_bytes: int = 0, tail_bytes: int = 0) -> Callable[..., tuple[int, ...]]:
    """Sizes of rows of blocks, each row behind a header, all of them before a tail."""
    return lambda n, k: (n * (row_bytes + k // block * block_bytes) + tail_bytes,)


def _tl1_sizes(n: int, k: int) -> tuple[int, ...]:
    """As the Python converter writes it (the scale is the next tensor), and with 32 bytes for the scale behind it."""
    return n * k // 4, n * k // 4 + 32


def _tl2_sizes(n: int, k: int) -> tuple[int, ...]:
    """The converter pads to 256 columns of 2 bits and the rest of 5 bits for three, whatever is used of it."""
    codes = (k - 256) * n // 3 * 5 // 8 + 64 * n
    padded = -(-codes // 32) * 32
    return codes, padded + 32


def _own(row: EncodingRow) -> Layout:
    """The layout that an encoding of ours is."""
    scales = "tensor" if row.scale_at is None else f"group of {row.block}"
    sizes = _blocks(row.block, row.block_bytes, 0, row.tail_bytes)
    return Layout(
        row.name, (row.ggml_type,), row.writer, row.block, sizes, scales, True, row.name, holds_two=row.holds_two
    )


PRISM = "PrismML's fork of llama.cpp"
IK = "ik_llama.cpp"
SHERRY = "AngelSlim's fork of llama.cpp (Sherry, 1.25 bits)"

LAYOUTS: dict[str, Layout] = {
    row.name: row
    for row in (
        *(_own(TABLE[name]) for name in TERNARY),
        Layout(
            "i2_s_flat",
            (36,),
            f"{BITNET_CPP}, with blocks across rows",
            1,
            lambda n, k: (n * k // 4 + 32,) if k % 128 and n * k % 128 == 0 else (),
            "tensor",
            False,
            "q2_0",
        ),
        Layout("i2_s_arm", (36,), "bitnet.cpp built for ARM", 64, _blocks(64, 16, 0, 32), "tensor", False, "i2_s"),
        Layout(
            "i2_s_rows4",
            (36,),
            "bitnet.cpp built without ACT_PARALLEL",
            1,
            lambda n, k: (n * k // 4 + 32,) if n % 4 == 0 else (),
            "tensor",
            False,
            "i2_s",
        ),
        Layout(
            "q2_0_g128",
            (42,),
            f"{PRISM}, before v7",
            128,
            _blocks(128, 34),
            "group of 128",
            False,
            "q2_0",
            holds_two=True,
        ),
        Layout("pq2_0", (142,), PRISM, 128, _blocks(128, 34), "group of 128", False, "q2_0", holds_two=True),
        Layout("ptq1_0", (143,), PRISM, 128, _blocks(128, 28), "group of 128", False, "q2_0"),
        # Its files have the number that llama.cpp gave to q2_0 later, newer ones the next; sizes tell them apart.
        Layout("stq1_0", (42, 43), SHERRY, 256, _blocks(256, 42), "group of 256", False, "tq2_0"),
        Layout("iq2_bn", (135,), IK, 64, _blocks(64, 16, 4), "row", False, "i2_s"),
        Layout("iq1_bn", (134,), IK, 64, _blocks(64, 13, 2), "row", False, "i2_s"),
        # Its number and its n * k / 4 bytes of codes are those of tl1: the length of the tail tells them apart.
        Layout("bitnet_tl1", (38,), f"{BITNET_CPP} for ARM (TL1)", 64, _tl1_sizes, "tensor", False, "i2_s"),
        Layout("bitnet_tl2", (39,), f"{BITNET_CPP} for x86 (TL2)", 32, _tl2_sizes, "tensor", False, "i2_s"),
    )
}
TILED = ("bitnet_tl1", "bitnet_tl2")
# Other engines' layouts that names of files speak of, converted by set-up; best first. Not bitnet.cpp's TL1 and TL2,
# which their files' headers tell from tl1 and tl2: their tile sizes are not in the file.
NAMED = tuple(
    row.name
    for row in LAYOUTS.values()
    if row.name not in (*TABLE, *TILED) and set(row.ids) - {TABLE[name].ggml_type for name in TERNARY}
)

# Of two values: not ternary, but the engine loads them, and models are made for them.
BINARY = ("q1_0",)

# llama.cpp's types that are not ternary, all of which the engine loads: number -> (name, weights, bytes) of a block.
PLAIN: dict[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    9: ("q8_1", 32, 36),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
}


@dataclass(frozen=True)
class Refused:
    """A layout whose meaning is known well enough to name it, not to read it.

    Attributes:
        sizes: As in :class:`Layout`; a size that fits makes the guess certain enough to say it.
    """

    ids: tuple[int, ...]
    what: str
    sizes: Callable[[int, int], tuple[int, ...]] | None = None


_SEQ = (
    "q2_0c, the four levels (-1.5, -0.5, +0.5, +1.5) of Tencent's 2-bit models such as Hy-MT 2bit: they are not "
    "ternary, take the 1.25-bit file"
)
REFUSED: tuple[Refused, ...] = (
    # Its number depends on what its files' engine had already.
    Refused(tuple(range(41, 48)), _SEQ, _blocks(512, 130)),
    Refused((34,), "iq1_bn of ik_llama.cpp in 2024, without its scales", _blocks(64, 13)),
    Refused((35,), "iq2_bn of ik_llama.cpp in 2024, without its scales", _blocks(64, 16)),
    Refused((134,), "iq1_bn of ik_llama.cpp in 2024, without its scales", _blocks(64, 13)),
    Refused((135,), "iq2_bn of ik_llama.cpp in 2024, without its scales", _blocks(64, 16)),
    Refused((142,), "iq2_tn of ik_llama.cpp in 2024", _blocks(256, 64, 4)),
    Refused((143,), "iq1_tn of ik_llama.cpp in 2024", _blocks(64, 13, 2)),
    Refused((335,), "iq2_bn_r4 of ik_llama.cpp, its iq2_bn with four rows interleaved; convert from the iq2_bn file"),
    Refused(
        (42,), "neither q2_0 of llama.cpp (group 64), PrismML's older one (group 128) nor stq1_0; perhaps a q2b1 file"
    ),
    Refused((37,), "not tl2 by its size; type 37 was also i8_s of bitnet.cpp"),
    Refused((31, 32, 33), "a q4_0 repacked for ARM, which llama.cpp has removed"),
    Refused((36,), "not i2_s by its size; type 36 was also q4_0 repacked for ARM and q8_K64 of ik_llama.cpp"),
    Refused((38, 39), "neither tl1 nor TL1 or TL2 of bitnet.cpp by its size"),
    Refused((142, 143), "not pq2_0 or ptq1_0 of PrismML's fork by its size"),
    Refused((*range(97, 100), *range(133, 160), *range(202, 400)), "probably a type of ik_llama.cpp"),
)


def guess(ggml_type: int, n: int, k: int, span: int, alignment: int) -> str:
    """What a tensor that fits no layout may be: one clause, without the tensor's name."""
    plain = (row.what for row in REFUSED if ggml_type in row.ids and not row.sizes)
    return named_by_size(ggml_type, n, k, span, alignment) or next(plain, "of no engine that is known here")


def named_by_size(ggml_type: int, n: int, k: int, span: int, alignment: int) -> str | None:
    """What a tensor of a refused layout is, if its size says so."""
    for row in REFUSED:
        sizes = row.sizes(n, k) if ggml_type in row.ids and row.sizes else ()
        if any(fits(size, span, alignment) for size in sizes):
            return row.what
    return None


def fits(size: int, span: int, alignment: int) -> bool:
    """Whether ``size`` bytes and their padding make up the ``span`` to the next tensor (or to the end of the file)."""
    return 0 < size <= span < size + alignment
