# SPDX-License-Identifier: MIT
"""One prompt, a chat, a server: the engine behind the front doors. Standard library only."""
