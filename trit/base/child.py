# SPDX-License-Identifier: MIT
"""The other end of :func:`trit.base.tool.call_tool`: ``python -m trit.base.child REQUEST ANSWER_FILE``."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import EXIT_OK, TritError, run_main
from trit.base.flags import call_flags


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the request says; its result, or its error with the flags that it speaks of, goes to the file."""
    request, answer_file = sys.argv[1:] if argv is None else argv
    wanted = json.loads(request)
    call_flags(wanted["flags"])
    module, _, function = wanted["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**wanted["arguments"], tell=_tell)
    except TritError as error:
        answer = {"error": str(error), "kind": type(error).__name__, "flags": error.flags}
        Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")
        raise
    Path(answer_file).write_text(json.dumps({"result": result}), encoding="utf-8")
    return EXIT_OK


def _tell(note: str) -> None:
    print(json.dumps({"note": note}), flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main))
