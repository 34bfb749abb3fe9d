# SPDX-License-Identifier: MIT
"""The metadata of a foreign GGUF file, copied with what is known to be wrong put right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.gguf.header import ARRAY, STRING, RawHeader
from trit.gguf.loadable import AGAIN, no_model
from trit.gguf.types import GGUFValueType, GGUFWriter
from trit.gguf.validate import unsound

# Names that uploads have used for one architecture.
ARCHITECTURES = {"bitnet-25": "bitnet-b1.58"}
# The writer sets these itself, or they say how the source file was laid out or made.
DROPPED = ("general.architecture", "general.alignment", "split.", "trit.")
# What bitnet.cpp writes for i2_s.
BITNET_CPP_FILE_TYPE = 40


def check_convertible(header: RawHeader) -> None:
    """Refuse what cannot become a file that the engine runs, whatever its tensors are.

    Raises:
        UserError: a file that is not a model's, no architecture, or what the engine cannot take.
    """
    metadata = header.metadata
    if reason := no_model(header):
        raise UserError(reason)
    name = metadata.get("general.architecture")
    if name is None:
        raise UserError("it names no architecture (general.architecture), so no engine can run it")
    if not isinstance(name, str) or not name.isascii():
        raise UserError(f"its general.architecture is {name!a}, so no engine can run it")
    if reason := unsound(header, foreign=True):
        raise UserError(f"{reason}{AGAIN}")


def architecture(header: RawHeader) -> str:
    """The name under which our engine knows the model's graph."""
    name = str(header.metadata["general.architecture"])
    return ARCHITECTURES.get(name, name)


def copy_metadata(writer: GGUFWriter, header: RawHeader, file_type: int) -> list[str]:
    """Write all keys, corrected.

    Args:
        writer: Made for :func:`architecture`.
        header: Of the source, arrays included.
        file_type: ``general.file_type`` of the new file.

    Returns:
        What was corrected, one clause each.
    """
    metadata = header.metadata
    changes: list[str] = []
    old, new = str(metadata["general.architecture"]), architecture(header)
    if old != new:
        changes.append(f"architecture {old} is now {new}")
    missing_pre = _missing_pre(metadata, new)
    written_type = False
    for key, value in metadata.items():
        if key.startswith(DROPPED):
            continue
        kind, element = header.types[key]
        if key == "general.file_type":
            written_type = True
            if value == BITNET_CPP_FILE_TYPE:
                changes.append(f"general.file_type {value}, which means q1_0 today, is now {file_type}")
            writer.add_file_type(file_type)
            continue
        if kind == ARRAY and not value:
            continue  # the engine takes a missing key and an empty array for the same, gguf-py cannot write the latter
        name = f"{new}{key.removeprefix(old)}" if key.startswith(f"{old}.") else key
        writer.add_key_value(
            name,
            _writable(value, kind, element),
            GGUFValueType(kind),
            None if element is None else GGUFValueType(element),
        )
        if key == "tokenizer.ggml.model" and missing_pre:
            writer.add_tokenizer_pre(missing_pre)
            changes.append(f"tokenizer.ggml.pre was missing and is now {missing_pre}")
    if not written_type:
        writer.add_file_type(file_type)
    return changes


def _missing_pre(metadata: Mapping[str, Any], name: str) -> str | None:
    """The pre-tokenizer that the published 2B-4T files leave out; other models' are not guessed."""
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre"):
        return None
    return "llama-bpe" if name == "bitnet-b1.58" else None


def _writable(value: Any, kind: int, element: int | None) -> Any:
    """Strings as the bytes that they were: tokens need not be UTF-8."""
    if kind == STRING:
        return value.encode("utf-8", errors="surrogateescape")
    if element == STRING:
        return [text.encode("utf-8", errors="surrogateescape") for text in value]
    return value
