# SPDX-License-Identifier: MIT
"""Every tensor of a GGUF file, dequantised by readers that are not the converter's packers, against the checkpoint.

gguf-py reads the types that it knows. The others have one reader in this package (``trit.gguf.decode``), which the
converter reads its files back with, too: it shares no code with the packers, and tests/gguf holds it against bytes that
are written by hand and against writers of the tests' own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from trit.base.errors import UserError
from trit.gguf.decode import decode_anything
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.types import GGMLQuantizationType as Type
from trit.gguf.types import GGUFReader, GGUFValueType
from trit.verify.names import EXPERT, as_in_file, file_name
from trit.verify.report import Check, judged
from trit.verify.stored import TorchCheckpoint

Floats = npt.NDArray[np.float64]

TERNARY_TYPES = {Type(number) for number in BY_NUMBER}
# One float32 scale per matrix; the others have float16 ones.
FLOAT_SCALES = {Type(number) for number, row in BY_NUMBER.items() if row.scale_bits == 32}
# Types that hold a float as it is, rounded once; the ternary types with a float16 scale per block round the scale.
EXACT = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
# Largest root mean square of the error, in parts of that of the values. A uniform quantiser of b bits over blocks whose
# largest value is c times their root mean square loses c / (2^(b-1) sqrt(12)): with c = 3 (a normal distribution in
# blocks of 32) 0.7 % for 8 bits, 2.7 % for 6, 5.4 % for 5, 11 % for 4.
MOST_LOST = {Type.Q8_0: 0.01, Type.Q6_K: 0.03, Type.Q5_0: 0.06, Type.Q5_1: 0.06, Type.Q4_0: 0.12, Type.Q4_1: 0.12}
MOST_LOST |= {Type.Q5_K: 0.06, Type.Q4_K: 0.12}


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a GGUF file: its type and float64 values."""

    type: Type
    values: Floats


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: name, dimensions as in the file, type number, byte offset, bytes up to the next tensor."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    span: int


class GgufFile:
    """A GGUF file as gguf-py reads it."""

    def __init__(self, path: Path) -> None:
        """Read the header; raises UserError if it is no GGUF file."""
        self.path = path
        try:
            reader = GGUFReader(path)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path}: not a whole GGUF file ({error}); convert or download it again") from None
        self._fields = reader.fields
        self.alignment = int(reader.alignment)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = str(self.field("general.architecture"))
        # Blocks that only predict further tokens are behind those of the graph.
        self.further = int(self.field(f"{self.architecture}.nextn_predict_layers", 0))
        self.blocks = int(self.field(f"{self.architecture}.block_count")) - self.further
        # The engine has no graph for fewer: a hybrid's last of so many blocks is the first that attends.
        self.least_blocks = int(self.field(f"{self.architecture}.full_attention_interval", 1))

    def field(self, key: str, default: Any = None) -> Any:
        """A value of the metadata."""
        found = self._fields.get(key)
        return default if found is None else found.contents()

    def adds_bos(self) -> bool:
        """Whether tokenizing puts bos in front; SentencePiece vocabularies do so unless they say otherwise."""
        return bool(self.field("tokenizer.ggml.add_bos_token", self.field("tokenizer.ggml.model") == "llama"))

    def header_bytes(self, blocks: int) -> bytearray:
        """The file up to its tensor table, for a model of only so many blocks."""
        with self.path.open("rb") as file:
            whole = file.read(min(int(tensor.field.offset) for tensor in self._tensors.values()))
        made = bytearray(whole[:24])  # magic, version, two counts
        fields = [field for key, field in self._fields.items() if not key.startswith("GGUF.")]
        for field in sorted(fields, key=lambda field: int(field.offset)):
            start = int(field.offset)
            raw = whole[start : start + sum(int(part.nbytes) for part in field.parts)]
            mine = field.name.startswith(f"{self.architecture}.")
            if field.name == f"{self.architecture}.block_count":
                raw = raw[:-4] + struct.pack("<I", blocks)
            elif field.name == f"{self.architecture}.nextn_predict_layers":
                raw = raw[:-4] + struct.pack("<I", 0)
            elif field.name.endswith(".rope.dimension_sections"):
                pass  # four numbers, for however many blocks
            elif mine and field.types[0] == GGUFValueType.ARRAY and len(field.data) == self.blocks:
                # One value for each block.
                size = int(field.parts[-1].nbytes)
                raw = raw[: len(raw) - size * (self.blocks - blocks)]
                place = len(raw) - size * blocks - 8
                raw = raw[:place] + struct.pack("<Q", blocks) + raw[place + 8 :]
            made += raw
        return made

    def entries(self) -> list[Entry]:
        """The tensor table, in the order of the file."""
        tensors = sorted(self._tensors.values(), key=lambda tensor: int(tensor.data_offset))
        ends = [int(tensor.data_offset) for tensor in tensors[1:]]
        size = self.path.stat().st_size
        ends.append(size + -size % self.alignment)
        return [
            Entry(
                tensor.name,
                tuple(int(size) for size in tensor.shape),
                int(tensor.tensor_type),
                int(tensor.data_offset),
                end - int(tensor.data_offset),
            )
            for tensor, end in zip(tensors, ends, strict=True)
        ]

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def type_of(self, name: str) -> Type:
        """Type of a tensor."""
        return Type(self._tensors[name].tensor_type)

    def tensor(self, name: str) -> FileTensor:
        """Dequantise one tensor; raises UserError if there is no reader for its type."""
        entry = self._tensors[name]
        kind, shape = self.type_of(name), tuple(int(size) for size in reversed(entry.shape))
        try:
            values = gguf.quants.dequantize(np.ascontiguousarray(entry.data), kind)
        except NotImplementedError:
            if kind not in TERNARY_TYPES:
                raise UserError(f"{name}: is of type {kind.name}, for which trit.verify has no reader") from None
            values = _read_ternary(self.path, int(entry.data_offset), kind, shape)
        return FileTensor(kind, values.reshape(shape).astype(np.float64))


