# SPDX-License-Identifier: MIT
"""Step 2: the engine's source tree, ``3rdparty/llama.cpp``: pinned, checked, trimmed, patched, with its chat page.

``3rdparty/llama.cpp.lock.json`` names a source distribution on the Python package index, its sha256 and the paths
that are kept of it. The tree is put together under a temporary name and renamed when it is whole, its stamp inside.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trit.base.errors import CommandError, TritError, UserError
from trit.base.files import names_file
from trit.base.places import CACHE_DIR, ENGINE_DIR, ROOT
from trit.base.progress import StepLine
from trit.setup.context import Setup, digest, files_digest, read_stamp, sha256, write_stamp
from trit.setup.page import page_files, unpack_page
from trit.setup.tools import network_hint

NAME = "engine"
DEED = "the engine's source: fetch, check, trim, patch"

LOCK_FILE = ROOT / "3rdparty" / "llama.cpp.lock.json"
PATCHES = ROOT / "3rdparty" / "patches"
_STAMP = "trit-engine.json"
# pip does not hand over a source distribution before its build back-end has told its metadata. The back-end named in
# llama-cpp-python's pyproject.toml would be fetched and run for that; this module of the same name answers instead.
_BACKEND = Path("scikit_build_core") / "build.py"
_BACKEND_CODE = """import os, pathlib
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["TRIT_SDIST"].split("==")
    info = pathlib.Path(metadata_directory) / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name
def build_wheel(*args):
    raise RuntimeError("only the source is wanted")
"""


@dataclass(frozen=True)
class Lock:
    """What ``3rdparty/llama.cpp.lock.json`` pins.

    Attributes:
        package: name on the package index.
        version: its version.
        sdist: file name of the source distribution.
        sha256: of that file.
        subdir: where the engine lies in it.
        commit: the engine's own commit.
        keep: files and folders of ``subdir`` that are unpacked.
    """

    package: str
    version: str
    sdist: str
    sha256: str
    subdir: str
    commit: str
    keep: tuple[str, ...]

    def wants(self, path: PurePosixPath) -> bool:
        """Whether a path under ``subdir`` is kept; a dangling ``.git`` never is, it would mislead CMake."""
        return ".git" not in path.parts and any(path.is_relative_to(kept) for kept in self.keep)


def read_lock() -> Lock:
    """Read the lock file."""
    values = json.loads(LOCK_FILE.read_text(encoding="utf-8"))
    return Lock(**{**{key: values[key] for key in Lock.__annotations__}, "keep": tuple(values["keep"])})


def run(setup: Setup, line: StepLine) -> str:
    """Put the source tree together unless the one there is what the lock, the patches and the options ask for."""
    lock = read_lock()
    patches = sorted(PATCHES.glob("*.patch"))
    given = setup.options.llama_cpp_dir
    wanted = {"pins": files_digest([LOCK_FILE, *page_files(), *patches])}
    # Without --llama-cpp-dir a tree that once came from there stays, as long as it has today's patches.
    if given:
        wanted["origin"] = _folder_digest(given, lock)
    label = f"llama.cpp {lock.commit}, {len(patches)} patches"
    if wanted.items() <= read_stamp(ENGINE_DIR / _STAMP).items():
        return f"up to date: {label}"
    partial = ENGINE_DIR.with_name(f"{ENGINE_DIR.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if given:
        line.update(f"copying {given}")
        _copy(given, partial, lock)
    else:
        sdist = fetch(setup, line, lock)
        line.update(f"unpacking {sdist.name}")
        unpack(sdist, partial, lock)
    for patch in patches:
        line.update(f"applying {patch.name}")
        apply_patch(setup, patch, partial)
    unpack_page(partial)
    write_stamp(partial / _STAMP, {"origin": lock.sha256, **wanted})
    _install(partial)
    return f"{label}{f', from {given}' if given else ''}"


def fetch(setup: Setup, line: StepLine, lock: Lock) -> Path:
    """The source distribution in ``3rdparty/cache``, downloaded by pip unless a whole one is there.

    Raises:
        TritError: pip cannot get it, or what it got has another hash.
    """
    cached = CACHE_DIR / lock.sdist
    if cached.is_file():
        if sha256(cached) == lock.sha256:
            return cached
        cached.unlink()
    line.update(f"downloading {lock.sdist}")
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE_DIR, suffix=".partial") as name:
        folder = Path(name)
        backend = folder / "backend" / _BACKEND
        backend.parent.mkdir(parents=True)
        with names_file(backend):
            backend.write_text(_BACKEND_CODE)
        pinned = f"{lock.package}=={lock.version}"
        (folder / "requirement.txt").write_text(f"{pinned} --hash=sha256:{lock.sha256}\n")
        pip = ["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--progress-bar", "off"]
        options = ["--no-deps", "--no-build-isolation", "--no-binary", lock.package, "--require-hashes"]
        try:
            setup.run(
                [setup.python, *pip, *options, "-r", folder / "requirement.txt", "-d", folder],
                f"downloading {lock.sdist}",
                NAME,
                env={"PYTHONPATH": str(backend.parent.parent), "TRIT_SDIST": pinned},
            )
        except CommandError as error:
            hint = network_hint(error.tail)
            if "do not match the hashes" in " ".join(error.tail).lower():
                hint = "what the index serves is not the file that 3rdparty/llama.cpp.lock.json pins; do not use it"
            message = f"{error}; {hint}, or put {lock.sdist} into {CACHE_DIR} by hand"
            raise CommandError(message, error.tail, error.returncode) from error
        got = folder / lock.sdist
        if not got.is_file() or sha256(got) != lock.sha256:
            raise TritError(f"pip delivered no {lock.sdist} with sha256 {lock.sha256}; see {setup.log(NAME)}")
        got.replace(cached)
    return cached


def unpack(sdist: Path, target: Path, lock: Lock) -> None:
    """Unpack the kept regular files of the engine.

    Raises:
        TritError: a kept path is not in the archive.
    """
    subdir = PurePosixPath(lock.subdir)
    found = set()
    with tarfile.open(sdist) as archive:
        for member in archive:
            # The archive's first folder is named after package and version.
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if not member.isfile() or not path.is_relative_to(subdir) or ".." in path.parts:
                continue
            path = path.relative_to(subdir)
            stream = archive.extractfile(member) if lock.wants(path) else None
            if stream is None:
                continue
            found.add(path)
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with names_file(place), place.open("wb") as file:
                shutil.copyfileobj(stream, file)
    _check_kept(found, lock, str(sdist))


def apply_patch(setup: Setup, patch: Path, tree: Path) -> None:
    """Apply one patch with git, or else with patch; no fuzz.

    Raises:
        UserError: neither program is there, or the patch does not fit the folder given by ``--llama-cpp-dir``.
    """
    env: dict[str, str | None] = {}
    if git := shutil.which("git"):
        # Inside our own repository git would take the paths to be relative to its top and skip them in silence.
        env = {"GIT_CEILING_DIRECTORIES": str(tree.parent.resolve()), "GIT_DIR": None, "GIT_WORK_TREE": None}
        settings = ["-c", "core.autocrlf=false", "-c", "apply.whitespace=nowarn"]
        command = [git, *settings, "apply", "--verbose", "-p1", str(patch)]
    elif program := shutil.which("patch"):
        command = [program, "--batch", "-p1", "-F0", "-i", str(patch)]
    else:
        raise UserError("neither git nor patch is installed; install git, set-up needs it to patch the engine")
    try:
        setup.run(command, f"applying {patch.name}", NAME, cwd=tree, env=env)
    except CommandError as error:
        given = setup.options.llama_cpp_dir
        if given is None:
            raise
        raise UserError(
            f"--llama-cpp-dir {given}: {patch.name} does not apply to it; it needs llama.cpp {read_lock().commit}"
        ) from error


def _copy(source: Path, target: Path, lock: Lock) -> None:
    """Copy the kept files of the user's own llama.cpp."""
    files = list(_kept_files(source, lock))
    for path in files:
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with names_file(place):
            shutil.copyfile(source / path, place)
    _check_kept(set(files), lock, f"--llama-cpp-dir {source}")


