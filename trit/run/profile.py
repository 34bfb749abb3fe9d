# SPDX-License-Identifier: MIT
"""Where a token's time goes: ``trit run --profile``, with the demonstration's prompt if none is given."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trit.base.places import DEMO_PROMPT
from trit.run import completion

_PROMPTS = ("-p", "--prompt", "-f", "--file")


def main(argv: Sequence[str] | None = None) -> int:
    """All flags of ``trit run``; the engine's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = any(word.partition("=")[0] in _PROMPTS for word in words)
    return completion.main(["--profile", *([] if given else ["-p", DEMO_PROMPT]), *words])
