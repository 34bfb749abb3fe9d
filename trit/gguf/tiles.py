# SPDX-License-Identifier: MIT
"""TL1 and TL2 of bitnet.cpp: matrices cut into tiles whose sizes stand in kernel_config.ini, not in the model file.

A matrix [m, k] goes through the file tile by tile (``bm`` rows, ``bk`` columns), inside a tile by strips of ``bmm``
rows. TL1 stores pairs of weights as an index 3 a + b + 4; TL2 stores triples as |9 a + 3 b + c| and a sign bit, and the
columns behind the last whole ``bk`` as pairs. Orders as in bitnet.cpp's utils/convert-hf-to-gguf-bitnet.py.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.gguf.decode import Bytes, Decoded, Ternary

# Strips of TL2 and of its rest have 32 rows, and its vectors hold four groups of 8 rows in this order.
TL2_STRIP = 32
TL2_ROW_GROUPS = (0, 2, 1, 3)
# Columns of a vector: TL1 has 256 / bmm, TL2 6 (two triples); signs come 24 columns at a time; the rest 32 x 4.
TL2_VECTOR, TL2_SIGNS, REST_TILE = 6, 24, 32


MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of one matrix shape: rows and columns of a tile, rows of a strip."""

    rows: int
    columns: int
    strip: int


