# SPDX-License-Identifier: MIT
"""Where things are in this checkout: the engine, the models, the environment. Standard library only."""

from __future__ import annotations

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
