# SPDX-License-Identifier: MIT
"""A tiny model before it is written, and the files that make a folder one of an embedding model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.vocabularies import save_tokenizer


@dataclass
class Built:
    """A tiny model.

    Attributes:
        model: In float64, with the values that the checkpoint stands for.
        stored: What the checkpoint holds.
        config: config.json.
        tokenizer: tokenizer.json.
        tokenizer_config: tokenizer_config.json.
        generation_config: generation_config.json, of a model that generates.
        pooling: How sentence-transformers pools it ("lasttoken", "mean_tokens", ...), of an embedding model.
    """

    model: PreTrainedModel
    stored: stores.Stored
    config: dict[str, Any]
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]
    generation_config: dict[str, Any] = field(default_factory=dict)
    pooling: str = ""

    def write(self, directory: Path) -> None:
        """Write the folder."""
        directory.mkdir(parents=True, exist_ok=True)
        stores.write_weights(directory, self.stored.tensors)
        stores.write_json(directory / "config.json", self.config)
        stores.write_json(directory / "tokenizer_config.json", self.tokenizer_config)
        save_tokenizer(self.tokenizer, directory)
        if self.generation_config:
            stores.write_json(directory / "generation_config.json", self.generation_config)
        if self.pooling:
            write_sentence_transformers(directory, self.pooling, self.config["hidden_size"])


def write_sentence_transformers(directory: Path, mode: str, width: int) -> None:
    """The files that say: transformer, pooling by ``mode``, normalisation."""
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(places.items())
    ]
    (directory / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling: dict[str, Any] = {f"pooling_mode_{name}": name == mode for name in modes}
    stores.write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling})
