# SPDX-License-Identifier: MIT
"""Where a token's time goes: ``trit run --profile``, with the demonstration's prompt if none is given."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trit.base.places import DEMO_PROMPT
from trit.run import completion


def main(argv: Sequence[str] | None = None) -> int:
    """All words of ``trit run``; the engine's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = completion.build_parser()
    parser.prog, parser.usage, parser.most_words = "trit profile", "trit profile [NAME [PROMPT]] [FLAGS]", 2
    args, _ = parser.parse(words)
    # Of two words that stand alone the second is a prompt; behind -m the first is.
    given = args.prompt is not None or args.file is not None or len(args.words) > (args.model is None)
    return completion.command(["--profile", *([] if given else ["-p", DEMO_PROMPT]), *words])
