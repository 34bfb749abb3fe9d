# SPDX-License-Identifier: MIT
"""run_inference.py --profile: the table made of known counters, and the engine's counters on known shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import TritError, run_main
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT
from trit.engine.token_profile import PARTS, Limits, columns, environment, table
from trit.models.shapes import SHAPES, matrices
from trit.run import completion

TIMINGS = {"prompt_ms": 30.0, "generation_ms": 50.0, "sampling_ms": 4.0, "unaccounted_ms": 6.0}
LIMITS = Limits(read_gbs=10.0, int8_gmacs=100.0, cache_bytes=1 << 20)


def part(seconds: float = 0.0, weight_bytes: float = 0.0, macs: float = 0.0) -> dict[str, float]:
    return {"seconds": seconds, "calls": 1, "weight_bytes": weight_bytes, "macs": macs}


def regime(graphs: int = 0, tokens: int = 0, seconds: float = 0.0, **parts: dict[str, float]) -> dict[str, Any]:
    every = {name: parts.get(name, part()) for name in PARTS}
    return {"graphs": graphs, "tokens": tokens, "seconds": seconds, "parts": every}


def counters(tmp_path: Path, **regimes: dict[str, Any]) -> Path:
    path = tmp_path / "counters.json"
    whole = {name: regimes.get(name, regime()) for name in ("one", "few", "many")}
    path.write_text(json.dumps({"threads": 2, "regimes": whole}))
    return path


@pytest.fixture
def text_and_prompt(tmp_path: Path) -> Path:
    # Text: 4 tokens in 40 ms; of 100 MB in 20 ms half is read at 10 GB/s. Prompt: 20 ms, bound by arithmetic.
    one = regime(4, 4, 0.040, ternary_one=part(0.020, 100e6, 0.4e9), head=part(0.010, 20e6, 1e9), barrier=part(0.010))
    many = regime(1, 64, 0.020, ternary_many=part(0.016, 25e6, 0.8e9), attention=part(0.004))
    return counters(tmp_path, one=one, many=many)


def test_every_part_has_its_time_share_and_limit(text_and_prompt: Path) -> None:
    text, prompt = columns(text_and_prompt, TIMINGS, LIMITS)
    assert (text.title, text.tokens, prompt.title, prompt.tokens) == (
        "text, 4 tokens one by one", 4, "prompt, 64 tokens", 64
    )  # fmt: skip
    seconds = {row.name: pytest.approx(row.seconds) for row in text.rows if row.seconds}
    # 50 ms by the engine's clock, 40 of them in graphs; sampling and the rest come on top.
    assert seconds == {
        "ternary products, one token": 0.020,
        "head": 0.010,
        "waiting at barriers": 0.010,
        "between graphs": 0.010,
        "sampling": 0.004,
        "output, and the rest": 0.006,
    }
    assert text.seconds == pytest.approx(0.060)
    assert {row.name: row.seconds for row in prompt.rows if row.seconds} == {
        "ternary products, more tokens": 0.016, "attention": 0.004, "between graphs": pytest.approx(0.010)
    }  # fmt: skip
    limits = {row.name: row.limit_seconds for row in (*text.rows, *prompt.rows) if row.limit_seconds}
    # A head of 1 G multiply-accumulates is no int8 arithmetic: only reading binds it.
    assert limits == {
        "ternary products, one token": pytest.approx(0.010),
        "head": pytest.approx(0.002),
        "ternary products, more tokens": pytest.approx(0.008),
    }


def test_the_table(text_and_prompt: Path) -> None:
    lines = table(columns(text_and_prompt, TIMINGS, LIMITS), LIMITS, 2).splitlines()
    assert lines[0] == "where the time goes, 2 threads; limits here: reading 10.0 GB/s, int8 100 GMAC/s"
    cells = {line[2:38].strip(): line[38:].split() for line in lines if line.startswith("  ")}
    assert cells["text, 4 tokens one by one"] == ["ms/token", "share", "of", "limit"]
    assert cells["ternary products, one token"] == ["5", "33.3%", "50%"]
    assert cells["head"] == ["2.5", "16.7%", "20%"]
    assert cells["prompt, 64 tokens"] == ["us/token", "share", "of", "limit"]
    assert cells["ternary products, more tokens"] == ["250", "53.3%", "50%"]
    assert cells["all"] == ["469", "100.0%", "27%"]
    assert "  30 MB of weights and 0.35 G multiply-accumulates a token" in lines
    # Nothing is said of what took no time.
    assert "attention" in cells and "embedding, choice of rows" not in cells
    assert not any("caches" in line for line in lines)


def test_weights_that_a_cache_holds_are_not_read_from_memory(text_and_prompt: Path) -> None:
    limits = Limits(10.0, 100.0, cache_bytes=31_000_000)  # a token reads 30 MB, the prompt's one graph 25
    text, prompt = columns(text_and_prompt, TIMINGS, limits)
    assert {row.name: row.limit_seconds for row in text.rows if row.limit_seconds} == {
        "ternary products, one token": pytest.approx(0.004)
    }
    assert "fit into the caches" in table([text, prompt], limits, 1)


def test_without_limits_there_are_times(text_and_prompt: Path) -> None:
    made = columns(text_and_prompt, TIMINGS, None)
    assert not any(row.limit_seconds for column in made for row in column.rows)
    assert table(made, None, 1).splitlines()[0] == "where the time goes, 1 thread"


def test_a_prompt_in_several_batches(tmp_path: Path) -> None:
    # 512 + 3 tokens, and a last batch of one token, which the engine counts among the prompt.
    path = counters(tmp_path, one=regime(1, 1, 0.060), few=regime(1, 3, 0.002), many=regime(1, 512, 0.020))
    one, few, many = columns(path, TIMINGS, None)
    assert (few.title, few.seconds) == ("3 tokens in batches of up to 16", 0)
    assert many.seconds == pytest.approx(0.008)  # 30 - 22
    assert one.rows[-3].seconds == 0.0  # never below zero


def test_a_prompt_of_one_token_is_text(tmp_path: Path) -> None:
    (column,) = columns(counters(tmp_path, one=regime(4, 4, 0.060)), TIMINGS, None)
    assert column.tokens == 4
    assert column.rows[-3].seconds == pytest.approx(0.020)  # 30 ms of the prompt and 50 of the text, less 60


@pytest.mark.parametrize("content", [None, "", "{}", '{"regimes": {"one": {"graphs": 1}}}', "[1]"])
def test_no_or_a_strange_profile_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "counters.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TritError, match=r"wrote no profile .*build it again: python3 setup_env\.py"):
        columns(path, TIMINGS, LIMITS)


def test_the_warm_up_is_left_out_once(tmp_path: Path) -> None:
    assert environment(tmp_path, ["-n", "6"]) == {"TRIT_PROFILE": str(tmp_path), "TRIT_PROFILE_SKIP": "1"}
    assert environment(tmp_path, ["-n", "6", "--no-warmup"])["TRIT_PROFILE_SKIP"] == "0"


def test_a_chat_has_no_profile(story_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(completion.main, ["-m", str(story_gguf), "-cnv", "--profile"]) == 2
    assert capsys.readouterr().err == "error: --profile is for one prompt; leave -cnv or --profile away\n"


def ask(gguf: Path, *flags: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "run_inference.py"), "-m", str(gguf), "-p", DEMO_PROMPT, "-n", "6"]
    result = subprocess.run(
        [*command, "-temp", "0", "--json", *flags], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("flags", [["-t", "1"], ["-t", "2"], ["-t", "2", "--no-repack"]])
def test_the_engine_counts_what_the_model_has(engine_bin: Path, story_gguf: Path, flags: list[str]) -> None:
    told = ask(story_gguf, *flags, "--profile")
    assert told["text"] == ask(story_gguf, *flags)["text"] == " Mary is in the garden."
    text, prompt = told["profile"]["columns"]
    assert (text["tokens"], prompt["tokens"]) == (told["generated_tokens"] - 1, told["prompt_tokens"])
    shape = SHAPES["story"]
    vocabulary = json.loads((BUNDLED_MODEL / "config.json").read_text())["vocab_size"]
    sizes = matrices(shape)
    a_token = shape.layers * sum(n * k for n, k in sizes.values())
    rows = {row["name"]: row for row in text["rows"]}
    assert rows[PARTS["ternary_one"]]["macs"] == text["tokens"] * a_token
    assert rows[PARTS["head"]]["macs"] == text["tokens"] * shape.hidden * vocabulary
    assert rows[PARTS["ternary_many"]]["macs"] == rows[PARTS["ternary_few"]]["macs"] == 0
    # Two bits a weight; table indices of TL2 take 1.67, where tuning chose them.
    bits = 8 * rows[PARTS["ternary_one"]]["weight_bytes"] / rows[PARTS["ternary_one"]]["macs"]
    assert 1.59 < bits < 2.01
    # Of the last layer's output only the last token goes on: behind its attention there is one token.
    behind = sum(n * k for name, (n, k) in sizes.items() if name in ("ffn_gate", "ffn_up", "ffn_down"))
    rows = {row["name"]: row for row in prompt["rows"]}
    assert rows[PARTS["ternary_one"]]["macs"] == behind
    assert rows[PARTS["ternary_many"]]["macs"] == told["prompt_tokens"] * (a_token - behind)
    for column in (text, prompt):
        seconds = {row["name"]: row["seconds"] for row in column["rows"]}
        assert min(seconds.values()) >= 0
        for name in ("quantize", "attention", "elementwise"):
            assert seconds[PARTS[name]] > 0
        assert (seconds[PARTS["barrier"]] > 0) == (told["threads"] > 1)
        assert sum(seconds.values()) * 1e3 <= 1.05 * told["total_ms"]
    assert told["profile"]["limits"]["read_gbs"] > 0


def test_without_the_warm_up_all_the_same_is_counted(engine_bin: Path, story_gguf: Path) -> None:
    flags = ["-t", "1", "--profile"]
    with_it, without = (ask(story_gguf, *flags, *more)["profile"]["columns"] for more in ([], ["--", "--no-warmup"]))
    for first, second in zip(with_it, without, strict=True):
        assert [row["macs"] for row in first["rows"]] == [row["macs"] for row in second["rows"]]


def test_a_profile_that_cannot_be_written_is_said(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    command = [str(engine_bin / "llama-completion"), "-m", str(story_gguf), "-p", "Mary", "-n", "1", "-no-cnv"]
    env = {"TRIT_PROFILE": str(tmp_path / "no" / "file")}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    assert f"TRIT_PROFILE={tmp_path}/no/file: cannot be written" in result.stderr