def _read_ternary(path: Path, offset: int, kind: Type, shape: tuple[int, ...]) -> Floats:
    """A ternary tensor; what stands for no weight is NaN, and differs from everything."""
    row, n, k = BY_NUMBER[kind], int(np.prod(shape[:-1])), shape[-1]
    data = np.fromfile(path, dtype=np.uint8, count=row.nbytes(n, k), offset=offset)
    decoded = decode_anything(row.name, data, n, k)
    values = decoded.values.astype(np.float64)
    if not row.holds_two:
        values[values > 1] = np.nan
    groups = decoded.scales.shape[1]
    return np.asarray(values.reshape(n, groups, -1) * decoded.scales[..., None].astype(np.float64))


@dataclass
class _Findings:
    """What comparing found so far."""

    tensors: int = 0
    weights: int = 0
    ternary: int = 0
    worst_lost: float = 0.0
    wrong: str = ""

    def note(self, sentence: str) -> None:
        """Keep the first difference."""
        self.wrong = self.wrong or sentence


def _wanted(values: torch.Tensor, scale: float | None, kind: Type) -> Floats:
    """What a file can hold of a checkpoint's values in an exact type or a ternary one."""
    if kind in TERNARY_TYPES and scale is not None:
        stored = torch.tensor(scale, dtype=torch.float32)
        stored = stored if kind in FLOAT_SCALES else stored.half()
        return np.asarray(values.double() * stored.double())
    full = values.float() * (1.0 if scale is None else torch.tensor(scale, dtype=torch.float32))
    # Scales of groups: a weight is one of them or 0, so rounding the weights rounds the scales.
    held = torch.float16 if kind in TERNARY_TYPES - FLOAT_SCALES else EXACT.get(kind, torch.float32)
    return np.asarray(full.to(held).double())


