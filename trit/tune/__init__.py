# SPDX-License-Identifier: MIT
"""Finding, by measuring on this machine, which kernel each shape of a model uses.

``trit tune`` measures and writes ``build/tuning.json``, which the engine reads when it starts.
"""
