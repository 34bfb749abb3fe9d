# SPDX-License-Identifier: MIT
"""A flag that a sentence or an example advises exists in the command that it is advised for."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trit.base.places import ROOT
from trit.cli import COMMANDS

SCRIPTS = {
    "setup_env.py": "trit.setup.pipeline",
    "run_inference.py": "trit.run.completion",
    "run_inference_server.py": "trit.run.serve",
}
UTILS = {"convert": "convert", "e2e_benchmark": "bench", "test_perplexity": "perplexity", "compare": "compare"}
# A command, then its words as far as they are on the line: names, values, flags.
_COMMAND = re.compile(
    r"(?P<script>setup_env\.py|run_inference(?:_server)?\.py)(?P<a>(?: [^\s`;,)]+)*)"
    r"|-m utils\.(?P<util>\w+)(?P<b>(?: [^\s`;,)]+)*)"
    r"|\btrit (?P<name>[a-z][a-z-]+)(?P<c>(?: [^\s`;,)]+)+)"
)
_FLAG = re.compile(r"--?[A-Za-z][\w-]*")


def sentences(path: Path) -> Iterator[str]:
    """The strings of a module; what is put into an f-string stands as X, but for a command's script."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [value.value if isinstance(value, ast.Constant) else shown(value) for value in node.values]
            yield "".join(map(str, parts))


def shown(value: ast.expr) -> str:
    """``{python_command("x.py")}`` is x.py."""
    text = ast.unparse(value)
    script = re.search(r"python_command\('([^']+)'\)", text)
    return script[1] if script else "X"


def advised(text: str) -> Iterator[tuple[str, str]]:
    """(module, flag) of all commands in a text; what follows ``--`` is for another program."""
    for match in _COMMAND.finditer(text):
        util, name = match["util"], match["name"]
        module = SCRIPTS.get(match["script"] or "") or COMMANDS.get(UTILS.get(util, name or ""), ("",))[0]
        words = (match["a"] or match["b"] or match["c"] or "").split()
        words = words[: words.index("--")] if "--" in words else words
        for word in words:
            if module and _FLAG.fullmatch(word.partition("=")[0].rstrip(".:'\"")):
                yield module, word.partition("=")[0].rstrip(".:'\"")


class Built(Exception):
    """Carries a parser out of a command, once it is complete."""


def flags(module: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All flags of a command, by stopping it when it parses."""

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        raise Built(self)

    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_known_args"):
            patch.setattr(argparse.ArgumentParser, name, stop)
        target, _, function = module.partition(":")
        with pytest.raises(Built) as built:
            getattr(importlib.import_module(target), function or "main")([])
    found: set[str] = set()
    parsers = [built.value.args[0]]
    for parser in parsers:
        found |= parser._option_string_actions.keys()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


FOUND = sorted(
    {
        (module, flag, path.relative_to(ROOT).as_posix())
        for path in [*ROOT.glob("trit/**/*.py"), *ROOT.glob("*.py")]
        for text in sentences(path)
        for module, flag in advised(text)
    }
)


@pytest.mark.parametrize("module", sorted({module for module, _, _ in FOUND}))
def test_advised_flags_exist(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module.startswith("trit.train"):
        pytest.skip("needs torch")
    if module == "trit.measure.committed.command":
        pytest.skip("hands its flags on")
    known = flags(module, monkeypatch)
    wrong = [(flag, path) for target, flag, path in FOUND if target == module and flag not in known]
    assert not wrong, f"{module} has no such flag: {wrong}"


def test_advice_is_found() -> None:
    assert len({module for module, _, _ in FOUND}) > 5
    text = "make it with: python3 setup_env.py -md X --no-such; or trit convert X --outtype=i2_s -- --engine"
    assert list(advised(text)) == [
        ("trit.setup.pipeline", "-md"),
        ("trit.setup.pipeline", "--no-such"),
        ("trit.convert.command", "--outtype"),
    ]
