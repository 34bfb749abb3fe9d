# SPDX-License-Identifier: MIT
"""ggml through its own API, as in test_hook.py, with work memory that ends where the next page is not mapped.

The engine asks an op how much work memory it needs and gives it that much: an op that asked for too little would
overwrite what lies behind it. Here it stops instead.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Any

import numpy as np

from tests.ggml.test_hook import Ggml
from tests.support.tiers import at_page_end
from trit.base.places import ROOT


class Plan(ctypes.Structure):
    """ggml_cplan."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


class GuardedGgml(Ggml):
    def base(self, name: str, *args: Any) -> ctypes.c_void_p:
        """Call a function of libggml-base that takes no context."""
        function = getattr(self._base, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*args))

    def plan(self, tensor: ctypes.c_void_p, threads: int) -> tuple[ctypes.c_void_p, Plan]:
        """The graph that ends in this tensor, and what it needs."""
        graph = self.call("ggml_new_graph")
        self._base.ggml_build_forward_expand(graph, tensor)
        self._cpu.ggml_graph_plan.restype = Plan
        return graph, self._cpu.ggml_graph_plan(graph, ctypes.c_int(threads), None)

    def compute(self, tensor: ctypes.c_void_p, shape: tuple[int, ...], threads: int) -> np.ndarray:
        graph, plan = self.plan(tensor, threads)
        assert plan.n_threads == threads
        # ggml's own work memory is aligned to 16 bytes; the bytes that are there beforehand mean nothing.
        work = at_page_end(np.full(-(-plan.work_size // 16) * 16, 0xA5, dtype=np.uint8))
        plan.work_data = work.ctypes.data
        # A row that nothing writes must not pass for a result of the call before: this is NaN.
        out = np.full(shape, 0x7FFC0BAD, dtype=np.uint32)
        ctypes.memmove(self.data(tensor), out.ctypes.data, out.nbytes)
        assert self._cpu.ggml_graph_compute(graph, ctypes.byref(plan)) == 0
        ctypes.memmove(out.ctypes.data, self.data(tensor), out.nbytes)
        return out.view(np.float32)

    def mul_mat(self, w: ctypes.c_void_p, x: np.ndarray) -> ctypes.c_void_p:
        """The node w x for activations [..., m, k]."""
        a = self.tensor(0, *x.shape[::-1])
        self.write(a, x)
        return self.call("ggml_mul_mat", w, a)


def same_bits(actual: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    """Float32 arrays that are equal bit for bit, the signs of zeros included."""
    np.testing.assert_array_equal(actual, expected, err_msg=str(what))
    np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32), err_msg=str(what))


def in_new_process(function: str, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Call `module.function(*args)` of the tests in a process of its own: for what ends it, or is set once in it."""
    module = function.rpartition(".")[0]
    # The engine's abort would start a debugger to print where it was.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GGML_NO_BACKTRACE": "1", **env}
    code = f"import {module}; {function}(*{[str(arg) for arg in args]!r})"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", timeout=120)
