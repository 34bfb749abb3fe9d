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

from trit.base import places
from trit.base.places import ROOT
from trit.cli import COMMANDS
from trit.release.packing import DATA, code_files

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
_ADVICE = re.compile(r"python_command\('([^']+)'\)")
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
    script = _ADVICE.search(ast.unparse(value))
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


# What a wheel has not: scripts, files and folders of a checkout, and bitnet.cpp's names of commands.
_OF_A_CHECKOUT = re.compile(
    r"setup_env|run_inference|\butils[./]|(?<!\w)-hr\b|\brequirements[\w-]*\.(?:txt|in)\b|\bdocs/|\bpython3? |\.venv\b"
    r"|\bbuild/|\b3rdparty/|\bpreset_kernels\b|CONTRIBUTING|README|\.py\b"
)
# The table that both worlds are in, and what is run in a checkout alone.
_KNOWS_BOTH = {"trit/base/places.py"}
_CHECKOUT_ALONE = ("trit/release/", "trit/setup/", "trit/measure/committed/", "trit/tune/codegen/")


def spoken(path: Path) -> Iterator[str]:
    """The strings of a module that may be printed: without docstrings, but a module's own where its code uses it.

    A word alone is a name of a file, and is not said as it is.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr)
    }
    if any(isinstance(node, ast.Name) and node.id == "__doc__" for node in ast.walk(tree)):
        first = re.search(r"__doc__ or ''\)\.split\(", ast.unparse(tree))
        yield (ast.get_docstring(tree) or "").partition("\n\n" if first else "\0")[0]
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _ADVICE.fullmatch(ast.unparse(node))]
    silent |= {id(argument) for call in asked for argument in call.args}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
        if is_text and " " in node.value.strip():
            yield node.value


def packed() -> list[str]:
    return [f"trit/{name.as_posix()}" for name in code_files() if name.suffix == ".py"]


def test_a_package_s_sentences_name_nothing_of_a_checkout() -> None:
    """Those of commands that need one are not said there."""
    faults = [
        f"{name}: {text!r}: say it by python_command() or document() of trit.base.places"
        for name in packed()
        if name not in _KNOWS_BOTH and not name.startswith(_CHECKOUT_ALONE)
        for text in spoken(ROOT / name)
        if _OF_A_CHECKOUT.search(text)
    ]
    assert not faults, "\n".join(faults)


def test_every_advice_has_a_package_s_words() -> None:
    """And the pages that are named come with it."""
    asked: set[str] = set()
    pages: set[str] = set()
    for name in packed():
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Call) else ""
            asked |= {match[1] for match in [_ADVICE.fullmatch(text)] if match}
            pages |= {match[1] for match in [re.fullmatch(r"document\('([^']+)'\)", text)] if match}
    assert asked <= places.INSTEAD.keys() and len(asked) > 5
    assert pages and {f"docs/{page}" for page in pages} == {name for name in DATA if name.startswith("docs/")}
    for command in places.INSTEAD.values():
        assert not _OF_A_CHECKOUT.search(command)
        program, word = command.split()[:2]
        assert program == "pip" or (program == "trit" and word in COMMANDS)


def test_the_package_s_words_are_said_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "INSTALLED", True)
    assert places.python_command("setup_env.py -hr") == "trit pull"
    assert Path(places.document("verify.md")).is_file()
    monkeypatch.setattr(places, "INSTALLED", False)
    assert places.python_command("setup_env.py -hr").endswith("setup_env.py -hr")
    assert places.document("verify.md") == "docs/verify.md"


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
