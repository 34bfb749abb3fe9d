# SPDX-License-Identifier: MIT
"""By which names the real server is reached, whose pages it answers, and what it says to malformed requests."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from trit.engine.inference import first_error
from trit.engine.server import Server


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    with Server(story_gguf, 1, slots=1) as running:
        yield running


SAMPLERS = (
    "dry (d), top_k (k), top_p (p), min_p (m), typ_p (y), temperature (t), xtc (x), infill (i), penalties (e), "
    "top_n_sigma (s), adaptive_p (a)"
)


@pytest.fixture(scope="module")
def open_server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    """One that others reach, too."""
    with Server(story_gguf, 1, ["--host", "0.0.0.0"], slots=1) as running:
        yield running


def ask(server: Server, *lines: str, version: str = "1.1") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request of these header lines, sent as they are."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=30) as client:
        head = "\r\n".join([f"GET /v1/models HTTP/{version}", *lines, "Connection: close", "", ""])
        client.sendall(head.encode("utf-8"))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = top.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost:8080", "localhost.", "localhost.:1", "localhost:"),
        *("chat.localhost", "a.b.LOCALHOST:65535", "chat.localhost.:9"),
        *("127.0.0.1:80", "127.3.2.1", "[::1]", "[::1]:8080", "[::ffff:127.0.0.1]", "10.1.2.3:4"),
    ],
)
def test_names_of_this_machine_are_answered(server: Server, host: str) -> None:
    assert ask(server, f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("chat.example", "localhost.chat.example", "notlocalhost", "local-host", "127.0.0.1.chat.example:80"),
        *("xn--bcher-kva.example", "1.2.3", "1.2.3.4.5", "0x7f.0.0.1", "2130706433"),
        socket.gethostname().lower() + "x",
    ],
)
def test_other_names_are_not(server: Server, open_server: Server, host: str) -> None:
    for one in (server, open_server):
        code, _, body = ask(one, f"Host: {host}")
        told = json.loads(body)["error"]
        name = host.partition(":")[0]
        assert (code, told["code"]) == (403, 403) and f"--allowed-hosts {name} " in told["message"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Host:"],
        *([f"Host: {name}@localhost"] for name in ("me", "me:secret")),
        *([f"Host: {host}"] for host in ("localhost:http", "localhost:123456", "localhost:1:2", "localhost/x", "a b")),
        *([f"Host: {host}"] for host in ("localhost..", ".localhost", ".", "::1", "[::1", "[::1]x", "[localhost]")),
        *([f"Host: {host}"] for host in ("[fe80::1%25eth0]", "[fe80::1%eth0]:80", "b\u00fccher.example", "\u2126")),
        ["Host: localhost", "Host: localhost"],
        ["Host: localhost", "Origin: http://localhost", "Origin: http://chat.example"],
    ],
)
def test_what_is_no_host_is_a_bad_request(server: Server, lines: list[str]) -> None:
    for version in ("1.0", "1.1"):
        code, headers, body = ask(server, *lines, version=version)
        told = json.loads(body)["error"]
        assert (code, told["code"], told["type"]) == (400, 400, "invalid_request_error")
        assert headers["Content-Type"].startswith("application/json")


def test_the_machine_s_own_name_is_answered_where_others_reach_it(server: Server, open_server: Server) -> None:
    name = socket.gethostname()
    for host in (name, name.upper(), f"{name}.local:80"):
        assert ask(open_server, f"Host: {host}")[0] == 200
        assert ask(server, f"Host: {host}")[0] == 403


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://localhost:3000",
            "https://chat.localhost",
            "http://[::1]:5",
            "http://127.0.0.1",
            "http://localhost.:1",
        ),
        *("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
        *("app://obsidian.md", "vscode-webview://1f2e-aa", "vscode-file://vscode-app"),
        # Of programs that are installed here, whatever they call their pages.
        *("app://.", "app://-", "APP://x_y", "app://a/b", "tauri://chat.example", "capacitor://localhost"),
        *("ionic://localhost", "electron://altair", "app://[::1]", "vscode-webview://0a:1"),
    ],
)
def test_pages_of_this_machine_may_read(server: Server, origin: str) -> None:
    code, headers, _ = ask(server, "Host: localhost", f"Origin: {origin}")
    assert (code, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (200, origin, "Origin")


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "null",
            "https://chat.example",
            "http://localhost.chat.example",
            "http://notlocalhost",
            "http://me@localhost",
        ),
        *("app://", "file://", "chrome-extension://abc", "ftp://localhost", "http://", "x", "app:", "://app"),
        *("moz-extension://1-2", "safari-web-extension://A", "ws://localhost", "ipfs://localhost", "apps://x"),
        *("https://app://x", "http://.", "https://-", "file:///home/me/page.html", "about://blank"),
    ],
)
def test_other_pages_may_not(server: Server, origin: str) -> None:
    code, headers, body = ask(server, "Host: localhost", f"Origin: {origin}")
    assert (code, "Access-Control-Allow-Origin" in headers) == (403, False)
    assert f'Origin "{origin}"' in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--frob"], "invalid argument: --frob"),
        (["-c"], "argument -c: expected value for argument"),
        (["-c", "12x"], 'argument -c: expected a whole number of 32 bits, got "12x"'),
        (["-c", "3000000000"], 'argument -c: expected a whole number of 32 bits, got "3000000000"'),
        (["--temp", "warm"], "argument --temp: expected a number"),
        (["--top-p", "1.5"], "argument --top-p: expected 0 to 1, got 1.5"),
        (["--min-p", "nan"], "argument --min-p: expected 0 to 1, got nan"),
        (["--top-k", "-2"], "argument --top-k: expected 0 to 2147483647, got -2"),
        (["-b", "0"], "argument --batch-size: expected 1 to 2147483647, got 0"),
        (["-n", "-3"], "argument --n-predict: expected -2 to 2147483647, got -3"),
        (["--repeat-penalty", "0"], "argument --repeat-penalty: expected 1e-06 to 1000, got 0"),
        (["--typical", "1.2"], "argument --typical: expected 0 to 1, got 1.2"),
        (["--typical-p", "0.5x"], 'argument --typical-p: expected a number, got "0.5x"'),
        (["--top-n-sigma", "-2"], "argument --top-n-sigma: expected -1 to 1000, got -2"),
        (["--xtc-probability", "-0.1"], "argument --xtc-probability: expected 0 to 1, got -0.1"),
        (["--xtc-threshold", "inf"], "argument --xtc-threshold: expected 0 to 1, got inf"),
        (["--dry-base", "0.9"], "argument --dry-base: expected 1 to 1000, got 0.9"),
        (["--dry-multiplier", "-1"], "argument --dry-multiplier: expected 0 to 1000, got -1"),
        (["--dry-allowed-length", "-4"], "argument --dry-allowed-length: expected 0 to 2147483647, got -4"),
        (["--mirostat-lr", "nan"], "argument --mirostat-lr: expected 0 to 1000, got nan"),
        (["--mirostat-ent", "1e9"], "argument --mirostat-ent: expected 0 to 1000, got 1e9"),
        (["--dynatemp-range", "-3"], "argument --dynatemp-range: expected 0 to 1000, got -3"),
        (["--dynatemp-exp", "x2"], "argument --dynatemp-exp: expected a number"),
        (["--yarn-ext-factor", "2"], "argument --yarn-ext-factor: expected -1 to 1, got 2"),
        (["--yarn-beta-fast", "-5"], "argument --yarn-beta-fast: expected -1 to 1000, got -5"),
        (["--rope-freq-base", "-1"], "argument --rope-freq-base: expected 0 to 1e+12, got -1"),
        (["--presence-penalty", "1 2"], 'argument --presence-penalty: expected a number, got "1 2"'),
        (["--seed", "4294967296"], "argument --seed: expected -1 to 4294967295, got 4294967296"),
        (["-s", "12ab"], 'argument -s: expected a number, got "12ab"'),
        (["--samplers", "top-k;heat"], f'argument --samplers: there is no sampler "heat", but {SAMPLERS}'),
        (["--samplers", "topk;"], f'argument --samplers: there is no sampler "", but {SAMPLERS}'),
        (["--sampling-seq", "kz"], f'argument --sampling-seq: there is no sampler "z", but {SAMPLERS}'),
        (["-c", "-7"], "argument --ctx-size: expected 0 to 2147483647, got -7"),
        (["-np", "300"], "argument --parallel: expected 1 to 256, got 300"),
        (["-np", "-2"], "argument --parallel: expected 1 to 256, got -2"),
        (["-t", "513"], "argument --threads: expected 1 to 512, got 513"),
        (["-t", "0"], "argument --threads: expected 1 to 512, got 0"),
        (["-tb", "-4"], "argument --threads-batch: expected 1 to 512, got -4"),
        (["--threads-http", "2000"], "argument --threads-http: expected -1 to 1024, got 2000"),
        (["--mirostat", "3"], "argument --mirostat: expected 0 to 2, got 3"),
        (["--repeat-last-n", "1048577"], "argument --repeat-last-n: expected 0 to 1048576, got 1048577"),
        (["--dry-penalty-last-n", "2000000"], "argument --dry-penalty-last-n: expected -1 to 1048576, got 2000000"),
        (["--rope-scale", "0"], "argument --rope-scale: expected a number of more than 0, got 0"),
        (["--rope-scale", "-inf"], "argument --rope-scale: expected a number of more than 0, got -inf"),
        *(
            (
                ["--override-kv", word],
                f"argument --override-kv: expected KEY=int:N, float:X, bool:true, bool:false or str:TEXT, got {word}",
            )
            for word in ("a=int:7y", "a=int:", "a=float:x", "b=float:1e999", "a=int:99999999999999999999")
        ),
        (["--api-key", ""], "argument --api-key: has no key in it; give one that nobody guesses"),
        (["--api-key-file", "/dev/null"], "argument --api-key-file: has no key in it; give one that nobody guesses"),
    ],
)
def test_the_engine_refuses_arguments_in_one_sentence(engine_bin: Path, flags: list[str], said: str) -> None:
    command = [engine_bin / "llama-server", "-m", "none.gguf", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {said}\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--grp-attn-n", "0"], "argument --grp-attn-n: expected 1 to 2147483647, got 0"),
        (["--grp-attn-n", "5"], "argument --grp-attn-w: expected a multiple of --grp-attn-n, which is 5, got 512"),
        (["--grp-attn-w", "0"], "argument --grp-attn-w: expected 1 to 2147483647, got 0"),
    ],
)
def test_group_attention_has_ranges(engine_bin: Path, flags: list[str], said: str) -> None:
    command = [engine_bin / "llama-completion", "-m", "none.gguf", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


@pytest.mark.parametrize(
    "flags",
    [
        ["--samplers", "penalties;dry;topnsigma;top-k;typ;nucleus;min_p;xtc;temp;adaptive-p;infill"],
        ["--sampler-seq", "edskypmxtia"],
        ["--yarn-ext-factor", "-1", "--top-nsigma", "-1.0", "-s", "-1", "--temp", "1e-3", "-ngl", "all"],
    ],
)
def test_all_samplers_and_ends_of_ranges_are_taken(engine_bin: Path, flags: list[str]) -> None:
    command = [engine_bin / "llama-server", "-m", "none.gguf", *flags, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and "unable to match" not in done.stderr


def test_a_grammar_that_is_none_ends_in_a_sentence(engine_bin: Path, story_gguf: Path) -> None:
    for grammar in ("root ::= [a", "other ::= 1"):
        for program in ("llama-server", "llama-completion"):
            command = [engine_bin / program, "-m", story_gguf, "--grammar", grammar, "--port", "0"]
            command = command if program == "llama-server" else command[:-2]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert (done.returncode, done.stdout) == (2, "")
            assert first_error(done.stderr) == "argument --grammar or --json-schema: failed to parse grammar"


def test_wrong_variables_of_the_engine_are_named(engine_bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "many")
    command = [engine_bin / "llama-completion", "-m", "none.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    expected = 'environment variable LLAMA_ARG_N_PREDICT: expected a whole number of 32 bits, got "many"'
    assert (done.returncode, done.stderr) == (2, f"error: {expected}\n")
