# SPDX-License-Identifier: MIT
"""Where a token's time goes in a whole model: ``run_inference.py --profile`` on random weights, several times.

Example: trit committed profile --shape bitnet-2b-4t --threads 2
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.errors import TritError
from trit.base.flags import THREADS, ArgumentParser, a_path, whole
from trit.base.host import physical_cores
from trit.base.places import ROOT
from trit.base.progress import until_now
from trit.convert.from_random import HEADS
from trit.engine.roofline import measure
from trit.engine.token_profile import Column, Limits, Row, table
from trit.measure import report
from trit.measure.committed.end_to_end import CACHE
from trit.measure.model_store import random_model
from trit.models.shapes import SHAPES

# One token a word in the vocabularies that the shapes come with.
_WORD = " the"


def ask(model: Path, threads: int, prompt: int, generate: int) -> dict[str, Any]:
    """What ``run_inference.py --profile --json`` prints.

    Raises:
        TritError: it failed; with its own sentence.
    """
    command = [sys.executable, str(ROOT / "run_inference.py"), "-m", str(model), "-t", str(threads), "-temp", "0"]
    command += ["-p", _WORD * prompt, "-n", str(generate), "--profile", "--json", "--", "--ignore-eos"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise TritError(f"run_inference.py failed: {result.stderr.strip()}")
    return dict(json.loads(result.stdout))


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run whose text took the median time: parts of one run add up, medians of parts would not."""
    times = sorted(runs, key=lambda run: float(run["generation_ms"]))
    return times[len(times) // 2]


def as_table(result: dict[str, Any]) -> str:
    """The table that people see on screen."""
    profile = result["profile"]
    made = [Column(c["title"], c["tokens"], [Row(**row) for row in c["rows"]]) for c in profile["columns"]]
    return table(made, Limits(**profile["limits"]) if profile["limits"] else None, result["threads"])


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the model, run, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog="trit committed profile", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--shape", choices=list(SHAPES), default="bitnet-2b-4t", help="(default: %(default)s)")
    add("--head", choices=HEADS, default="q6_k", help="embedding and head (default: %(default)s)")
    add("--prompt", "-p", type=whole(1), default=256, help="words (default: %(default)s)")
    add("--generate", "-n", type=whole(2), default=32, help="tokens (default: %(default)s)")
    add("--threads", "-t", type=THREADS, default=physical_cores(), help="(default: %(default)s)")
    add("--rounds", type=whole(1), default=5, help="(default: %(default)s)")
    add("--workdir", type=a_path, default=CACHE, help="where the model is kept (default: %(default)s)")
    add("--out", type=a_path, default=report.RESULTS, help="folder of the results (default: %(default)s)")
    args = parser.parse_args(given)
    report.check_out(args.out, "profile")
    model = random_model(args.workdir, args.shape, args.head, "i2_s")
    runs: list[dict[str, Any]] = []
    with until_now(lambda: as_table(middle(runs)) if runs else ""):
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            runs.append(ask(model, args.threads, args.prompt, args.generate))
    result = middle(runs)
    compiler = measure([1], tier="chosen", seconds=0.01).compiler
    about = report.about("trit committed profile", given, compiler)
    about["model"] = f"{args.shape}, head {args.head}"
    times = [run["generation_ms"] / (run["generated_tokens"] - 1) for run in runs]
    shown = as_table(result)
    text = (
        f"Random weights in the shape of {about['model']}. The run with the median time of {args.rounds}; a token took "
        f"{min(times):.1f} to {max(times):.1f} ms, median {median(times):.1f}.\n\n```\n{shown}\n```\n"
    )
    kept = {name: result[name] for name in ("threads", "prompt_tokens", "generated_tokens", "profile")}
    report.keep_and_show(args.out, "profile", about, text, {**kept, "ms_per_token": times}, shown)
    return 0
