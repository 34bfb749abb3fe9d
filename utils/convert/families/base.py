# SPDX-License-Identifier: MIT
"""What a model family has to say: one subclass of ``Family``, in one file of this folder, found by a walk of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from utils.cli import UserError
from utils.gguf_types import GGUFWriter


class Kind(Enum):
    """How a tensor is stored in the GGUF file."""

    TERNARY = "ternary"  # in the encoding that --outtype names
    EMBEDDING = "embedding"  # in the type that --quant-embd names
    NORM = "norm"  # float32


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: its name in the checkpoint and in the file, its kind, its shape (numpy order)."""

    source: str
    target: str
    kind: Kind
    shape: tuple[int, ...]


class Family(ABC):
    """A group of checkpoints that share tensor names and a graph in the engine."""

    architectures: tuple[str, ...]
    """Values of ``architectures`` in config.json that belong to this family."""

    @abstractmethod
    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """The value of ``general.architecture``; raises UserError if the engine has no such graph."""

    @abstractmethod
    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Every tensor that the engine wants, in the order of the file."""

    @abstractmethod
    def copies(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Tensors that may be in the checkpoint as equal copies of another: name -> name of the original."""

    @abstractmethod
    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """Add the ``<architecture>.*`` keys."""


def positive_int(config: Mapping[str, Any], key: str) -> int:
    """A required positive integer of config.json; raises UserError that names the key."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UserError(f"config.json: {key} is {value!r}, expected a positive integer")
    return value


def rope_theta(config: Mapping[str, Any], default: float) -> float:
    """Base of the rotary position embedding, from ``rope_theta`` or transformers 5's ``rope_parameters``.

    Raises:
        UserError: the positions are scaled (YaRN, linear, ...), which the family's graph does not do.
    """
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise UserError(f"config.json: rope scaling of type {kind} is not supported, only plain rotary embeddings are")
    return float(parameters.get("rope_theta", config.get("rope_theta", default)))
