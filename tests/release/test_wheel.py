# SPDX-License-Identifier: MIT
"""The wheel that a user gets: what is in it, what it asks of the system, and that it answers."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.release.conftest import Trit
from trit import __version__
from trit.base.places import DEMO_PROMPT, ENGINE_BIN
from trit.base.provenance import commit
from trit.release.binaries import check_needs, needs
from trit.release.engine import PROGRAMS
from trit.release.packing import code_files, make_wheel
from trit.release.platforms import PLATFORMS, this_platform

MOST_BYTES = 20_000_000
BIN = "trit/_bundle/build/bin/"


def tree(folder: Path) -> dict[str, bytes]:
    """Files of a folder -> what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest() for path in files}


def test_size_and_name(wheel: Path) -> None:
    platform = this_platform()
    assert platform is not None
    assert wheel.stat().st_size <= MOST_BYTES
    assert wheel.name == f"trit_cpp-{__version__}-py3-none-{PLATFORMS[platform].tag}.whl"


def test_record_has_every_file_and_its_hash(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = next(name for name in names if name.endswith("/RECORD"))
        rows = {name: (told, size) for name, told, size in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert rows.keys() == names
        for name, (told, size) in rows.items():
            if name == record:
                continue
            content = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (told, int(size)) == (f"sha256={digest}", len(content)), name


def test_it_holds_the_package_the_programs_and_the_model_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/RECORD")}
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
    assert {name for name in names if name.startswith(BIN)} == {
        f"{BIN}{name}" for name in (*PROGRAMS, "libtrit-engine.so")
    }
    assert all(modes[f"{BIN}{name}"] == 0o755 for name in PROGRAMS)
    assert {f"trit/{path.as_posix()}" for path in code_files()} <= names
    assert "trit/_bundle/models/trit-story-3m/ggml-model-i2_s.gguf" in names
    odd = [
        name for name in names if re.search(r"(^|/)(tests|__pycache__|release|\.git)(/|$)|\.pyc$|\.safetensors$", name)
    ]
    assert not odd


def test_metadata(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        info = f"trit_cpp-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert (metadata["Name"], metadata["Version"]) == ("trit-cpp", __version__)
        assert metadata["Requires-Python"] == ">=3.10"
        always = {
            re.split(r"[^\w.-]", line)[0] for line in metadata.get_all("Requires-Dist", []) if "extra" not in line
        }
        assert {"numpy", "gguf", "safetensors", "huggingface_hub"} <= always
        assert not always & {"torch", "transformers", "cmake", "ninja", "setuptools", "ziglang"}
        assert "trit = trit.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        about = Parser().parsestr(archive.read(f"{info}/WHEEL").decode())
        assert about["Tag"] == wheel.stem.partition(f"{__version__}-")[2]
        assert about["Root-Is-Purelib"] == "false"


def test_it_asks_nothing_that_an_old_system_lacks(wheel: Path, tmp_path: Path, engine_bin: Path) -> None:
    platform = PLATFORMS[this_platform() or ""]
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    elf = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    assert len(elf) == len(PROGRAMS) + 1
    for path in elf:
        check_needs(path, platform)
    # The check sees what it is for: this machine's own build has C++'s library from the system.
    assert any(name.startswith(("libstdc++", "libc++")) for name in needs(engine_bin / "trit-tune", platform).libraries)


def test_beside_it_are_sums_notes_and_a_bill(wheel: Path) -> None:
    lines = (wheel.parent / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums.keys() == {path.name for path in wheel.parent.iterdir()} - {"SHA256SUMS"}
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert sums[wheel.name] == digest
    assert (wheel.parent / "NOTES.md").read_text().startswith("The first release" if __version__ == "0.1.0" else "")
    bill = json.loads(wheel.with_name(f"{wheel.stem}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    names = {part["name"] for part in bill["components"]}
    assert {"llama.cpp", "libc++", "cpp-httplib", "numpy", "gguf", "svelte"} <= names
    assert not names & {"torch", "cmake"}


def test_packing_twice_gives_the_same_bytes(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files with other times and permissions."""
    platform = this_platform()
    assert platform is not None
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    programs = sorted((tmp_path / "unpacked" / BIN).iterdir(), reverse=True)
    for number, path in enumerate(programs):
        os.utime(path, (number, number))
    old = os.umask(0o077)
    try:
        again = make_wheel(PLATFORMS[platform], programs, tmp_path / "again")
    finally:
        os.umask(old)
    assert again.read_bytes() == wheel.read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    later = make_wheel(PLATFORMS[platform], programs, tmp_path / "later")
    with ZipFile(later) as archive:
        assert {info.date_time for info in archive.infolist()} == {(2001, 9, 9, 1, 46, 40)}


def test_it_answers_and_writes_nothing_into_itself(trit: Trit, installed: Path, tmp_path: Path) -> None:
    """With the standard library alone."""
    before = tree(installed)
    done = trit("run", "-p", DEMO_PROMPT, "-n", "6", "-temp", "0", "-t", "2")
    assert (done.returncode, done.stdout) == (0, "Mary is in the garden.\n"), done.stderr
    assert re.fullmatch(
        rf"trit {re.escape(__version__)} \(commit {commit()}\), llama.cpp [0-9a-f]+, tier \w+\n",
        trit("--version").stdout,
    )
    assert tree(installed) == before
    assert not list(tmp_path.iterdir())


def test_every_tier_of_this_machine_is_in_it(installed: Path, engine_bin: Path) -> None:
    """The same kernels as in the build of this checkout, and the same choice."""
    said = []
    for folder in (next(installed.glob(f"lib*/python*/site-packages/{BIN}")), engine_bin):
        env = {**os.environ, "TRIT_TUNING": "preset"}
        done = subprocess.run([str(folder / "trit-selftest")], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout
        said.append([line for line in done.stdout.splitlines() if "lookup_" not in line and "x64" not in line])
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["codegen", "committed", "golden", "registry"])
def test_what_needs_a_checkout_says_so(trit: Trit, name: str) -> None:
    done = trit(name)
    assert done.returncode == 2
    assert done.stderr == f"error: trit {name} works in a checkout of trit.cpp; this one was installed from a wheel\n"
    assert f"\n  {name} " not in trit("--help").stdout


def test_tuning_measures_and_is_used(trit: Trit, tmp_path: Path) -> None:
    """It goes to the user's folder, since the engine's is not to be written."""
    model = ENGINE_BIN.parents[1] / "models" / "trit-story-3m"
    done = trit("tune", "-m", str(model), "--seconds", "2", "-t", "1", packages=True)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "home" / "build" / "tuning.json"
    assert f"written: {file}" in done.stdout
    assert json.loads(file.read_text())["shapes"]
    file.write_text('{"format": 0}')
    done = trit("run", "-p", DEMO_PROMPT, "-n", "1", "-temp", "0")
    assert f"the tuning file {file}" in done.stderr, "the engine does not look at what was measured"
    done = trit("tune", "--as-preset", packages=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_it_converts_and_inspects(trit: Trit, tmp_path: Path) -> None:
    model = ENGINE_BIN.parents[1] / "models" / "trit-story-3m"
    out = tmp_path / "story.gguf"
    done = trit("convert", str(model), "--outtype", "tq2_0", "--outfile", str(out), packages=True)
    assert done.returncode == 0, done.stderr
    done = trit("inspect", str(out), packages=True)
    assert done.returncode == 0 and "tq2_0" in done.stdout.lower(), done.stderr
    assert "run_inference.py" not in done.stdout
    done = trit("run", "-m", str(out), "-p", DEMO_PROMPT, "-n", "6", "-temp", "0")
    assert done.stdout == "Mary is in the garden.\n", done.stderr


def test_uninstalling_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
    before = set(tree(prefix))
    pip = [str(prefix / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", str(wheel)], check=True)
    assert len(set(tree(prefix)) - before) > len(PROGRAMS)
    subprocess.run([*pip, "uninstall", "-q", "-y", "trit-cpp"], check=True)
    # What pip itself compiles of its own files may be there.
    assert {name for name in set(tree(prefix)) - before if "pip" not in name} == set()
