# SPDX-License-Identifier: MIT
"""Models by name: ``trit run NAME``, ``pull``, ``list``, ``show``, ``rm``, ``ps``.

``names`` says which model a name means, ``store`` keeps the files of all checkouts, ``pull`` fills it, ``find`` is what
the commands ask, ``commands`` and ``completion`` are for people. Standard library only: what needs packages runs in a
process of its own.
"""
