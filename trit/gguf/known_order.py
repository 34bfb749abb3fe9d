# SPDX-License-Identifier: MIT
"""Is an i2_s file in the order of its columns that the engine reads? Looked at once for each file, then remembered.

Nothing but the weights tells (``trit.gguf.order``), and to look at one layer of them takes a second or two, for which
numpy is needed. So that is done in the environment's Python, and the answer is kept with the file's size and time.
Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from trit.base.command import environment_python
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import atomic_output
from trit.base.places import CACHE_DIR, ROOT, python_command
from trit.base.processes import capture
from trit.gguf.header import RawHeader
from trit.gguf.layouts import I2_S_LAYOUTS, LAYOUTS, PUBLISHED_I2_S

_KEPT = CACHE_DIR / "orders"
_SECONDS = 120


def refuse_other_order(path: Path, header: RawHeader) -> None:
    """Refuse a file whose i2_s the engine would load, but read as other matrices.

    Args:
        path: The file, or the first of a split model.
        header: Of the model.

    Raises:
        UserError: names who wrote it so, and the command that converts it.
    """
    number = LAYOUTS[PUBLISHED_I2_S].ids[0]
    if all(tensor.ggml_type != number for tensor in header.tensors.values()):
        return
    order = _order(path)
    if order in I2_S_LAYOUTS and order != "published":
        raise UserError(
            f"{path}: its i2_s is in the order of {LAYOUTS[I2_S_LAYOUTS[order]].writer}, with which the engine would "
            f"answer nonsense; convert it: {python_command('-m utils.convert')} {path} --outtype i2_s "
            f"--i2-s-layout {order}"
        )


def _order(path: Path) -> str:
    """The order that the weights speak for, "" if they do not say or cannot be looked at here."""
    stat = path.stat()
    whole = str(path.resolve())
    state = {"path": whole, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    kept = _KEPT / f"{hashlib.sha256(whole.encode('utf-8', 'surrogateescape')).hexdigest()[:20]}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if {key: known.get(key) for key in state} == state:
            return str(known["order"])
    except (OSError, ValueError, AttributeError, KeyError):
        pass
    python = environment_python()
    command = [python if python.is_file() else sys.executable, "-m", "trit.gguf.order", path.resolve()]
    code, said = capture(command, _SECONDS, cwd=ROOT)
    if code != EXIT_OK:
        return ""
    order = said.strip()
    try:
        with atomic_output(kept) as partial:
            partial.write_text(json.dumps({**state, "order": order}) + "\n", encoding="utf-8")
    except OSError:
        pass  # looked at again next time
    return order
