"""Layers for the tests that every kind must pass: test_model.py saves, loads and copies each of them.

A new kind of layer is added here, with fields unlike their defaults, unless test_model's zoo has it.
"""

from __future__ import annotations

from systolic.layers import Layer

EXAMPLES: list[Layer] = []
