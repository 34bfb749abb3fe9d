# SPDX-License-Identifier: MIT
"""What a server is made of: models and their memory, who is answered, the engine that is kept alive.

Standard library only.
"""
