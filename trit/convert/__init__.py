# SPDX-License-Identifier: MIT
"""Hugging Face checkpoint -> GGUF: read, ternarise, pack, write, read back and compare; no torch, one tensor at a time.

Run as ``trit convert CHECKPOINT_DIR --outtype i2_s``. The parts, in the order in which data passes them:
``checkpoint`` (safetensors in), ``families`` (names, shapes, hyper-parameters), ``ternary`` (any kind of stored weight
-> int8 matrix and scale), ``trit.gguf.encodings`` (bytes), ``tokenizer``, ``writer`` (GGUF out), ``verify`` (read
back); ``pipeline`` puts them together.
"""
