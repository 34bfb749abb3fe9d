# SPDX-License-Identifier: MIT
"""What the converter says, in the flags of set-up."""

from __future__ import annotations

import shlex
from pathlib import Path

from trit.base.places import python_command

# The converter's flag -> set-up's; --quant-embd has one name in both.
_RENAMED = {"--outtype": "-q"}
_ONLY_CONVERTER = ("--master-weights", "--i2-s-layout", "--kernel-config")


def in_setup_words(sentence: str, source: Path) -> str:
    """An error of the converter for somebody who gave set-up's flags, not the converter's."""
    for flag, ours in _RENAMED.items():
        sentence = sentence.replace(flag, ours)
    if any(flag in sentence for flag in _ONLY_CONVERTER):
        sentence += f"; that is a flag of: {python_command('-m utils.convert')} {shlex.quote(str(source))}"
    return sentence