def _rope_factors(config: Mapping[str, Any]) -> Floats:
    """What divides each rotary frequency in LLaMA 3.1's scaling, by transformers' own function."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled: Any = LlamaConfig(**{key: value for key, value in config.items() if key != "quantization_config"})
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled)
    size = 2 * len(frequencies)
    base = scaled.rope_parameters["rope_theta"]
    plain = 1.0 / base ** (np.arange(0, size, 2, dtype=np.float64) / size)
    return np.asarray(plain / frequencies.double().numpy())


def _compare(found: FileTensor, wanted: Floats, name: str, findings: _Findings) -> None:
    findings.tensors += 1
    findings.weights += wanted.size
    findings.ternary += found.type in TERNARY_TYPES
    if found.values.shape != wanted.shape:
        findings.note(f"{name} has shape {found.values.shape}, the checkpoint {wanted.shape}")
    elif found.type in MOST_LOST:
        lost = float(np.sqrt(np.mean((found.values - wanted) ** 2) / np.mean(wanted**2)))
        findings.worst_lost = max(findings.worst_lost, lost)
        if not lost <= MOST_LOST[found.type]:
            findings.note(f"{name} ({found.type.name}) loses {lost:.2%}, at most {MOST_LOST[found.type]:.0%} is due")
    elif not np.array_equal(found.values, wanted):
        differ = ~(found.values == wanted)
        place = tuple(int(i) for i in np.argwhere(differ)[0])
        findings.note(
            f"{name} differs in {int(differ.sum())} of {wanted.size} values, first at {list(place)}: "
            f"{found.values[place]:g} instead of {wanted[place]:g}"
        )


def _compare_expert(
    checkpoint: TorchCheckpoint,
    file: GgufFile,
    name: str,
    expert: int,
    target: str,
    stacks: dict[str, FileTensor],
    findings: _Findings,
) -> None:
    """One expert's matrix with its part of the tensor of all; ``stacks`` keeps that from being read again."""
    if target not in file.names():
        findings.note(f"{name} should be in {target} in the file, which is not there")
        return
    if target not in stacks:
        stacks.clear()
        stacks[target] = file.tensor(target)
    whole, weight = stacks[target], checkpoint.linear(name)
    if expert >= len(whole.values):
        findings.note(f"{name} is expert {expert} of {len(whole.values)} in the file")
        return
    wanted = _wanted(weight.matrix, weight.scale, whole.type)
    _compare(FileTensor(whole.type, whole.values[expert]), wanted, f"{target}[{expert}]", findings)


def check_weights(checkpoint: TorchCheckpoint, file: GgufFile) -> Check:
    """Every tensor of the file against the checkpoint's, by name; none may be missing on either side."""
    translate = file_name(file.architecture, file.blocks, file.further)
    findings = _Findings()
    left = set(file.names())
    stacks: dict[str, FileTensor] = {}
    for name in checkpoint.names():
        target = translate(name)
        if target is not None and (match := EXPERT.fullmatch(name)):
            _compare_expert(checkpoint, file, name, int(match[2]), target, stacks, findings)
            left.discard(target)
            continue
        if target is None:
            findings.note(f"{name} has no known name in a {file.architecture} file")
            continue
        if target == "output.weight" and target not in left and checkpoint.config.get("tie_word_embeddings"):
            continue
        if target not in left:
            findings.note(f"{name} should be {target} in the file, which is not there")
            continue
        left.remove(target)
        found = file.tensor(target)
        beside = f"{target.removesuffix('.weight')}.scale"
        if beside in left:  # the matrix itself has scale 1
            left.remove(beside)
            scale = float(file.tensor(beside).values[0])
            found = FileTensor(found.type, found.values * scale)
        else:
            scale = None
        if target.startswith("blk.") and checkpoint.get(name).dim() == 2:
            weight = checkpoint.linear(name)
            matrix = as_in_file(name, weight.matrix, file.architecture, checkpoint.config)
            wanted = _wanted(matrix, weight.scale, found.type if scale is None else Type.F32)
        else:
            values = as_in_file(name, checkpoint.get(name).float(), file.architecture, checkpoint.config)
            wanted = _wanted(values, None, found.type)
        _compare(found, wanted, target, findings)
    if "rope_freqs.weight" in left:
        left.remove("rope_freqs.weight")
        factors = _rope_factors(checkpoint.config)
        found = file.tensor("rope_freqs.weight")
        if not np.allclose(found.values, factors, rtol=1e-5, atol=0):
            findings.note(f"rope_freqs.weight holds {found.values[:4]}..., transformers' scaling {factors[:4]}...")
    for name in ("long", "short"):
        target, scaling = f"rope_factors_{name}.weight", checkpoint.config.get("rope_scaling") or {}
        if target in left and (divisors := scaling.get(f"{name}_factor")):
            left.remove(target)
            _compare(file.tensor(target), np.asarray(np.float32(divisors), dtype=np.float64), target, findings)
    if left:
        findings.note(f"{min(left)} is in the file, but not in the checkpoint")
    lost = f", quantised embeddings lose {findings.worst_lost:.2%}" if findings.worst_lost else ""
    measured = (
        f"{findings.tensors} tensors, {findings.ternary} of them ternary, {findings.weights:,} weights: "
        f"{findings.wrong or 'equal'}{lost}"
    )
    return judged("weights", not findings.wrong, measured, "equal", **vars(findings))
