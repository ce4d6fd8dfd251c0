"""Hypothesis profiles: a small fixed one by default, a long random one on demand. Instruction sets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from systolic import _kernels

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("ci", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("long", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("SYSTOLIC_HYPOTHESIS", "ci"))


def _used(request: pytest.FixtureRequest) -> Iterator[str]:
    _kernels._use(request.param)
    try:
        yield request.param
    finally:
        _kernels._use()


# Each instruction set that this machine has and this build knows, in turn; and of the array the plain reference too.
isa = pytest.fixture(params=_kernels.instruction_sets, scope="module")(_used)
array_kernel = pytest.fixture(params=("reference", *_kernels.instruction_sets), scope="module")(_used)
