# SPDX-License-Identifier: MIT
"""Writers of every layout for the tests, and bytes by hand: plain loops from the formats' descriptions.

``rows`` is a matrix as lists of codes t + 1 (0, 1, 2; for the two-bit formats also 3), row by row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.source import Source

Rows = Sequence[Sequence[int]]


def random_rows(n: int, k: int, seed: int = 0, layout: str = "") -> list[list[int]]:
    rows: list[list[int]] = np.random.default_rng(seed).integers(0, 3, (n, k)).tolist()
    return one_zero_in_four(rows) if layout in SPARSE else rows


# Layouts that hold matrices only where one weight of four is 0.
SPARSE = ("stq1_0",)


def one_zero_in_four(rows: Rows) -> list[list[int]]:
    """The same rows, but of each four weights 16 apart one is 0, and the others are not."""
    out = [list(row) for row in rows]
    for r, row in enumerate(out):
        for b in range(0, len(row), 64):
            for p in range(b, b + 16):
                four = [p, p + 16, p + 32, p + 48]
                zero = (r + p + sum(row[c] for c in four)) % 4
                for lane, c in enumerate(four):
                    row[c] = 1 if lane == zero else 2 * (row[c] == 2 or (row[c] == 1 and lane % 2))
    return out


def f16(value: float) -> bytes:
    return struct.pack("<e", value)


def i2_s(rows: Rows, scale: float, width: int = 32) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 4 * width):
            for p in range(b, b + width):
                out.append(c[p] << 6 | c[p + width] << 4 | c[p + 2 * width] << 2 | c[p + 3 * width])
    return bytes(out) + struct.pack("<f", scale) + bytes(28)


def i2_s_flat(rows: Rows, scale: float) -> bytes:
    return i2_s([[code for row in rows for code in row]], scale)


def i2_s_arm(rows: Rows, scale: float) -> bytes:
    return i2_s(rows, scale, width=16)


def i2_s_rows4(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for r in range(0, len(rows), 4):
        for a, b, c, d in zip(*rows[r : r + 4], strict=True):
            out.append(a << 6 | b << 4 | c << 2 | d)
    return bytes(out) + struct.pack("<f", scale) + bytes(28)


def tl1(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        for p in range(0, len(c), 4):
            out.append(3 * c[p] + c[p + 1] | (3 * c[p + 2] + c[p + 3]) << 4)
    return bytes(out) + struct.pack("<f", scale) + bytes(60)


def tl2(rows: Rows, scale: float) -> bytes:
    """Every block as one number of 27 * 8 bits, least significant byte first."""
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 128):
            bits = (3 * c[b + 126] + c[b + 127]) << 168
            for i in range(42):
                total = 9 * c[b + 3 * i] + 3 * c[b + 3 * i + 1] + c[b + 3 * i + 2] - 13
                bits |= abs(total) << 4 * i
                bits |= (total < 0) << (176 + i if i < 40 else 172 + i - 40)
            out += bits.to_bytes(27, "little")
    return bytes(out) + struct.pack("<f", scale) + bytes(60)


def tq2_0(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 256):
            for half in (b, b + 128):
                for p in range(half, half + 32):
                    out.append(c[p] | c[p + 32] << 2 | c[p + 64] << 4 | c[p + 96] << 6)
            out += f16(scale)
    return bytes(out)


def _five(a: int, b: int, c: int, d: int, e: int) -> int:
    """Five trits, the first the most significant, as the smallest fraction of 256 that is not below them."""
    return ((81 * a + 27 * b + 9 * c + 3 * d + e) * 256 + 242) // 243


def tq1_0(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 256):
            for p in range(b, b + 32):
                out.append(_five(c[p], c[p + 32], c[p + 64], c[p + 96], c[p + 128]))
            for p in range(b + 160, b + 176):
                out.append(_five(c[p], c[p + 16], c[p + 32], c[p + 48], c[p + 64]))
            for p in range(b + 240, b + 244):
                out.append(_five(c[p], c[p + 4], c[p + 8], c[p + 12], 0))
            out += f16(scale)
    return bytes(out)


def ptq1_0(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 128):
            for p in range(b, b + 16):
                out.append(_five(c[p], c[p + 16], c[p + 32], c[p + 48], c[p + 64]))
            for p in range(b + 80, b + 88):
                out.append(_five(c[p], c[p + 8], c[p + 16], c[p + 24], c[p + 32]))
            for p in range(b + 120, b + 122):
                out.append(_five(c[p], c[p + 2], c[p + 4], c[p + 6], 0))
            out += f16(scale)
    return bytes(out)


def q2_0(rows: Rows, scale: float, group: int = 64) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), group):
            out += f16(scale)
            for p in range(b, b + group, 4):
                out.append(c[p] | c[p + 1] << 2 | c[p + 2] << 4 | c[p + 3] << 6)
    return bytes(out)


def q2_0_g128(rows: Rows, scale: float) -> bytes:
    return q2_0(rows, scale, group=128)


def stq1_0(rows: Rows, scale: float) -> bytes:
    """Of four weights 16 apart: the place of the 0, whether the others differ in sign from the first of them, its."""
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 256):
            halves, negative = [], []
            for g in range(64):
                four = [c[b + 64 * (g // 16) + g % 16 + 16 * lane] for lane in range(4)]
                (zero,) = (lane for lane in range(4) if four[lane] == 1)
                first, second, third = (code for code in four if code != 1)
                halves.append(4 * zero + 2 * (third != first) + (second != first))
                negative.append(first == 0)
            out += bytes(halves[g] | halves[g + 1] << 4 for g in range(0, 64, 2))
            out += bytes(sum(negative[g + i] << i for i in range(8)) for g in range(0, 64, 8))
            out += f16(scale)
    return bytes(out)


def iq1_bn(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        out += f16(scale)
        for b in range(0, len(c), 64):
            for s in range(b, b + 64, 16):
                for p in range(s, s + 15, 5):
                    out.append(_five(c[p + 4], c[p + 3], c[p + 2], c[p + 1], c[p]))
            out.append(_five(0, c[b + 63], c[b + 47], c[b + 31], c[b + 15]))
    return bytes(out)


def iq2_bn(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        out += struct.pack("<f", scale)
        for b in range(0, len(c), 64):
            for p in range(b, b + 16):
                out.append(c[p] | c[p + 16] << 2 | c[p + 32] << 4 | c[p + 48] << 6)
    return bytes(out)


def bitnet_tl1(rows: Rows, scale: float, bm: int = 128, bk: int = 64, bmm: int = 32) -> bytes:
    """Tile by tile, strip by strip, vectors of 256 / bmm columns, 16 rows at a time: two pairs of a row in a byte."""
    n, k, by = len(rows), len(rows[0]), 256 // bmm
    out = bytearray()
    for m in range(0, n, bm):
        for kk in range(0, k, bk):
            for strip in range(m, m + bm, bmm):
                for vector in range(kk, kk + bk, by):
                    for sixteen in range(strip, strip + bmm, 16):
                        for c in range(vector, vector + by, 4):
                            for row in rows[sixteen : sixteen + 16]:
                                high, low = 3 * row[c] + row[c + 1], 3 * row[c + 2] + row[c + 3]
                                out.append(high << 4 | low)
    return bytes(out)


# The rows of a strip of TL2 in the order of its bytes.
TL2_ROWS = [*range(8), *range(16, 24), *range(8, 16), *range(24, 32)]


def bitnet_tl2(rows: Rows, scale: float, bm: int = 128, bk: int = 96) -> bytes:
    """Indices of triples of the whole matrix, then their signs, then the columns that are left as pairs, then zeros."""
    n, k = len(rows), len(rows[0])
    main = k - k % bk
    indices, signs, pairs = bytearray(), bytearray(), bytearray()

    def triple(row: Sequence[int], c: int) -> int:
        return 9 * (row[c] - 1) + 3 * (row[c + 1] - 1) + row[c + 2] - 1

    for m in range(0, n, bm):
        for kk in range(0, main, bk):
            for strip in range(m, m + bm, 32):
                block = rows[strip : strip + 32]
                for c in range(kk, kk + bk, 6):
                    for r in TL2_ROWS:
                        indices.append(abs(triple(block[r], c)) << 4 | abs(triple(block[r], c + 3)))
                for c in range(kk, kk + bk, 24):
                    for r in range(16):
                        word = 0
                        for i in range(8):
                            word |= (triple(block[r], c + 3 * i) < 0) << (15 - 2 * i)
                            word |= (triple(block[r + 16], c + 3 * i) < 0) << (14 - 2 * i)
                        signs += struct.pack("<H", word)
        for kk in range(main, k, 32):
            for strip in range(m, m + bm, 32):
                block = rows[strip : strip + 32]
                for c in range(kk, kk + 32, 4):
                    for r in TL2_ROWS:
                        w = block[r]
                        pairs.append((3 * w[c] + w[c + 1]) << 4 | 3 * w[c + 2] + w[c + 3])
    data = bytes(indices + signs + pairs)
    return data + bytes((k - 256) * n // 3 * 5 // 8 + 64 * n - len(data))


# Layout -> (tensor type number, writer).
WRITERS: dict[str, tuple[int, Callable[[Rows, float], bytes]]] = {
    "i2_s": (36, i2_s),
    "i2_s_arm": (36, i2_s_arm),
    "i2_s_rows4": (36, i2_s_rows4),
    "tl1": (38, tl1),
    "tl2": (37, tl2),
    "tq1_0": (34, tq1_0),
    "tq2_0": (35, tq2_0),
    "q2_0": (42, q2_0),
    "q2_0_g128": (42, q2_0_g128),
    "pq2_0": (142, q2_0_g128),
    "ptq1_0": (143, ptq1_0),
    "stq1_0": (42, stq1_0),
    "iq1_bn": (134, iq1_bn),
    "iq2_bn": (135, iq2_bn),
    "bitnet_tl1": (38, bitnet_tl1),
    "bitnet_tl2": (39, bitnet_tl2),
}
# Bytes written by hand from docs/formats.md: layout, rows, columns, bytes, {(row, column): value}; all else is 0.
HALF = "0038"  # 0.5 as float16
VECTORS: list[tuple[str, int, int, str, dict[tuple[int, int], int]]] = [
    (
        "i2_s",
        1,
        128,
        "19" * 32 + "0000003f" + "00" * 28,
        {(0, column): -1 for column in range(32)} | {(0, column): 1 for column in range(64, 96)},
    ),
    ("i2_s_arm", 1, 64, "95" + "55" * 14 + "54" + "0000003f" + "00" * 28, {(0, 0): 1, (0, 63): -1}),
    ("i2_s_rows4", 4, 2, "1956" + "0000003f" + "00" * 28, {(0, 0): -1, (2, 0): 1, (3, 1): 1}),
    # 4 is (0, 0), 7 is (+1, 0), 3 is (0, -1).
    ("tl1", 1, 32, "4743" + "44" * 5 + "34" + "0000003f" + "00" * 60, {(0, 0): 1, (0, 5): -1, (0, 31): -1}),
    # Triplets 0, 1, 39, 40 and 41 are 9, -1, -2, -13 and -6, the pair is 2.
    (
        "tl2",
        1,
        128,
        "19" + "00" * 18 + "206d32" + "02" + "00" * 3 + "80" + "0000003f" + "00" * 60,
        {(0, 0): 1, (0, 5): -1, (0, 118): -1, (0, 119): 1}
        | {(0, 120): -1, (0, 121): -1, (0, 122): -1, (0, 123): -1, (0, 124): 1, (0, 126): -1, (0, 127): 1},
    ),
    ("q2_0", 1, 64, HALF + "54" + "55" * 14 + "95", {(0, 0): -1, (0, 63): 1}),
    ("pq2_0", 1, 128, HALF + "54" + "55" * 30 + "d5", {(0, 0): -1, (0, 127): 2}),
    # Index 0 of a four is (0, +1, +1, +1), 6 is (+1, 0, +1, -1), 7 with its sign bit is (-1, 0, +1, +1).
    (
        "stq1_0",
        1,
        256,
        "76" + "00" * 31 + "02" + "00" * 7 + HALF,
        {(0, column): 1 for column in range(256) if column % 64 >= 16 and column not in (16, 17)}
        | {(0, 0): 1, (0, 48): -1, (0, 1): -1},
    ),
    ("tq2_0", 1, 256, "56" + "55" * 62 + "15" + HALF, {(0, 0): 1, (0, 255): -1}),
    # 121 = 11111 in base 3 (all zeros): ceil(121 * 256 / 243) = 128. 202 = 21111: 213. 120 = 11110: 127.
    ("ptq1_0", 1, 128, "d5" + "80" * 22 + "7f" + "8080" + HALF, {(0, 0): 1, (0, 119): -1}),
    ("tq1_0", 1, 256, "d5" + "80" * 46 + "7f" + "80" * 4 + HALF, {(0, 0): 1, (0, 239): -1}),
    # The first weight is the lowest digit: 122 -> 129, and the last byte's fourth digit 40 + 27 = 67 -> 71.
    ("iq1_bn", 1, 64, HALF + "81" + "80" * 11 + "47", {(0, 0): 1, (0, 63): 1}),
    ("iq2_bn", 1, 64, "0000003f" + "54" + "55" * 14 + "95", {(0, 0): -1, (0, 63): 1}),
]
TILED = ("bitnet_tl1", "bitnet_tl2")
SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

Key = tuple[str, int, "int | None", Any]
Tensor = tuple[str, Sequence[int], int, bytes]


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(kind: int, element: int | None, value: Any) -> bytes:
    if kind == 8:
        return text(value)
    if kind == 9:
        assert element is not None
        items = b"".join(value_bytes(element, None, item) for item in value)
        return struct.pack("<IQ", element, len(value)) + items
    return struct.pack("<" + SCALAR[kind], value)


def write_gguf(path: Path, keys: Sequence[Key], tensors: Sequence[Tensor], alignment: int = 32) -> Path:
    """A GGUF file, version 3; shapes in numpy's order."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, element, value in keys:
        head += text(key) + struct.pack("<I", kind) + value_bytes(kind, element, value)
    data = b""
    for name, shape, kind, raw in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % alignment)
    path.write_bytes(head + bytes(-len(head) % alignment) + data)
    return path


