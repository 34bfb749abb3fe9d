# SPDX-License-Identifier: MIT
"""The compiled engine's tokenizer, called through libllama: a GGUF file with a vocabulary and no weights is enough."""

from __future__ import annotations

import ctypes
from pathlib import Path


class ModelParams(ctypes.Structure):
    """``llama_model_params`` of the pinned engine (llama.h)."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("buffer_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int),
        ("load_mode", ctypes.c_int),
        ("lazy_mode", ctypes.c_int),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_data", ctypes.c_void_p),
        ("overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    )


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@LogCallback
def _quiet(level: int, text: bytes, data: int) -> None:
    """No log among the tests' output."""


class EngineVocabulary:
    """The vocabulary of one GGUF file."""

    def __init__(self, engine_bin: Path, gguf: Path) -> None:
        library = self._library = ctypes.CDLL(str(engine_bin / "libllama.so"))
        library.llama_log_set(_quiet, None)
        library.llama_model_default_params.restype = ModelParams
        library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
        library.llama_model_load_from_file.restype = ctypes.c_void_p
        library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        library.llama_model_get_vocab.restype = ctypes.c_void_p
        library.llama_model_free.argtypes = [ctypes.c_void_p]
        library.llama_tokenize.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_int32,
            ctypes.POINTER(ctypes.c_int32),
            ctypes.c_int32,
            ctypes.c_bool,
            ctypes.c_bool,
        ]
        library.llama_backend_init()
        params = library.llama_model_default_params()
        assert not params.vocab_only and params.use_extra_bufts, "llama_model_params has another layout now"
        params.vocab_only = True
        self._model = library.llama_model_load_from_file(str(gguf).encode(), params)
        assert self._model, f"the engine does not load {gguf}"
        self._vocab = library.llama_model_get_vocab(self._model)

    def tokenize(self, text: str, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Token ids of a text."""
        raw = text.encode("utf-8")
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        count = self._library.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), add_special, parse_special)
        assert count >= 0, f"needs room for {-count} tokens"
        return list(ids[:count])

    def close(self) -> None:
        """Free the model."""
        self._library.llama_model_free(self._model)
