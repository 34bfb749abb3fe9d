# SPDX-License-Identifier: MIT
"""What a token costs at least: bytes to read and multiply-accumulates, counted in a GGUF file's own header.

Divided by what the machine can do (trit.engine.roofline) that is the least time of a test, whatever the kernels are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from trit.base.errors import UserError
from trit.base.places import ENGINE_BIN
from trit.engine.confinement import attending_layers
from trit.engine.llama_bench import Case
from trit.engine.packed import Matrix, Packed, packed
from trit.engine.roofline import Limit
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.parts import read_parts
from trit.gguf.types import TensorEntry, read_header

UBATCH = 512  # tokens that the engine computes at once: llama-bench's default of -ub
KV_ELEMENT = 2  # bytes: float16, the engine's default
_FIRST_ROWS = 64  # of a matrix, whose scales are looked at
# Behind the architecture's name; with one of these, tokens do not all read the same bytes, or no attention cache.
OTHER_COSTS = {
    "expert_count": "is a mixture of experts, of which each token reads others",
    "attention.kv_lora_rank": "keeps a compressed attention cache",
    "ssm.state_size": "has a state in the place of an attention cache",
}


@dataclass(frozen=True)
class Step:
    """What the engine computes at once: tokens, how many of them go through the head, tokens in the context at last."""

    tokens: int
    outputs: int
    context: int


@dataclass(frozen=True)
class Cost:
    """Of one token, on average over a test; attention computes with floats and has no part in the int8 limit."""

    bytes: float
    kv_bytes: float
    macs: float
    attention_macs: float


@dataclass(frozen=True)
class ModelCost:
    """What a model's file says.

    Attributes:
        layer_bytes: Bytes of all weights but the head, in memory.
        head_bytes: Bytes of the head; only steps with an output read it.
        layer_macs: Multiply-accumulates of a token in the layers' matrices.
        head_macs: The same in the head.
        kv_bytes: Bytes of attention cache for each token of context.
        attention_macs: Multiply-accumulates for each token of context.
        window: Tokens of context that are read at most; None: all. Layers without a window count with one, too.
    """

    layer_bytes: int
    head_bytes: int
    layer_macs: int
    head_macs: int
    kv_bytes: int
    attention_macs: int
    window: int | None

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that generating one token reads."""
        return self.layer_bytes + self.head_bytes

    def step_bytes(self, step: Step) -> tuple[int, int]:
        """Bytes of weights, and of attention cache, that a step reads at least once."""
        weights = self.layer_bytes + (self.head_bytes if step.outputs else 0)
        return weights, self.kv_bytes * min(step.context, self.window or step.context)

    def step_macs(self, step: Step) -> int:
        """Multiply-accumulates of a step in the matrices."""
        return step.tokens * self.layer_macs + step.outputs * self.head_macs

    def cost(self, case: Case) -> Cost:
        """The average token of a test."""
        tokens, done = case.n_prompt + case.n_gen, list(steps(case))
        read = [self.step_bytes(step) for step in done]
        # Causal: a token meets the context before it, on average half of its own step.
        met = sum(s.tokens * min(s.context - (s.tokens - 1) / 2, self.window or math.inf) for s in done)
        return Cost(
            sum(map(sum, read)) / tokens,
            sum(kv for _, kv in read) / tokens,
            sum(map(self.step_macs, done)) / tokens,
            met * self.attention_macs / tokens,
        )

    def limit(self, case: Case, machine: Limit, cache_bytes: int = 0) -> tuple[float, str]:
        """Most tokens per second: each step takes the longer one of two times.

        Args:
            case: a test.
            machine: what it can do.
            cache_bytes: that it keeps between steps: where all of a step fits there, reading memory is no limit.

        Returns:
            Tokens per second, and what binds most of the time: "int8" arithmetic or "read".
        """
        int8, read = median(machine.int8_gmacs) * 1e9, median(machine.read.gbs) * 1e9
        times = []
        for step in steps(case):
            moved = sum(self.step_bytes(step))
            times.append((self.step_macs(step) / int8, moved / read if moved > cache_bytes else 0.0))
        binding = "int8" if sum(macs for macs, _ in times) > sum(moved for _, moved in times) else "read"
        return (case.n_prompt + case.n_gen) / sum(map(max, times)), binding


def steps(case: Case) -> Iterator[Step]:
    """The engine's steps in a test: a prompt in batches of which the last token has an output, then one by one."""
    context = case.depth
    for start in range(0, case.n_prompt, case.batch):
        end = min(start + case.batch, case.n_prompt)
        for place in range(start, end, UBATCH):
            tokens = min(UBATCH, end - place)
            context += tokens
            yield Step(tokens, 1 if place + tokens == end else 0, context)
    for _ in range(case.n_gen):
        context += 1
        yield Step(1, 1, context)


