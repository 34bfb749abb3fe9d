# SPDX-License-Identifier: MIT
"""The forward pass of training, by transformers' own model of the checkpoint, in float64.

Linear layers with ternary weights are replaced by :class:`QatLinear`; everything else is transformers' code. Some of it
computes in float32 whatever the model's type is (norms, softmax, angles of the rotary embedding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from trit.base.errors import UserError
from trit.gguf.types import GGMLQuantizationType as Type
from trit.models.families.defaults import complete
from trit.verify.maple import Maple
from trit.verify.names import DECLARED_INPUT_NORM, as_in_file, file_name
from trit.verify.stored import TorchCheckpoint, Weight
from trit.verify.weights import EXACT, FLOAT_SCALES, TERNARY_TYPES, GgufFile

Floats = npt.NDArray[np.float64]
_T = TypeVar("_T")

# Runs with noise that a result is compared with, and those that it is compared with before it is called wrong.
RUNS, MORE_RUNS = range(8), range(8, 64)
# Size of the noise, relative to an input of a linear layer and at least to its token's root mean square. Engines are
# one epsilon of float32 off or less, so what one may round otherwise is rounded so by some run.
NOISE = 2 * torch.finfo(torch.float32).eps

# Types that hold a scale as float16 (as do, of course, plain float16 weights).
_HALF_SCALES = TERNARY_TYPES - FLOAT_SCALES | {Type.F16}

# Matrices of fewer rows are not packed (src/ggml/repack.cpp); types whose kernels are llama.cpp's then -> theirs.
PANEL_LEAST_ROWS = 32
_FEW_ROWS = {"Q2_0": Type.Q8_0, "TQ1_0": Type.Q6_K, "TQ2_0": Type.Q6_K}

# Beyond it the engine takes 0 and the value itself.
_TABLE_END = 10.0
NORM_EPSILON_KEYS = ("rms_norm_eps", "layer_norm_eps")
# 1bitLLM's models: their code computes what transformers' BitNet does; config.json calls them "llama".
_OLD_BITNET = "BitnetForCausalLM"
_GROUP = 128  # PackedMatrix::kGroup
_OLD_NORMS = (("inner_attn_ln", "attn_sub_norm"), ("ffn_layernorm", "ffn_sub_norm"))


def round_to_int8(x: Tensor, group: int) -> Tensor:
    """Round [..., k] to int8 steps, one size of step for each ``group`` inputs, of which the last may be smaller.

    Formula of the BitNet training tips: r = 127 / max(max|x|, 1e-5), clamp(round(x r), -128, 127) / r.
    """
    if rest := x.shape[-1] % group:
        return torch.cat([round_to_int8(x[..., :-rest], group), round_to_int8(x[..., -rest:], rest)], dim=-1)
    groups = x.reshape(*x.shape[:-1], -1, group)
    factor = 127 / groups.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return ((groups * factor).round().clamp(-128, 127) / factor).reshape(x.shape)


def inputs_of_a_step(matrix: Tensor, block: int) -> int:
    """For how many inputs the kernels take one size of step, where scales differ within a matrix [n, k].

    Blocks of the file's type, or groups of 128 where all blocks of each have one scale; blocks of zeros go with any.
    """
    blocks = matrix.shape[-1] // block
    together = _GROUP // block
    if together < 2:
        return block
    scales = matrix.reshape(-1, blocks, block).abs().amax(dim=-1).half()
    for first in range(0, blocks, together):
        group = scales[:, first : first + together]
        if bool(((group != group.amax(dim=-1, keepdim=True)) & (group != 0)).any()):
            return block
    return _GROUP


def as_kernels_read(x: Tensor, kind: Type) -> Tensor:
    """Round the input of a matrix that is not ternary as the kernels of its type do, before they multiply.

    float16 and bfloat16 kernels take their own type, those of quantised types int8: K types in blocks of 256, others
    in blocks of 32 whose size of step is held as float16.
    """
    if kind in {Type.F32, *TERNARY_TYPES}:
        return x
    if kind in EXACT:
        return x.to(EXACT[kind]).to(x.dtype)
    if kind.name.endswith("_K"):
        return round_to_int8(x, 256)
    step = x.reshape(*x.shape[:-1], -1, 32).abs().amax(dim=-1, keepdim=True).clamp(min=1e-5) / 127
    blocks = round_to_int8(x, 32).reshape(*step.shape[:-1], 32)
    return (blocks / step * step.half()).reshape(x.shape)


class TableGelu(nn.Module):
    """GELU as the engine looks it up: in a table of float16 values of all float16 values between -10 and 10.

    With ``looks_up`` off it is computed instead.
    """

    def __init__(self, exact: nn.Module) -> None:
        super().__init__()
        self.exact, self.looks_up = exact, True

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape -> the same shape."""
        if not self.looks_up:
            return cast(Tensor, self.exact(x))
        found = self.exact(x.half().float()).half().to(x.dtype)
        return torch.where(x <= -_TABLE_END, torch.zeros_like(x), torch.where(x >= _TABLE_END, x, found))


