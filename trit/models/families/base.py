# SPDX-License-Identifier: MIT
"""What a model family has to say: one subclass of ``Family``, in one file of this folder, found by a walk of it."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter

Floats = npt.NDArray[np.float32]

# What GGUF keys and float32 hold.
MOST, LEAST_NUMBER, MOST_NUMBER = 2**31 - 1, 1.2e-38, 3.4e38
# What lists are made of: the engine's LLAMA_MAX_LAYERS, and as many tokens as a GGUF header may have elements.
MOST_OF = {"num_hidden_layers": 512, "vocab_size": 1 << 22}
# transformers' BitNetQuantConfig, where quantization_config does not say.
DEFAULT_PROJECTION_NORM_EPSILON = 1e-6


class Kind(Enum):
    """How a tensor is stored in the GGUF file."""

    TERNARY = "ternary"  # in the encoding that --outtype names
    EMBEDDING = "embedding"  # in the type that --quant-embd names
    NORM = "norm"  # float32
    ROUTER = "router"  # float32; which experts compute a token
    INPUT_NORM = "input norm"  # float32; RMS norm of a projection's input: a checkpoint has all of them or none
    BIAS = "bias"  # float32
    EITHER = "ternary or float"  # a matrix: as TERNARY or FLOAT, by what the checkpoint has
    FLOAT = "float"  # a matrix in the checkpoint's type


@dataclass(frozen=True)
class Turns:
    """Heads that lie side by side for each of some groups -> one of each group by turns.

    Attributes:
        axis: Along which they lie.
        skip: What is before them there.
        groups: How many groups they belong to.
        size: Of a head.
    """

    axis: int
    skip: int
    groups: int
    size: int

    def order(self, length: int) -> npt.NDArray[np.int64]:
        """Indices along the axis, which is so long."""
        heads = np.arange(self.skip, length).reshape(self.groups, -1, self.size)
        return np.concatenate([np.arange(self.skip), heads.swapaxes(0, 1).reshape(-1)])


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model.

    Attributes:
        source: Name in the checkpoint.
        target: Name in the file.
        kind: How it is stored.
        shape: Numpy order.
        rope_heads: Where not 0, the rows belong to this many heads, and each head's rows go from the checkpoint's order
            (first half, second half) to the order of rotated pairs that graphs with RoPE type NORM want.
        offset: Added to every value of a float tensor.
        turns: How heads change places.
        stored: The shape in the checkpoint, where that is another.
        decays: The checkpoint has logarithms of what is taken away.
        float_type: GGUF's name of the type of a FLOAT.
        others: Names in the checkpoint of the matrices that follow ``source`` in a tensor of several, one an expert.
    """

    source: str
    target: str
    kind: Kind
    shape: tuple[int, ...]
    rope_heads: int = 0
    offset: float = 0.0
    turns: Turns | None = None
    stored: tuple[int, ...] | None = None
    decays: bool = False
    float_type: str = ""
    others: tuple[str, ...] = ()

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """In the checkpoint, numpy order."""
        return self.stored or self.shape

    @property
    def sources(self) -> tuple[str, ...]:
        """Every name in the checkpoint."""
        return (self.source, *self.others)


class Family(ABC):
    """A group of checkpoints that share tensor names and a graph in the engine.

    Configurations that it is given are complete (``defaults.complete``).
    """

    architectures: tuple[str, ...]
    """Values of ``architectures`` in config.json that belong to this family."""

    @abstractmethod
    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """The value of ``general.architecture``; raises UserError if the engine has no such graph."""

    @abstractmethod
    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Every tensor that the engine wants, in the order of the file."""

    def copies(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Tensors that may be in the checkpoint as equal copies of another: name -> name of the original.

        A tied head is the embedding; some savers write it a second time.
        """
        tied = boolean(config, "tie_word_embeddings", False)
        return {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}

    def left_out(self, name: str, config: Mapping[str, Any]) -> str | None:
        """Why a tensor of the checkpoint is none of the file, a clause; None if it is unexpected."""
        return None

    def computed(self, config: Mapping[str, Any]) -> dict[str, Floats]:
        """Float32 tensors of the file that follow from the configuration alone: name -> values; most have none."""
        return {}

    @abstractmethod
    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """Add the ``<architecture>.*`` keys."""


