# SPDX-License-Identifier: MIT
"""How an embedding model makes one vector of its tokens' vectors, from the files of sentence-transformers.

``modules.json`` lists what comes after the transformer; a module of type Pooling has its config.json in a folder. The
vector's normalisation is the engine's own step: llama-server divides by the length unless it is told not to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import PoolingType

from trit.base.errors import UserError
from trit.models.checkpoint import is_plain_file_name
from trit.models.json_files import read_json, read_json_value

# Keys of a Pooling module that are true -> what the engine does.
MODES = {
    "pooling_mode_lasttoken": PoolingType.LAST,
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
}
# Modules that the engine's graph, pooling and normalisation stand for.
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


def read_pooling(directory: Path, config: Mapping[str, Any]) -> PoolingType | None:
    """The pooling of an embedding model, None for a model that generates text.

    A base model (``Qwen3Model`` and the like) without modules.json takes the last token, as the BitNet embedding models
    do, whose attention only looks back.

    Raises:
        UserError: the folder asks for modules or a pooling that the engine has not.
    """
    path = directory / "modules.json"
    if not path.is_file():
        base = any(str(name).endswith("Model") for name in config.get("architectures") or [])
        return PoolingType.LAST if base else None
    try:
        modules = [(module["type"].rpartition(".")[2], module["path"]) for module in read_json_value(path)]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: expected a list of modules with type and path ({error!r})") from None
    others = [name for name, _ in modules if name not in KNOWN_MODULES]
    if others:
        raise UserError(f"{path}: has a module {others[0]}, the engine has {', '.join(KNOWN_MODULES)}")
    folders = [folder for name, folder in modules if name == "Pooling"]
    if len(folders) != 1:
        raise UserError(f"{path}: has {len(folders)} modules of type Pooling, expected one")
    if not is_plain_file_name(folders[0]):
        raise UserError(f"{path}: names the folder {str(folders[0])[:60]!r}, expected one beside it")
    file = directory / folders[0] / "config.json"
    pooling = read_json(file)
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in MODES:
        raise UserError(f"{file}: pools by {', '.join(modes) or 'nothing'}, the engine by one of {', '.join(MODES)}")
    return MODES[modes[0]]
