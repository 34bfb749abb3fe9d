# SPDX-License-Identifier: MIT
"""How much memory a model takes while it is served, and what of it fits. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.engine.confinement import attention_bytes, state_bytes
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.parts import parts_beside

_STEP = 256  # tokens; the engine rounds contexts up to this
# Unless a number is asked for; so many tokens a kernel has at a time.
MOST_SLOTS, _UNKNOWN_SLOTS = 8, 4
# Caches of slots that nobody asked for take at most this part of the memory that the weights leave.
_CACHES = 0.25
# A step computes at most so many tokens at once; of a layer, some three results as wide as its feed-forward live.
_UBATCH, _RESULTS = 512, 3
# Program, vocabulary, threads and sockets.
_BASE = 64 << 20
# Bytes of an element of the attention cache; the engine's default is f16.
_CACHE_BYTES = {"f32": 4.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32}
_CACHE_FLAGS = ({"-ctk", "--cache-type-k"}, {"-ctv", "--cache-type-v"})


@dataclass(frozen=True)
class Need:
    """What one model takes, in bytes.

    Attributes:
        weights: as they are in memory; mapped pages count.
        token: of the attention cache for each token of context.
        window: tokens of context that are kept at most; None: all. Where only some layers have a window it is too
            little, so that no model is refused that fits.
        work: results of a step, and the program itself.
        trained: the context that the model was made for; 0: its file does not say.
        state: of linear attention in each slot, whatever its context.
    """

    weights: int
    token: int
    window: int | None
    work: int
    trained: int
    state: int = 0

    @classmethod
    def of(cls, path: Path, header: RawHeader, engine_flags: Sequence[str] = ()) -> Need:
        """Of a GGUF file that was checked, with the engine's flags for the types of its cache."""
        keys = header.metadata
        arch = keys.get("general.architecture")
        files = [part for part in parts_beside(path) if part.is_file()]
        return cls(
            weights=sum(part.stat().st_size for part in files) + sum(map(_grown, files)),
            token=round(attention_bytes(keys, 1) * _element(engine_flags) / 4),
            window=_number(keys, f"{arch}.attention.sliding_window") or None,
            work=_BASE + _RESULTS * _UBATCH * 4 * _number(keys, f"{arch}.feed_forward_length"),
            trained=_number(keys, f"{arch}.context_length"),
            state=state_bytes(keys),
        )

    def slot(self, context: int) -> int:
        """Of the attention cache and the state of one slot."""
        return self.token * min(context, self.window or context) + self.state

    def total(self, context: int, slots: int) -> int:
        """Of the model with all its slots."""
        return self.weights + self.work + slots * self.slot(context)

    def largest_context(self, slots: int, free: int) -> int:
        """The longest context that fits in so many free bytes; 0: none."""
        room = free - self.weights - self.work
        if not self.token:
            return self.trained if room > 0 else 0
        return max(0, (room // slots - self.state) // self.token // _STEP * _STEP)


def _number(keys: Mapping[str, Any], key: str) -> int:
    value = keys.get(key)
    return value if isinstance(value, int) else 0


def _element(engine_flags: Sequence[str]) -> float:
    """Bytes of an element of the cache, on average over keys and values."""
    given = list(pairwise(engine_flags))
    types = [next((value for flag, value in reversed(given) if flag in names), "f16") for names in _CACHE_FLAGS]
    return sum(_CACHE_BYTES.get(one, 2.0) for one in types) / len(types)


def _grown(path: Path) -> int:
    """Bytes that ternary matrices take more in memory than in the file: at most, they are packed as 2 bits."""
    tensors = read_raw_header(path, arrays=False).tensors.values()
    return sum(max(0, one.rows * one.columns // 4 - one.span) for one in tensors if one.ggml_type in BY_NUMBER)


def choose_slots(name: str, need: Need, context: int, slots: int | None, free: int | None) -> int:
    """How many answers are made at the same time: those asked for, else up to eight in a quarter of the memory.

    Args:
        name: of the model, for the sentence.
        need: what it takes.
        context: tokens of each slot.
        slots: that were asked for; None: none were.
        free: bytes; None: nobody knows, and nothing is refused.

    Raises:
        UserError: model or context do not fit; says the longest context that does.
    """
    if free is None:
        return slots or _UNKNOWN_SLOTS
    if need.total(context, slots or 1) <= free:
        room = _CACHES * (free - need.weights - need.work)
        return slots or max(1, min(MOST_SLOTS, int(room // max(1, need.slot(context)))))
    least = slots or 1
    if (most := need.largest_context(least, free)) > 0:
        raise UserError(
            f"-c {context}: {name} takes {shown(need.weights + need.work)} and the attention cache of "
            f"{_slots(least)} {shown(least * need.slot(context))}, but {shown(free)} of memory are free; "
            f"give at most -c {most}{'' if least == 1 else ', or a smaller --parallel'}"
        )
    if least > 1 and need.largest_context(1, free) > 0:
        raise UserError(
            f"--parallel {least}: the slots of {name} take more than the {shown(free)} of memory that are free; "
            "give a smaller --parallel"
        )
    raise UserError(
        f"{name}: takes {shown(need.weights + need.work)}, but {shown(free)} of memory are free; "
        "end other programs, or serve a smaller model"
    )


def choose_loaded(totals: Sequence[int], most: int | None, free: int | None) -> int:
    """How many of several models may be loaded at once: those asked for, else as many as fit, whichever they are.

    Args:
        totals: bytes of each, which fits alone.
        most: that was asked for; None: none.
        free: bytes; None: nobody knows.

    Raises:
        UserError: so many do not fit; says how many do.
    """
    largest = sorted(totals, reverse=True)
    if free is None:
        return most or len(largest)
    fit = sum(1 for count in range(1, len(largest) + 1) if sum(largest[:count]) <= free)
    if most is not None and min(most, len(largest)) > fit:
        raise UserError(
            f"--models-max {most}: the largest models together take {shown(sum(largest[:most]))}, but "
            f"{shown(free)} of memory are free; give at most --models-max {fit}"
        )
    return min(most or len(largest), fit)


def shown(size: int) -> str:
    """A size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _slots(count: int) -> str:
    return "one slot" if count == 1 else f"{count} slots"