@dataclass(frozen=True)
class ModelFile:
    """The headers of a GGUF file, and of the other files of a split model.

    Attributes:
        numbers: What the keys of the architecture say, without its name in front.
        tensors: With the file that each is in.
    """

    path: Path
    architecture: str
    numbers: dict[str, Any]
    tensors: dict[str, tuple[Path, TensorEntry]]

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Raises UserError if one of the files is missing or damaged."""
        headers = [(part, read_header(part)) for part, _ in read_parts(path, arrays=False)]
        metadata = headers[0][1].metadata
        prefix = f"{metadata.get('general.architecture')}."
        numbers = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        tensors = {name: (part, tensor) for part, header in headers for name, tensor in header.tensors.items()}
        return cls(path, prefix[:-1], numbers, tensors)

    @property
    def parameters(self) -> int:
        """Weights of all tensors."""
        return sum(math.prod(tensor.shape) for _, tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Of all tensors, as they are in the file."""
        return sum(tensor.nbytes for _, tensor in self.tensors.values())

    @property
    def context(self) -> int:
        """Tokens that the model was made for; 0: the file does not say."""
        return int(self.numbers.get("context_length", 0))


def loaded(model: ModelFile, bin_dir: Path = ENGINE_BIN, tier: str | None = None) -> ModelCost:
    """What a model costs once the engine has packed it; see :func:`of_model` and :func:`trit.engine.packed.packed`."""
    return of_model(model, packed(ternary_matrices(model), bin_dir, tier))


def ternary_matrices(model: ModelFile) -> list[Matrix]:
    """The ternary matrices of a model, those of one shape once."""
    found = (_matrix(tensor) for _, tensor in model.tensors.values())
    return list(dict.fromkeys(matrix for matrix in found if matrix))


def _matrix(tensor: TensorEntry) -> Matrix | None:
    encoding = BY_NUMBER.get(tensor.ggml_type)
    return (encoding.name, *tensor.shape) if encoding and len(tensor.shape) == 2 else None


def of_model(model: ModelFile, in_memory: Mapping[Matrix, Packed]) -> ModelCost:
    """Count in the headers.

    Args:
        model: what they say.
        in_memory: the ternary matrices that the engine packs; others stay as they are in the file.

    Raises:
        UserError: the model's tokens do not all cost the same (mixture of experts, ...).
    """
    for key, what in OTHER_COSTS.items():
        if model.numbers.get(key):
            raise UserError(
                f"{model.path}: the model {what}: what its tokens cost is not known; measure without limits"
            )
    tied = "output.weight" not in model.tensors
    head = model.tensors.get("token_embd.weight" if tied else "output.weight")
    if head is None or "attention.head_count" not in model.numbers:
        raise UserError(
            f"{model.path}: no language model with attention and a head ({model.architecture}.attention.head_count, "
            "token_embd.weight): what its tokens cost is not known; measure without limits"
        )
    # The embedding is read whole only where it is the head as well.
    layers = [entry for name, entry in model.tensors.items() if name not in ("token_embd.weight", "output.weight")]
    matrices = [tensor for _, tensor in layers if len(tensor.shape) == 2 and tensor.name.startswith("blk.")]
    cached, attended = _attention(model.numbers)
    return ModelCost(
        layer_bytes=sum(_in_memory(*entry, in_memory) for entry in layers),
        head_bytes=_in_memory(*head, in_memory),
        layer_macs=sum(math.prod(tensor.shape) for tensor in matrices),
        head_macs=math.prod(head[1].shape),
        kv_bytes=KV_ELEMENT * cached,
        attention_macs=attended,
        window=model.numbers.get("attention.sliding_window") or None,
    )


def _attention(numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers in the attention cache for each token, and multiply-accumulates with them; of all layers together."""
    layers = int(numbers["block_count"])

    def per_layer(key: str, default: Any) -> list[int]:
        value = numbers.get(key, default)
        return [int(one) for one in value] if isinstance(value, list) else [int(value)] * layers

    heads = per_layer("attention.head_count", 0)
    kv_heads = per_layer("attention.head_count_kv", numbers["attention.head_count"])
    usual = int(numbers["embedding_length"]) // max(1, max(heads))
    width = int(numbers.get("attention.key_length", usual)) + int(numbers.get("attention.value_length", usual))
    further = int(numbers.get("nextn_predict_layers", 0))
    # Drafts apart, a layer for further tokens is not run; a hybrid's linear layers keep no tokens.
    share = attending_layers(layers, int(numbers.get("full_attention_interval", 0)), further) - further
    return width * sum(kv_heads) * share // layers, width * sum(heads) * share // layers


def _in_memory(path: Path, tensor: TensorEntry, in_memory: Mapping[Matrix, Packed]) -> int:
    """Bytes of a tensor once it is loaded."""
    matrix = _matrix(tensor)
    made = in_memory.get(matrix) if matrix else None
    if made is None or not made.packing:
        return tensor.nbytes
    if made.grouped_nbytes and not _has_one_scale(path, tensor):
        return made.grouped_nbytes
    return made.nbytes


def _has_one_scale(path: Path, tensor: TensorEntry) -> bool:
    """Whether the blocks of the first rows share their scale: models have one for a whole matrix, or many."""
    encoding = BY_NUMBER[tensor.ggml_type]
    place = encoding.scale_at
    assert place is not None
    first = tensor.read(path, 0, encoding.nbytes(min(_FIRST_ROWS, tensor.shape[0]), tensor.shape[1]))
    scales = np.unique(first.reshape(-1, encoding.block_bytes)[:, place : place + 2].copy().view("<u2"))
    return bool(np.count_nonzero(scales & 0x7FFF) <= 1)  # blocks of zeros fit every scale
