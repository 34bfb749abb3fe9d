# SPDX-License-Identifier: MIT
"""Which file a command takes that is given none. Standard library only."""

from __future__ import annotations

from pathlib import Path

from trit.base.places import BUNDLED_MODEL, gguf_path
from trit.gguf.encoding_table import AUTO_TYPES


def default_model(folder: Path = BUNDLED_MODEL) -> Path:
    """The GGUF of a folder that set-up made last; where it would be, if there is none."""
    made = [path for name in AUTO_TYPES if (path := gguf_path(folder, name)).is_file()]
    return max(made, key=lambda path: path.stat().st_mtime, default=gguf_path(folder))
