# SPDX-License-Identifier: MIT
"""A small checkout for tests of set-up: our real scripts, with stand-ins for everything that takes minutes.

The package index is a folder with a tiny source distribution, cmake is a script that "builds" programs which are
scripts themselves, the converter copies. Each stand-in can be told to hold (see ``HOLD``), so that a test can stop
set-up in the middle of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tests.support.tiny_gguf import EMPTY
from trit.base.places import ROOT
from trit.setup.context import digest

HOLD = """
import os, pathlib, time
def hold(name):
    root = pathlib.Path(os.environ["FAKE_ROOT"])
    if (root / "hold").exists() and (root / "hold").read_text() == name:
        (root / "held").touch()
        for _ in range(600):
            # A real program prints now and then, and ends when nobody listens any more.
            print("working", flush=True)
            time.sleep(0.1)
"""
CMAKE = """#!{python}
import os, pathlib, sys
{hold}
root = pathlib.Path(os.environ["FAKE_ROOT"])
print("cmake", *sys.argv[1:])
if "--build" not in sys.argv:
    sys.exit(0)
if (root / "break-build").exists():
    print("[1/3] Building CXX object a.o")
    print("FAILED: a.o")
    print((root / "break-build").read_text())
    print("ninja: build stopped: subcommand failed.")
    sys.exit(1)
folder = root / "build" / "bin"
folder.mkdir(parents=True, exist_ok=True)
names = "llama-completion llama-cli llama-server llama-bench llama-quantize llama-perplexity trit-selftest".split()
names += ["trit-roofline", "trit-bench", "trit-tune", "trit-describe", "trit-vocabulary"]
for number, name in enumerate(names):
    print(f"[{{number}}/{{len(names)}}] Linking {{name}}", flush=True)
    if number == 3:
        hold("build")
    (folder / name).write_text((root / "program.py").read_text())
    (folder / name).chmod(0o755)
"""
PROGRAM = """#!{python}
import sys
{hold}
if "selftest" in sys.argv[0]:
    hold("self-test")
    print("scalar equal to the scalar reference")
    print("chosen: scalar")
    sys.exit(0)
hold("answer")
print(" a fake answer\\n\\n", end="")
perf = "common_perf_print:"
print(f"0.00.001.000 I {{perf}} samplers time = 0.05 ms / 9 tokens", file=sys.stderr)
print(f"0.00.001.000 I {{perf}}        load time = 1.00 ms", file=sys.stderr)
print(f"0.00.001.000 I {{perf}} prompt eval time = 2.00 ms / 5 tokens", file=sys.stderr)
print(f"0.00.001.000 I {{perf}}        eval time = 3.00 ms / 3 runs", file=sys.stderr)
print(f"0.00.001.000 I {{perf}}       total time = 6.00 ms / 8 tokens", file=sys.stderr)
"""
CONVERT = """
import argparse, os, pathlib
from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.base.flags import called
{hold}
def for_setup(arguments, tell):
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    for flag in ("--outfile", "--outtype", "--quant-embd", "--source"):
        parser.add_argument(flag)
    parser.add_argument("--force", action="store_true")
    args = parser.parse_args(arguments)
    if (args.model / "refuse").exists():
        sentence, *flags = (args.model / "refuse").read_text().split("|")
        raise UserError(sentence.replace("--outtype", called("--outtype")), flags=flags)
    with atomic_output(pathlib.Path(args.outfile)) as partial:
        partial.write_bytes({empty!r} + args.outtype.encode())
        hold("conversion")
        partial.write_bytes({empty!r} + args.outtype.encode() + str(args.quant_embd).encode())
    return {{"paths": [args.outfile]}}
"""
INSPECT = """
import os, pathlib
def for_setup(path, tell):
    fitting = pathlib.Path(os.environ["FAKE_ROOT"]) / "fitting"
    return {"outtypes": fitting.read_text().split() if fitting.exists() else ["i2_s", "tl1", "tl2", "tq2_0", "q2_0"]}
"""
TUNE = """
import os, pathlib
{hold}
def for_setup(arguments, tell):
    hold("tuning")
    root = pathlib.Path(os.environ["FAKE_ROOT"])
    tuning = root / "build" / "tuning.json"
    found = (root / "fastest").read_text() if (root / "fastest").exists() else "i2_s"
    preset = {{"format": found, "text": f"{{found}} (preset for a fake)"}}
    if "--use-pretuned" in arguments:
        return preset
    if tuning.exists():
        print("up to date: tuning.json")
    elif "0" in arguments:
        return preset
    else:
        tuning.write_text(" ".join(arguments))
    return {{"format": found, "text": f"{{found}}, 1.50 times as fast as others"}}
"""
PYPROJECT = """[build-system]
requires = []
build-backend = "fake_backend"
backend-path = ["."]
"""
BACKEND = """
import pathlib, zipfile
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name, about = "fake_trit-1.0-py3-none-any.whl", "fake_trit-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\\nName: fake-trit\\nVersion: 1.0\\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{about}/RECORD", "")
    return name
