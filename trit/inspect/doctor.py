# SPDX-License-Identifier: MIT
"""What works here, and what to do about the rest. Standard library only, so that it works before set-up.

The end of the report can be pasted into a report of a fault: it names no user, no machine and no folder.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import socket
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trit import __version__
from trit.base import provenance
from trit.base.command import environment_python
from trit.base.errors import EXIT_FAILED, EXIT_OK
from trit.base.flags import ArgumentParser
from trit.base.places import BUILD_DIR, ENGINE_DIR, INSTALLED, ROOT, STAMPS, document, engine_program, python_command
from trit.base.processes import capture
from trit.base.sandbox import landlock_version
from trit.gguf.made import default_model
from trit.inspect import advisories
from trit.inspect.machine import Machine, SelfTest, machine, read_selftest

# What a running set-up has built.
PROGRAMS = ("llama-completion", "llama-cli", "llama-server", "llama-bench", "llama-quantize", "llama-perplexity")
# Packages that commands need, by import name -> what for. Running and serving a GGUF file needs none.
PACKAGES = {
    "gguf": "convert, verify",
    "huggingface_hub": "download",
    "numpy": "convert, tune, measure, inspect",
    "safetensors": "convert",
    "tokenizers": "convert",
    "tqdm": "convert, measure",
}
# What is reported, never asked for.
MORE = {"matplotlib": "plots", "torch": "train, score, verify", "transformers": "train, score, verify"}
_SELFTEST_S = 300
_WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        well: whether it works.
        found: what was found, in words.
        advice: what to do about it; empty where nothing is wrong.
    """

    name: str
    well: bool
    found: str
    advice: str = ""

    def lines(self) -> str:
        """For people, at most 80 columns wide."""
        advice = f"; run: {self.advice}" if self.advice else ""
        head = f"{'ok ' if self.well else 'NO '} {self.name:14} "
        return "\n".join(_wrapped(head, f"{self.found}{advice}"))


def _wrapped(head: str, text: str) -> list[str]:
    """Lines of at most 80 columns, the later ones below the text of the first."""
    blank = " " * len(head)
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=blank, break_on_hyphens=False)


