# SPDX-License-Identifier: MIT
"""The bill of materials of a wheel: what is compiled into it, and what it asks pip for; CycloneDX 1.6 in JSON."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timezone
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from zipfile import ZipFile

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from trit import __version__
from trit.base.errors import TritError
from trit.base.places import LOCK, ROOT
from trit.setup.page import PAGE_DIR, PAGE_LOCK

_ENGINE = "https://github.com/ggml-org/llama.cpp"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def bill(wheel: Path, seconds: int) -> str:
    """The bill of a wheel as text.

    Args:
        wheel: the file; what it asks for is read from it.
        seconds: since 1970, its date.

    Raises:
        TritError: THIRD_PARTY.md does not say what is in the engine's tree.
    """
    licences = LicenseFactory()

    def component(name: str, number: str | None, licence: str, purl: PackageURL | None = None) -> Component:
        return Component(
            name=name,
            version=number,
            type=ComponentType.LIBRARY,
            licenses=[licences.make_from_string(licence)],
            purl=purl,
            bom_ref=str(purl or name),
        )

    commit = json.loads(LOCK.read_text(encoding="utf-8"))["commit"]
    engine = component("llama.cpp", commit, "MIT", PackageURL("github", "ggml-org", "llama.cpp", commit))
    compiled = [engine, *(component(name, None, licence) for name, licence in vendored().items())]
    parts = json.loads((PAGE_DIR / PAGE_LOCK).read_text(encoding="utf-8"))["packages"]
    page = [
        component(name, number or None, licence, PackageURL("npm", *_scope(name), number) if number else None)
        for name, (number, licence) in parts.items()
    ]
    zig = version("ziglang")
    compiled += [
        component("libc++", f"zig {zig}", "Apache-2.0 WITH LLVM-exception"),
        component("libunwind", f"zig {zig}", "Apache-2.0 WITH LLVM-exception"),
        component("compiler-rt", f"zig {zig}", "MIT"),
    ]
    asked = [
        Component(
            name=name,
            type=ComponentType.LIBRARY,
            properties=[Property(name="pip:versions", value=bounds)] if bounds else [],
            purl=PackageURL("pypi", None, name.lower().replace("_", "-")),
            bom_ref=f"pypi:{name}",
        )
        for name, bounds in requirements(wheel)
    ]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    whole = Component(
        name="trit-cpp",
        version=__version__,
        type=ComponentType.APPLICATION,
        licenses=[licences.make_from_string("MIT")],
        purl=PackageURL("pypi", None, "trit-cpp", __version__),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        bom_ref=wheel.name,
    )
    bom = Bom(components=[*compiled, *page, *asked])
    bom.metadata.component = whole
    bom.register_dependency(whole, bom.components)
    bom.register_dependency(engine, [*compiled[1:], *page])
    bom.metadata.timestamp = datetime.fromtimestamp(seconds, timezone.utc)
    # A random number would make two bills of one wheel differ.
    bom.serial_number = uuid5(NAMESPACE_URL, f"trit-cpp:{digest}")
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


def _scope(name: str) -> tuple[str | None, str]:
    """The scope of a package of npm, if it has one, and its name there."""
    scope, slash, rest = name.partition("/")
    return (scope, rest) if slash else (None, name)


def requirements(wheel: Path) -> list[tuple[str, str]]:
    """Packages that a wheel always asks for, and their bounds."""
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    found = []
    for line in lines:
        match = _NAME.match(line)
        if match and "extra ==" not in line:
            found.append((match[0], line[match.end() :].strip()))
    return found


def vendored(page: Path = ROOT / "THIRD_PARTY.md") -> dict[str, str]:
    """What is inside the engine's tree and compiled with it -> its licence, one of those that THIRD_PARTY.md lists.

    Raises:
        TritError: the page has no row that lists it.
    """
    row = re.search(r"^\| inside it: ([^|]+)\|([^|]+)\|", page.read_text(encoding="utf-8"), re.MULTILINE)
    if row is None:
        raise TritError(f"{page} has no row 'inside it: ...' with what is in the engine's tree")
    licence = row[2].partition("(")[0].strip()
    return {name.strip(): licence for name in row[1].split(",")}
