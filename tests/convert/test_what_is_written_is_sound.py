# SPDX-License-Identifier: MIT
"""The check in front of the engine lets through what we convert, of every family and variant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_checkpoints import TinyFamily, all_cases
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.loadable import check_loadable
from trit.gguf.validate import KNOWN_SHAPES

CASES = {variant: (family, variant, storage) for family, variant, storage in reversed(all_cases())}


@pytest.mark.parametrize(("family", "variant", "storage"), CASES.values(), ids=list(CASES))
def test_every_variant_passes(engine_bin: Path, family: TinyFamily, variant: str, storage: str, tmp_path: Path) -> None:
    """With the engine's reading of the vocabulary, which conversion asks for."""
    assert engine_bin.is_dir()
    family.make(tmp_path / "m", variant, storage)
    convert(tmp_path / "m", tmp_path / "m.gguf", Options(ENCODINGS["f16"], None), progress=False)
    header = check_loadable(tmp_path / "m.gguf")
    assert header.metadata["general.architecture"] in KNOWN_SHAPES
