# SPDX-License-Identifier: MIT
"""Is a GGUF file on the Hub one that the engine can run? Seen from its first megabytes, before the rest is fetched."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from utils.cli import UserError
from utils.gguf_types import GGMLQuantizationType, GgufHeader, read_header
from utils.hub.choice import TERNARY
from utils.hub.listing import RemoteFile
from utils.hub.transfer import fetch_head
from utils.weight_encodings import ENCODINGS

# Metadata with a vocabulary of 150,000 words takes about 6 MB, one of 260,000 about 15.
_HEADS = (32 << 20, 128 << 20)
_ALIGNMENT = 32
# Bytes per 128 weights of the layout that a fork wrote as q2_0 before llama.cpp had the type.
_Q2_0_G128_BYTES = 34


def check_ready(file: RemoteFile, folder: Path) -> str:
    """The ternary encoding of a GGUF file, by its content: the types of its tensors and their true sizes.

    Args:
        file: the model's (first) file.
        folder: where it is downloaded to; the beginning that is read here is not fetched again.

    Raises:
        UserError: no GGUF, not ternary, or its bytes do not have the layout that its types promise.
    """
    head = _read_head(file, folder)
    matrices = {name: entry for name, entry in head.tensors.items() if name.startswith("blk.") and len(entry.shape) > 1}
    if not matrices:
        raise UserError(f"{file.name}: has no blocks of a language model")
    kinds = Counter(entry.ggml_type for entry in matrices.values())
    (kind, _), *_ = kinds.most_common(1)
    encoding = next((name for name in TERNARY if ENCODINGS[name].ggml_type == kind), None)
    if encoding is None:
        found = GGMLQuantizationType(kind).name.lower()
        raise UserError(f"{file.name}: its matrices are {found}, which is not ternary")
    _check_sizes(file, head)
    return encoding


def _read_head(file: RemoteFile, folder: Path) -> GgufHeader:
    """The header, read from a file of the right length whose end is a hole until it is downloaded.

    Raises:
        UserError: not a GGUF header, whatever is read.
    """
    for count in _HEADS:
        start = fetch_head(file, folder, count)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".head-") as place:
            sparse = Path(place) / file.name
            with start.open("rb") as source, sparse.open("wb") as target:
                target.write(source.read(count))
                target.truncate(file.size)
            try:
                head = read_header(sparse)
            except UserError as error:
                if count == _HEADS[-1] or count >= file.size:
                    raise UserError(str(error).replace(str(sparse), file.name)) from None
                continue
        if count >= file.size or all(entry.offset <= count for entry in list(head.tensors.values())[:1]):
            return head
    raise UserError(f"{file.name}: its header is longer than {_HEADS[-1]} bytes, which no model's is")


def _check_sizes(file: RemoteFile, head: GgufHeader) -> None:
    """Compare each tensor's size by its type with the distance to the next one: type numbers have been used twice.

    Raises:
        UserError: they differ; names the tensor.
    """
    alignment = int(head.metadata.get("general.alignment", _ALIGNMENT))
    entries = sorted(head.tensors.values(), key=lambda entry: entry.offset)
    ends = [entry.offset for entry in entries[1:]]
    for entry, end in zip(entries, ends, strict=False):
        if -(-entry.nbytes // alignment) * alignment == end - entry.offset:
            continue
        kind = GGMLQuantizationType(entry.ggml_type).name.lower()
        weights = entry.shape[0] * entry.shape[-1] if len(entry.shape) == 2 else 0
        old = kind == "q2_0" and end - entry.offset == weights // 128 * _Q2_0_G128_BYTES
        why = "it is of an older fork, with groups of 128 weights" if old else "another program's type has this number"
        raise UserError(
            f"{file.name}: {entry.name} takes {end - entry.offset} bytes, {kind} takes {entry.nbytes}: {why}"
        )
    if entries and entries[-1].offset + entries[-1].nbytes > file.size and "split.count" not in head.metadata:
        raise UserError(f"{file.name}: ends inside {entries[-1].name}; the file on the Hub is not whole")
