# SPDX-License-Identifier: MIT
"""Fetch a model from the Hub: ``trit download ORG/NAME --to FOLDER``, what ``setup_env.py -hr`` runs.

In the order of the work: ``listing`` asks what a repository holds, ``choice`` picks the files, ``space`` compares their
size with the disk and the memory, ``transfer`` downloads and checks them, ``trit.models.source_note`` notes what is
there, ``offline`` does without a network, ``failures`` retries and puts errors into words.
"""