class Head(nn.Module):
    """The head; with ``narrow`` its input is rounded as the kernels of its type in the file do."""

    def __init__(self, linear: nn.Linear, kind: Type) -> None:
        super().__init__()
        self.weight, self.kind, self.narrow = linear.weight, kind, False

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., k] -> logits [..., n]."""
        return nn.functional.linear(as_kernels_read(x, self.kind) if self.narrow else x, self.weight)


class QatLinear(nn.Module):
    """A BitLinear layer: input rounded to int8, ternary weights. With ``noise`` the input is perturbed before.

    One step for each token, as in training; where the weights have a scale for each group of inputs (no BitLinear
    training, so nothing is given) one for each block of the file's type, or for 128, as docs/formats.md says. Ternary
    weights stay int8 in memory, and their sums are exact in float64.
    """

    def __init__(
        self, weight: Weight, kind: Type, bias: Tensor | None, norm: nn.Module | None, group: int | None = None
    ) -> None:
        super().__init__()
        self.matrix, self.scale, self.bias, self.norm, self.kind = weight.matrix, weight.scale, bias, norm, kind
        self.rounds, self.narrow = weight.rounded_input, False
        self.noise: torch.Generator | None = None
        # llama.cpp's kernels round the inputs of few rows, in blocks of their own; not of our own encodings.
        few = weight.matrix.shape[0] < PANEL_LEAST_ROWS and kind.name in _FEW_ROWS
        self.reads = _FEW_ROWS[kind.name] if few else None
        self.group = group or weight.matrix.shape[1]
        # For sizing and type: transformers asks a layer for its weight's dtype in some models.
        self.in_features, self.out_features = weight.matrix.shape[1], weight.matrix.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., k] -> [..., n]."""
        if self.norm is not None:
            x = self.norm(x)
        if self.noise is not None:
            size = NOISE * x.abs().maximum(x.pow(2).mean(dim=-1, keepdim=True).sqrt())
            x = x + size * torch.randn(x.shape, generator=self.noise, dtype=x.dtype)
        if self.rounds and self.reads is not None:
            x = as_kernels_read(x, self.reads)
        elif self.rounds:
            x = round_to_int8(x, self.group)
        elif self.narrow:
            x = as_kernels_read(x, self.kind)
        y = nn.functional.linear(x, self.matrix.to(x.dtype))
        if self.scale is not None:
            y = y * self.scale
        return y if self.bias is None else y + self.bias.to(y.dtype)


