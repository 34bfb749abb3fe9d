# SPDX-License-Identifier: MIT
"""Make what is released: `python3 -m trit.release wheel` compiles the engine with zig and packs it with the package.

The folder gets the wheel, its bill of materials, the notes of this version, and SHA256SUMS of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from trit import __version__
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import atomic_output
from trit.base.flags import ArgumentParser, a_path, whole
from trit.base.host import usable_cpus
from trit.base.places import ROOT
from trit.release.engine import compile_engine
from trit.release.notes import notes
from trit.release.packing import make_wheel, source_date
from trit.release.page import build_page
from trit.release.platforms import PLATFORMS, this_platform
from trit.release.sbom import bill
from trit.release.symbols import check_needs

SUMS = "SHA256SUMS"


def parser() -> ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="python3 -m trit.release", description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    wheel = kinds.add_parser("wheel", help="one wheel, with checksums, bill of materials and notes")
    add = wheel.add_argument
    add("--platform", choices=PLATFORMS, default=this_platform(), help="(default: this machine's)")
    add("--out", type=a_path, default=ROOT / "dist", metavar="DIR", help="folder for the files (default: dist)")
    add("--build-dir", type=a_path, metavar="DIR", help="folder of the build (default: build-wheel/PLATFORM)")
    add("--jobs", "-j", type=whole(1, 1024), default=usable_cpus(), help="compilers at a time (default: %(default)s)")
    kinds.add_parser("page", help="the chat page that is in every build, from the pinned source by npm")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    args = parser().parse_args(argv)
    if args.kind == "page":
        print(build_page())
        return EXIT_OK
    if args.platform is None:
        raise UserError(f"no wheel is made for this machine; name another one with --platform: {', '.join(PLATFORMS)}")
    platform = PLATFORMS[args.platform]
    # What a release says of itself is looked at before minutes are spent.
    text = notes(__version__)
    build_dir = (args.build_dir or ROOT / "build-wheel" / args.platform).absolute()
    programs = compile_engine(platform, build_dir, args.jobs)
    if platform.glibc:
        for program in programs:
            check_needs(program, platform.glibc)
    wheel = make_wheel(platform, programs, args.out.absolute())
    _write(wheel.with_name(f"{wheel.stem}.cdx.json"), bill(wheel, source_date()))
    _write(wheel.with_name("NOTES.md"), text)
    write_sums(wheel.parent)
    print(f"made: {wheel} ({wheel.stat().st_size / 1e6:.1f} MB)")
    return EXIT_OK


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, in the form of the program sha256sum, of all files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    _write(folder / SUMS, "".join(lines))


def _write(path: Path, text: str) -> None:
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
