# SPDX-License-Identifier: MIT
"""Look-up kernels: those of preset_kernels/ and other configurations, generated and compiled here, against numpy.

By tables over tokens (lookup_*) and over inputs (tl1_*, tl2_*); test_tables.py has what only the latter need.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.test_panels import pack, tokens
from tests.support.guarded_ggml import same_bits
from tests.support.kernel_build import build_kernels, need
from tests.support.lookup_configurations import OTHERS
from tests.support.packed_weights import PackedGgml, Weights, activations
from tests.support.tiers import (
    PACKINGS,
    ROOT,
    ROWS,
    SEED,
    TABLE_PACKINGS,
    TIERS,
    LookupStruct,
    Tier,
    at_page_end,
    open_library,
)
from trit.models.shapes import SHAPES, matrices
from trit.tune.codegen import Lookup, Table, render

PRESETS = sorted(path.stem for path in (ROOT / "preset_kernels").glob("*/*.cpp"))
# Not a product of the generator, and exact like them.
COMPARISON = ROOT / "tests" / "support" / "bitnet_style" / "tl2_bitnet_style.cpp"
NAMES = sorted([*PRESETS, *(other.name for other in OTHERS), COMPARISON.stem])
CANARY = 0x5EED5EED


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs with the other configurations in them."""
    need("c++")
    folder = tmp_path_factory.mktemp("lookups")
    for configuration in OTHERS:
        (folder / f"{configuration.name}.cpp").write_text(render(configuration))
    shutil.copy(COMPARISON, folder)
    options = (f"-DTRIT_KERNELS_DIR={folder}",)
    return build_kernels(folder / "build", None, *options, targets=("trit", "trit-selftest")) / "bin"


def kernels_of(folder: Path) -> dict[str, LookupStruct]:
    library = open_library(folder)
    found = [library.trit_lookup_at(i).contents for i in range(library.trit_lookup_count())]
    assert not library.trit_lookup_at(-1) and not library.trit_lookup_at(len(found))
    return {kernel.name.decode(): kernel for kernel in found}


@pytest.fixture(scope="session")
def kernels(built: Path) -> dict[str, LookupStruct]:
    return kernels_of(built)


@pytest.fixture(scope="session", params=NAMES)
def home(request: pytest.FixtureRequest, built: Path, kernels: dict[str, LookupStruct]) -> tuple[str, Path]:
    """A kernel's name, and the programs that can run it: those of AVX-512 rather emulated than skipped."""
    name = request.param
    if kernels[name].supported():
        return name, built
    if "avx512" not in name:
        pytest.skip(f"this CPU cannot run {name}")
    return name, request.getfixturevalue("emulated_avx512")


@pytest.fixture(scope="session")
def kernel(home: tuple[str, Path]) -> LookupStruct:
    name, folder = home
    found = kernels_of(folder)[name]
    assert found.supported()
    return found


def test_every_source_is_in_the_build(kernels: dict[str, LookupStruct]) -> None:
    assert sorted(kernels) == NAMES
    for other in OTHERS:
        struct = kernels[other.name]
        if struct.supported():
            assert (struct.tier.decode(), struct.tokens, struct.panels) == (
                other.tier,
                other.tokens,
                other.rows // ROWS,
            )
            assert struct.least_tokens == (other.least_tokens if isinstance(other, Lookup) else 1)
            assert struct.packing == TABLE_PACKINGS.get(other.name[:3], PACKINGS["2_bits"])


