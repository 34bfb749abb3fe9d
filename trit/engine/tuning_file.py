# SPDX-License-Identifier: MIT
"""The file of what was found: written here, read by the engine (src/matrix/tuning_file.cpp) and by set-up."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.base.host import cpu_cores, cpu_name
from trit.base.places import BUILD_DIR, ROOT

Shape = tuple[int, int]  # n, k

# Tokens of a step -> steps, what a packing is judged by: a prompt of 512 tokens, an answer of 256 one by one, and 16
# steps with four (several requests at once, or drafts of a small model).
STEPS = {1: 256, 4: 16, 128: 4}

FORMAT = 2  # src/matrix/tuning_file.cpp
TUNING_FILE = BUILD_DIR / "tuning.json"
PRESETS = ROOT / "preset_kernels" / "tuning"  # of each tier one for any CPU, and those of some CPUs
PRESET_KEY = ""  # they go with every machine that is like theirs
MOST_THREADS = 1 << 20  # src/matrix/tuning.cpp: a matrix is packed before anybody says how many
FARTHEST = math.log(4)  # src/matrix/tuning.cpp


@dataclass(frozen=True)
class Choice:
    """What a shape uses on a number of threads.

    Attributes:
        packing: of its panels; None: what the engine takes without tuning.
        lookup: the look-up kernel for many tokens; None: the tier's own kernel.
        panels: of one call of it; 0 without one.
        least_tokens: fewer go to the tier's own kernel; 0 without one.
        gain: how much faster this is than the default, 0.25 for a quarter; 0 where it is the default.
    """

    n: int
    k: int
    threads: int
    packing: str | None
    lookup: str | None
    panels: int
    least_tokens: int
    gain: float


@dataclass(frozen=True)
class Layer:
    """Times of a layer's matrices with each packing: why a packing was chosen.

    Attributes:
        matrices: [n, k, matrices in a layer].
        threads: on which.
        packing: the one that was chosen.
        seconds: packing -> tokens of a step, as text -> seconds of the step.
    """

    matrices: list[list[int]]
    threads: int
    packing: str
    seconds: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Tuning:
    """A whole file.

    Attributes:
        tier: the tier beside which the kernels stand.
        key: what the times depend on besides the shapes, see :func:`machine_key`.
        shapes: what was found.
        layers: what the packings took.
        cpu: where it was measured, for people.
        tables: "tl1" and "tl2" -> kernel for few tokens of such panels; one that is missing is as without tuning.
        at_once: "2_bits" and "5_trits" -> tokens of one call of the tier's kernels, at most; 0 or missing: all.
        match: of a preset: the CPUs that it is for, members of trit.base.host.cpu_cores; an empty one fits all.
    """

    tier: str
    key: str
    shapes: list[Choice]
    layers: list[Layer] = field(default_factory=list)
    cpu: str = field(default_factory=cpu_name)
    tables: dict[str, str] = field(default_factory=dict)
    at_once: dict[str, int] = field(default_factory=dict)
    match: Sequence[Mapping[str, str | int]] = ()

    def nearest(self, n: int, k: int, threads: int) -> Choice | None:
        """What counts for a shape, as src/matrix/tuning.cpp decides it: the nearest shape that is not far off."""

        def far(choice: Choice) -> tuple[float, float]:
            shape = abs(math.log(n / choice.n)) + abs(math.log(k / choice.k))
            return shape, abs(math.log(threads / choice.threads))

        near = [choice for choice in self.shapes if far(choice)[0] <= FARTHEST]
        return min(near, key=far, default=None)

    def packing(self, counts: Mapping[Shape, int]) -> str | None:
        """The packing of most weights of a layer; None: what the engine takes without tuning."""
        weights: Counter[str | None] = Counter()
        for (n, k), count in counts.items():
            choice = self.nearest(n, k, MOST_THREADS)
            weights[choice.packing if choice else None] += n * k * count
        return max(weights, key=lambda packing: weights[packing]) if weights else None

    def layer(self, counts: Mapping[Shape, int]) -> Layer | None:
        """The times of a layer with these matrices on the most threads; of a preset, those that there are."""
        matrices = sorted([n, k, count] for (n, k), count in counts.items())
        same = [layer for layer in self.layers if layer.matrices == matrices]
        if self.key == PRESET_KEY and not same:
            same = self.layers
        return max(same, key=lambda layer: layer.threads, default=None)


def machine_key(program: Path) -> str:
    """Identity of this CPU and of the kernels in a measuring program: with another one, old choices mean nothing.

    In a bundle (cmake/bundle.cmake) the kernels are in the library beside the program.
    """
    files = [program, *sorted(program.parent.glob("*trit-engine.*"))]
    return hashlib.sha256(b"\0".join([cpu_name().encode(), *(file.read_bytes() for file in files)])).hexdigest()[:16]


def kernels(tuning: Tuning) -> set[str]:
    """Names of the look-up kernels that the choices use."""
    return {shape.lookup for shape in tuning.shapes if shape.lookup} | set(tuning.tables.values())


def merged(old: Tuning | None, new: Tuning) -> Tuning:
    """The new choices, and those of other shapes that were made on the same machine with the same kernels.

    Tables are chosen for all shapes at once: the new choice counts, for packings that any shape uses.
    """
    if old is None or (old.tier, old.key) != (new.tier, new.key):
        old = replace(new, shapes=[], layers=[])
    known = {(shape.n, shape.k, shape.threads) for shape in new.shapes}
    kept = [shape for shape in old.shapes if (shape.n, shape.k, shape.threads) not in known]
    measured = [(layer.matrices, layer.threads) for layer in new.layers]
    layers = [layer for layer in old.layers if (layer.matrices, layer.threads) not in measured]
    shapes = kept + new.shapes
    packings = {shape.packing for shape in shapes}
    tables = {packing: name for packing, name in new.tables.items() if packing in packings}
    return replace(new, shapes=shapes, layers=layers + new.layers, tables=tables)


def preset(tier: str, cores: Sequence[Mapping[str, str]] | None = None) -> Tuning | None:
    """What is used on a tier until something is measured; None if nothing is kept for it.

    Args:
        tier: of the kernels.
        cores: what :func:`trit.base.host.cpu_cores` says; None: of this machine.

    Returns:
        The preset that is nearest to the CPU (src/matrix/tuning_file.cpp): the one with the most members of an entry of
        its "match" that fits.
    """
    found = cpu_cores() if cores is None else cores
    presets = [load(path) for path in sorted(PRESETS.glob("*.json"))]
    near = [(_nearness(one.match, found), one) for one in presets if one.tier == tier]
    distance, best = max(near, key=lambda pair: pair[0], default=(-1, None))
    return best if distance >= 0 else None


def _nearness(match: Sequence[Mapping[str, str | int]], cores: Sequence[Mapping[str, str]]) -> int:
    """Members of the longest entry that fits a core; -1 if none does."""
    fits = (len(entry) for entry in match for core in cores if all(core.get(k) == str(v) for k, v in entry.items()))
    return max(fits, default=-1)


def own_preset(tier: str) -> tuple[Path, Tuning | None]:
    """The file of a preset for exactly this CPU, which may not be there yet, and what is in it."""
    core = cpu_cores()[0]
    for path in sorted(PRESETS.glob("*.json")):
        tuning = load(path)
        if tuning.tier == tier and core in [{name: str(value) for name, value in one.items()} for one in tuning.match]:
            return path, tuning
    name = "-".join([tier, *core.values()]).lower().replace(" ", "_")
    return PRESETS / f"{name}.json", None


def save(path: Path, tuning: Tuning) -> None:
    """Write the file, whole or not at all."""
    content = {
        "format": FORMAT,
        "tier": tuning.tier,
        **({"match": list(tuning.match)} if tuning.match else {}),
        "cpu": tuning.cpu,
        "key": tuning.key,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "shapes": [asdict(shape) for shape in tuning.shapes],
        "layers": [asdict(layer) for layer in tuning.layers],
        "tables": tuning.tables,
        "at_once": tuning.at_once,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Tuning:
    """Read a file.

    Raises:
        UserError: it is missing, not JSON, or of another format.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        shapes = [Choice(**shape) for shape in content["shapes"]]
        layers = [Layer(**layer) for layer in content["layers"]]
        tables = dict(content.get("tables", {}))
        at_once = {name: int(tokens) for name, tokens in content.get("at_once", {}).items()}
        match = tuple(content.get("match", ()))
        return Tuning(content["tier"], content["key"], shapes, layers, content["cpu"], tables, at_once, match)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no tuning file ({error}); make it with: trit tune") from error
