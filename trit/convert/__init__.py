# SPDX-License-Identifier: MIT
"""Hugging Face checkpoint -> GGUF: read, ternarise, pack, write, read back and compare; no torch, one tensor at a time.

Run as ``trit convert CHECKPOINT_DIR --outtype i2_s``. The parts, in the order in which data passes them:
``trit.models`` (safetensors in; names, shapes, hyper-parameters), ``ternary`` (any kind of stored weight -> int8 matrix
and scale), ``trit.gguf`` (bytes, GGUF out), ``tokenizer``, ``read_back``; ``from_checkpoint`` puts them together.
``from_gguf`` does the same for files of other engines, ``from_random`` makes models that only measure.
"""
