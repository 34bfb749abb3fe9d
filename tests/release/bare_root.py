# SPDX-License-Identifier: MIT
"""Install a wheel where nothing is, and ask it: a Debian without compiler, without network, for a user of no rights.

    debootstrap --variant=minbase --include=python3-venv bookworm /tmp/bare
    python -m tests.release.bare_root --base /tmp/bare dist/trit_cpp-*.whl

Needs root on Linux, and the network for the packages that the wheel asks pip for (--packages: a folder that has them).
Prints what it saw, and fails unless the answer is right, in time, and uninstalling leaves the cache alone.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trit.base.flags import ArgumentParser, a_path, real
from trit.base.places import DEMO_PROMPT

MOST_S = 60
_USER = "ann"
_PATH = "/usr/local/bin:/usr/bin:/bin"
# Runs inside, with the system's Python and nothing else; sys.argv[1] is the prompt.
_INSIDE = r"""
import json, os, pathlib, shutil, socket, subprocess, sys, time
home = pathlib.Path.home()
venv = home / "v"
pip, trit = str(venv / "bin" / "pip"), str(venv / "bin" / "trit")
def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}
def files(folder):
    return {os.path.join(where, name) for where, _, names in os.walk(folder) for name in names}
def everything():
    return set().union(*(files("/" + name) for name in os.listdir("/") if name not in ("proc", "sys", "dev", "w")))
seen = {"compilers": [name for name in ("cc", "gcc", "c++", "g++", "clang", "cmake", "ninja") if shutil.which(name)]}
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    seen["network"] = str(error)
interfaces = [name for _, name in socket.if_nameindex()]
seen["interfaces"] = interfaces
begun = time.monotonic()
seen["venv"] = run(sys.executable, "-m", "venv", str(venv))
ready = time.monotonic()
before = everything()
seen["install"] = run(pip, "install", "-q", "--no-index", "--find-links", "/w", "trit-cpp")
installed = time.monotonic()
seen["answer"] = run(trit, "run", "-p", sys.argv[1], "-n", "6", "-temp", "0")
answered = time.monotonic()
seen["seconds"] = {"venv": ready - begun, "install": installed - ready, "answer": answered - installed}
times = os.times()
seen["cpu_s"] = times.children_user + times.children_system
seen["version"] = run(trit, "--version")
seen["doctor"] = run(trit, "doctor", "--json")
seen["list"] = run(trit, "list", "--json")
seen["wrong"] = run(trit, "run", "bitnet-2b4t", "Hi")
seen["convert"] = run(trit, "convert", "trit-story-3m", "--outtype", "tq2_0", "--outfile", str(home / "x.gguf"))
(home / "x.gguf").unlink(missing_ok=True)
seen["uninstall"] = run(pip, "uninstall", "-q", "-y", "trit-cpp")
records = (
    "import importlib.metadata as m\n"
    "print(*[d.locate_file(file) for d in m.distributions() for file in d.files or ()], sep=chr(10))"
)
others = {os.path.realpath(line) for line in run(str(venv / "bin" / "python"), "-c", records)["out"].splitlines()}
seen["left"] = sorted(path for path in everything() - before if os.path.realpath(path) not in others)
print(json.dumps(seen))
"""


def look(base: Path, wheel: Path, packages: Path | None) -> dict[str, Any]:
    """Take all steps in a copy of a root; what was seen there."""
    with tempfile.TemporaryDirectory(prefix="bare-root-") as folder:
        root = Path(folder) / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        shared = root / "w"
        shared.mkdir()
        if packages:
            for path in packages.glob("*.whl"):
                shutil.copy(path, shared)
        else:
            _download(root, wheel, shared)
        shutil.copy(wheel, shared)
        (shared / "inside.py").write_text(_INSIDE, encoding="utf-8")
        subprocess.run(["chroot", str(root), "useradd", "-m", _USER], check=True)
        env = [f"HOME=/home/{_USER}", f"PATH={_PATH}", "LANG=C.UTF-8"]
        words = ["chroot", f"--userspec={_USER}:{_USER}", str(root), "/usr/bin/env", "-i", *env]
        words += ["/usr/bin/python3", "/w/inside.py", DEMO_PROMPT]
        start = f"mount -t proc proc {shlex.quote(str(root))}/proc && exec {shlex.join(words)}"
        done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", start], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"the steps ended with exit code {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _download(root: Path, wheel: Path, folder: Path) -> None:
    """Have what the wheel asks for, as the root's Python takes it."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output(["chroot", str(root), "python3", "-c", script], text=True).strip()
    machine = wheel.stem.rpartition("-")[2].partition("_")[2].split("_", 2)[2]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--dest", str(folder), "--only-binary=:all:"]
    pip += ["--python-version", version]
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34"):
        pip += ["--platform", f"{tag}_{machine}"]
    subprocess.run([*pip, str(wheel)], check=True)


def faults(seen: dict[str, Any], most_s: float) -> list[str]:
    """What is not as it ought to be."""
    found = []

    def want(well: bool, what: str) -> None:
        if not well:
            found.append(what)

    want(not seen["compilers"], f"compilers are there: {seen['compilers']}")
    want(seen["interfaces"] == ["lo"] and "network" in seen, f"there is a network: {seen['interfaces']}")
    for name in ("venv", "install", "answer", "version", "doctor", "list", "uninstall"):
        want(seen[name]["code"] == 0, f"{name} failed: {seen[name]}")
    want(seen["answer"]["out"] == "Mary is in the garden.\n", f"the answer is {seen['answer']['out']!r}")
    seconds = seen["seconds"]["install"] + seen["seconds"]["answer"]
    want(seconds < most_s, f"from pip install to the answer took {seconds:.1f} s, expected less than {most_s:g}")
    want(seen["wrong"]["code"] == 2 and "did you mean bitnet-2b-4t" in seen["wrong"]["err"], f"{seen['wrong']}")
    # numpy wants a C++ library that this root lacks: a sentence, no traceback.
    convert = seen["convert"]
    want(convert["code"] == 0 or (convert["code"] == 2 and convert["err"].count("\n") == 1), f"convert: {convert}")
    kept = [path for path in seen["left"] if not path.startswith(f"/home/{_USER}/.cache/trit/")]
    want(not kept, f"uninstalling leaves {kept}")
    return found


def main() -> int:
    """See the module's docstring."""
    parser = ArgumentParser(prog="python -m tests.release.bare_root", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheel", type=a_path, help="file of the wheel")
    parser.add_argument("--base", type=a_path, required=True, metavar="DIR", help="what debootstrap made; it is copied")
    parser.add_argument("--packages", type=a_path, metavar="DIR", help="wheels of what it asks for (default: fetched)")
    text = "most seconds from pip install to the answer (default: %(default)g)"
    parser.add_argument("--most", type=real(0, 86400), default=MOST_S, metavar="S", help=text)
    args = parser.parse_args()
    seen = look(args.base, args.wheel, args.packages)
    print(seen["version"]["out"], end="")
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in seen["seconds"].items())
    print(f"{times}; {seen['cpu_s']:.1f} s of CPU in all")
    print(f"convert: {seen['convert']['err'].strip() or 'works'}")
    print(f"left behind: {', '.join(seen['left']) or 'nothing'}")
    wrong = faults(seen, args.most)
    print("\n".join(wrong) or "all as it ought to be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
