"""Hypothesis profiles: a small fixed one by default, a long random one on demand. Instruction sets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from systolic import _core, _host

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("ci", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("long", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("SYSTOLIC_HYPOTHESIS", "ci"))


# The two compiled modules name them differently.
_NUMBERS = dict(zip(_core.instruction_sets, _host._available(), strict=True))


def use(isa: str | None) -> None:
    """Compute with another instruction set in both compiled modules; None: the one chosen at import."""
    _core._use(isa)
    _host._use(None if isa is None else _NUMBERS[isa])


@pytest.fixture(params=_core.instruction_sets, scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has and this build knows, in turn."""
    use(request.param)
    try:
        yield request.param
    finally:
        use(None)
