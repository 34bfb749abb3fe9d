# SPDX-License-Identifier: MIT
"""Sizes of published models and of bitnet.cpp's table, and the ternary matrices that each has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trit.base.places import BUNDLED_MODEL, ROOT

VOCABULARIES = ROOT / "3rdparty" / "llama.cpp" / "models"


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        architecture: The engine's name; the two BitNet ones have norms inside attention and feed-forward.
        vocabulary: GGUF file in ``VOCABULARIES`` or anywhere, filled up to ``vocab`` tokens; or a checkpoint folder,
            whose tokenizer and ``vocab_size`` are used.
        tied: The head is the embedding.
    """

    architecture: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool
    rope_theta: float
    context: int
    norm_epsilon: float
    vocabulary: str | Path


SPM, BPE = "ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-bpe.gguf"
# From the config.json of 1bitLLM/bitnet_b1_58-large and -3B, microsoft/bitnet-b1.58-2B-4T,
# HF1BitLLM/Llama3-8B-1.58-100B-tokens, tiiuae/Falcon3-{1B,3B,7B,10B}-Instruct, and our bundled model.
SHAPES = {
    "bitnet-large": Shape("bitnet", 24, 1536, 4096, 16, 16, 32002, True, 10000.0, 2048, 1e-5, SPM),
    "bitnet-3b": Shape("bitnet", 26, 3200, 8640, 32, 32, 32002, True, 10000.0, 2048, 1e-5, SPM),
    "bitnet-2b-4t": Shape("bitnet-b1.58", 30, 2560, 6912, 20, 5, 128256, True, 500000.0, 4096, 1e-5, BPE),
    "llama3-8b": Shape("llama", 32, 4096, 14336, 32, 8, 128256, False, 500000.0, 8192, 1e-5, BPE),
    "falcon3-1b": Shape("llama", 18, 2048, 8192, 8, 4, 131072, False, 1000042.0, 8192, 1e-6, BPE),
    "falcon3-3b": Shape("llama", 22, 3072, 9216, 12, 4, 131072, False, 1000042.0, 32768, 1e-6, BPE),
    "falcon3-7b": Shape("llama", 28, 3072, 23040, 12, 4, 131072, False, 1000042.0, 32768, 1e-6, BPE),
    "falcon3-10b": Shape("llama", 40, 3072, 23040, 12, 4, 131072, False, 1000042.0, 32768, 1e-6, BPE),
    "story": Shape("bitnet-b1.58", 4, 256, 768, 4, 4, 512, True, 10000.0, 1024, 1e-5, BUNDLED_MODEL),
}


def _size(layers: int, hidden: int, ffn: int, heads: int) -> Shape:
    """A size of bitnet.cpp's table: no grouped queries, LLaMA's 32,000 tokens and two more, a tied head."""
    return Shape("bitnet", layers, hidden, ffn, heads, heads, 32002, True, 10000.0, 2048, 1e-5, SPM)


# The numbers are those of model_config in utils/generate-dummy-bitnet-model.py of microsoft/BitNet (179c2c9). Every
# width is a multiple of 256, so that all encodings fit.
SIZES = {
    "125M": _size(11, 768, 3072, 12),
    "350M": _size(24, 1024, 3072, 16),
    "1B": _size(24, 2048, 3584, 32),
    "1.5B": _size(28, 1536, 9216, 32),
    "2.7B": _size(24, 3072, 7680, 32),
    "3.8B": _size(24, 3840, 8192, 32),
    "7B": _size(32, 4096, 12032, 32),
    "13B": _size(40, 5120, 13824, 40),
    "30B": _size(60, 6656, 16384, 52),
    "70B": _size(80, 8192, 24576, 64),
    "100B": _size(72, 8192, 45568, 64),
}


def matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """The ternary matrices (n, k) of one block."""
    hidden, ffn, kv = shape.hidden, shape.ffn, shape.hidden // shape.heads * shape.kv_heads
    return {
        "attn_q": (hidden, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, hidden),
        "ffn_gate": (ffn, hidden),
        "ffn_up": (ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