def multiply(library: ctypes.CDLL, kernel: LookupStruct, codes: np.ndarray, q: np.ndarray, apart: int) -> np.ndarray:
    """Sums int32 [m, n] of codes uint8 [n, k], where m is at most the kernel's tokens.

    apart: what is between panels (64 bytes each) and between tokens' results (columns).
    """
    (n, k), m = codes.shape, len(q)
    count = -(-n // ROWS)
    panels = [pack(library, kernel.packing, codes[ROWS * p : ROWS * (p + 1)]) for p in range(count)]
    step = panels[0].nbytes + 64 * apart
    memory = np.zeros(step * (count - 1) + panels[0].nbytes, dtype=np.uint8)
    for p, panel in enumerate(panels):
        memory[step * p : step * p + panel.nbytes] = panel
    memory = at_page_end(memory)
    work = at_page_end(np.full(-(-kernel.work_bytes // 64) * 64, 0xA5, dtype=np.uint8))
    stride = count * ROWS + apart
    c = np.full((m + 2, stride), CANARY, dtype=np.int32)
    kernel.multiply(k, memory.ctypes.data, step, count, q.ctypes.data, q.strides[0], m, work.ctypes.data,
                    c[1:].ctypes.data, stride)  # fmt: skip
    assert (c[0] == CANARY).all() and (c[-1] == CANARY).all() and (c[:, count * ROWS :] == CANARY).all()
    return c[1:-1, :n]


def check(library: ctypes.CDLL, kernel: LookupStruct, codes: np.ndarray, q: np.ndarray, apart: int) -> None:
    expected = q.astype(np.int64) @ (codes.astype(np.int64) - 1).T
    np.testing.assert_array_equal(multiply(library, kernel, codes, q, apart), expected)


@pytest.mark.parametrize("k", [32, 64, 224, 256, 480, 704, 2560, 6944])
def test_sums_are_exact(library: ctypes.CDLL, kernel: LookupStruct, k: int) -> None:
    """Around one and several widenings of the 16-bit sums, any number of tokens and rows."""
    rng = np.random.default_rng(SEED + k)
    for m in {1, 2, 7, 8, 9, kernel.tokens // 2 + 1, kernel.tokens - 1, kernel.tokens} - {0}:
        m = min(m, kernel.tokens)
        n = int(rng.integers(1, min(kernel.panels, 5) * ROWS + 1))
        q = tokens(rng.integers(-128, 128, (m, k)), int(rng.integers(0, 70)), fill=99)
        check(library, kernel, rng.integers(0, 3, (n, k), dtype=np.uint8), q, apart=int(rng.integers(0, 3)))


# Also those of whose halves, low + 16 high, both are as large as they can be: 120 = -8 + 16 * 8.
@pytest.mark.parametrize("activation", [127, -128, 120, -120, 7, -8])
@pytest.mark.parametrize("code", [0, 2])
def test_extreme_sums_do_not_wrap(library: ctypes.CDLL, kernel: LookupStruct, code: int, activation: int) -> None:
    q = tokens(np.full((kernel.tokens, 6912), activation), 0, fill=0)
    check(library, kernel, np.full((ROWS + 1 if kernel.panels > 1 else ROWS, 6912), code, dtype=np.uint8), q, apart=0)


def test_as_many_panels_as_it_takes(library: ctypes.CDLL, kernel: LookupStruct) -> None:
    rng = np.random.default_rng(SEED)
    q = tokens(rng.integers(-128, 128, (kernel.tokens, 64)), 32, fill=1)
    check(library, kernel, rng.integers(0, 3, (kernel.panels * ROWS, 64), dtype=np.uint8), q, apart=1)


@pytest.mark.parametrize("k", sorted({k for shape in SHAPES.values() for _, k in matrices(shape).values()}))
def test_widths_of_the_dummy_models(library: ctypes.CDLL, kernel: LookupStruct, k: int) -> None:
    rng = np.random.default_rng(SEED + k)
    n = int(rng.integers(1, min(kernel.panels, 2) * ROWS + 1))
    for m in {1, min(2, kernel.tokens), kernel.tokens}:
        q = tokens(rng.integers(-128, 128, (m, k)), int(rng.integers(0, 40)), fill=-1)
        check(library, kernel, rng.integers(0, 3, (n, k), dtype=np.uint8), q, apart=m % 2)


def scalar_sums(library: ctypes.CDLL, scalar: Tier, codes: np.ndarray, q: np.ndarray) -> np.ndarray:
    """int32 [m, n] of the scalar tier's panel kernel, with weights 0..2 made -1..1."""
    (n, k), m = codes.shape, len(q)
    columns = []
    for first in range(0, n, ROWS):
        panel = pack(library, PACKINGS["2_bits"], codes[first : first + ROWS])
        c = np.empty((m, ROWS), dtype=np.int32)
        scalar.struct.panel[0](k, panel.ctypes.data, q.ctypes.data, q.strides[0], m, c.ctypes.data)
        columns.append(c[:, : n - first])
    return np.hstack(columns) - q.sum(axis=1, dtype=np.int32)[:, None]


@settings(max_examples=25, deadline=None)
@given(
    k=st.integers(1, 60).map(lambda steps: 32 * steps),
    n=st.integers(1, 3 * ROWS),
    m=st.integers(1, 33),
    gap=st.integers(0, 70),
    extreme=st.sampled_from([None, -128, 127, 120]),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_batch_gives_the_bits_of_the_scalar_panel_kernel(
    library: ctypes.CDLL,
    scalar: Tier,
    kernel: LookupStruct,
    k: int,
    n: int,
    m: int,
    gap: int,
    extreme: int | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    n = min(n, kernel.panels * ROWS)
    codes = rng.integers(0, 3, (n, k), dtype=np.uint8)
    q = tokens(rng.integers(-128, 128, (m, k)) if extreme is None else np.full((m, k), extreme), gap, fill=77)
    # As the engine does: calls of as many tokens as the kernel takes.
    parts = [multiply(library, kernel, codes, q[j : j + kernel.tokens], gap % 3) for j in range(0, m, kernel.tokens)]
    np.testing.assert_array_equal(np.vstack(parts), scalar_sums(library, scalar, codes, q))


def test_every_batch_gives_the_bits_of_the_scalar_panel_kernel(
    library: ctypes.CDLL, scalar: Tier, kernel: LookupStruct
) -> None:
    rng = np.random.default_rng(SEED)
    codes = rng.integers(0, 3, (ROWS, 416), dtype=np.uint8)
    for m in range(1, 34):
        q = tokens(rng.integers(-128, 128, (m, 416)), 3, fill=1)
        parts = [multiply(library, kernel, codes, q[j : j + kernel.tokens], 0) for j in range(0, m, kernel.tokens)]
        np.testing.assert_array_equal(np.vstack(parts), scalar_sums(library, scalar, codes, q), err_msg=f"m = {m}")


@pytest.fixture
def ggml(engine_bin: Path) -> PackedGgml:
    context = PackedGgml(engine_bin)
    yield context
    context.close()


@pytest.mark.parametrize("name", ["i2_s", "tq2_0", "q2_0"])
def test_the_engine_gives_the_same_bits(ggml: PackedGgml, name: str) -> None:
    """Rows for one and several threads, blocks of tokens with and without a rest; q2_0 has weights of +2."""
    for n, k in ((400, 256), (1100, 512), (2700, 256)):
        weights = Weights.random(name, "one", n, k)
        w = ggml.packed(weights)
        for m in (20, 21, 32, 33, 53, 64, 85, 170):
            x = activations(m, k)
            node, expected = ggml.mul_mat(w, x), weights.times(x)
            for threads in (1, 2, 3, 8):
                same_bits(ggml.compute(node, (m, n), threads), expected, f"{n} x {k}, m = {m}, {threads} threads")


def selftest(built: Path, **env: str) -> subprocess.CompletedProcess[str]:
    program = next(path for path in built.iterdir() if path.stem == "trit-selftest")
    inherited = {key: value for key, value in os.environ.items() if key not in ("TRIT_TIER", "TRIT_LOOKUP")}
    return subprocess.run([program], env={**inherited, **env}, capture_output=True, text=True, timeout=120)


def chosen(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The kernel for panels of 2 bits ("look-up"), of TL1 and of TL2."""
    assert result.returncode == 0, result.stderr
    lines = [line.split(": ") for line in result.stdout.splitlines()]
    return {line[0]: line[1] for line in lines if line[0] in ("look-up", *TABLE_PACKINGS)}


@functools.cache
def chosen_by_default(folder: Path) -> dict[str, str]:
    return chosen(selftest(folder))


def test_a_named_kernel_is_used_for_its_packing_only(home: tuple[str, Path]) -> None:
    name, folder = home
    default, named = chosen_by_default(folder), chosen(selftest(folder, TRIT_LOOKUP=name))
    assert named == default | {name[:3] if name[:3] in TABLE_PACKINGS else "look-up": name}


def test_off_means_none(built: Path) -> None:
    assert chosen(selftest(built, TRIT_LOOKUP="off")) == {"look-up": "none", "tl1": "none", "tl2": "none"}


def test_an_unknown_kernel_is_one_sentence_and_exit_code_2(built: Path) -> None:
    result = selftest(built, TRIT_LOOKUP="fast")
    assert result.returncode == 2
    assert result.stderr.startswith("error: TRIT_LOOKUP=fast: there is no such kernel; this build has off lookup_")
    assert result.stderr.count("\n") == 1


def test_a_kernel_that_the_cpu_lacks_is_one_sentence_and_exit_code_2(
    built: Path, kernels: dict[str, LookupStruct]
) -> None:
    absent = next(name for name, kernel in kernels.items() if not kernel.supported())
    result = selftest(built, TRIT_LOOKUP=absent)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"TRIT_LOOKUP={absent}: this CPU lacks its instructions" in result.stderr


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_has_the_kernel_made_for_it_or_none(built: Path, kernels: dict[str, LookupStruct], tier: str) -> None:
    result = selftest(built, TRIT_TIER=tier)
    if result.returncode == 2:
        pytest.skip(f"this CPU cannot run tier {tier}")
    found = chosen(result)
    made_for_it = sorted(name for name, kernel in kernels.items() if kernel.tier.decode() == tier)
    assert found["look-up"] in ([name for name in made_for_it if name.startswith("lookup")] or ["none"])
    for packing in TABLE_PACKINGS:  # nothing else reads them: one of another tier is better than none
        supported = [name for name, kernel in kernels.items() if name[:3] == packing and kernel.supported()]
        assert found[packing] in ([name for name in made_for_it if name[:3] == packing] or supported or ["none"])


def test_command_writes_what_the_presets_hold(tmp_path: Path) -> None:
    """Each preset's second and third line say how it was made."""
    assert PRESETS
    for path in sorted((ROOT / "preset_kernels").glob("*/*.cpp")):
        flags = path.read_text().splitlines()[2].removeprefix("//     trit codegen ").split()
        command = [sys.executable, "-m", "trit.tune.codegen", *flags, "--outdir", str(tmp_path)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
        assert path.parent.name == flags[flags.index("--tier") + 1]


@pytest.mark.parametrize("configuration", OTHERS, ids=lambda other: other.name)
def test_generated_code_is_formatted_and_names_its_configuration(configuration: Lookup | Table, tmp_path: Path) -> None:
    source = render(configuration)
    assert f"trit codegen {configuration.flags}\n" in source
    path = tmp_path / f"{configuration.name}.cpp"
    path.write_text(source)
    command = [Path(sys.executable).parent / "clang-format", f"--style=file:{ROOT / '.clang-format'}", path]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == source


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["--tier", "scalar"], "--tier scalar: look-up kernels exist for avx2"),
        (["--registers", "3"], "--registers 3: expected 1, 2 or 4"),
        (["--steps", "3"], "--steps 3: expected 1 or 2"),
        (["--rows", "100"], "--rows 100: expected a multiple of 64"),
        (["--rows", "0"], "--rows 0: expected 1 or more"),
        (["--rows", "16384"], "from 64 to 8192"),
        (["--least-tokens", "33"], "--least-tokens 33: expected 1 to 32"),
        (["tl1", "--tier", "avx512"], "--tier avx512: tl1 kernels exist for avx2"),
        (["tl1", "--tier", "avx512_vnni", "--bm", "32"], "--bm 32: expected 64 rows"),
        (["tl1", "--BM", "160"], "--BM 160: expected a multiple of 64 (a panel) from 64 to 8192"),
        (["tl2", "--BM", "0"], "--BM 0: expected 1 or more"),
        (["tl1", "--BK", "48"], "--BK 48: expected a multiple of 32 (a panel's step)"),
        (["tl2", "--BK", "256"], "--BK 256: expected a multiple of 24 (a panel's step)"),
        (["tl2", "--BK", "0"], "--BK 0: expected 1 or more"),
        (["tl1", "--bm", "16"], "--bm 16: expected 32 or 64 rows"),
        (["tl1", "--split", "halves"], "--split halves: expected nibbles or bytes"),
        (["tl1", "--unroll", "4"], "--unroll 4: expected 1 to 3, because two look-ups of 2 inputs each reach 32"),
        (["tl2", "--unroll", "3"], "--unroll 3: expected 1 to 2, because two look-ups of 3 inputs each reach 48"),
        (["tl2", "--unroll", "2", "--split", "bytes"], "--unroll 2: expected 1, because nothing stays in 8 bits"),
        (["tl2", "--tokens", "17"], "--tokens 17: expected 1 to 16"),
        (["tl2", "--ahead", "-1"], "--ahead -1: expected 0 or more"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, flags: list[str], rule: str) -> None:
    kind, rest = (flags[0], flags[1:]) if flags[0] in TABLE_PACKINGS else ("lookup", flags)
    command = [sys.executable, "-m", "trit.tune.codegen", kind, "--tier", "avx2", *rest, "--outdir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert rule in result.stderr
    assert not list(tmp_path.iterdir())
