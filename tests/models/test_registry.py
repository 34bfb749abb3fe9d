# SPDX-License-Identifier: MIT
"""The registry of models: its data, finding by name, and the tables made of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import TritError, UserError
from trit.base.places import ROOT
from trit.gguf.encodings import ENCODINGS
from trit.models.families import all_families
from trit.models.registry import FILE, Registry, model_in, parse, registry, resolve
from trit.models.registry.command import main
from trit.models.registry.tables import BEGIN, END, PAGE, page_table, terminal_table, write_page
from trit.models.source_note import Manifest
from trit.setup import pipeline

# Section 2 of bitnet.cpp's help: its --hf-repo takes these and no others.
BITNET_CPP = """1bitLLM/bitnet_b1_58-large 1bitLLM/bitnet_b1_58-3B HF1BitLLM/Llama3-8B-1.58-100B-tokens
tiiuae/Falcon3-1B-Instruct-1.58bit tiiuae/Falcon3-3B-1.58bit tiiuae/Falcon3-3B-Instruct-1.58bit
tiiuae/Falcon3-7B-1.58bit tiiuae/Falcon3-7B-Instruct-1.58bit tiiuae/Falcon3-10B-1.58bit
tiiuae/Falcon3-10B-Instruct-1.58bit microsoft/BitNet-b1.58-2B-4T tiiuae/Falcon-E-1B-Instruct tiiuae/Falcon-E-1B-Base
tiiuae/Falcon-E-3B-Instruct tiiuae/Falcon-E-3B-Base microsoft/bitnet-embedding-0.6b microsoft/bitnet-embedding-270m"""
CONVERTED = {name for family in all_families() for name in family.architectures}


def changed(**values: Any) -> Registry:
    """The registry with one model changed."""
    content = json.loads(FILE.read_text())
    content["models"][0] |= values
    return parse(content)


def test_every_model_of_bitnet_cpp_is_known() -> None:
    names = BITNET_CPP.split()
    assert len(names) == 17
    assert [name for name in names if registry().find(name) is None] == []


def test_the_page_has_today_s_table() -> None:
    assert write_page(registry(), CONVERTED, check=True), (
        "the table of docs/models.md is out of date: run trit registry"
    )
    assert main(["--check"]) == 0


def test_outputs_are_what_the_converter_can_make() -> None:
    """Every output is an encoding, and no row promises one of a family that the converter lacks."""
    for model in registry().models:
        assert set(registry().outputs(model)) <= ENCODINGS.keys()
        if model.architecture:
            assert model.architecture in registry().families[model.family].architectures, model.repo
    rows = page_table(registry(), {"LlamaForCausalLM"}).splitlines()
    (bitnet,) = [row for row in rows if "`microsoft/BitNet-b1.58-2B-4T`" in row]
    (falcon,) = [row for row in rows if "`tiiuae/Falcon-E-1B-Base`" in row]
    assert bitnet.endswith("| not yet | not yet |") and "| i2_s, tl1, tl2, tq2_0," in falcon
    assert [row for row in rows if "any other" in row and "`BitNetForCausalLM`" in row] == []
    assert [row for row in rows if "any other `LlamaForCausalLM` |" in row] != []


def test_every_architecture_of_the_converter_has_a_row() -> None:
    """The page says of each what goes in, what comes out, and how it is verified; no cell is empty or "not yet"."""
    known = {family.architectures for family in registry().families.values()}
    assert known == {family.architectures for family in all_families()}
    table = page_table(registry(), CONVERTED)
    assert "not yet" not in table
    for row in table.splitlines()[3:-1]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5 and all([cells[0], *cells[2:]]), row


def test_names_in_any_case_and_typos() -> None:
    known = registry()
    model = known.find("bitnet-B1.58-2b-4t")
    assert model is not None and model.repo == "microsoft/BitNet-b1.58-2B-4T" == resolve("BitNet-b1.58-2B-4T")
    assert known.find("bitnet-2B-4t") is model and resolve("bitnet-2b-4t") == model.repo, "its alias"
    assert resolve("somebody/unheard-of") == "somebody/unheard-of"
    assert known.close_names("Falcon3-7B-Instruct-1.58bits")[0] == "Falcon3-7B-Instruct-1.58bit"
    assert known.close_names("tiuae/Falcon-E-1B-Base")[0] == "tiiuae/Falcon-E-1B-Base"
    with pytest.raises(UserError, match=r"did you mean .*bitnet-embedding-270m"):
        resolve("bitnet-embeding-270m")
    with pytest.raises(UserError, match="--list-models shows those with a short name"):
        resolve("gpt-5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "chat"}, "unknown family or kind"),
        ({"alias": "Falcon-E-1B-Base"}, "falcon-e-1b-base is there twice"),
        ({"alias": "bitnet-3b"}, "bitnet-3b is there twice"),
        ({"family": "mamba"}, "unknown family or kind"),
        ({"repo": "no-owner"}, "unknown family or kind, or no ORG/NAME"),
        ({"repo": "other/bitnet_b1_58-3B"}, "bitnet_b1_58-3b is there twice"),
        ({"parameters": "2.4B"}, r"parameters is '2\.4B', expected int \| None"),
        ({"stop_tokens": "<eos>"}, "stop_tokens is '<eos>', expected"),
        ({"color": "red"}, "color is 'red', expected no such key"),
    ],
)
def test_wrong_data_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TritError, match=message):
        changed(**values)


def test_what_is_not_known_is_left_empty() -> None:
    model = changed(kind=None, licence=None, parameters=None, storage=None).models[0]
    assert model.advice() is None
    table = terminal_table(changed(kind=None, parameters=None, download_bytes=None, licence=None))
    assert re.search(r"^bitnet-2b-4t +- +- +- +- +microsoft/BitNet-b1\.58-2B-4T$", table, re.MULTILINE)
    assert "| - | - |" in page_table(changed(kind=None, storage=None), CONVERTED)


def test_advice_by_kind() -> None:
    known = registry()
    advice = {
        name: (model := known.find(name)) and model.advice() for name in ("bitnet_b1_58-3B", "bitnet-embedding-270m")
    }
    assert "continue text, they do not answer" in str(advice["bitnet_b1_58-3B"])
    assert "vectors" in str(advice["bitnet-embedding-270m"])
    model = known.find("BitNet-b1.58-2B-4T")
    assert model is not None and model.advice() is None


def test_a_folder_is_known_by_where_it_came_from(tmp_path: Path) -> None:
    """Else by its name; a folder that holds another model is not what it is called."""
    folder = tmp_path / "bitnet_b1_58-3B"
    folder.mkdir()
    by_name = model_in(folder)
    assert by_name is not None and by_name.repo == "1bitLLM/bitnet_b1_58-3B"
    Manifest("tiiuae/Falcon-E-1B-Base", "main", "c" * 40).write(folder)
    by_source = model_in(folder)
    assert by_source is not None and by_source.repo == "tiiuae/Falcon-E-1B-Base"
    Manifest("somebody/unheard-of", "main", "c" * 40).write(folder)
    assert model_in(folder) is None


def test_a_model_with_outputs_of_its_own_has_a_row_of_its_own() -> None:
    content = json.loads(FILE.read_text())
    before = page_table(registry(), CONVERTED).splitlines()
    (shared,) = [row for row in before if "`tiiuae/Falcon-E-1B-Base`" in row and "`tiiuae/Falcon-E-3B-Base`" in row]
    (model,) = [entry for entry in content["models"] if entry["repo"] == "tiiuae/Falcon-E-3B-Base"]
    model["outputs"] = ["q2_0"]
    rows = page_table(parse(content), CONVERTED).splitlines()
    (own,) = [row for row in rows if "`tiiuae/Falcon-E-3B-Base`" in row]
    assert shared not in rows and "Falcon-E-1B-Base" not in own and "| q2_0 |" in own


def test_only_the_table_of_the_page_is_rewritten(tmp_path: Path) -> None:
    copy = tmp_path / "models.md"
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index(BEGIN), text.index(END)
    copy.write_text(f"{text[: start + len(BEGIN)]}\n| old |\n{text[end:]}", encoding="utf-8")
    assert not write_page(registry(), CONVERTED, copy, check=True)
    assert "| old |" in copy.read_text(encoding="utf-8"), "a check changes nothing"
    assert not write_page(registry(), CONVERTED, copy)
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text("no table")
    with pytest.raises(UserError, match="has no lines <!-- models"):
        write_page(registry(), CONVERTED, copy)


def test_list_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["--list-models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "PARAMETERS", "DOWNLOAD", "LICENCE", "REPOSITORY"]
    assert len([line for line in lines if line.count("/") == 1 and "--hf-repo" not in line]) == len(registry().models)


@pytest.mark.parametrize(
    ("name", "repo", "outputs"),
    [
        ("bitcpm-8b", "openbmb/BitCPM-CANN-8B", ("q2_0", "f16", "f32")),
        ("bitcpm-0.5b-gguf", "openbmb/BitCPM-CANN-0.5B-gguf", ()),
        ("hy-mt-1.8b", "tencent/Hy-MT2-1.8B-1.25Bit-GGUF", ("tq2_0", "tq1_0", "q2_0", "f16", "f32")),
        ("Maple-20B-A1B", "deepgrove/maple-preview", ("tq2_0", "tq1_0", "q2_0", "f16", "f32")),
        ("trilm-3.9b", "SpectraSuite/TriLM_3.9B_Unpacked", ("q2_0", "tq2_0", "tq1_0", "f16", "f32")),
        ("bonsai-1bit-8b", "prism-ml/Bonsai-8B-gguf", ()),
    ],
)
def test_models_of_this_year_by_name(name: str, repo: str, outputs: tuple[str, ...]) -> None:
    model = registry().find(name)
    assert model is not None and model.repo == repo == resolve(name)
    assert registry().outputs(model) == outputs and model.ready_made == (repo.lower().endswith("gguf"))


def test_works_before_anything_is_installed() -> None:
    """set-up reads it, and the Hub's manifests, with a bare Python: -I -S keeps site-packages out."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import trit.setup.pipeline as pipeline"
    code += "; print(len(pipeline.registry().models))"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(registry().models)
