# SPDX-License-Identifier: MIT
"""Pictures with matplotlib, which only those who ask for one need to have installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.files import atomic_output

STRONG, PALE, LINE = "#1b6ca8", "#b8c4ce", "#444444"


def check_plot(path: Path) -> None:
    """To be asked before anything is measured.

    Raises:
        UserError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"--plot {path}: needs matplotlib; install it: {sys.executable} -m pip install matplotlib")


@contextmanager
def picture(path: Path, title: str, rows: int, columns: int, size: tuple[float, float]) -> Iterator[Any]:
    """A figure's axes [rows, columns] to draw on; the PNG file is there when the block ends without an error.

    Args:
        path: the file; its folder is made.
        title: above everything.
        rows: of panels.
        columns: of panels.
        size: width and height in inches.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    try:
        yield axes
        figure.suptitle(title, fontsize=10)
        figure.tight_layout()
        with atomic_output(path) as partial:
            figure.savefig(partial, format="png", dpi=120)
    finally:
        pyplot.close(figure)
