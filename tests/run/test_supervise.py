# SPDX-License-Identifier: MIT
"""The engine as a child: started again, ended in time, and nothing of it left. Shell scripts stand in for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.serving import wait_for_end
from trit.base.places import ROOT
from trit.run.serving.log import JsonLog

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stand-ins are shell scripts; reads /proc")
# A process of its own: it answers signals, and takes every child for its own. Its line is one write: print's may be
# two (PYTHONUNBUFFERED), and the engine's line between them.
_CODE = """
import os, sys
from trit.base.errors import run_main
from trit.run.serving import supervise
from trit.run.serving.log import JsonLog, Log
supervise._ROOM_S = 0.2
log = JsonLog() if {json} else Log()
engine = supervise.Supervisor(["/bin/sh", "-c", {script!r}], sandbox=None, env={{"NEW": "1"}}, grace_s=0.2,
    answers=lambda: {answers}, log=log, first_delay_s=0.01)
sys.exit(run_main(lambda argv: engine.run(lambda: os.write(1, b"ready\\n"))))
"""


def start(script: str, json_log: bool = False, answers: bool = True) -> subprocess.Popen[str]:
    code = _CODE.format(script=script, json=json_log, answers=answers)
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_it_is_started_again_but_not_for_ever() -> None:
    process = start("echo $NEW; kill -9 $$")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out.count("1\n") == 6
    assert [f"({count} of 5)" in err for count in (1, 5, 6)] == [True, True, False]
    assert "starting it again in 0.01 s (1 of 5)" in err and "in 0.16 s (5 of 5)" in err
    last = err.splitlines()[-1]
    assert last.startswith("error: the engine was ended by SIGKILL; probably for want of memory")
    assert last.endswith(", 6 times one after the other") and "Traceback" not in err


@pytest.mark.parametrize(
    ("script", "starts", "said"),
    [
        ("echo once; exit 3", 1, "error: the engine ended with exit code 3 before it answered; it says why above"),
        ("echo once; kill -ABRT $$", 1, "error: the engine was ended by SIGABRT before it answered"),
        # Another program may have taken the memory that it lacked.
        ("echo once; kill -9 $$", 6, "error: the engine was ended by SIGKILL; probably for want of memory"),
    ],
)
def test_what_never_answers_is_not_tried_for_long(script: str, starts: int, said: str) -> None:
    process = start(script, answers=False)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == "once\n" * starts
    assert err.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("sleep 0.3; echo 'error: a sentence' >&2; exit 2", 2, "error: a sentence\n"),
        ("sleep 0.3; exit 0", 0, ""),
    ],
)
def test_mistakes_and_wishes_are_passed_on(script: str, code: int, said: str) -> None:
    process = start(script)
    assert process.communicate(timeout=60)[1] == said and process.returncode == code


def test_what_the_engine_started_goes_with_it(tmp_path: Path) -> None:
    process = start(f"sleep 1000 & echo $! > {tmp_path}/pid; exit 0")
    assert process.wait(timeout=60) == 0
    assert wait_for_end([int((tmp_path / "pid").read_text())], 5) == []


@pytest.mark.parametrize(
    ("trap", "signals", "code"),
    [
        ("trap 'exit 0' TERM", ["TERM"], 0),
        ("trap 'exit 0' TERM", ["INT"], 130),
        ("trap 'exit 0' TERM", ["HUP"], 0),
        ("trap '' TERM", ["TERM"], 0),  # it does not listen, and is ended when its time is over
        ("trap '' TERM", ["INT", "INT"], 130),
        ("trap '' TERM", ["TERM", "TERM"], 143),
    ],
)
def test_it_is_asked_once_and_ended_when_asked_twice(trap: str, signals: list[str], code: int) -> None:
    process = start(f"{trap}; echo $$; while true; do sleep 0.05; done")
    assert process.stdout is not None
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    (engine,) = (int(line) for line in lines - {"ready"})
    for name in signals:
        process.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(0.05)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and wait_for_end([engine], 1) == []
    assert "Traceback" not in err and ("cut off" in err) == (trap == "trap '' TERM" and signals == ["TERM"])


def test_json_takes_up_what_is_none() -> None:
    said = json.dumps({"type": "log", "level": "warn", "msg": "a\n"})
    process = start(f"printf '%s\\n' '{said}' 'error: b'; exit 2", json_log=True)
    _, err = process.communicate(timeout=60)
    told = [json.loads(line) for line in err.splitlines()]
    assert [(one["level"], one.get("message")) for one in told[-2:]] == [("warning", "a"), ("error", "error: b")]
    assert process.returncode == 2


def test_lines_of_a_router_have_the_model_s_name(capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLog()
    request = {"method": "GET", "path": "/x", "client": "::1", "status": 200, "ms": 3}
    spawned = "srv  load: spawning server instance with name=org/a on port 4711\n"
    for said in (
        {"type": "log", "level": "info", "msg": spawned},
        {"type": "log", "level": "none", "msg": '[ 4711] {"type":"log","level":"error","msg":"bad [1] \\u00e9"}\n'},
        {"type": "log", "level": "none", "msg": "[ 4712] no JSON\n"},
        {"type": "log", "level": "none", "msg": '[ 4711] {"type":"request","data":{"path":"/inner"}}\n'},
        {"type": "log", "level": "none", "msg": '[ 4711] {"broken\n'},
        {"type": "request", "data": request},
        {"type": "fit_memory_breakdown", "data": {}},
    ):
        log.engine_line(json.dumps(said) + "\n")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one.pop("level") for one in told] == ["info", "error", "info", "info"]
    assert [one.get("model") for one in told] == [None, "org/a", "4712", None]
    assert told[1]["message"] == "bad [1] \u00e9" and request.items() <= told[3].items()
