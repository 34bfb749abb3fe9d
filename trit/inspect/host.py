# SPDX-License-Identifier: MIT
"""How fast this machine reads memory, measured once and kept, and the bound on tokens per second that follows."""

from __future__ import annotations

import json
from typing import Any

from trit.base.errors import TritError
from trit.base.files import atomic_output
from trit.base.host import cpu_name, last_level_cache_bytes, physical_cores
from trit.base.places import CACHE_DIR, engine_program
from trit.engine.roofline import PROGRAM, measure

CACHE = CACHE_DIR / "read-rate.json"
SECONDS = 0.1


def read_rate(again: bool = False) -> dict[str, Any]:
    """GB/s that all cores read, with the number of threads; or "reason" if it is not known.

    The measurement takes about two seconds and is kept until the program or the CPU changes, or ``again`` is set: a
    machine that was busy gave less than it can.
    """
    program = engine_program(PROGRAM)
    if not program.is_file():
        return {"reason": "not measured: the engine is not built"}
    key = {"cpu": cpu_name(), "threads": physical_cores(), "program": program.stat().st_mtime_ns}
    if not again:
        try:
            kept = json.loads(CACHE.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return {"gbs": float(kept["gbs"]), "threads": key["threads"], "kept": True}
        except (OSError, ValueError, KeyError, TypeError):
            pass
    try:
        roofline = measure([physical_cores()], tier="chosen", seconds=SECONDS)
        gbs = max(max(read.gbs) for limit in roofline.limits for read in limit.reads)
    except (TritError, ValueError) as error:
        return {"reason": f"not measured: {error}"}
    try:
        with atomic_output(CACHE) as partial:
            partial.write_text(json.dumps({"key": key, "gbs": gbs}), encoding="utf-8")
    except OSError:
        pass  # measured again next time
    return {"gbs": gbs, "threads": key["threads"], "kept": False}


def speed_bound(bytes_per_token: int, rate: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second if nothing but reading the weights took time."""
    if "gbs" not in rate or not bytes_per_token:
        return {"reason": rate.get("reason", "not known")}
    if bytes_per_token < (last_level_cache_bytes() or 0):
        return {"reason": "no bound: the weights fit this machine's caches", "bytes_per_token": bytes_per_token, **rate}
    bound = rate["gbs"] * 1e9 / bytes_per_token
    return {"bound_tokens_per_s": bound, "bytes_per_token": bytes_per_token, **rate}
