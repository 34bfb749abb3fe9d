# SPDX-License-Identifier: MIT
"""What is a GGUF file on the Hub? Seen from its first megabytes, before the rest is fetched."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.identify import Found, identify
from trit.gguf.layouts import TILED
from trit.gguf.rotation import SIGNS, wrong_rotation
from trit.hub.listing import RemoteFile
from trit.hub.transfer import fetch_head

# Metadata with a vocabulary of 150,000 words takes about 6 MB, one of 260,000 about 15.
_HEADS = (32 << 20, 128 << 20)


@dataclass(frozen=True)
class ReadyMade:
    """A ternary GGUF model on the Hub.

    Attributes:
        layout: name of its matrices' layout (trit.gguf.layouts).
        loads: whether the engine loads it as it is; otherwise set-up converts it.
    """

    layout: str
    loads: bool


def look_into(file: RemoteFile, folder: Path) -> ReadyMade:
    """What a GGUF file holds, by the types and the true sizes of its tensors: type numbers have been used twice.

    Args:
        file: the model's (first) file.
        folder: where it is downloaded to; the beginning that is read here is not fetched again.

    Raises:
        UserError: no GGUF, not ternary, or bytes that neither the engine nor the converter reads; names the tensor.
    """
    header = _read_head(file, folder)
    if rotated := wrong_rotation(header):
        raise UserError(f"{file.name}: {rotated}")
    found = identify(header)
    matrices = [item for item in found if item.tensor.name.startswith("blk.") and len(item.tensor.shape) > 1]
    if not matrices:
        raise UserError(f"{file.name}: has no blocks of a language model")
    if broken := next((item for item in found if item.problem), None):
        raise UserError(f"{file.name}: {broken.tensor.name} {broken.problem}")
    (name, _), *_ = Counter(item.name for item in matrices).most_common(1)
    if not any(item.name == name and item.layout for item in matrices):
        raise UserError(f"{file.name}: its matrices are {name}, which is not ternary")
    if tiled := next((item for item in found if item.name in TILED), None):
        raise UserError(f"{file.name}: {_tiled(tiled)}")
    return ReadyMade(name, all(item.loads for item in found))


def _tiled(item: Found) -> str:
    return f"{item.tensor.name} is {item.name}, whose tile sizes are in a kernel_config.ini that only its maker has"


def _read_head(file: RemoteFile, folder: Path) -> RawHeader:
    """The header, read from a file of the right length whose end is a hole.

    Raises:
        UserError: not a GGUF header, however much is read.
    """
    for count in _HEADS:
        start = fetch_head(file, folder, count)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".head-") as place:
            sparse = Path(place) / file.name
            with start.open("rb") as source, sparse.open("wb") as target:
                target.write(source.read(count))
                target.truncate(file.size)
            try:
                header = read_raw_header(sparse, arrays=(SIGNS,))
            except UserError as error:
                if count == _HEADS[-1] or count >= file.size:
                    raise UserError(str(error).replace(str(sparse), file.name)) from None
                continue
        if count >= file.size or header.data_offset <= count:
            return header
    raise UserError(f"{file.name}: its header is longer than {_HEADS[-1]} bytes, which no model's is")
