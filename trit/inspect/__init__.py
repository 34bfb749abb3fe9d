# SPDX-License-Identifier: MIT
"""What is this file or folder, what would it cost to run, and what would be done with it?

Run as ``trit inspect PATH``. ``gguf_file`` and ``checkpoint_folder`` look, ``sample`` counts weights,
``host`` knows what this machine reads per second, ``report`` prints.
"""
