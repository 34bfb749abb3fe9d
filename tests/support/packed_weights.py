# SPDX-License-Identifier: MIT
"""Ternary weights of every encoding, what their products are, and ggml tensors that hold them packed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.guarded_ggml import GuardedGgml
from tests.support.tiers import SEED
from trit.gguf.encoding_table import SIGNS, TABLE, EncodingRow
from trit.gguf.encodings import ENCODINGS


@dataclass
class Weights:
    """values int8 [..., n, k] and their scales: [..., n, groups], or one for the tensor."""

    name: str
    values: np.ndarray
    scales: np.ndarray

    @classmethod
    def random(cls, name: str, scales: str, *shape: int, seed: int = SEED) -> Weights:
        rng = np.random.default_rng(seed)
        values = rng.integers(-1, 3 if row_of(name).holds_two else 2, shape, dtype=np.int8)
        if name == SIGNS.name:
            values = np.where(values > 0, np.int8(1), np.int8(-1))
        if scales == "one":
            return cls(name, values, np.float32(0.37) if row_of(name).tail_bytes else np.float16(0.37))
        groups = (*shape[:-1], shape[-1] // row_of(name).block)
        halves = rng.uniform(0, 2, groups) * 2.0 ** rng.integers(-20, 3, groups)  # subnormal ones among them
        halves.flat[-1] = 0.25  # never all the same
        if scales == "matrices":
            halves[:] = rng.uniform(0.1, 2, (*shape[:-2], 1, 1))
        grid = halves.astype(np.float16)
        alike = {"many": 1, "pairs": 2, "rows": groups[-1], "matrices": groups[-1]}[scales]
        grid = grid[..., ::alike].repeat(alike, axis=-1)[..., : groups[-1]]
        if alike > 1 and name != SIGNS.name:
            grid[rng.random(groups) < 1 / 8] = 0  # such a block holds zeros, and goes with any scale
        return cls(name, values, grid)

    @property
    def one_scale(self) -> bool:
        return self.scales.ndim == 0

    @property
    def alike(self) -> int:
        """Blocks of a group that share a scale, as packing finds them: pairs up to 128 inputs, or each its own."""
        pair = 128 // row_of(self.name).block
        return next(
            n for n in (pair, 1) if n and np.array_equal(shared(self.scales, n) * (self.scales > 0), self.scales)
        )

    @property
    def per_token(self) -> bool:
        """Whether activations have one scale for all of a token's inputs."""
        if self.one_scale:
            return True
        largest = self.scales.max(axis=(-2, -1), keepdims=True)
        zeros = self.name != SIGNS.name  # stand in any block, where a code stands for them
        return bool(((self.scales == largest) | (zeros & (self.scales == 0))).all())

    def data(self) -> np.ndarray:
        """The tensor's bytes."""
        encoding, k = row_of(self.name), self.values.shape[-1]
        values, scale = self.values.reshape(-1, k), float(self.scales) if self.one_scale else 1.0
        data = signs(values, scale) if self.name == SIGNS.name else ENCODINGS[self.name].pack(values, scale)
        if not self.one_scale:
            at = encoding.scale_at
            data.reshape(-1, encoding.block_bytes)[:, at : at + 2] = self.scales.reshape(-1, 1).view(np.uint8)
        return data

    def real(self) -> np.ndarray:
        """What the tensor stands for, float64 [..., n, k]."""
        scales = np.float64(self.scales)
        return self.values * (scales if self.one_scale else scales.repeat(row_of(self.name).block, axis=-1))

    def times(self, x: np.ndarray) -> np.ndarray:
        """Float32 [..., m, n], as include/trit.h says it; every matrix of the stack times its own [m, k]."""
        if self.one_scale:
            q, factor = quantized(x)
            return sums(q, self.values) / factor * np.float32(self.scales)
        block = row_of(self.name).block
        values = self.values
        if self.name != SIGNS.name:
            values = values * (self.scales > 0).repeat(block, axis=-1)
        if self.per_token:
            q, factor = quantized(x)
            return sums(q, values) / factor * np.float32(self.scales.max(axis=(-2, -1), keepdims=True))
        scales = np.float32(shared(self.scales, self.alike))[..., None, :, :: self.alike]
        acc = np.zeros((*x.shape[:-1], values.shape[-2]), dtype=np.float32)
        group = block * self.alike
        for g in range(scales.shape[-1]):
            inputs = slice(g * group, (g + 1) * group)
            q, factor = quantized(x[..., inputs])
            step = np.float32(1) / factor
            acc += sums(q, values[..., inputs]) * step * scales[..., g]
        return acc


