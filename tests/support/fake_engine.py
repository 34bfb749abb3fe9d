# SPDX-License-Identifier: MIT
"""Scripts in the place of the engine's measuring programs: what they are asked is noted, what they say is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# Tokens per second on one thread are what SPEEDS says of the model, times the noise of the call; each repetition is a
# tenth faster than the one before. Lines on stderr are those of the real one.
_LLAMA_BENCH = """
import json, sys
SPEEDS, NOISE = {speeds!r}, {noise!r}
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mine = " ".join(sys.argv[1:])
with open({log!r}, "a+") as log:
    log.seek(0)
    calls = [line for line in log.read().splitlines() if line == mine]
    print(mine, file=log)
speed = next(value for name, value in SPEEDS.items() if name in flags["-m"]) * NOISE[len(calls) % len(NOISE)]
tests = [(int(p), 0) for p in flags["-p"].split(",")] + [(0, int(n)) for n in flags["-n"].split(",")]
tests += [tuple(map(int, flags["-pg"].split(",")))] if "-pg" in flags else []
repetitions = int(flags["-r"])
start = "llama-bench: benchmark 1/9: "
for threads in flags["-t"].split(","):
    for prompt, text in (test for test in tests if any(test)):
        print(start + "starting", start + "warmup generation run", sep="\\n", file=sys.stderr, flush=True)
        for i in range(1, repetitions + 1):
            print(start + f"depth run {{i}}/{{repetitions}}", file=sys.stderr, flush=True)
            for count, kind in ((prompt, "prompt"), (text, "generation")):
                if count:
                    print(start + f"{{kind}} run {{i}}/{{repetitions}}", file=sys.stderr, flush=True)
        line = {{"n_prompt": prompt, "n_gen": text, "n_depth": int(flags["-d"]), "n_threads": int(threads)}}
        samples = [speed * int(threads) * (1 + i / 10) for i in range(repetitions)]
        print(json.dumps({{**line, "n_batch": int(flags["-b"]), "samples_ts": samples}}), flush=True)
"""

GMACS, GBS = 100.0, 20.0


def program(folder: Path, name: str, code: str) -> Path:
    """A Python script in the place of a compiled program; returns the folder."""
    if sys.platform == "win32":
        pytest.skip("stand-ins for programs are scripts")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{code}")
    (folder / name).chmod(0o755)
    return folder


def fake_llama_bench(folder: Path, speeds: dict[str, float], noise: tuple[float, ...] = (1.0,)) -> Path:
    """Tokens per second by a part of the model's name; noise of the first, second, ... call, equal for all models."""
    log = str(folder / "calls")
    return program(folder, "llama-bench", _LLAMA_BENCH.format(speeds=speeds, noise=noise, log=log))


def calls(folder: Path) -> list[str]:
    """What llama-bench was asked."""
    return (folder / "calls").read_text().splitlines()


def packed_bytes(n: int, k: int) -> int:
    """What the stand-in of trit-describe says: 2 bits a weight, whole panels of 64 rows."""
    return -(-n // 64) * 64 * k // 4


def fake_describe(folder: Path) -> Path:
    """Everything is packed as 2 bits."""
    code = """
import json, sys
for text in sys.argv[sys.argv.index("--matrices") + 1].split(","):
    encoding, _, shape = text.partition(":")
    n, k = map(int, shape.split("x"))
    size = -(-n // 64) * 64 * k // 4
    line = {"kind": "matrix", "encoding": encoding, "n": n, "k": k, "packing": "2_bits", "bytes": size}
    print(json.dumps({**line, "grouped_bytes": size + k // 64 * n * 2 if encoding == "q2_0" else 0}))
"""
    return program(folder, "trit-describe", code)


def fake_roofline(folder: Path) -> Path:
    """GMACS and GBS for each thread."""
    code = f"""
import json, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
lines = [{{"kind": "head", "compiler": "gcc 1.2.3", "megabytes": 8}}]
lines += [{{"kind": "tier", "tier": "fast", "features": "", "packings": ["2_bits"]}}]
for threads in map(int, flags["--threads"].split(",")):
    one = {{"tier": "fast", "threads": threads}}
    lines += [{{"kind": "int8", **one, "gmacs": [{GMACS} * threads]}}]
    lines += [{{"kind": "read", **one, "pages": "huge", "ahead": 0, "gbs": [{GBS} * threads]}}]
print(*map(json.dumps, lines), sep="\\n")
"""
    return program(folder, "trit-roofline", code)


def fake_powercap(folder: Path, zones: dict[str, tuple[str, int]], top: int = 10**6) -> Path:
    """A tree as Linux has it: zone -> (name, microjoules); counters go round at ``top``."""
    for zone, (name, microjoules) in zones.items():
        (folder / zone).mkdir(parents=True, exist_ok=True)
        for file, text in (("name", name), ("max_energy_range_uj", str(top)), ("energy_uj", str(microjoules))):
            (folder / zone / file).write_text(f"{text}\n")
    return folder


def as_json(path: Path) -> dict[str, object]:
    """A file's object."""
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found
