# SPDX-License-Identifier: MIT
"""Python side of trit.cpp: set-up steps, conversion, training and measuring tools."""
