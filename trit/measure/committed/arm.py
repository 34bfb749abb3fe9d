# SPDX-License-Identifier: MIT
"""What LLVM's models of ARM cores predict for the inner loops of the ARM tiers, beside other engines' loops.

Nothing is measured: no ARM hardware is needed, and none vouches for the figures.

Example: trit committed arm --compiler clang++ aarch64-linux-gnu-g++ --mca llvm-mca
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trit.base.errors import UserError
from trit.base.files import check_output
from trit.base.flags import ArgumentParser, a_path, some_text
from trit.base.processes import capture
from trit.base.provenance import facts
from trit.measure import report
from trit.measure.committed.arm_loops import CORES, Prediction, predict

KIND = "predicted"
STEM = f"arm-{KIND}"
CLOCKS = f"Clocks are those of {', '.join(core.where for core in CORES)}."


def _version(program: str) -> str:
    """The line of its --version that has a number, or only its name."""
    code, output = capture([program, "--version"])
    lines = [line.strip() for line in output.splitlines() if "version" in line.lower() or "g++" in line.lower()]
    return lines[0] if code == 0 and lines else program


def _cell(prediction: Mapping[str, Any] | None) -> str:
    if prediction is None:
        return ""
    share = f"{100 * prediction['share']:.0f} %"
    return share if prediction["gbs"] is None else f"{share}, {prediction['gbs']:.1f} GB/s"


def table(predictions: Sequence[Mapping[str, Any]]) -> str:
    """One row for each engine, loop and tier, one column for each core; predictions of one compiler."""
    rows = [["loop", "engine", "instructions", *(f"{core.name}, {core.ghz} GHz" for core in CORES)]]
    for engine, what, tier in dict.fromkeys((one["engine"], one["what"], one["tier"]) for one in predictions):
        found = {
            one["core"]: one for one in predictions if (one["engine"], one["what"], one["tier"]) == (engine, what, tier)
        }
        rows.append([what, engine, tier, *(_cell(found.get(core.name)) for core in CORES)])
    return report.markdown(rows, left=3)


def text(result: Mapping[str, Any]) -> str:
    """The Markdown of a result: one table for each compiler."""
    about = result["about"]
    parts = [
        "# Inner loops of the ARM tiers: predicted, not measured",
        f"{about['mca']}; commit {about['commit']}, llama.cpp {about['engine_commit']}, {about['date']}",
        f"    {about['command']}",
        "Share of what the tier's multiply instruction does from registers (of attention: fmla). GB/s: weights, keys\n"
        f"or values that the loop takes. {CLOCKS}",
    ]
    for compiler, version in about["compilers"].items():
        parts += [f"## {version}", table([one for one in result["loops"] if one["compiler"] == compiler])]
    return "\n\n".join(parts) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="trit committed arm", description=__doc__.splitlines()[0])
    add = parser.add_argument
    compilers = ["clang++", "aarch64-linux-gnu-g++"]
    text = f"C++ compilers for ARM (default: {' '.join(compilers)})"
    add("--compiler", type=some_text, nargs="+", default=compilers, help=text)
    add("--mca", type=some_text, default="llvm-mca", help="LLVM's analyser, version 20 or newer (default: %(default)s)")
    add("--bitnet", type=a_path, metavar="DIR", help="a checkout of bitnet.cpp: its loops too, by the first compiler")
    add("-o", "--out", type=a_path, default=report.RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, compile, predict, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    if args.bitnet and not (args.bitnet / "src" / "ggml-bitnet-mad.cpp").is_file():
        raise UserError(f"--bitnet {args.bitnet}: has no src/ggml-bitnet-mad.cpp; name a checkout of bitnet.cpp")
    check_output("--out", args.out / f"{STEM}.md", in_folder=True)
    found: list[Prediction] = []
    for i, compiler in enumerate(args.compiler):
        # (gcc 12 ends in an internal error over bitnet.cpp's loops.)
        found += predict(compiler, args.mca, args.bitnet if i == 0 else None)
    told = ["trit", "committed", "arm", "--compiler", *args.compiler, "--mca", args.mca]
    told += ["--bitnet", "BitNet"] if args.bitnet else []
    ran = {name: value for name, value in facts(told).items() if name in ("commit", "engine_commit", "date", "command")}
    about = {**ran, "mca": _version(args.mca), "compilers": {name: _version(name) for name in args.compiler}}
    cores = [{**vars(core), "features": sorted(core.features)} for core in CORES]
    result = {"about": about, "cores": cores, "loops": [vars(one) for one in found]}
    for suffix, content in (("md", text(result)), ("json", report.as_json(result))):
        report.write(args.out / f"{STEM}.{suffix}", content, "folder with --out")
    print(table([vars(one) for one in found if one.compiler == args.compiler[0]]))
    print(f"\nwritten: {args.out / STEM}.md and .json")
    return 0
