# SPDX-License-Identifier: MIT
"""Batches with the bundled model: the same bytes whatever happens on the way, and no row lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.serving import descendants
from trit import cli
from trit.base.places import ROOT
from trit.train.story import ask, make_story

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
ROWS, SHARD = 60, 25
# Drawn at a temperature, so that a seed that moved would show.
HOW = ["--temperature", "1.5", "--seed", "7", "-n", "12", "-c", "512", "--shard-size", str(SHARD)]


def stories(count: int = ROWS) -> list[dict[str, Any]]:
    rng, made = Random(3), []
    for number in range(count):
        story = make_story(rng, 1 + number % 4)
        asked = ask(rng, story, next(iter(story.places)))
        made.append({"name": f"row {number}", "prompt": story.text + asked.prompt, "continuation": f" {asked.answer}"})
    return made


def lines(rows: list[Any]) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text("utf-8").splitlines()]


def command(source: Path, out: Path, model: Path, *more: str) -> list[str]:
    return ["batch", str(source), "--out", str(out), "-m", str(model), *more]


def proof(out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["batch", "--check", str(out), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "stories.jsonl"
    path.write_text(lines(stories()), "utf-8")
    return path


@pytest.fixture(scope="module")
def whole(engine_bin: Path, story_gguf: Path, source: Path) -> Iterator[Path]:
    """A batch that nothing happened to, one row at a time."""
    out = source.parent / "whole"
    assert cli.main(command(source, out, story_gguf, *HOW, "--parallel", "1", "-t", "1")) == 0
    yield out


def test_rows_have_what_is_promised_in_the_input_s_order(whole: Path) -> None:
    found = read(whole)
    assert [row["id"] for row in found] == list(range(ROWS))
    assert list(found[0]) == ["id", "text", "tokens", "finish_reason", "usage", "error"]
    for row in found:
        assert row["error"] is None and row["finish_reason"] in {"stop", "length"}
        assert row["usage"]["completion_tokens"] == len(row["tokens"]) <= 12
    assert len({row["text"] for row in found}) > 5
    assert [len(path.read_text("utf-8").splitlines()) for path in sorted(whole.glob("part-*"))] == [25, 25, 10]
    assert sorted(path.name for path in whole.iterdir()) == [
        ".lock",
        "manifest.json",
        *(f"part-0000{n}.jsonl" for n in range(3)),
    ]


def test_eight_slots_give_the_bytes_of_one(
    whole: Path, source: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(source, tmp_path / "out", story_gguf, *HOW, "--parallel", "8", "-t", "2", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["answered"], told["errors"], told["slots"]) == (ROWS, ROWS, 0, 8)
    assert told["tokens"] == sum(len(row["tokens"]) for row in read(whole))
    assert proof(tmp_path / "out", capsys) == proof(whole, capsys)
    for path in whole.glob("part-*"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def noted(out: Path) -> int:
    """Rows that are done, in parts and in the journal of the one that is being made; both are there for a moment."""
    found = 0
    for number in range(-(-ROWS // SHARD)):
        part = out / f"part-{number:05}.jsonl"
        journal = out / f".{part.name}.rows"
        with suppress(FileNotFoundError):
            found += (part if part.exists() else journal).read_bytes().count(b"\n")
    return found


def begin(source: Path, out: Path, model: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "trit", *command(source, out, model, *HOW, "--parallel", "2")]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(count: int, process: subprocess.Popen[str], out: Path) -> None:
    while noted(out) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_is_gone_on_with(
    number: int, whole: Path, source: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with begin(source, out, story_gguf) as process:
        wait_for(1, process, out)
        children = descendants(process.pid)
        wait_for(SHARD + 1, process, out)
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signal.Signals(number)]
    if number != signal.SIGKILL:
        assert "ending behind the rows that run" in errors and "carries on where it was" in said
        assert "Traceback" not in errors
    done = noted(out)
    assert SHARD < done < ROWS
    last = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() for pid in children) and time.monotonic() < last:
        time.sleep(0.02)
    assert not [pid for pid in children if Path(f"/proc/{pid}/exe").exists()], "the engine outlives its batch"
    assert cli.main(command(source, out, story_gguf, *HOW, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answered"] == ROWS - done and told["done"] == ROWS
    assert proof(out, capsys) == proof(whole, capsys)
    assert not list(out.glob(".part-*"))


@LINUX
def test_a_killed_engine_is_started_again_and_no_row_is_lost(
    whole: Path, source: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with begin(source, out, story_gguf) as process:
        wait_for(5, process, out)
        (engine,) = descendants(process.pid)
        os.kill(engine, signal.SIGKILL)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "note: the engine was ended by SIGKILL" in said and "starting it again" in said
    assert proof(out, capsys) == proof(whole, capsys)


@LINUX
def test_two_runs_do_not_share_a_folder(
    source: Path, story_gguf: Path, engine_bin: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with begin(source, out, story_gguf) as process:
        while not (out / "manifest.json").exists():  # it is written when the folder has been taken
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)  # it is not ready before the second one looks
        try:
            assert cli.main(command(source, out, story_gguf, *HOW)) == 2
            assert "another trit batch writes there; wait for its end" in capfd.readouterr().err
        finally:
            process.kill()


def test_a_full_disk_is_a_sentence_and_nothing_is_half_written(
    whole: Path,
    source: Path,
    story_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, sync = tmp_path / "out", os.fsync

    def full(handle: int) -> None:
        if list(out.glob(".part-00001*.rows")):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(command(source, out, story_gguf, *HOW)) == 1
    assert f"{out}/part-00001.jsonl cannot be written: the disk is full" in capsys.readouterr().err
    names = {path.name for path in out.iterdir()}
    assert names == {".lock", "manifest.json", "part-00000.jsonl", ".part-00001.jsonl.rows"}
    assert cli.main(command(source, out, story_gguf, *HOW, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == ROWS - 2 * SHARD
    assert proof(out, capsys) == proof(whole, capsys)


def test_another_batch_is_refused_with_the_difference(
    whole: Path, source: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert cli.main(command(source, whole, story_gguf, *HOW)) == 0, "nothing is left to do"
    capsys.readouterr()
    assert cli.main(command(source, whole, story_gguf, *HOW, "--temperature", "1", "-n", "5")) == 2
    said = capsys.readouterr().err
    assert "(n-predict 12 there, 5 here; temperature 1.5 there, 1.0 here)" in said
    other = tmp_path / "other.jsonl"
    other.write_text(lines(stories()[:-1]), "utf-8")
    assert cli.main(command(other, whole, story_gguf, *HOW)) == 2
    said = capsys.readouterr().err
    assert f"input bytes {source.stat().st_size} there, {other.stat().st_size} here; input sha256" in said
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_bad_rows_are_error_rows(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = stories(2)
    rows = [good[0], "{nonsense", {"name": "x", "prompt": ""}, {"name": "y", "other": 1}, {"name": "z", "prompt": None}]
    rows += [{"name": "long", "prompt": "Mary " * 600}, {"prompt": "a"}, {"name": "half", "prompt": "\ud83d"}, good[1]]
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    path.write_text(lines(rows), "utf-8")
    assert cli.main(command(path, out, story_gguf, "-c", "512", "-n", "4", "--id-column", "name", "--json")) == 3
    assert json.loads(capsys.readouterr().out)["errors"] == 7
    found = read(out)
    assert [row["id"] for row in found] == ["row 0", None, "x", "y", "z", "long", None, "half", "row 1"]
    errors = [row["error"] or "" for row in found]
    assert errors[0] == errors[8] == "" and found[8]["text"]
    assert errors[1].startswith("line 2: is no JSON") and errors[2] == "the prompt is empty"
    assert errors[3] == "has no column prompt; its columns are name, other"
    assert errors[4] == "column prompt is null, expected a text"
    assert "exceeds the available context size (512 tokens)" in errors[5]
    assert errors[6] == "column name has no id, expected a text or a whole number"
    assert proof(out, capsys)["errors"] == 7


def test_scores_are_the_log_probabilities_of_what_the_model_says(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for its own greedy answer, a score is the sum of the log-probabilities that came with the answer."""
    rows = stories(12)
    path = tmp_path / "in.csv"
    path.write_text("prompt\n" + "".join(f'"{row["prompt"]}"\n' for row in rows), "utf-8")
    assert cli.main(command(path, tmp_path / "said", story_gguf, "-n", "5", "--logprobs", "2", "--stop", r"\n")) == 0
    said = read(tmp_path / "said")
    given = [{"prompt": row["prompt"], "continuation": one["text"]} for row, one in zip(rows, said, strict=True)]
    given.append({"prompt": rows[0]["prompt"], "continuation": " garden garden"})
    (tmp_path / "again.jsonl").write_text(lines(given), "utf-8")
    for slots in ("1", "4"):
        out = tmp_path / slots
        assert cli.main(command(tmp_path / "again.jsonl", out, story_gguf, "--score", "--parallel", slots)) == 0
    *found, unlikely = read(tmp_path / "1")
    for row, one in zip(found, said, strict=True):
        count = len(row["tokens"])
        assert row["tokens"] == one["tokens"][:count] and row["greedy"]
        assert row["logprobs"] == [each["logprob"] for each in one["logprobs"]][:count]
        assert row["score"] == sum(row["logprobs"])
        assert [each["id"] for each in one["logprobs"]] == one["tokens"] and len(one["logprobs"][0]["top"]) == 2
    assert unlikely["score"] < -10 and not unlikely["greedy"]
    assert proof(tmp_path / "1", capsys) == proof(tmp_path / "4", capsys)


