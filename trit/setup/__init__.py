# SPDX-License-Identifier: MIT
"""The steps of ``setup_env.py``, one file each; standard library only, as they run before anything is installed."""
