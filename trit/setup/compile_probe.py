# SPDX-License-Identifier: MIT
"""Does a pair of compilers build C and C++17 programs that run?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trit.base.processes import capture

_PROBE = """#include <filesystem>
#include <optional>
#include <thread>
int main() { std::optional<int> code = 0; std::thread([] {}).join(); return code.value_or(1); }
"""


def compile_probe(cc: str, cxx: str) -> str | None:
    """Build and run small C and C++17 programs; what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(_PROBE)
        program = Path(folder) / "probe.exe"
        threads = [] if os.name == "nt" else ["-pthread"]
        # zig compiles its C++ library first, which takes minutes on a slow machine.
        code, output = capture([cxx, "-std=c++17", *threads, source, "-o", program], timeout_s=900)
        if code != 0:
            return f"cannot build a C++17 program ({(output.strip().splitlines() or ['no output'])[0][:120]})"
        if capture([program])[0] != 0:
            return "builds programs that do not run"
        plain = Path(folder) / "probe.c"
        plain.write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
        if capture([cc, "-c", plain, "-o", Path(folder) / "probe.o"])[0] != 0:
            return "cannot build a C program"
    return None
