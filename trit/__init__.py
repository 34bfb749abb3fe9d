# SPDX-License-Identifier: MIT
"""trit.cpp: ternary language models on CPUs. docs/architecture.md says which room does what."""

# Every command comes through here first. This file and what starts the commands are kept so plain that an old Python
# can read them far enough to say that it is too old; nothing else may be imported before.
import sys

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets a sentence instead of a syntax error
    sys.stderr.write("error: trit.cpp needs Python 3.10 or newer, this is " + sys.version.split()[0] + "\n")
    sys.exit(2)

__version__ = "0.1.0"
