# SPDX-License-Identifier: MIT
"""A wheel: the package, the engine, the bundled model and their metadata in one file, the same bytes every time."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from wheel.wheelfile import WheelFile

from trit import __version__
from trit.base.errors import CommandError, TritError
from trit.base.files import atomic_output
from trit.base.places import BUNDLED_MODEL, LOCK, ROOT, gguf_path
from trit.base.processes import capture, run
from trit.release.platforms import Platform

MOST_BYTES = 20_000_000
# What running and converting read besides the package, at the same place below trit/_bundle (trit/base/places.py).
DATA = (
    *("3rdparty/advisories.json", "3rdparty/patches", "3rdparty/page/NOTICES"),
    *("preset_kernels/tuning", "models/trit-story-3m/config.json"),
)
# They build the engine, which a wheel has.
_BUILD_TOOLS = {"cmake", "ninja", "setuptools"}
_CODE = {".py", ".json", ".txt"}
_EARLIEST = 315532800  # 1980, where a zip file's time begins


def source_date() -> int:
    """Seconds since 1970 that everything made now is dated: SOURCE_DATE_EPOCH, else the commit's."""
    if (given := os.environ.get("SOURCE_DATE_EPOCH", "")).isdecimal():
        return int(given)
    code, said = capture(["git", "-C", ROOT, "log", "-1", "--format=%ct"])
    return int(said) if code == 0 and said.strip().isdecimal() else _EARLIEST


def make_wheel(platform: Platform, programs: Iterable[Path], folder: Path) -> Path:
    """Pack everything.

    Args:
        platform: that the programs are for.
        programs: the engine, as :func:`trit.release.engine.compile_engine` returns it.
        folder: gets the file.

    Raises:
        TritError: it would be larger than 20 MB, or a part could not be made.
    """
    path = folder / f"trit_cpp-{__version__}-py3-none-{platform.tag}.whl"
    with tempfile.TemporaryDirectory(prefix="trit-wheel-") as name:
        stage = Path(name) / "stage"
        _stage_code(stage / "trit")
        _stage_bundle(stage / "trit" / "_bundle", programs)
        _stage_metadata(Path(name), stage, platform)
        _settle_modes(stage)
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(name) / path.name
        previous = os.environ.get("SOURCE_DATE_EPOCH")
        os.environ["SOURCE_DATE_EPOCH"] = str(max(source_date(), _EARLIEST))
        try:
            with WheelFile(made, "w") as wheel:
                wheel.write_files(stage)
        finally:
            if previous is None:
                del os.environ["SOURCE_DATE_EPOCH"]
            else:
                os.environ["SOURCE_DATE_EPOCH"] = previous
        if (size := made.stat().st_size) > MOST_BYTES:
            raise TritError(
                f"{path.name} has {size / 1e6:.1f} MB, {MOST_BYTES / 1e6:.0f} are allowed; leave something out"
            )
        with atomic_output(path) as partial:
            shutil.copyfile(made, partial)
    return path


def code_files() -> Iterator[Path]:
    """The package's files, from its folder; without this room, which works in a checkout only."""
    package = ROOT / "trit"
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.suffix in _CODE and path.is_file() and not {"__pycache__", "release", "_bundle"} & set(name.parts):
            yield name


def _stage_code(package: Path) -> None:
    for name in code_files():
        _copy(ROOT / "trit" / name, package / name)


def _stage_bundle(bundle: Path, programs: Iterable[Path]) -> None:
    for program in programs:
        _copy(program, bundle / "build" / "bin" / program.name)
        (bundle / "build" / "bin" / program.name).chmod(0o755)
    for name in DATA:
        source = ROOT / name
        files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        for path in files:
            _copy(path, bundle / path.relative_to(ROOT))
    _copy(LOCK, bundle / LOCK.relative_to(ROOT))
    model = gguf_path(bundle / BUNDLED_MODEL.relative_to(ROOT))
    convert: list[str | Path] = [sys.executable, "-m", "trit.convert", BUNDLED_MODEL, "--outtype", "i2_s"]
    convert += ["--outfile", model]
    _run(convert, "converting the bundled model", bundle.parents[2] / "convert.log")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _stage_metadata(work: Path, stage: Path, platform: Platform) -> None:
    """What pyproject.toml says, by its own build backend; but a wheel needs no tools that build, and has a platform."""
    script = "import sys; from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel(sys.argv[1])"
    source = work / "source"
    # The backend leaves a folder beside what it reads.
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md", "trit/__init__.py"):
        _copy(ROOT / name, source / name)
    for path in ROOT.glob("requirements*"):
        _copy(path, source / path.name)
    (work / "metadata").mkdir()
    command: list[str | Path] = [sys.executable, "-c", script, work / "metadata"]
    _run(command, "making the wheel's metadata", work / "metadata.log", source)
    info = next((work / "metadata").glob("*.dist-info"))
    target = stage / info.name
    shutil.copytree(info, target)
    metadata = target / "METADATA"
    lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
    metadata.write_text("".join(line for line in lines if not _builds(line)), encoding="utf-8", newline="\n")
    (target / "top_level.txt").write_text("trit\n", encoding="utf-8", newline="\n")
    text = f"Wheel-Version: 1.0\nGenerator: trit.release {__version__}\nRoot-Is-Purelib: false\n"
    (target / "WHEEL").write_text(f"{text}Tag: py3-none-{platform.tag}\n", encoding="utf-8", newline="\n")
    (target / "RECORD").unlink(missing_ok=True)


def _builds(line: str) -> bool:
    match = re.match(r"Requires-Dist: ([\w.-]+)", line)
    return match is not None and match[1].lower() in _BUILD_TOOLS and "extra ==" not in line


def _settle_modes(stage: Path) -> None:
    """The umask of whoever packs is nobody's business."""
    for path in stage.rglob("*"):
        if path.is_file():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _run(command: list[str | Path], what: str, log: Path, cwd: Path = ROOT) -> None:
    try:
        run(command, what, log, cwd=cwd)
    except CommandError as error:
        said = error.tail[-1] if error.tail else "nothing"
        raise TritError(f"{what} failed with exit code {error.returncode}; it said: {said}") from error
