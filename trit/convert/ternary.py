# SPDX-License-Identifier: MIT
"""Any kind of stored BitLinear weight -> one ternary matrix (int8 [n, k]) and its scale.

Kinds, by what is in the file and what ``quantization_config`` in config.json declares:

* packed: uint8 [n/4, k], each byte holds rows i, n/4 + i, n/2 + i, 3n/4 + i at bits 1:0, 3:2, 5:4, 7:6 as value + 1,
  and a ``weight_scale`` beside it (layout and meaning: transformers/integrations/bitnet.py, 5.23). ``linear_class``
  "bitlinear" divides by that scale, "autobitlinear" multiplies with it.
* ternary floats: every value is exactly -s, 0 or +s. Kept as they are, whatever is declared: quantising again would
  change the scale. A ``weight_scale`` beside them counts as above.
* grouped ternary floats: the same with an s of its own for every row, or for every 256, 128 or 64 inputs of a row, as
  Ternary-Bonsai's "unpacked" checkpoints have them (128).
* master: full-precision weights of quantisation-aware training, ternarised by the absmean rule of "The Era of 1-bit
  LLMs: Training Tips, Code and FAQ": s = mean|w| (at least 1e-5), t = clamp(round(w / s), -1, 1), rounding half to
  even. Only where they are declared (``quantization_mode`` "online", or 1bitLLM's ``weight_bits`` 1) or the user says
  so; anything else would turn an ordinary model into nonsense in silence.

The rule is computed in float32 on the stored values, as transformers and the trainer do (both convert to float32 first,
also for bfloat16 checkpoints). Then transformers rounds t * s to the model's dtype; here the scale stays float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.gguf.encodings import Scale, Ternary, exact_ternary
from trit.models.checkpoint import StoredTensor

MIN_ABSMEAN = 1e-5
# The dtype that says that four ternary values are in each stored one.
PACKED = "U8"
# Values that are looked at to see whether a matrix is ternary.
FIRST_VALUES = 1 << 18


@dataclass(frozen=True)
class Declared:
    """What the checkpoint says about its linear weights.

    Attributes:
        divides: ``weight_scale`` divides ("bitlinear"); otherwise it multiplies ("autobitlinear").
        master: Non-ternary float weights are master weights.
    """

    divides: bool
    master: bool

    @classmethod
    def from_config(cls, config: dict[str, Any], master: bool) -> Declared:
        """Read ``quantization_config``; the defaults of its absent keys are transformers' own.

        Raises:
            UserError: the quantisation method, class or mode is not one of BitNet's.
        """
        declared = config.get("quantization_config") or {}
        weight_bits, input_bits = config.get("weight_bits"), config.get("input_bits", 8)
        if weight_bits is not None and (weight_bits, input_bits) != (1, 8):
            raise UserError(
                f"config.json: weight_bits {weight_bits} and input_bits {input_bits}; "
                "the ternary kernels compute 1 and 8"
            )
        method = declared.get("quant_method", "bitnet")
        linear_class = declared.get("linear_class", "bitlinear")
        mode = declared.get("quantization_mode", "offline")
        if (
            method != "bitnet"
            or linear_class not in {"bitlinear", "autobitlinear"}
            or mode not in {"online", "offline"}
        ):
            raise UserError(
                f"config.json: quantization_config says {method}, {linear_class}, {mode}; "
                "expected bitnet, bitlinear or autobitlinear, online or offline"
            )
        return cls(divides=linear_class == "bitlinear", master=master or mode == "online" or weight_bits == 1)


def check_left_out(config: Mapping[str, Any], matrices: Iterable[str]) -> None:
    """Raise UserError if ``modules_to_not_convert`` keeps one of these matrices' layers as it is.

    Its weights are no master weights then, and its input is not rounded: ternarising it would change the model.

    Args:
        config: config.json.
        matrices: Names of the weights that are going to be ternary.
    """
    for matrix in matrices:
        module = matrix.removesuffix(".weight")
        if (pattern := left_out_by(config, matrix)) is not None:
            raise UserError(
                f"config.json: modules_to_not_convert has {pattern!r}, so {module} is an ordinary layer; the "
                "engine's files have all projections ternary"
            )


def left_out_by(config: Mapping[str, Any], matrix: str) -> str | None:
    """The entry of ``modules_to_not_convert`` that keeps a matrix's layer as it is; None if none does."""
    module = matrix.removesuffix(".weight")
    for pattern in (config.get("quantization_config") or {}).get("modules_to_not_convert") or []:
        # As transformers matches: from the start up to a dot, also as a regular expression, or as an ending.
        if module.endswith(pattern) or re.match(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", module):
            return str(pattern)
    return None


def looks_ternary(weight: StoredTensor, shape: tuple[int, ...]) -> bool:
    """Whether a matrix that need not be ternary is: packed, or floats that are so in the first rows.

    Args:
        weight: As stored.
        shape: [n, k] that the configuration asks for.
    """
    n, k = shape
    if weight.dtype == PACKED or weight.shape != shape:
        return weight.dtype == PACKED
    rows = min(n, max(1, FIRST_VALUES // k))
    first = replace(weight, shape=(rows, k))
    return exact_ternary(lambda: _row_pieces(first), rows, k) is not None


def check_shape(tensor: StoredTensor, shape: tuple[int, ...], asks: str) -> None:
    """Raise UserError, naming the tensor, if its stored shape is not the one that the configuration asks for.

    Args:
        tensor: The stored tensor.
        shape: What the configuration asks for.
        asks: Who asks (``Checkpoint.asks``).
    """
    if tensor.shape != shape:
        hint = "; it is stored transposed" if tensor.shape == shape[::-1] else ""
        raise UserError(f"{tensor.name}: has shape {list(tensor.shape)}, {asks} asks for {list(shape)}{hint}")
    if tensor.dtype == PACKED:
        raise UserError(f"{tensor.name}: expected floating-point values, found {tensor.dtype}")


def check_stored(weight: StoredTensor, weight_scale: StoredTensor | None, shape: tuple[int, int], asks: str) -> None:
    """What can be known of a weight matrix without reading it.

    Raises:
        UserError: wrong shape, or packed without a scale; names the tensor.
    """
    if weight.dtype != PACKED:
        check_shape(weight, shape, asks)
        return
    n, k = shape
    if n % 4 or weight.shape != (n // 4, k):
        raise UserError(
            f"{weight.name}: is packed with shape {list(weight.shape)}, {asks} asks for {[n, k]} packed by 4 rows"
        )
    if weight_scale is None:
        raise UserError(f"{weight.name}: is packed, but there is no {weight.name}_scale")


def read_ternary(
    weight: StoredTensor, weight_scale: StoredTensor | None, declared: Declared
) -> tuple[Ternary, Scale, str]:
    """Read one weight matrix that has passed :func:`check_stored`.

    Args:
        weight: The stored tensor.
        weight_scale: The tensor of the same module's ``weight_scale``, if there is one.
        declared: What the checkpoint says about its weights.

    Returns:
        int8 [n, k] with values in {-1, 0, 1}; the scale to multiply with, a float or float32 [n, k / group]; "packed",
        "ternary floats", "ternary floats in groups of N" or "master".

    Raises:
        UserError: wrong dtype, invalid code, neither ternary nor master; names the tensor and the deviation.
    """
    if weight.dtype == PACKED:
        assert weight_scale is not None
        return _read_packed(weight), _apply_scale(1.0, weight_scale, declared), "packed"
    found = exact_ternary(lambda: _row_pieces(weight), *weight.shape)
    if found is not None:
        # A matrix of zeros has no scale of its own; 1 is as good as any and every encoding can hold it.
        ternary, scale = found[0], found[1] if isinstance(found[1], np.ndarray) else found[1] or 1.0
        kind = "ternary floats"
        if isinstance(scale, np.ndarray):
            kind += f" in groups of {weight.shape[-1] // scale.shape[1]}"
        return ternary, scale if weight_scale is None else _apply_scale(scale, weight_scale, declared), kind
    if not declared.master and _four_levels(weight):
        raise UserError(
            f"{weight.name}: holds four levels, +-a and +-3a, as of Tencent's 2-bit (SEQ) models, so it is not "
            "ternary; take the model's 1.25-bit checkpoint"
        )
    if not declared.master:
        raise UserError(
            f"{weight.name}: is not ternary ({_worst_deviation(weight)}), and config.json declares no BitNet master "
            "weights (quantization_config with quantization_mode online); an ordinary model cannot be made ternary by "
            "conversion; if these are the master weights of a BitLinear training run, pass --master-weights",
            flags=["--master-weights"],
        )
    if weight_scale is not None:
        raise UserError(f"{weight.name}: is declared a master weight, yet {weight_scale.name} is there as well")
    ternary, scale = _ternarise(weight)
    return ternary, scale, "master"


def _apply_scale(scale: Scale, weight_scale: StoredTensor, declared: Declared) -> Scale:
    """``scale`` times (or divided by) the stored ``weight_scale`` [1], as float32."""
    if weight_scale.size != 1:
        raise UserError(f"{weight_scale.name}: has shape {list(weight_scale.shape)}, expected one positive value")
    (value,) = next(weight_scale.floats())
    if value <= 0:
        raise UserError(f"{weight_scale.name}: is {value:g}, expected one positive value")
    factor = np.float32(1) / value if declared.divides else value
    return scale * factor if isinstance(scale, np.ndarray) else float(np.float32(scale) * factor)


def _read_packed(weight: StoredTensor) -> Ternary:
    quarter_rows, k = weight.shape
    packed = weight.read(0, weight.size).reshape(quarter_rows, k)
    if (packed & (packed >> 1) & 0x55).any():
        raise UserError(f"{weight.name}: holds the 2-bit code 3, which means no weight; the checkpoint is broken")
    ternary = np.empty((4 * quarter_rows, k), dtype=np.int8)
    for quarter in range(4):
        codes = ternary[quarter * quarter_rows : (quarter + 1) * quarter_rows].view(np.uint8)
        np.right_shift(packed, 2 * quarter, out=codes)
        codes &= 3
    ternary -= 1
    return ternary


def _row_pieces(weight: StoredTensor) -> Iterator[npt.NDArray[np.float32]]:
    """The values of a matrix, some rows [rows, k] at a time."""
    k = weight.shape[-1]
    return (values.reshape(-1, k) for values in weight.floats(k))


def _ternarise(weight: StoredTensor) -> tuple[Ternary, float]:
    """The absmean rule. The mean is summed in float64: it does not depend on the order of summation."""
    total = 0.0
    for values in weight.floats():
        total += float(np.abs(values).sum(dtype=np.float64))
    absmean = np.float32(max(total / weight.size, MIN_ABSMEAN))
    inverse = np.float32(1) / absmean
    ternary = np.empty(weight.shape, dtype=np.int8)
    flat = ternary.reshape(-1)
    done = 0
    for values in weight.floats():
        scaled = np.rint(values * inverse)
        flat[done : done + values.size] = np.clip(scaled, -1, 1, out=scaled)
        done += values.size
    # Training divides by `inverse`, so the scale is 1 / inverse in float32, which may differ from absmean by one bit.
    return ternary, float(np.float32(1) / inverse)


def _four_levels(weight: StoredTensor) -> bool:
    """Whether the first 64 weights are nothing but +-a and +-3a, with one a."""
    first = np.abs(next(weight.floats(weight.shape[-1]))[:64])
    largest = first == first.max()
    small = np.abs(3 * first - first.max()) <= 0.02 * first.max()  # as bfloat16 rounds them
    return bool(len(first) == 64 and small.any() and (small | largest).all())


def _worst_deviation(weight: StoredTensor) -> str:
    """How far from {-s, 0, +s} the values are, for s = max|w|: the worst value and where it is."""
    scale = max(float(np.abs(values).max()) for values in weight.floats())
    worst, place, value, done = -1.0, 0, 0.0, 0
    for values in weight.floats():
        magnitudes = np.abs(values)
        deviations = np.minimum(magnitudes, scale - magnitudes)
        i = int(deviations.argmax())
        if deviations[i] > worst:
            worst, place, value = float(deviations[i]), done + i, float(values[i])
        done += values.size
    row, column = divmod(place, weight.shape[-1])
    return f"worst deviation {worst / scale:.3f} of the largest weight {scale:.4g}, at [{row}, {column}] = {value:.4g}"
