# SPDX-License-Identifier: MIT
"""The engine takes its settings from flags and variables, not from files that lie there for another program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other places of settings")


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
@pytest.mark.parametrize("section", ["", "[*]\n", "[default]\n"])
def test_config_ini_changes_no_answer(
    variable: str, section: str, engine_bin: Path, story_gguf: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ("llama.cpp" if variable == "XDG_CONFIG_HOME" else ".config/llama.cpp")
    folder.mkdir(parents=True)
    (folder / "config.ini").write_text(f"{section}n-predict = 1\nlogit-bias = 7+100\n")
    command = [engine_bin / "llama-completion", "-m", story_gguf, "-p", "Mary went to the", "-no-cnv", "--temp", "0"]
    env = {name: value for name, value in os.environ.items() if name not in {"XDG_CONFIG_HOME", "HOME"}}
    answers = [
        subprocess.run(
            [*command, "--ignore-eos", "-c", "64", "-t", "1"], env=one, capture_output=True, text=True, timeout=60
        ).stdout
        for one in (env, {**env, variable: str(tmp_path)})
    ]
    assert len(answers[0].split()) > 20 and answers[1] == answers[0]