def test_vectors_do_not_depend_on_what_runs_beside_them(
    engine_bin: Path, story_gguf: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for threads in ("1", "2"):
        more = ["--embeddings", "-t", threads, "--parallel", "4", "--template", "{{{name}}}: {prompt}"]
        assert cli.main(command(source, tmp_path / threads, story_gguf, *more)) == 0
    first, *_ = found = read(tmp_path / "1")
    assert len(found) == ROWS and len(first["embedding"]) == len(found[9]["embedding"]) > 16
    assert abs(sum(value**2 for value in first["embedding"]) - 1) < 1e-3
    assert proof(tmp_path / "1", capsys) == proof(tmp_path / "2", capsys)


def test_openai_s_form_comes_back_in_openai_s_form(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def request(name: Any, url: str, **body: Any) -> dict[str, Any]:
        return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "any", **body}}

    chat, text = "/v1/chat/completions", "/v1/completions"
    message = [{"role": "user", "content": "Where is Mary?"}]
    rows = [
        request("chat", chat, messages=message, max_tokens=5, temperature=1.2),
        request("text", text, prompt=stories(1)[0]["prompt"], max_tokens=3, logprobs=1),
        request("none", chat, messages=[]),
        request("stream", text, prompt="a", stream=True),
        request("vector", "/v1/embeddings", input="a"),
        request("gone", "/v1/images", prompt="a"),
        "[",
    ]
    path = tmp_path / "in.jsonl"
    path.write_text(lines(rows), "utf-8")
    for slots in ("1", "3"):
        assert cli.main(command(path, tmp_path / slots, story_gguf, "--parallel", slots)) == 3
    assert proof(tmp_path / "1", capsys) == proof(tmp_path / "3", capsys)
    answer, plain, none, stream, vector, gone, bad = read(tmp_path / "1")
    assert list(answer) == ["id", "custom_id", "response", "error"] and answer["error"] is None
    assert answer["custom_id"] == "chat" and answer["response"]["status_code"] == 200
    body = answer["response"]["body"]
    assert body["object"] == "chat.completion" and body["choices"][0]["message"]["role"] == "assistant"
    assert body["usage"]["completion_tokens"] == 5 and "timings" not in body
    assert plain["response"]["body"]["choices"][0]["logprobs"]["content"][0]["logprob"] <= 0
    assert none["response"]["status_code"] == 400 and "messages" in none["response"]["body"]["error"]["message"]
    for row, said in ((stream, "body.stream"), (vector, "not of /v1/embeddings"), (gone, "url"), (bad, "line 7")):
        assert row["response"] is None and said in row["error"]["message"]
    assert bad["custom_id"] is None


