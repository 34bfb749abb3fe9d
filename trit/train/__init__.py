# SPDX-License-Identifier: MIT
"""Training of small ternary models: BitLinear, a BitNet b1.58 decoder, the stories and the script of the bundled model.

Needs ``requirements-train.txt`` (torch); nothing else in the repository imports this package.
"""
