# SPDX-License-Identifier: MIT
"""Templates that loop, swell or nest, and weights that make the engine compute no numbers: a sentence, soon."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.foreign_files import Key, keys_of, tensors_of, write_gguf
from trit.base.errors import UserError
from trit.base.places import ROOT
from trit.engine.server import Server
from trit.gguf.source import Source
from trit.run import completion

LIMIT = "the chat template makes more than "
DEEP = "the chat template is nested deeper than"
TEMPLATES = {
    "{% for a in range(30000) %}{% for b in range(30000) %}{{ b }}{% endfor %}{% endfor %}": LIMIT,
    "{% set n = namespace(t='ab') %}{% for i in range(99) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}": LIMIT,
    "{{ ('ab' * 40000)|replace('a', 'c' * 40000) }}": LIMIT,
    "{{ {'a': [1]}|tojson(indent=1000000000) }}": LIMIT,
    "{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}": DEEP,
    "{% set n = namespace(a=[]) %}{% set _ = n.a.append(n) %}{{ n.a|string }}": DEEP,
    "{{ " + "[" * 9000 + "]" * 9000 + " }}": DEEP,
    "{{ 1" + " + 1" * 9000 + " }}": DEEP,
    "{% if 0 %}" + "{% elif 0 %}" * 9000 + "{% endif %}": DEEP,
}
SECONDS = 60


def with_template(story: Path, path: Path, template: str) -> Path:
    """The story model with a chat template."""
    source = Source.open(story)
    keys: list[Key] = [*keys_of(source.header), ("tokenizer.chat_template", 8, None, template)]
    return write_gguf(path, keys, tensors_of(source))


def answer(model: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run_inference.py", "-m", str(model), "-p", "Where is Mary?", "-n", "4", "-temp", "0"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("template", [*TEMPLATES, "{% for", "{{ 2 ** 3 }}"])
def test_a_plain_prompt_needs_no_template(template: str, engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    found = answer(with_template(story_gguf, tmp_path / "m.gguf", template))
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == answer(story_gguf).stdout


@pytest.mark.parametrize(("template", "said"), TEMPLATES.items())
def test_a_server_ends_with_a_sentence(
    template: str, said: str, engine_bin: Path, story_gguf: Path, tmp_path: Path
) -> None:
    path = with_template(story_gguf, tmp_path / "m.gguf", template)
    command = [engine_bin / "llama-server", "-m", path, "-c", "256", "--port", "0", "-t", "1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert found.returncode == 2
    assert said in found.stdout + found.stderr


def test_all_renderings_of_a_start_have_one_bound(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    """One rendering makes less than it may, and a start does dozens of them."""
    template = "{% for i in range(500) %}{{ ('ab' * 30000)|upper }}{% endfor %}"
    resource = pytest.importorskip("resource")
    path = with_template(story_gguf, tmp_path / "m.gguf", template)
    command = [engine_bin / "llama-server", "-m", path, "-c", "256", "--port", "0", "-t", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (found.returncode, LIMIT in found.stdout + found.stderr) == (2, True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 4  # seconds of CPU, the model's included


def test_usual_templates_stay_within_the_limits(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    """What templates do at most: macros in macros, filters in a row, long chains of elif."""
    template = (
        "{% macro part(m, n) %}{% if n %}{{ part(m, n - 1) }}{% else %}{{ m|trim|upper|lower }}{% endif %}"
        "{% endmacro %}"
        "{% for m in messages %}{% if m.role == 'x' %}"
        + "{% elif m.role == 'y' %}" * 60
        + "{% else %}{{ part(m.content, 20) }}{% endif %}{% endfor %}{% for i in range(500) %}{% endfor %}"
    )
    with Server(with_template(story_gguf, tmp_path / "m.gguf", template), 1, slots=1) as server:
        said = server.post("/apply-template", {"messages": [{"role": "user", "content": " Where is Mary? "}]})
    assert said["prompt"] == "where is mary?"


def test_numbers_that_are_not_finite_are_an_error(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    """A scale inside the head, which only the product reads."""
    head = Source.open(story_gguf).found["token_embd.weight"]
    assert head.name == "q6_k"
    data = bytearray(story_gguf.read_bytes())
    at = head.tensor.offset + 210 * 1500 + 208
    data[at : at + 2] = struct.pack("<e", float("nan"))
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    found = answer(path)
    assert found.returncode == 2 and found.stdout.strip() == ""
    assert found.stderr.startswith(f"error: {path}: the engine computes numbers that are not finite, first in ")
    assert "token_embd.weight" in found.stderr


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("0.00.1 E check_logits: the logits are not finite, first in l_out-3\n", "first in l_out-3; the file is"),
        (
            "check_logits: the logits are not finite, first in norm-0 (from blk.0.attn_norm.weight)\n",
            "first in norm-0, of blk.0.attn_norm.weight; the file is",
        ),
    ],
)
def test_the_place_is_named(line: str, place: str) -> None:
    with pytest.raises(UserError, match=place):
        completion.failed(Path("m.gguf"), 1, line)