class RmsNorm(nn.Module):
    """The norm in front of a linear layer, where a checkpoint has one per layer: x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., k] -> the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight.to(x.dtype)


@dataclass
class Reference:
    """The model of a checkpoint.

    Attributes:
        model: transformers' model.
        has_head: It computes logits (else hidden states only).
        layers: The QAT layers.
    """

    model: Any
    has_head: bool
    layers: list[QatLinear]

    @property
    def decoder(self) -> Any:
        """The part without the head."""
        return self.model.model if self.has_head else self.model

    @torch.no_grad()
    def hidden(self, ids: Sequence[Sequence[int]]) -> list[Floats]:
        """After each block the hidden states, normed by the model's last norm: [sequences, length, hidden]."""
        states: list[Tensor] = []
        hooks = [block.register_forward_hook(_keep(states)) for block in self.decoder.layers]
        try:
            self.decoder(torch.tensor([list(row) for row in ids]), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return [self.decoder.norm(state).double().numpy() for state in states]

    @torch.no_grad()
    def logprobs(self, tokens: npt.NDArray[np.int64], places: slice) -> Floats:
        """Map [sequences, length] -> log-probabilities [sequences, positions, vocabulary] at some places."""
        rows = [self.model(torch.tensor(row[None]), use_cache=False).logits[0, places].double() for row in tokens]
        return torch.stack([torch.log_softmax(row, dim=-1) for row in rows]).numpy()

    @torch.no_grad()
    def greedy(self, prompt: list[int], most: int, stops: set[int]) -> list[int]:
        """The tokens that follow a prompt, the likeliest each time, up to ``most`` or a stop token (left out)."""
        ids: list[int] = []
        while len(ids) < most:
            token = int(self.model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1].argmax())
            if token in stops:
                break
            ids.append(token)
        return ids

    def runs(self, compute: Callable[[], _T], seeds: Iterable[int] = RUNS) -> list[_T]:
        """What ``compute`` gives in float32 with noise, once for each seed: what rounding alone can make of it."""
        found = []
        with self.in_float32():
            try:
                for seed in seeds:
                    generator = torch.Generator().manual_seed(seed)
                    for layer in self.layers:
                        layer.noise = generator
                    found.append(compute())
            finally:
                for layer in self.layers:
                    layer.noise = None
        return found

    @contextmanager
    def without_rounding(self) -> Iterator[None]:
        """Compute with the inputs of the linear layers as they are, not rounded to int8."""
        rounds = [layer.rounds for layer in self.layers]
        for layer in self.layers:
            layer.rounds = False
        try:
            yield
        finally:
            for layer, before in zip(self.layers, rounds, strict=True):
                layer.rounds = before

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Compute in float32, with inputs as the kernels read them."""
        narrowed = [module for module in self.model.modules() if isinstance(module, (Head, QatLinear))]
        self.model.float()
        for module in narrowed:
            module.narrow = True
        try:
            yield
        finally:
            self.model.double()
            for module in narrowed:
                module.narrow = False


def _keep(states: list[Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    return hook


def build(checkpoint: TorchCheckpoint, file: GgufFile, activations: str = "auto") -> Reference:
    """The model of a checkpoint, with what the file's types can hold: scales in their precision, its embeddings.

    Embedding and head are taken from the file (``weights`` has compared them with the checkpoint), so that the cost of
    quantising them is not mistaken for an error of the engine.

    Args:
        checkpoint: The folder.
        file: What it became.
        activations: ``int8``: the inputs of linear layers are rounded; ``float``: they are not; ``auto``: as the engine
            does for the file's types.

    Raises:
        UserError: transformers does not know the model, or a tensor has no place in it.
    """
    rounds = {"int8": True, "float": False}.get(activations)
    if file.architecture == "maple":
        reference = Reference(Maple(complete(checkpoint.config)[0]).double().eval(), True, [])
        _load(reference, checkpoint, file, rounds)
        return reference
    config = _config(checkpoint)
    encoder = bool(file.field(f"{file.architecture}.pooling_type"))
    try:
        with no_init_weights():
            make: Any = AutoModel if encoder else AutoModelForCausalLM
            # From the start: constants such as Gemma's embedding scale would stay rounded to config.json's type.
            model = make.from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint.directory}: transformers cannot build this model ({reason})") from None
    model = model.double()
    model.tie_weights()
    for name, module in list(model.named_modules()):
        if name.endswith("act_fn") and "gelu" in type(module).__name__.lower():
            model.set_submodule(name, TableGelu(module))
    reference = Reference(model, not encoder, [])
    _load(reference, checkpoint, file, rounds)
    return reference


def _config(checkpoint: TorchCheckpoint) -> Any:
    values = {key: value for key, value in checkpoint.config.items() if key not in {"quantization_config", "auto_map"}}
    kind = values.pop("model_type", None)
    if _OLD_BITNET in values.get("architectures", []):
        kind = "bitnet"
    if kind == "minicpm":
        kind, values = "granite", values | _granite(values)
    try:
        return AutoConfig.for_model(str(kind), **values)
    except ValueError:
        raise UserError(f"{checkpoint.directory}: transformers knows no model_type {kind!r}") from None


def _granite(config: Mapping[str, Any]) -> dict[str, Any]:
    """MiniCPM's constants in the words of Granite, of which transformers has a class: the two compute the same."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return {
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "embedding_multiplier": config.get("scale_emb", 1),
        "residual_multiplier": config.get("scale_depth", 1) / config["num_hidden_layers"] ** 0.5,
        "logits_scaling": hidden / config.get("dim_model_base", 1),
        "attention_multiplier": (config.get("head_dim") or hidden // heads) ** -0.5,
    }