def read_kernel_config(path: Path) -> dict[tuple[int, int], Tiles]:
    """Matrix shape (m, k) -> its tiles, from bitnet.cpp's include/kernel_config.ini.

    Raises:
        UserError: not such a file; names it.
    """
    check_input(path, MAX_CONFIG_BYTES)
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        tiles = {}
        for section in parser.sections():
            m, k, bm, bk, bmm = (parser.getint(section, key) for key in ("m", "k", "bm", "bk", "bmm"))
            if min(m, k, bm, bk, bmm) < 1:
                raise ValueError(f"{section} holds a number below 1")
            tiles[m, k] = Tiles(bm, bk, bmm)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give --kernel-config its place") from None
    except (UnicodeDecodeError, configparser.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a kernel_config.ini of bitnet.cpp ({reason}); see --kernel-config") from None
    if not tiles:
        raise UserError(f"{path}: has no [Kernels_0] or other section with m, k, bm, bk and bmm")
    return tiles


def decode_tiled(layout: str, data: Bytes, scale: float, n: int, k: int, tiles: Tiles, name: str) -> Decoded:
    """Decode a TL1 or TL2 tensor.

    Args:
        layout: "bitnet_tl1" or "bitnet_tl2".
        data: uint8, its codes.
        scale: Its scale, which stands beside or behind the codes.
        n: Rows.
        k: Columns.
        tiles: Of this shape.
        name: The tensor's, for messages.

    Raises:
        UserError: the tiles do not divide the matrix, or an index means no weights; names the tensor.
    """
    values = (_tl1 if layout == "bitnet_tl1" else _tl2)(data, n, k, tiles, name)
    if not np.isfinite(scale) or scale < 0:
        raise UserError(f"{name}: has a scale of {scale:g}, so it is damaged or no {layout}")
    return Decoded(values, np.full((1, 1), scale, dtype=np.float32))


def _check(name: str, n: int, k: int, tiles: Tiles, fit: bool) -> None:
    if not fit:
        sizes = f"bm {tiles.rows}, bk {tiles.columns}, bmm {tiles.strip}"
        raise UserError(f"{name}: tiles of {sizes} do not divide {n}x{k}; give the --kernel-config it was made with")


def _pairs(indices: Bytes, name: str) -> Ternary:
    """Indices 3 a + b + 4 [n, c] -> values [n, 2 c]."""
    if indices.max(initial=0) > 8:
        raise UserError(
            f"{name}: holds the pair index {indices.max()}, which means no weights: the file is damaged, or "
            "--kernel-config is not the one that it was made with"
        )
    high, low = np.divmod(indices.astype(np.int8), 3)
    return np.stack([high - 1, low - 1], axis=-1, dtype=np.int8).reshape(len(indices), -1)


def _nibbles(packed: Bytes) -> Bytes:
    """A last axis of two: the upper, then the lower half of every byte."""
    return np.stack([packed >> 4, packed & 15], axis=-1)


def _tl1(data: Bytes, n: int, k: int, tiles: Tiles, name: str) -> Ternary:
    """Bytes [n/bm][k/bk][bm/bmm][bk/by][bmm/16][by/4][16], by = 256 / bmm; a byte is two pairs of one row."""
    bm, bk, strip = tiles.rows, tiles.columns, tiles.strip
    by = 256 // strip
    _check(name, n, k, tiles, strip % 16 == 0 and by % 4 == 0 and not (n % bm or k % bk or bm % strip or bk % by))
    ordered = _nibbles(data[: n * k // 4].reshape(n // bm, k // bk, bm // strip, bk // by, strip // 16, by // 4, 16))
    return _pairs(ordered.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(n, k // 2), name)


def _strips(packed: Bytes) -> Bytes:
    """Bytes [n/bm][k/bk][bm/32][c][32] of two indices each -> indices [n, columns], rows back in order."""
    groups = packed.reshape(*packed.shape[:4], 4, 8)[..., TL2_ROW_GROUPS, :].reshape(packed.shape)
    ordered: Bytes = _nibbles(groups).transpose(0, 2, 4, 1, 3, 5)
    return ordered.reshape(packed.shape[0] * packed.shape[2] * TL2_STRIP, -1)


def _tl2(data: Bytes, n: int, k: int, tiles: Tiles, name: str) -> Ternary:
    """The triples of all tiles, then all their signs, then the rest of the columns as pairs."""
    bm, bk = tiles.rows, tiles.columns
    main, rest = k - k % bk, k % bk
    fit = tiles.strip == TL2_STRIP and not (n % bm or bm % TL2_STRIP or bk % TL2_SIGNS or rest % REST_TILE)
    sizes = (n * main // 6, n * main // 24, n * rest // 4)
    _check(name, n, k, tiles, fit and sum(sizes) <= len(data))
    codes, signs, pairs = np.split(data[: sum(sizes)], np.cumsum(sizes)[:2])
    grid = (n // bm, main // bk, bm // TL2_STRIP)
    magnitudes = _strips(codes.reshape(*grid, bk // TL2_VECTOR, TL2_STRIP))
    if magnitudes.max(initial=0) > 13:
        raise UserError(
            f"{name}: holds the triple index {magnitudes.max()}, which means no weights: the file is damaged, or "
            "--kernel-config is not the one that it was made with"
        )
    # A word belongs to rows p and 16 + p of a strip; bit 15 - i is column i / 2 of eight, row p + 16 (i % 2).
    words = np.ascontiguousarray(signs).view("<u2").reshape(*grid, bk // TL2_SIGNS, TL2_STRIP // 2)
    shifts = np.arange(15, -1, -1, dtype=np.uint16)
    bits = (words[..., None] >> shifts & 1).astype(np.int8).reshape(*words.shape, 8, 2)
    negative = bits.transpose(0, 2, 6, 4, 1, 3, 5).reshape(n, main // 3)
    signed = np.where(negative, -magnitudes.view(np.int8), magnitudes.view(np.int8))
    # 9 a + 3 b + c with a, b, c in -1, 0, 1; adding 13 makes the digits 0, 1, 2.
    digits = signed + np.int8(13)
    triples = np.stack([digits // 9 - 1, digits // 3 % 3 - 1, digits % 3 - 1], axis=-1, dtype=np.int8).reshape(n, main)
    if not rest:
        return triples
    return np.concatenate([triples, _pairs(_strips(pairs.reshape(n // bm, rest // 32, bm // 32, 8, 32)), name)], axis=1)