def positive_int(config: Mapping[str, Any], key: str) -> int:
    """A required positive integer of config.json; raises UserError that names the key."""
    value, most = config.get(key), MOST_OF.get(key, MOST)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise UserError(f"config.json: {key} is {reprlib.repr(value)}, expected a positive integer up to {most}")
    return value


def positive_number(config: Mapping[str, Any], key: str, default: float | None = None, of: str = "") -> float:
    """A positive number of config.json, or of a part of it whose name is ``of``; raises UserError that names the key.

    ``default`` is what it is where it is absent.
    """
    value = config.get(key, default)
    # Not a number (NaN) is in no range.
    if not isinstance(value, int | float) or isinstance(value, bool) or not LEAST_NUMBER <= value <= MOST_NUMBER:
        where = f" of {of}" if of else ""
        raise UserError(f"config.json: {key}{where} is {reprlib.repr(value)}, expected a positive number")
    return float(value)


def boolean(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """A truth value of config.json, ``default`` where it is absent or null; raises UserError that names the key."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f"config.json: {key} is {reprlib.repr(value)}, expected true or false")
    return value


def table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of config.json, empty where it is absent or null; raises UserError that names the key."""
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"config.json: {key} is {reprlib.repr(value)}, expected an object")
    return value or {}


def text(config: Mapping[str, Any], key: str) -> str:
    """A word of config.json; raises UserError that names the key."""
    value = config.get(key)
    if not isinstance(value, str):
        raise UserError(f"config.json: {key} is {reprlib.repr(value)}, expected a name")
    return value


def projection_norm_epsilon(config: Mapping[str, Any]) -> float | None:
    """Epsilon of the RMS norms that ``use_rms_norm`` of quantization_config puts in front of every projection.

    None: it does not. That is an option of transformers' BitNet integration for any model; the epsilon is its own too.
    """
    declared = config.get("quantization_config") or {}
    if not boolean(declared, "use_rms_norm", False):
        return None
    return positive_number(declared, "rms_norm_eps", DEFAULT_PROJECTION_NORM_EPSILON, "quantization_config")


def projection_norms(config: Mapping[str, Any], projection: str, target: str, columns: int) -> list[TensorSpec]:
    """The norm that ``use_rms_norm`` puts in front of a projection, under patch 0007's name for it; or none."""
    if projection_norm_epsilon(config) is None:
        return []
    return [TensorSpec(f"{projection}.rms_norm.weight", f"{target}_norm_in.weight", Kind.NORM, (columns,))]


def write_projection_norms(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Add the epsilon of these norms: a key that no graph with RMS norms reads, so patch 0007 does."""
    epsilon = projection_norm_epsilon(config)
    if epsilon is not None:
        writer.add_layer_norm_eps(epsilon)


def rope_parameters(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(type of RoPE scaling, its parameters), from ``rope_scaling`` or transformers 5's ``rope_parameters``.

    Where both are there ``rope_scaling`` counts, as in transformers. The type is "default" for plain rotary embeddings.

    Raises:
        UserError: they are different ones for different kinds of layers.
    """
    parameters = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if nested := [key for key, value in parameters.items() if isinstance(value, dict)]:
        raise UserError(
            f"config.json: rope scaling of its own for {nested[0]!a} layers is not supported, all layers rotate alike"
        )
    return str(parameters.get("rope_type", parameters.get("type", "default"))), parameters


def rope_base(config: Mapping[str, Any]) -> float:
    """Base of the rotary position embedding."""
    return positive_number({**config, **rope_parameters(config)[1]}, "rope_theta")


def rope_theta(config: Mapping[str, Any]) -> float:
    """Base of the rotary position embedding of a graph that knows no scaling.

    Raises:
        UserError: the positions are scaled (YaRN, linear, ...), which the family's graph does not do.
    """
    kind = rope_parameters(config)[0]
    if kind != "default":
        raise UserError(f"config.json: rope scaling of type {kind} is not supported, only plain rotary embeddings are")
    return rope_base(config)
