# SPDX-License-Identifier: MIT
"""Models in a rotated basis (``prism.hadamard.*``), folded here in plain numpy and torch from docs/formats.md.

W' = W diag(s) H and z = H (s * h), block by block along the inputs: H is the normalised Walsh-Hadamard matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader
from torch import nn

from tests.support.foreign_files import Key, Tensor, ptq1_0, write_gguf
from trit.verify.reference import round_to_int8

Floats = npt.NDArray[np.float64]

U32, I32, STRING, ARRAY, BOOL = 4, 5, 8, 9, 7
BLOCK = 128
TABLE, HEAD = "token_embd.weight", "output.weight"
# What Ternary-Bonsai-2 leaves as it is.
LEFT = ("ssm_alpha.weight", "ssm_beta.weight", "ssm_conv1d.weight")


def transform(values: Floats, block: int = BLOCK) -> Floats:
    """Every block of the last axis times H."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    blocks = values.reshape(*values.shape[:-1], -1, block) @ (matrix / np.sqrt(block))
    return np.asarray(blocks.reshape(values.shape))


@dataclass
class Basis:
    """A rotated basis.

    Attributes:
        block: Inputs that are mixed with each other.
        explicit: Whether signs are flipped, which are drawn for each width.
        signs: Of the widths that were asked for.
    """

    block: int = BLOCK
    explicit: bool = True
    signs: dict[int, Floats] = field(default_factory=dict)

    def of(self, width: int) -> Floats:
        """The signs of that many inputs."""
        drawn = np.random.default_rng(width).choice([-1.0, 1.0], width)
        return self.signs.setdefault(width, drawn if self.explicit else np.ones(width))

    def fold(self, weights: Floats) -> Floats:
        """W [n, k] -> W'; of a table the rows that are stored."""
        return transform(weights * self.of(weights.shape[-1]), self.block)

    def unfold(self, weights: Floats) -> Floats:
        """The other way."""
        return transform(weights, self.block) * self.of(weights.shape[-1])

    def keys(self, folded: Sequence[str], tables: Sequence[str]) -> list[Key]:
        """What a file says of it."""
        prefix = "prism.hadamard."
        keys: list[Key] = [
            (f"{prefix}version", U32, None, 1),
            (f"{prefix}block_size", U32, None, self.block),
            (f"{prefix}transform", STRING, None, "normalized-sylvester-walsh-hadamard"),
            (f"{prefix}axis", STRING, None, "input-last-dimension"),
            (f"{prefix}sign_mode", STRING, None, "explicit" if self.explicit else "identity"),
            (f"{prefix}weight_names", ARRAY, STRING, list(folded)),
            (f"{prefix}inverse_weight_names", ARRAY, STRING, list(tables)),
            (f"{prefix}gdn_v_grouped", BOOL, None, True),
        ]
        if self.explicit:
            keys.append((f"{prefix}sign_widths", ARRAY, I32, list(self.signs)))
            values = [int(sign) for signs in self.signs.values() for sign in signs]
            keys.append((f"{prefix}sign_values", ARRAY, I32, values))
        return keys


def side_by_side(weights: Floats, groups: int, heads: int) -> Floats:
    """Columns of heads by turns -> the heads of a group beside each other, as the file has them."""
    n, k = weights.shape
    return np.asarray(weights.reshape(n, heads, groups, k // groups // heads).swapaxes(1, 2).reshape(n, k))


def is_folded(name: str, shape: Sequence[int]) -> bool:
    """Whether Ternary-Bonsai-2 has that tensor folded."""
    return name == HEAD or (name.startswith("blk.") and len(shape) == 2 and not name.endswith(LEFT))


def pq2_0(weights: Floats) -> bytes:
    """Ternary floats [n, k] with a scale for every 128 -> the bytes of PQ2_0."""
    groups = weights.reshape(-1, 128)
    scales = np.abs(groups).max(axis=1)
    codes = (np.sign(groups) + 1).astype(np.uint8).reshape(-1, 32, 4)
    out = np.empty((len(groups), 34), np.uint8)
    out[:, :2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    out[:, 2:] = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return out.tobytes()


def ptq1_0_of(weights: Floats) -> bytes:
    """The same -> the bytes of PTQ1_0, group by group."""
    out = []
    for group in weights.reshape(-1, 128):
        scale = float(np.abs(group).max())
        out.append(ptq1_0([(np.sign(group) + 1).astype(int).tolist()], scale))
    return b"".join(out)


def copy_rotated(source: Path, target: Path, basis: Basis, fold: bool, without: Sequence[str] = ()) -> Path:
    """A float32 file of an unrotated qwen35 model -> a file in a rotated basis.

    Args:
        source: The file.
        target: The new one.
        basis: Its basis.
        fold: Write the folded model as float32. Otherwise what the source holds, which is ternary, is taken for folded,
            and written as PQ2_0, ``ffn_down`` as PTQ1_0.
        without: Keys of ``prism.hadamard.*`` that are left away.
    """
    reader = GGUFReader(source)
    keys: list[Key] = []
    values: dict[str, Any] = {}
    for name, read in reader.fields.items():
        if not name.startswith("GGUF."):
            element = int(read.types[1]) if len(read.types) > 1 else None
            values[name] = read.contents()
            keys.append((name, int(read.types[0]), element, values[name]))
    groups = values["qwen35.ssm.group_count"]
    heads = values["qwen35.ssm.time_step_rank"] // groups
    tensors: list[Tensor] = []
    folded = []
    for entry in reader.tensors:
        shape = [int(size) for size in reversed(entry.shape)]
        raw, kind = np.asarray(entry.data).tobytes(), int(entry.tensor_type)
        if entry.name == TABLE or is_folded(entry.name, shape):
            weights = np.asarray(entry.data, dtype=np.float64).reshape(shape)
            if entry.name != TABLE:
                folded.append(entry.name)
            if entry.name.endswith("ssm_out.weight"):
                weights = side_by_side(weights, groups, heads)
            basis.of(shape[-1])
            if fold:
                raw = basis.fold(weights).astype("<f4").tobytes()
            elif entry.name.endswith("ffn_down.weight"):
                raw, kind = ptq1_0_of(weights), 143
            else:
                raw, kind = pq2_0(weights), 142
        tensors.append((entry.name, shape, kind, raw))
    keys += [key for key in basis.keys(folded, [TABLE]) if key[0].removeprefix("prism.hadamard.") not in without]
    return write_gguf(target, keys, tensors)


class RotatedLinear(nn.Module):
    """A folded layer: its input rotated, then rounded to int8 for every ``group`` inputs; in float64."""

    def __init__(self, weight: torch.Tensor, basis: Basis, group: int | None) -> None:
        super().__init__()
        self.folded, self.basis, self.group = weight.detach(), basis, group
        # For code that asks for a layer's type.
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rotated = torch.from_numpy(self.basis.fold(x.double().numpy()))
        if self.group is not None:
            rotated = round_to_int8(rotated, self.group)
        return nn.functional.linear(rotated, self.folded.double()).to(x.dtype)


def rotate_model(model: nn.Module, basis: Basis, group: int | None) -> None:
    """Take the weights of a model for folded ones, in place; projections of ``LEFT``'s kinds stay what they are."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and not name.endswith(("in_proj_a", "in_proj_b")):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, RotatedLinear(module.weight, basis, group))
        elif isinstance(module, nn.Embedding):
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(basis.unfold(module.weight.double().numpy())))