"""
PATCH = """Why: the tests want to see it applied.
--- a/src/engine.c
+++ b/src/engine.c
@@ -1 +1 @@
-int engine;
+int patched_engine;
"""
ENGINE_FILES = {
    "CMakeLists.txt": "project(engine)\n",
    ".git": "gitdir: nowhere\n",
    "src/engine.c": "int engine;\n",
    "docs/big.txt": "not wanted\n",
}


class Checkout:
    """A fake checkout under ``root`` and the means to run its ``setup_env.py``."""

    def __init__(self, root: Path, index: Path, tools: Path):
        self.root = root
        self.index = index
        self.tools = tools
        self.env = {
            **os.environ,
            "FAKE_ROOT": str(root),
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(index),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def gguf(self) -> Path:
        return self.root / "models" / "trit-story-3m" / "ggml-model-i2_s.gguf"

    @property
    def engine(self) -> Path:
        return self.root / "3rdparty" / "llama.cpp"

    def command(self, *arguments: str) -> list[str]:
        # Started as if outside of any virtual environment, so that set-up uses the checkout's own.
        code = (
            "import runpy, sys; sys.base_prefix = sys.prefix; sys.path.insert(0, '.'); "
            f"sys.argv = {['setup_env.py', *arguments]!r}; runpy.run_path('setup_env.py', run_name='__main__')"
        )
        return [sys.executable, "-c", code]

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def forget_downloads(self) -> None:
        """Have the requirements installed and the engine's source fetched."""
        (self.root / ".venv" / "trit-setup.json").unlink()
        (self.root / "3rdparty" / "cache" / "fake_engine-1.0.tar.gz").unlink()

    def hold_at(self, name: str) -> None:
        (self.root / "hold").write_text(name)

    def wait_until_held(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 60
        while not (self.root / "held").exists():
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < deadline, "set-up never got there"
            time.sleep(0.02)

    def release(self) -> None:
        (self.root / "hold").unlink()
        (self.root / "held").unlink()

    def leftovers(self) -> list[str]:
        """Anything under a temporary name, where nothing should be once set-up has finished."""
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*.partial*") if ".venv" not in path.parts]


def make_sdist(folder: Path, files: dict[str, str] | None = None) -> tuple[str, str]:
    """Write a source distribution of a made-up engine; its file name and sha256."""
    name = "fake_engine-1.0"
    content = {"pyproject.toml": '[build-system]\nrequires = ["x"]\nbuild-backend = "scikit_build_core.build"\n'}
    content |= {"PKG-INFO": "Metadata-Version: 2.1\nName: fake-engine\nVersion: 1.0\n"}
    content |= {f"vendor/engine/{path}": text for path, text in (files or ENGINE_FILES).items()}
    path = folder / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in content.items():
            member = tarfile.TarInfo(f"{name}/{inner}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def write_page(root: Path) -> None:
    """The page of the made-up engine, and what pins it."""
    folder = root / "3rdparty" / "page"
    folder.mkdir()
    with tarfile.open(folder / "page.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("index.html")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"<html>"))
    pinned = {"sha256": hashlib.sha256((folder / "page.tar.gz").read_bytes()).hexdigest()}
    (folder / "page.json").write_text(json.dumps(pinned))


def write_lock(root: Path, sdist: str, sha256: str, keep: list[str] | None = None) -> None:
    lock = {
        "package": "fake-engine",
        "version": "1.0",
        "sdist": sdist,
        "sha256": sha256,
        "subdir": "vendor/engine",
        "commit": "abc123",
        "build_number": 0,
        "keep": keep or ["CMakeLists.txt", "src"],
    }
    (root / "3rdparty" / "llama.cpp.lock.json").write_text(json.dumps(lock))


def make_checkout(folder: Path, venv: Path | None) -> Checkout:
    """Put the checkout together, with the engine's source downloaded already.

    Args:
        folder: where it goes, with the stand-ins' own folders beside it.
        venv: an environment to use as its ``.venv``, requirements and all; making one takes seconds.
    """
    root, index, tools = (folder / name for name in ("checkout", "index", "tools"))
    for part in (root / "3rdparty" / "patches", root / "src", root / "models" / "trit-story-3m", index, tools):
        part.mkdir(parents=True)
    for name in ("setup_env.py", "run_inference.py"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "trit", root / "trit", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "trit" / "convert" / "command.py").write_text(CONVERT.format(hold=HOLD, empty=EMPTY))
    (root / "trit" / "inspect" / "command.py").write_text(INSPECT)
    (root / "trit" / "tune" / "command.py").write_text(TUNE.format(hold=HOLD))
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "fake_backend.py").write_text(BACKEND)
    (root / "requirements.txt").write_text("# nothing\n")
    (root / "CMakeLists.txt").write_text("project(fake)\n")
    (root / "src" / "ours.cpp").write_text("int ours;\n")
    for name in ("config.json", "model.safetensors"):
        (root / "models" / "trit-story-3m" / name).write_text("{}")
    (root / "3rdparty" / "patches" / "0001-test.patch").write_text(PATCH)
    write_lock(root, *make_sdist(index))
    write_page(root)
    shutil.copytree(index, root / "3rdparty" / "cache")
    (root / "program.py").write_text(PROGRAM.format(python=sys.executable, hold=HOLD))
    (tools / "cmake").write_text(CMAKE.format(python=sys.executable, hold=HOLD))
    (tools / "cmake").chmod(0o755)
    if venv:
        (root / ".venv").symlink_to(venv)
        (venv / "trit-setup.json").write_text(
            json.dumps({"requirements.txt": digest(), "pyproject.toml": digest(*PYPROJECT.splitlines())})
        )
    return Checkout(root, index, tools)
