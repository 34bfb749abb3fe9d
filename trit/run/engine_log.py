# SPDX-License-Identifier: MIT
"""What a running engine says on its standard error. Standard library only."""

from __future__ import annotations

import sys
import threading
from typing import IO

# Warnings of our kernels, and of OpenMP about its variables.
_SHOWN = ("warning:", "libgomp:", "OMP: Warning")


class EngineLog:
    """The engine's standard error: kept whole, shown if wanted; some warnings are always shown."""

    def __init__(self, stream: IO[bytes], show: bool):
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._follow, args=(stream, show), daemon=True)
        self._thread.start()

    def _follow(self, stream: IO[bytes], show: bool) -> None:
        for raw in stream:
            line = raw.decode("utf-8", errors="replace")
            self._lines.append(line)
            if show or line.startswith(_SHOWN):
                sys.stderr.write(line)

    def read(self) -> str:
        """Everything, once the engine has ended."""
        self._thread.join()
        return "".join(self._lines)
