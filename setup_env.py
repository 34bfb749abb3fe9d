# SPDX-License-Identifier: MIT
"""One command from nothing to an answer: ``python3 setup_env.py``; with ``--test`` the whole test suite instead.

Everything is in trit/setup/, one file a step. This file is kept so plain that an old Python can read it far enough
to say that it is too old.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets a sentence instead of a syntax error
    sys.exit("error: trit.cpp needs Python 3.10 or newer, this is " + sys.version.split()[0])

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.setup.pipeline"))
