# SPDX-License-Identifier: MIT
"""Captured text as a picture of a terminal: an SVG that is text itself."""

from __future__ import annotations

from html import escape
from pathlib import Path

from trit.base.files import atomic_output

_WIDTH, _LINE, _MARGIN = 7.2, 18, 14  # pixels: of a character, between lines, around the text
_FONT = "12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
_STYLE = f"text{{font:{_FONT};fill:#d6deeb;white-space:pre}}.typed{{fill:#7fdbca}}"


def draw(source: Path, path: Path) -> Path:
    """Write ``path`` from a text file; lines that begin with ``$`` are what was typed."""
    with atomic_output(path) as partial:
        partial.write_text(svg(source.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def svg(text: str) -> str:
    """The picture's source."""
    lines = text.rstrip("\n").split("\n")
    width = round(max(map(len, lines)) * _WIDTH + 2 * _MARGIN)
    height = len(lines) * _LINE + 2 * _MARGIN
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" rx="8" fill="#011627"/>',
    ]
    for number, line in enumerate(lines):
        typed = ' class="typed"' if line.startswith("$") else ""
        if line.strip():
            rows.append(f'<text x="{_MARGIN}" y="{_MARGIN + 13 + number * _LINE}"{typed}>{escape(line)}</text>')
    return "\n".join([*rows, "</svg>\n"])
