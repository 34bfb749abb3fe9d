# SPDX-License-Identifier: MIT
"""The proof of a converted model: its GGUF file and the compiled engine against the checkpoint and ``transformers``.

    trit verify CHECKPOINT_DIR MODEL.gguf
    trit verify --bundled

What is compared, and why the bounds are what they are: ``docs/verify.md``. Nothing here uses ``utils.convert`` or the
pack code: ``stored`` reads the checkpoint with torch, ``weights`` reads the file with gguf-py and readers of its own,
``reference`` computes the forward of training with transformers' models, ``engine`` asks the compiled programs.
"""