def row_of(name: str) -> EncodingRow:
    return SIGNS if name == SIGNS.name else TABLE[name]


def signs(values: np.ndarray, scale: float) -> np.ndarray:
    """q1_0's bytes: a float16 scale, and 128 bits, lowest first."""
    blocks = values.reshape(-1, SIGNS.block)
    bits = np.packbits(blocks > 0, axis=-1, bitorder="little")
    scales = np.full((len(blocks), 1), scale, dtype="<f2").view(np.uint8)
    return np.concatenate([scales, bits], axis=-1).reshape(-1)


def shared(scales: np.ndarray, blocks: int) -> np.ndarray:
    """The largest scale of so many neighbours, for each of them."""
    starts = np.arange(0, scales.shape[-1], blocks)
    return np.maximum.reduceat(scales, starts, axis=-1).repeat(blocks, axis=-1)[..., : scales.shape[-1]]


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    factor = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    return np.clip(np.rint(x * factor), -128, 127), factor


def sums(q: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of integers, exact in float64, rounded once to float32."""
    return (q.astype(np.float64) @ np.swapaxes(values, -1, -2).astype(np.float64)).astype(np.float32)


def activations(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED + 1).standard_normal(shape).astype(np.float32)


class PackedGgml(GuardedGgml):
    def __init__(self, engine_bin: Path) -> None:
        super().__init__(engine_bin)
        self._cpu.ggml_backend_cpu_reg.restype = ctypes.c_void_p
        registry = ctypes.c_void_p(self._cpu.ggml_backend_cpu_reg())
        self.device = self.base("ggml_backend_reg_dev_get", registry, ctypes.c_size_t(0))
        address = self.base("ggml_backend_reg_get_proc_address", registry, b"ggml_backend_dev_get_extra_bufts")
        extra = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address.value)(self.device)
        self.type = ctypes.c_void_p(extra[0])  # the first that is asked
        self._base.ggml_backend_buft_name.restype = ctypes.c_char_p
        assert self._base.ggml_backend_buft_name(self.type) == b"trit"
        self._buffers: list[ctypes.c_void_p] = []

    def in_one_buffer(self, shapes: list[tuple[int, ...]]) -> list[ctypes.c_void_p]:
        """Tensors (type, ne...) one behind the other in a buffer of our type, without data."""
        self._base.ggml_set_no_alloc(self._context, ctypes.c_bool(True))
        tensors = [self.tensor(*shape) for shape in shapes]
        self._base.ggml_set_no_alloc(self._context, ctypes.c_bool(False))
        sizes = [self.base("ggml_backend_buft_get_alloc_size", self.type, w).value or 0 for w in tensors]
        align = self.base("ggml_backend_buft_get_alignment", self.type).value or 0
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + -(-size // align) * align)
        buffer = self.base("ggml_backend_buft_alloc_buffer", self.type, ctypes.c_size_t(offsets[-1]))
        self._buffers.append(buffer)
        start = self.base("ggml_backend_buffer_get_base", buffer).value or 0
        for w, offset in zip(tensors, offsets, strict=False):
            self._base.ggml_backend_tensor_alloc(buffer, w, ctypes.c_void_p(start + offset))
        return tensors

    def in_buffer(self, kind: int, *ne: int, name: str = "w") -> ctypes.c_void_p:
        """One tensor in a buffer of our type, without data."""
        (w,) = self.in_one_buffer([(kind, *ne)])
        self.base("ggml_set_name", w, name.encode())
        return w

    def set(self, w: ctypes.c_void_p, data: np.ndarray) -> None:
        assert self.base("ggml_nbytes", w).value == data.nbytes
        self.base("ggml_backend_tensor_set", w, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(0), data.nbytes)

    def packed(self, weights: Weights, name: str = "w") -> ctypes.c_void_p:
        w = self.in_buffer(row_of(weights.name).ggml_type, *weights.values.shape[::-1], name=name)
        self.set(w, weights.data())
        return w

    def supports(self, op: ctypes.c_void_p) -> bool:
        self._base.ggml_backend_dev_supports_op.restype = ctypes.c_bool
        return bool(self._base.ggml_backend_dev_supports_op(self.device, op))

    def chosen_tier(self) -> ctypes.c_void_p:
        self._cpu.trit_tier_chosen.restype = ctypes.c_void_p
        return ctypes.c_void_p(self._cpu.trit_tier_chosen())

    def close(self) -> None:
        for buffer in self._buffers:
            self.base("ggml_backend_buffer_free", buffer)
        super().close()
