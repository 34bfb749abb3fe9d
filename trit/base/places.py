# SPDX-License-Identifier: MIT
"""Where things are in this checkout: the engine, the models, the environment. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trit.base.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
ENGINE_DIR = ROOT / "3rdparty" / "llama.cpp"
CACHE_DIR = ROOT / "3rdparty" / "cache"
STAMPS = CACHE_DIR / "stamps"
LOCK = ROOT / "3rdparty" / "llama.cpp.lock.json"
BUILD_DIR = ROOT / "build"
ENGINE_BIN = BUILD_DIR / "bin"
MODELS_DIR = ROOT / "models"
BUNDLED_MODEL = MODELS_DIR / "trit-story-3m"

DEMO_PROMPT = (
    "Daniel went back to the the the garden. Mary travelled to the kitchen. Sandra journeyed to the kitchen. "
    "Sandra went to the hallway. John went to the bedroom. Mary went back to the garden. Where is Mary?\\nAnswer:"
)


def home() -> Path:
    """What belongs to no checkout: TRIT_HOME, else the user's cache; absolute, and not made by asking.

    Raises:
        UserError: this user has no home folder.
    """
    if given := os.environ.get("TRIT_HOME"):
        return Path(given).absolute()
    cache = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if cache and Path(cache).is_absolute() and sys.platform != "darwin":
        return Path(cache) / "trit"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "trit"
    except RuntimeError:
        raise UserError("this user has no home folder for models; name one in the variable TRIT_HOME") from None


def gguf_path(model_dir: Path, quant_type: str = "i2_s") -> Path:
    """Where set-up puts the converted model of a folder; the name is bitnet.cpp's, people's scripts rely on it."""
    return model_dir / f"ggml-model-{quant_type}.gguf"


def engine_program(name: str, bin_dir: Path = ENGINE_BIN) -> Path:
    """Where a compiled program is or will be; absolute, since programs are started in another folder than ours."""
    return bin_dir.absolute() / (f"{name}.exe" if sys.platform == "win32" else name)


def engine_binary(name: str, bin_dir: Path = ENGINE_BIN) -> Path:
    """A compiled engine program, such as ``llama-completion``.

    Raises:
        UserError: the program is not there; names the command that builds it.
    """
    path = engine_program(name, bin_dir)
    if not path.is_file():
        raise UserError(f"the engine is not built ({path} is missing); build it with: {python_command('setup_env.py')}")
    return path


def python_command(script: str) -> str:
    """How this machine's user starts one of our scripts: ``python`` on Windows, ``python3`` elsewhere."""
    return f"{'python' if sys.platform == 'win32' else 'python3'} {script}"
