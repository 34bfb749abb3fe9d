# SPDX-License-Identifier: MIT
"""The kernels of libtrit through ctypes: descriptors of the tiers, and memory that notices who leaves it."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("TRIT_TEST_SEED", "20260101"))
TIERS = sorted(path.stem for path in (ROOT / "src" / "kernels" / "tiers").glob("*.cpp"))
# include/trit.h: TRIT_PANEL_ROWS, TRIT_PANEL_OVERREAD, TRIT_PANEL_MAX_K, trit_packing.
ROWS, OVERREAD, MAX_K = 64, 32, 1 << 18
# Those of the tiers' panel kernels, and those of table indices.
PACKINGS = {"2_bits": 0, "5_trits": 1, "1_bit": 2}
TABLE_PACKINGS = {"tl1": 3, "tl2": 4}

SUPPORTED_FN = ctypes.CFUNCTYPE(ctypes.c_int)
QUANTIZE_FN = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int)
)
I2_S_FN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
)
PANEL_FN = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
)
FINISH_FN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_float,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
)
ACCUMULATE_FN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)
MAC_LOOP_FN = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
READ_LOOP_FN = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


LOOKUP_FN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


class LookupStruct(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("tier", ctypes.c_char_p),
        ("packing", ctypes.c_int),
        ("supported", SUPPORTED_FN),
        ("tokens", ctypes.c_int),
        ("least_tokens", ctypes.c_int),
        ("panels", ctypes.c_int),
        ("work_bytes", ctypes.c_size_t),
        ("multiply", LOOKUP_FN),
    )


class TierStruct(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("features", ctypes.c_char_p),
        ("rank", ctypes.c_int),
        ("supported", SUPPORTED_FN),
        ("quantize", QUANTIZE_FN),
        ("i2_s", I2_S_FN),
        ("panel", PANEL_FN * 3),
        ("finish", FINISH_FN),
        ("accumulate", ACCUMULATE_FN),
        ("mac_loop", MAC_LOOP_FN),
        ("read_loop", READ_LOOP_FN),
        ("q6_k", ctypes.c_void_p),
    )


@dataclass
class Tier:
    struct: TierStruct

    def i2_s(self, codes: np.ndarray, q: np.ndarray) -> np.ndarray:
        """int32 [m, n] sums of packed codes uint8 [n, k / 4] and activations int8 [m, k]."""
        (n, row_bytes), (m, k) = codes.shape, q.shape
        # Two more columns than needed: the kernel must leave them alone.
        c = np.full((m, n + 2), 0x5EED, dtype=np.int32)
        self.struct.i2_s(k, codes.ctypes.data, row_bytes, n, q.ctypes.data, q.strides[0], m, c.ctypes.data, n + 2)
        assert (c[:, n:] == 0x5EED).all()
        return c[:, :n]

    def quantize(self, x: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
        q = np.empty(x.size, dtype=np.int8)
        scale, total = ctypes.c_float(), ctypes.c_int()
        self.struct.quantize(x.size, x.ctypes.data, q.ctypes.data, ctypes.byref(scale), ctypes.byref(total))
        return q, np.float32(scale.value), total.value


def open_library(folder: Path) -> ctypes.CDLL:
    """The libtrit in a folder of programs."""
    found = [path for path in folder.iterdir() if path.name in ("libtrit.so", "libtrit.dylib", "trit.dll")]
    assert found, f"{folder} has no libtrit: build the target trit"
    library = ctypes.CDLL(str(found[0]))
    library.trit_tier_by_name.restype = ctypes.POINTER(TierStruct)
    library.trit_tier_by_name.argtypes = [ctypes.c_char_p]
    library.trit_lookup_at.restype = ctypes.POINTER(LookupStruct)
    library.trit_lookup_at.argtypes = [ctypes.c_int]
    library.trit_panel_bytes.restype = ctypes.c_size_t
    library.trit_panel_bytes.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.trit_panel_to_2_bits.restype = None
    library.trit_panel_to_2_bits.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    library.trit_panel_pack.argtypes = [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    return library


def at_page_end(array: np.ndarray) -> np.ndarray:
    """A copy whose last byte is the last readable one: the next page is not mapped."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    area = mmap.mmap(-1, size + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + size), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(area, dtype=array.dtype, count=array.size, offset=size - array.nbytes).reshape(array.shape)
    copy[:] = array
    return copy
