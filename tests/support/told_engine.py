# SPDX-License-Identifier: MIT
"""A stand-in for the engine of run_inference.py; its fixture is in tests/run/conftest.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.tiny_gguf import EMPTY
from trit.base.errors import run_main
from trit.run import completion

PERF = """0.00.000.100 I sampler seed: 77
0.00.000.100 I generate: n_ctx = 2048, n_batch = 2048, n_predict = 6, n_keep = 0
0.00.000.200 I common_perf_print:    sampling time =       0.41 ms
0.00.000.200 I common_perf_print:    samplers time =       0.29 ms /    {sampled} tokens
0.00.000.200 I common_perf_print:        load time =      46.40 ms
0.00.000.200 I common_perf_print: prompt eval time =       2.00 ms /     5 tokens (    0.40 ms per token)
0.00.000.200 I common_perf_print:        eval time =       4.00 ms /     7 runs   (    0.57 ms per token)
0.00.000.200 I common_perf_print:       total time =       7.50 ms /    12 tokens
0.00.000.200 I common_perf_print: unaccounted time =       1.09 ms /  14.5 %      (total - sampling - ...) / (total)
"""
ENGINE = """#!{python}
import json, os, sys, time
plan = json.load(open(os.environ["ENGINE_PLAN"]))
json.dump(sys.argv[1:], open(os.environ["ENGINE_PLAN"] + ".args", "w"))
if "-f" in sys.argv:
    open(os.environ["ENGINE_PLAN"] + ".prompt", "wb").write(open(sys.argv[sys.argv.index("-f") + 1], "rb").read())
sys.stderr.write(plan.get("stderr", ""))
sys.stderr.flush()
for part in plan.get("stdout", []):
    os.write(1, part.encode("latin-1"))
    time.sleep(plan.get("pause", 0))
if "signal" in plan:
    os.kill(os.getpid(), plan["signal"])
sys.exit(plan.get("code", 0))
"""


class FakeEngine:
    """A program in the engine's place that does as told and notes its arguments."""

    def __init__(self, folder: Path):
        self.plan_file = folder / "plan.json"
        self.program = folder / "engine"
        self.program.write_text(ENGINE.format(python=sys.executable))
        self.program.chmod(0o755)
        self.model = folder / "model.gguf"
        self.model.write_bytes(EMPTY)
        self.answer(" An answer.")

    def plan(self, **plan: object) -> None:
        self.plan_file.write_text(json.dumps(plan))

    def answer(self, text: str, ending: str = "\n\n", sampled: int = 13) -> None:
        self.plan(stdout=[text, ending], stderr=PERF.format(sampled=sampled))

    @property
    def arguments(self) -> list[str]:
        return list(json.loads(Path(f"{self.plan_file}.args").read_text()))

    @property
    def prompt(self) -> bytes:
        """What was in the file of the prompt when the engine ran."""
        return Path(f"{self.plan_file}.prompt").read_bytes()

    def value(self, flag: str) -> str:
        return self.arguments[self.arguments.index(flag) + 1]


def run(engine: FakeEngine, *arguments: str) -> int:
    return run_main(completion.main, ["-m", str(engine.model), *arguments])