def test_openai_s_vectors(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": ["one", "two words"]}}
    (tmp_path / "in.jsonl").write_text(lines([row]), "utf-8")
    assert cli.main(command(tmp_path / "in.jsonl", tmp_path / "out", story_gguf)) == 0
    (found,) = read(tmp_path / "out")
    assert [one["index"] for one in found["response"]["body"]["data"]] == [0, 1]


def test_parquet_goes_in_and_out(
    whole: Path, source: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pa: Any = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.Table.from_pylist(stories()), path, row_group_size=20)
    out = tmp_path / "out"
    assert cli.main(command(path, out, story_gguf, *HOW, "--output-format", "parquet")) == 0
    found = [row for part in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]
    assert found == read(whole)
    assert proof(out, capsys)["sha256"] == proof(whole, capsys)["sha256"]
    assert parquet.read_schema(out / "part-00000.parquet").field("id").type == pa.int64()


def test_a_batch_that_lacks_something_is_not_complete(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in whole.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    last = out / "part-00002.jsonl"
    text = last.read_bytes()
    for damage, said in (
        (b"".join(text.splitlines(True)[:-1]), "has 9 rows, expected 10"),
        (b"".join(text.splitlines(True)[::-1]), "the ids of its rows are not the input's in order"),
        (text[:-9], "is damaged"),
    ):
        last.write_bytes(damage)
        assert cli.main(["batch", "--check", str(out)]) in (1, 2)
        assert said in capsys.readouterr().err
    last.unlink()
    assert cli.main(["batch", "--check", str(out)]) == 1
    assert "1 of 3 parts are missing, part-00002.jsonl the first; run the batch again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--prompt-column", "text"], "has no column text; its columns are name, prompt, continuation"),
        (["--score", "-n", "5"], "--n-predict: is for answers, and --score makes none"),
        (["--chat"], "has no chat template"),
        (["--continuation-column", "a"], "--continuation-column: is for --score"),
        (["--format", "openai", "--template", "{a}"], "are in OpenAI's form and say that themselves"),
        (["-n", "0"], "-n 0: expected 1 or more, or -1"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(
    more: list[str],
    said: str,
    source: Path,
    story_gguf: Path,
    engine_bin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(command(source, tmp_path / "out", story_gguf, *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the example is for a POSIX shell")
def test_the_example_of_the_document_works(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "batch.md").read_text("utf-8")
    example = page.partition("```sh\n")[2].partition("```")[0]
    (tmp_path / "texts").mkdir()
    for number, place in enumerate(("kitchen", "garden")):
        text = f"Mary went to the {place}. John went to the office."
        (tmp_path / "texts" / f"{number}.txt").write_text(text, "utf-8")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "trit").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m trit "$@"\n', "utf-8")
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    for program in programs.iterdir():
        program.chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    assert len(example.splitlines()) == 3
    done = subprocess.run(["sh", "-ec", example], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete, 2 rows in 1 parts" in done.stdout
    answers = {row["id"]: row["text"] for row in read(tmp_path / "places")}
    assert "kitchen" in answers["0.txt"] and "garden" in answers["1.txt"]


@LINUX
def test_a_second_signal_ends_at_once(source: Path, story_gguf: Path, engine_bin: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with begin(source, out, story_gguf) as process:
        wait_for(1, process, out)
        (engine,) = descendants(process.pid)
        os.kill(engine, signal.SIGSTOP)  # the rows that run do not end
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert not Path(f"/proc/{engine}/exe").exists() and not list(out.glob("part-*"))