def _kept_files(source: Path, lock: Lock) -> Iterator[PurePosixPath]:
    for kept in lock.keep:
        top = source / kept
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = PurePosixPath(path.relative_to(source).as_posix())
            if path.is_file() and lock.wants(relative):
                yield relative


def _check_kept(found: set[PurePosixPath], lock: Lock, where: str) -> None:
    for kept in lock.keep:
        if not any(path.is_relative_to(kept) for path in found):
            raise UserError(f"{where} has no {kept}: it is not llama.cpp {lock.commit}")


def _folder_digest(source: Path, lock: Lock) -> str:
    """Changes when a kept file of the user's folder does, by size or time."""
    if not (source / "CMakeLists.txt").is_file():
        raise UserError(f"--llama-cpp-dir {source}: there is no CMakeLists.txt; name the top folder of llama.cpp")
    stats = [(path, (source / path).stat()) for path in _kept_files(source, lock)]
    return digest(source.resolve(), *[(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])


def _install(partial: Path) -> None:
    """Give the new tree its final name.

    Files that are the same as in the tree before keep their times, so that a changed patch rebuilds only what it
    touches.
    """
    for path in partial.rglob("*"):
        before = ENGINE_DIR / path.relative_to(partial)
        if path.is_file() and before.is_file() and path.read_bytes() == before.read_bytes():
            stat = before.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    old = ENGINE_DIR.with_name(f"{ENGINE_DIR.name}.old.partial")
    shutil.rmtree(old, ignore_errors=True)
    if ENGINE_DIR.exists():
        ENGINE_DIR.rename(old)
    partial.rename(ENGINE_DIR)
    shutil.rmtree(old, ignore_errors=True)