def _in_transformers(name: str, parameters: Mapping[str, Any]) -> str:
    """The name of a checkpoint's tensor in transformers' model."""
    for theirs, ours in _OLD_NORMS:
        name = name.replace(theirs, ours)
    return name if name in parameters else name.removeprefix("model.")


def _load(reference: Reference, checkpoint: TorchCheckpoint, file: GgufFile, rounds: bool | None) -> None:
    """Fill in every parameter."""
    root = reference.model
    modules = dict(root.named_modules())
    parameters = dict(root.named_parameters())
    names = {_in_transformers(name, parameters): name for name in checkpoint.names()}
    translate = file_name(file.architecture, file.blocks, file.further)
    done = set()
    for name, stored in names.items():
        module_name, _, leaf = name.rpartition(".")
        module = modules.get(module_name)
        block = ".layers." in f".{name}"
        if block and leaf == "weight" and isinstance(module, nn.Linear):
            target = translate(stored) or ""
            kind = file.type_of(target)
            layer = _qat_layer(module, stored, checkpoint, file.architecture, kind)
            if layer.scale is not None and kind in _HALF_SCALES and f"{target[:-6]}scale" not in file.names():
                layer.scale = float(torch.tensor(layer.scale).half())
            layer.rounds = layer.rounds and (kind in TERNARY_TYPES if rounds is None else rounds)
            parent, _, attribute = module_name.rpartition(".")
            setattr(modules[parent], attribute, layer)
            reference.layers.append(layer)
        elif name in parameters and not (block and isinstance(module, nn.Linear)):
            parameters[name].data = _float_parameter(name, stored, checkpoint, file)
        done.add(name)
    if reference.has_head:
        target = "output.weight" if "output.weight" in file.names() else "token_embd.weight"
        root.lm_head = Head(root.lm_head, file.type_of(target))
    missing = [
        name
        for name, parameter in root.named_parameters()
        if name not in done and not any(parameter is other for key, other in parameters.items() if key in done)
    ]
    if missing:
        raise UserError(f"{checkpoint.directory}: has no {missing[0]}, which transformers' model has")


def _qat_layer(module: nn.Linear, stored: str, checkpoint: TorchCheckpoint, architecture: str, kind: Type) -> QatLinear:
    weight = checkpoint.linear(stored)
    stem = stored.removesuffix("weight")
    # A one-dimensional weight below the layer's own name is the norm of its input.
    inner = [name for name in checkpoint.names() if name.startswith(stem) and name.endswith("norm.weight")]
    norm = None
    if inner:
        declared = checkpoint.config.get("quantization_config") or {}
        # A norm by transformers' option use_rms_norm has the option's own epsilon.
        keys = declared if inner[0].endswith(DECLARED_INPUT_NORM) else checkpoint.config
        epsilon = next((keys[key] for key in NORM_EPSILON_KEYS if key in keys), 1e-6)
        norm = RmsNorm(checkpoint.get(inner[0]).double(), float(epsilon))
    bias = checkpoint.get(f"{stem}bias").double() if module.bias is not None else None
    if weight.matrix.shape != (module.out_features, module.in_features):
        raise UserError(
            f"{stored}: stands for {list(weight.matrix.shape)}, config.json for {list(module.weight.shape)}"
        )
    group = None
    if weight.scale is None:
        stored_so = as_in_file(stored, weight.matrix, architecture, checkpoint.config)
        group = inputs_of_a_step(stored_so, gguf.GGML_QUANT_SIZES[kind][0])
    return QatLinear(weight, kind, bias, norm, group)


def _float_parameter(name: str, stored: str, checkpoint: TorchCheckpoint, file: GgufFile) -> Tensor:
    """An embedding or head as the file has it; anything else as the checkpoint has it."""
    for leaf, target in (
        ("embed_tokens.weight", "token_embd.weight"),
        ("word_embeddings.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
    ):
        if name.endswith(leaf) and target in file.names():
            return torch.from_numpy(file.tensor(target).values)
    return checkpoint.get(stored).double()
