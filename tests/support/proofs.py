# SPDX-License-Identifier: MIT
"""A tiny model that ``trit verify`` passes, and ways to change its file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.tiny_checkpoints import find_family
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header
from trit.verify import engine, layers, texts
from trit.verify.reference import Reference, build
from trit.verify.stored import TorchCheckpoint
from trit.verify.weights import GgufFile, check_weights

QUICK = ["--context", "64", "--chunks", "2", "-t", "1"]


# Half of the tokens of layer 1 have a rounding on the edge, or follow one that has.
ON_THE_EDGE = ("llama", "biased-yarn", "fake-bf16", "q2_0", "q8_0")


@dataclass(frozen=True)
class Case:
    """One tiny checkpoint and the types that it is converted to."""

    family: str
    variant: str
    storage: str
    outtype: str
    embedding: str

    def __str__(self) -> str:
        return f"{self.variant}-{self.storage}-{self.outtype}"

    def make(self, folder: Path) -> tuple[Path, Path]:
        """Write checkpoint and file."""
        directory, gguf = folder / "checkpoint", folder / "model.gguf"
        find_family(self.family).make(directory, self.variant, self.storage)
        convert(directory, gguf, Options(ENCODINGS[self.outtype], self.embedding), progress=False)
        return directory, gguf


@dataclass
class Proof:
    """A converted model that passes, and what to compare changed copies of its file with."""

    directory: Path
    gguf: Path
    reference: Reference
    sequences: list[list[int]]

    def changed(self, folder: Path, *changes: Callable[[bytearray, Any], None]) -> GgufFile:
        """A copy of the file with some bytes changed; the header's table tells where things are."""
        data, header = bytearray(self.gguf.read_bytes()), read_header(self.gguf)
        for change in changes:
            change(data, header)
        path = folder / "changed.gguf"
        path.write_bytes(data)
        return GgufFile(path)

    def weights(self, file: GgufFile) -> tuple[str, str]:
        check = check_weights(TorchCheckpoint(self.directory), file)
        return check.status, check.measured

    def layers(self, file: GgufFile, folder: Path) -> list[str]:
        with engine.hidden_server(file.path, 1, 64) as server:
            checks = layers.check_layers(self.reference, file, self.sequences, server, folder, 1)
        return [check.status for check in checks]


def prepare(case: Case, folder: Path) -> Proof:
    torch.set_num_threads(1)  # matrices are tiny
    directory, gguf = case.make(folder)
    reference = build(TorchCheckpoint(directory), GgufFile(gguf))
    ids = texts.load_tokenizer(directory).encode(texts.TEXT.read_text(), add_special_tokens=False).ids
    return Proof(directory, gguf, reference, [ids[16 * i : 16 * i + 16] for i in range(8)])


def flip_weight(data: bytearray, header: Any) -> None:
    """One weight of two million: another of -1, 0, +1."""
    place = header.tensors["blk.1.ffn_up.weight"].offset + 4321
    code = data[place] >> 4 & 3
    data[place] += 16 if code < 2 else -16


def scale_up(data: bytearray, header: Any, block: int = 0) -> None:
    # Not one whose output a norm rescales: there the scale is lost anyway.
    entry = header.tensors[f"blk.{block}.attn_output.weight"]
    place = entry.offset + entry.nbytes - 32
    (scale,) = struct.unpack_from("<f", data, place)
    struct.pack_into("<f", data, place, scale * 1.01)


def swap_tensors(data: bytearray, header: Any) -> None:
    k, v = (header.tensors[f"blk.0.attn_{name}.weight"] for name in "kv")
    first = bytes(data[k.offset : k.offset + k.nbytes])
    data[k.offset : k.offset + k.nbytes] = data[v.offset : v.offset + v.nbytes]
    data[v.offset : v.offset + v.nbytes] = first


def replace(old: bytes, new: bytes) -> Callable[[bytearray, Any], None]:
    """Replace the one place that holds these bytes by as many others."""

    def change(data: bytearray, header: Any) -> None:
        assert len(old) == len(new) and data.count(old) == 1
        place = data.index(old)
        data[place : place + len(new)] = new

    return change


def enlarge(tensor: str) -> Callable[[bytearray, Any], None]:
    """A float32 norm, or the scales of a q2_0 matrix, one percent larger."""

    def change(data: bytearray, header: Any) -> None:
        entry = header.tensors[tensor]
        place = slice(entry.offset, entry.offset + entry.nbytes)
        raw = np.frombuffer(data[place], np.uint8).copy()
        if tensor.endswith("norm.weight"):
            raw.view("<f4")[:] *= np.float32(1.01)
        else:
            scales = raw.reshape(-1, 18)[:, :2]
            scales[:] = (np.ascontiguousarray(scales).view("<f2") * np.float16(1.01)).view(np.uint8)
        data[place] = raw.tobytes()

    return change
