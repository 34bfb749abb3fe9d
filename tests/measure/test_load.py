# SPDX-License-Identifier: MIT
"""`trit committed load`: who asks what when, what its tables say, and a short run on the real server; no speeds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trit.base.errors import TritError, UserError
from trit.measure.clients import Answer, Load, load
from trit.measure.committed import load as benchmark
from trit.measure.committed.load import Found, as_table, faults, questions


class _Handler(BaseHTTPRequestHandler):
    """Answers with the prompt's own letters, one a piece."""

    most = 0
    now = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        kind = type(self)
        with kind.lock:
            kind.now += 1
            kind.most = max(kind.most, kind.now)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["prompt"]
        self.send_response(503 if prompt == "refused" else 200)
        self.end_headers()
        end = {"content": "", "stop": True, "tokens_predicted": 3, "tokens_evaluated": 9, "timings": {"prompt_n": 2}}
        pieces = [{"content": letter, "stop": False} for letter in prompt[: body["n_predict"]]]
        if prompt == "wrong":
            self.wfile.write(b'error: {"message": "broken"}\n\n')
        elif prompt != "refused":
            for event in pieces if prompt == "cut" else [*pieces, end]:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        with kind.lock:
            kind.now -= 1

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_every_request_is_sent_once_and_no_more_at_a_time_than_there_are_clients(url: str) -> None:
    _Handler.most = 0
    done = load(url, ["abcd", "efgh"], 3, range(10, 21), 3)
    assert sorted(done.answers) == list(range(10, 21)) and done.errors == []
    assert [done.answers[number].text for number in (10, 11, 12)] == ["abc", "efg", "abc"]
    assert 1 <= _Handler.most <= 3
    assert done.cached == pytest.approx(7 / 9)
    answer = done.answers[10]
    assert (answer.tokens, answer.prompt, answer.cached, len(answer.gaps)) == (3, 9, 7, 2)
    assert answer.asked < answer.arrivals[0] and min(answer.gaps) >= 0


def test_a_request_that_fails_does_not_stop_the_others(url: str) -> None:
    done = load(url, ["fine", "refused", "wrong", "cut"], 2, range(4), 2)
    assert list(done.answers) == [0]
    assert sorted(done.errors) == [
        "request 1: 503: ", 'request 2: {"message": "broken"}', "request 3: the answer broke off"
    ]  # fmt: skip
    (error,) = load("http://127.0.0.1:9", ["x"], 1, range(1), 2).errors
    assert error.startswith("request 0: ")


def answered(text: str = "abc", waits: tuple[float, ...] = (0.1, 0.12, 0.16)) -> Answer:
    return Answer(text, 3, 5.0, tuple(5.0 + wait for wait in waits), 10, 8)


def test_times_are_those_of_a_client() -> None:
    done = Load(2, 1.5, {0: answered(), 1: answered(waits=(0.3, 0.32, 0.34))})
    assert done.tokens_per_second == 4
    assert done.first == pytest.approx((200, 290, 298))
    assert done.between[0] == pytest.approx(20) and done.between[2] == pytest.approx(39.4)


def test_the_table_compares_with_one_client() -> None:
    one, four = Load(1, 3.0, {0: answered()}), Load(4, 1.0, {0: answered()})
    rows = as_table({"ours": Found({4: [four], 1: [one]})})
    assert [row[:4] for row in rows[1:]] == [["ours", "1", "1", "1.00"], ["ours", "4", "3", "3.00"]]
    assert rows[1][4:] == ["100 / 100 / 100", "30 / 39 / 40", "80 %"]


def test_faults_are_said() -> None:
    found = Found(resident=(100_000_000, 104_000_000))
    found.add(Load(1, 1.0, {0: answered(), 3: answered()}), {0: "abc", 1: "xyz"})
    assert faults("m", found) == ["m: 1 of 2 answers are not those of a single client"]
    found = Found(resident=(100_000_000, 106_000_000), requests=7, errors=["request 3: no"])
    assert faults("m", found) == [
        "m: 1 of 7 requests failed: request 3: no",
        "m: memory grew from 100 MB after 500 requests to 106 MB after all",
    ]
    assert faults("m", Found()) == []


def test_questions_begin_alike_and_differ() -> None:
    asked = questions()
    assert len(set(asked)) == len(asked) == 16 and asked == questions()
    beginning = asked[0][: len(asked[0]) // 2]
    assert all(one.startswith(beginning) for one in asked)


@pytest.mark.parametrize("flags", [["--model", "x"], ["--other", "this build=y"], ["--model", "a=b", "--model", "a=c"]])
def test_a_name_and_a_path(flags: list[str]) -> None:
    with pytest.raises(UserError, match="expected NAME=PATH"):
        benchmark.main(flags)


def test_many_clients_get_what_one_gets_and_memory_stays(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "-m",
        f"story={story_gguf}",
        "--clients",
        "1,8",
        "--rounds",
        "1",
        "--requests",
        "1000",
        "-n",
        "6",
        "-t",
        "1",
    ]
    assert benchmark.main([*flags, "-o", str(tmp_path)]) == 0
    assert "## story" in capsys.readouterr().out
    (path,) = tmp_path.glob("*-load.json")
    (model,) = json.loads(path.read_text())["models"]
    found = model["servers"][benchmark.OURS]
    # 16 questions alone, 16 for each number of clients, and the long run.
    assert (found["requests"], found["errors"], found["different"]) == (1048, 0, 0)
    assert [test["clients"] for test in found["tests"]] == [1, 8]
    assert all(test["reused"] > 0.5 for test in found["tests"]), "the beginning is computed once"


def test_a_faulty_run_is_not_kept(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "load", lambda *_: Load(1, 1.0, {}, ["request 0: no"]))
    with pytest.raises(TritError, match="request 0: no"):
        benchmark.main(["-m", f"story={story_gguf}", "--clients", "1", "--rounds", "1", "-o", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