def keys_of(header: RawHeader, **changes: Any) -> list[Key]:
    """The keys of a file; ``changes`` by the part of the name behind the last dot, None drops a key."""
    keys = []
    for key, value in header.metadata.items():
        kind, element = header.types[key]
        new = changes.get(key.rpartition(".")[2], value)
        if new is not None:
            keys.append((key, kind, element, new))
    return keys


def tensors_of(source: Source) -> list[Tensor]:
    """The tensors of a file as they are."""
    return [
        (
            item.tensor.name,
            item.tensor.shape,
            item.tensor.ggml_type,
            source.bytes(item.tensor, 0, item.nbytes).tobytes(),
        )
        for item in source.found.values()
    ]


def rewrite(source: Path, target: Path, layout: str, sparse: bool = False) -> Path:
    """A model file with i2_s matrices, with those in another layout as their engine writes it.

    With ``sparse``, or in a layout that has to have it so, one weight of four is 0.
    """
    header = read_raw_header(source)
    kind, writer = WRITERS[layout]
    opened = Source.open(source)
    tensors: list[Tensor] = []
    for item, row in zip(opened.found.values(), tensors_of(opened), strict=True):
        name, shape, _, raw = row
        if item.name != "i2_s":
            tensors.append(row)
            continue
        scale = struct.unpack_from("<f", raw, len(raw) - 32)[0]
        rows = codes(raw, *shape)
        tensors.append(
            (name, shape, kind, writer(one_zero_in_four(rows) if sparse or layout in SPARSE else rows, scale))
        )
        if layout in TILED:
            tensors.append((f"{name}_scale", (1,), 0, struct.pack("<f", scale)))
    return write_gguf(target, keys_of(header), tensors)


def codes(raw: bytes, n: int, k: int) -> list[list[int]]:
    """The codes of i2_s bytes, row by row."""
    packed = np.frombuffer(raw, np.uint8, n * k // 4).reshape(-1, 32)
    fields = [packed >> 6, packed >> 4 & 3, packed >> 2 & 3, packed & 3]
    rows: list[list[int]] = np.stack(fields, axis=1).reshape(n, k).tolist()
    return rows
