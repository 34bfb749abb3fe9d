# SPDX-License-Identifier: MIT
"""A checkpoint folder read with torch: tensors, and what the weights of BitLinear layers stand for.

Written from the same descriptions as ``utils.convert`` (docs/verify.md names them), but shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.models.checkpoint import check_side_files, weight_files
from trit.models.families.defaults import text_part
from trit.models.json_files import read_json
from trit.models.names import plain_name
from trit.verify.names import INPUT_NORM

# Inputs that share a scale in checkpoints of Q2_0's kind.
GROUP = 64
SCALE_SUFFIXES = ("_scale",)


@dataclass(frozen=True)
class Weight:
    """One matrix of a checkpoint.

    Attributes:
        matrix: [n, k]: int8 ternary values if ``scale`` is a number, else floats.
        scale: What ternary values are multiplied with; None: the matrix holds the values themselves.
        rounded_input: The layer's input is rounded to int8 per token (it is a BitLinear layer).
    """

    matrix: Tensor
    scale: float | None
    rounded_input: bool

    def values(self) -> Tensor:
        """float64 [n, k]."""
        return self.matrix.double() * (1.0 if self.scale is None else self.scale)


class TorchCheckpoint:
    """The tensors of a folder, read when they are asked for."""

    def __init__(self, directory: Path, master: bool = False) -> None:
        """Find every tensor.

        Args:
            directory: The folder.
            master: Floats that are not ternary are master weights, whatever config.json says.

        Raises:
            UserError: there is no config.json or there are no weights, or something else stands in their place.
        """
        self.directory = directory
        check_side_files(directory)
        self.config: dict[str, Any] = text_part(read_json(directory / "config.json"))
        declared = self.config.get("quantization_config") or {}
        self._divides = declared.get("linear_class", "bitlinear") == "bitlinear"
        self._master = master or declared.get("quantization_mode") == "online" or self.config.get("weight_bits") == 1
        # Plain name -> file and the name there.
        self._files: dict[str, tuple[Path, str]] = {}
        self._loaded: dict[str, Tensor] = {}
        for path in (directory / name for name in weight_files(directory, self.config)[1]):
            check_input(path)
            if path.suffix == ".bin":
                state = torch.load(path, map_location="cpu", weights_only=True)
                self._loaded |= {plain_name(name): tensor for name, tensor in state.items()}
                continue
            try:
                with safe_open(path, framework="pt") as file:
                    self._files |= {plain_name(name): (path, name) for name in file.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from None
        # Only BitNet's embedding models have a norm in front of each linear layer; they declare nothing.
        self._master = self._master or any(name.endswith(INPUT_NORM) for name in self.names())

    def names(self) -> list[str]:
        """Every tensor but the scales that belong to another, and those of a vision tower."""
        names = [name for name in (*self._files, *self._loaded) if not name.startswith("model.visual.")]
        return [name for name in names if not name.endswith((*SCALE_SUFFIXES, ".rotary_emb.inv_freq"))]

    def get(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        if name in self._loaded:
            return self._loaded[name]
        path, stored = self._files[name]
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor

    def _scale_of(self, name: str) -> float | None:
        """The factor of a matrix's ``weight_scale`` in float32, or None if it has none."""
        scales = [f"{name}{suffix}" for suffix in SCALE_SUFFIXES]
        found = [scale for scale in scales if scale in self._files or scale in self._loaded]
        if not found:
            return None
        value = self.get(found[0]).float().reshape(-1)
        if value.numel() != 1:
            raise UserError(f"{found[0]}: has {value.numel()} values, expected one scale")
        return float(1.0 / value[0] if self._divides else value[0])

    def linear(self, name: str) -> Weight:
        """The weight of a linear layer, dequantised by torch.

        uint8 is four ternary values a byte, rows i, n/4 + i, ... at bits 1:0, 3:2, ... as value + 1
        (transformers/integrations/bitnet.py); floats are ternary (-s, 0, s, for the matrix or for each group of 64
        inputs), or master weights that the absmean rule ternarises, or plain floats of a layer that is not quantised.
        """
        stored, factor = self.get(name), self._scale_of(name)
        if stored.dtype == torch.uint8:
            codes = torch.cat([stored >> shift & 3 for shift in (0, 2, 4, 6)])
            return Weight(codes.to(torch.int8) - 1, factor, True)
        weight = stored.float()
        largest = weight.abs().max()
        if bool(((weight == 0) | (weight.abs() == largest)).all()):
            scale = torch.where(largest == 0, 1.0, largest) * (1.0 if factor is None else factor)
            return Weight(weight.sign().to(torch.int8), float(scale), True)
        if _ternary_by_groups(weight):
            return Weight(weight, None, True)
        if self._master:
            inverse = 1.0 / weight.abs().mean(dtype=torch.float64).float().clamp(min=1e-5)
            return Weight((weight * inverse).round().clamp(-1, 1).to(torch.int8), float(1.0 / inverse), True)
        return Weight(weight, None, False)


def _ternary_by_groups(weight: Tensor) -> bool:
    """Whether each group of inputs of each row holds only -s, 0 and s of its own."""
    n, k = weight.shape
    if k % GROUP:
        return False
    magnitudes = weight.abs().reshape(n, k // GROUP, GROUP)
    largest = magnitudes.amax(dim=-1, keepdim=True)
    return bool(((magnitudes == 0) | (magnitudes == largest)).all())