@dataclass
class Facts:
    """What is behind the findings.

    Attributes:
        installed: whether this is an installed package, and no checkout.
        commit: of this checkout, or that a package was made of; "unknown" outside of git.
        sources: a hash over our own sources, by which a package and a checkout can be compared.
        pinned: the engine's commit that belongs to this trit.
        built: what the engine says of its own commit and compiler; empty if it does not start.
        origin: "compiled here", "from NAME.whl" or "from the package"; empty if a program is missing.
        floats: for which CPUs llama.cpp's own float code was compiled.
        machine: what this machine offers.
        selftest: what the self-test said; None: it did not run.
        landlock: version of the kernel's interface, 0: there is none.
        packages: names -> versions of this Python's, None: not there.
        variables: names of our environment variables that are set -> their values, paths left out.
    """

    installed: bool
    commit: str
    sources: str
    pinned: str
    built: str = ""
    origin: str = ""
    floats: str = ""
    machine: Machine = field(default_factory=machine)
    selftest: SelfTest | None = None
    landlock: int = field(default_factory=landlock_version)
    packages: dict[str, str | None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def collect() -> Facts:
    """Look at everything but the programs."""
    names = (*PACKAGES, *MORE)
    variables = {
        name: "a path" if {"/", "\\"} & set(value) else value
        for name, value in sorted(os.environ.items())
        if name.startswith("TRIT_")
    }
    return Facts(
        installed=INSTALLED,
        commit=provenance.commit(),
        sources=provenance.sources(),
        pinned=provenance.engine_commit(),
        packages={name: _version(name) for name in names},
        variables=variables,
    )


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything that was looked at, in the order in which set-up makes it; fills in what the programs say."""
    mend = python_command("setup_env.py")
    kind = "an installed package" if facts.installed else "a checkout"
    yield Finding("trit", True, f"version {__version__}, {kind} in {ROOT}, {_made_of(facts)}")
    yield from _machine(facts.machine)
    yield from _environment(facts, mend)
    yield _source(facts, mend)
    yield _advisories()
    yield _engine(facts, mend)
    yield from _kernels(facts, mend)
    yield _sandbox()
    tuned = (BUILD_DIR / "tuning.json").is_file()
    yield Finding("tuning", True, "measured on this machine" if tuned else "a preset's; `trit tune` measures")
    model = default_model()
    # A package need not bring a model.
    there = model.is_file()
    yield Finding(
        "model",
        there or facts.installed,
        str(model) if there else f"{model} is missing" if not facts.installed else "none came with the package",
        "" if there or facts.installed else mend,
    )
    if facts.variables:
        yield Finding("variables", True, ", ".join(f"{name}={value}" for name, value in facts.variables.items()))


def _made_of(facts: Facts) -> str:
    commit = facts.commit.removesuffix("-dirty")
    changed = " with changes that are not committed" if commit != facts.commit else ""
    return f"commit {commit}{changed}, sources {facts.sources}"


def _machine(found: Machine) -> Iterator[Finding]:
    yield Finding("system", True, ", ".join(filter(None, [found.system, found.libc])))
    yield Finding("CPU", True, found.cpu)
    yield Finding("CPU features", True, " ".join(found.features or ["not told by this system"]))
    yield Finding("threads", True, _threads(found))
    yield Finding("memory", True, _memory(found))
    pages = {
        "always": "always",
        "madvise": "for weights: the engine asks for them",
        "never": "never: weights lie in small pages (/sys/kernel/mm/transparent_hugepage/enabled)",
    }
    yield Finding("huge pages", True, pages.get(found.huge_pages or "", "not told by this system"))


def _threads(found: Machine) -> str:
    limits = [f"{found.threads['allowed']} of {found.threads['cpus']} CPUs allowed"]
    limits += [f"quota {found.threads['quota']}"] if found.threads["quota"] else ["no quota"]
    return f"{found.threads['default']} by default ({', '.join(limits)})"


def _memory(found: Machine) -> str:
    sizes = {name: f"{size / 1e9:.1f} GB" if size is not None else "" for name, size in found.memory.items()}
    words = [f"{sizes['free'] or '?'} free of {sizes['total'] or '?'}"]
    return ", ".join([*words, f"limit of the container {sizes['limit']}" if sizes["limit"] else "no limit"])


def _advisories() -> Finding:
    if not (advisories.FILE.is_file() and advisories.PATCHES.is_dir()):
        return Finding("advisories", True, f"counted in a checkout alone; {document('security.md')} has the table")
    known = advisories.known()
    return Finding("advisories", not known.open, f"{known.sentence()}; {document('security.md')} has the table")


def _sandbox() -> Finding:
    version = landlock_version()
    found = f"Landlock, version {version}: the server is confined" if version else "no Landlock: nothing is confined"
    return Finding("sandbox", True, found)


def _environment(facts: Facts, mend: str) -> Iterator[Finding]:
    inside = sys.prefix != sys.base_prefix
    yield Finding("Python", True, f"{platform.python_version()} in {sys.prefix}{'' if inside else ', the system'}")
    lacking = {name: PACKAGES[name] for name in PACKAGES if not facts.packages[name]}
    there = [f"{name} {version}" for name, version in facts.packages.items() if version and name in PACKAGES]
    words = ", ".join(f"{name} ({use})" for name, use in lacking.items())
    elsewhere = environment_python().is_file()
    if not lacking:
        yield Finding("packages", True, ", ".join(there))
    elif elsewhere:
        yield Finding(
            "packages", True, f"this Python lacks {', '.join(lacking)}; commands run in set-up's environment instead"
        )
    else:
        mend = f"pip install {' '.join(lacking)}" if facts.installed else mend
        yield Finding("packages", False, f"lacks {words}; run and serve need none", mend)
    more = [f"{name} {version}" for name in MORE if (version := facts.packages[name])]
    more += [f"no {name} ({use})" for name, use in MORE.items() if not facts.packages[name]]
    yield Finding("more packages", True, ", ".join(more))


def _source(facts: Facts, mend: str) -> Finding:
    """The source is needed to compile alone."""
    if (ENGINE_DIR / "CMakeLists.txt").is_file():
        return Finding("engine source", True, f"llama.cpp {facts.pinned}")
    missing = [name for name in PROGRAMS if not engine_program(name).is_file()]
    found = "not here" if missing else "not here, and not needed: the programs are there"
    return Finding("engine source", not missing, found, mend if missing else "")


def _engine(facts: Facts, mend: str) -> Finding:
    missing = [name for name in PROGRAMS if not engine_program(name).is_file()]
    if missing:
        return Finding("engine", False, f"{', '.join(missing)} missing", mend)
    facts.origin = _origin(facts.installed)
    facts.floats = _floats()
    code, output = capture([engine_program(PROGRAMS[0]), "--version"], timeout_s=_SELFTEST_S)
    lines = output.strip().splitlines()
    if code != 0:
        return Finding("engine", False, f"does not start here: {lines[-1] if lines else f'exit code {code}'}", mend)
    commit = re.search(r"commit (\w+)", output)
    made = re.search(r"^built with (.*)$", output, re.MULTILINE)
    facts.built = f"llama.cpp {commit[1] if commit else 'of an unknown commit'}{f', {made[1]}' if made else ''}"
    told = f"{facts.built}; {facts.origin}; llama.cpp's own part is for {facts.floats}"
    if commit and facts.pinned not in ("unknown", commit[1]):
        return Finding("engine", False, f"{facts.built}, expected {facts.pinned}", mend)
    return Finding("engine", True, told)


def _origin(installed: bool) -> str:
    if installed:
        return "from the package"
    try:
        stamp = json.loads((STAMPS / "build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = {}
    return f"from {stamp['wheel']}" if isinstance(stamp, dict) and "wheel" in stamp else "compiled here"


def _floats() -> str:
    try:
        cache = (BUILD_DIR / "CMakeCache.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cache = ""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return f"every {platform.machine()} CPU"
    return "this CPU alone" if re.search(r"(?m)^TRIT_NATIVE:\w+=ON$", cache) else "every x86-64 CPU with AVX2"


def _kernels(facts: Facts, mend: str) -> Iterator[Finding]:
    program = engine_program("trit-selftest")
    if not program.is_file():
        yield Finding("kernels", False, f"{program.name} is missing", mend)
        return
    code, output = capture([program], timeout_s=_SELFTEST_S)
    facts.selftest = test = read_selftest(output)
    if code != 0:
        lines = output.strip().splitlines()
        wrong = [f"{name} FAILED: {how}" for name, how in test.failed.items()]
        # A wrong variable is told in a sentence, and is not mended by building.
        again = python_command("setup_env.py --clean")
        found = "; ".join(wrong) or (lines[-1] if lines else f"exit code {code}")
        yield Finding("kernels", False, found, again if wrong or code != 2 else "")
        return
    chosen = f"tier {test.chosen or 'unknown'}"
    lookups = ", ".join(test.lookups.values())
    yield Finding("kernels", True, f"{chosen}, equal to the scalar reference{f'; {lookups}' if lookups else ''}")
    lacking = ", ".join(f"{name} (needs {needs})" for name, needs in test.lacking.items())
    yield Finding("tiers", True, f"this CPU can run {', '.join(test.tiers)}{f'; not {lacking}' if lacking else ''}")


def bug_report(facts: Facts, found: Sequence[Finding]) -> list[str]:
    """Lines that can be shown to everybody, at most 80 columns wide."""
    test = facts.selftest
    packages = [f"{name} {version}" if version else f"no {name}" for name, version in facts.packages.items()]
    tiers = f"tier {test.chosen or 'none'} of {', '.join(test.tiers)}" if test else "self-test not run"
    tiers += ", equal to the scalar reference" if test and test.chosen else ""
    machine = facts.machine
    rows = {
        "trit": f"{__version__}, {'installed' if facts.installed else 'checkout'}, {_made_of(facts)}",
        "engine": f"{facts.built or f'not running, expected llama.cpp {facts.pinned}'}"
        + (f"; {facts.origin}, for {facts.floats}" if facts.origin else ""),
        "kernels": tiers + "".join(f"; {name} FAILED: {how}" for name, how in (test.failed if test else {}).items()),
        "CPU": f"{machine.cpu}; {' '.join(machine.features or ['features not told'])}",
        "threads": _threads(machine),
        "memory": f"{_memory(machine)}; huge pages: {machine.huge_pages or 'not told'}",
        "system": f"{machine.system}, {machine.libc or 'C library not told'}, Python {platform.python_version()}, "
        f"Landlock {facts.landlock}",
        "packages": ", ".join(packages),
        "variables": ", ".join(f"{name}={value}" for name, value in facts.variables.items()),
        "faults": "; ".join(f"{one.name}: {one.found}" for one in found if not one.well) or "none",
    }
    told = {name: anonymous(text) for name, text in rows.items() if text}
    return [line for name, text in told.items() for line in _wrapped(f"{name + ':':10} ", text)]


def anonymous(text: str) -> str:
    """The text without folders of this machine, its name, and that of its user."""
    for path, name in ((ROOT, "TRIT"), (Path(sys.prefix), "PYTHON"), (Path.home(), "HOME")):
        if len(path.parts) > 1:
            text = text.replace(str(path), name)
    hosts = {name for full in (socket.gethostname(), platform.node()) for name in (full, full.partition(".")[0])}
    words = {**dict.fromkeys(hosts, "HOST"), _user(): "USER"}
    for name in sorted(words, key=len, reverse=True):
        # Everybody's names say nothing.
        if name not in ("", "root", "localhost"):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", words[name], text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; 1 if something does not work."""
    parser = ArgumentParser(prog="trit doctor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    facts = collect()
    found = []
    for finding in findings(facts):
        found.append(finding)
        if not args.json:
            print(finding.lines(), flush=True)
    well = all(finding.well for finding in found)
    report = bug_report(facts, found)
    if args.json:
        told: dict[str, Any] = {"well": well, "findings": [asdict(finding) for finding in found]}
        print(json.dumps({**told, "facts": asdict(facts), "bug_report": "\n".join(report)}))
    else:
        print("\nFor a bug report, without names of users, machines and folders:\n")
        print("\n".join(["```text", *report, "```"]))
    return EXIT_OK if well else EXIT_FAILED
