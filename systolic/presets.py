"""Real machines as ``MachineConfig`` values, with a source beside each number."""

from __future__ import annotations

from systolic import _check
from systolic.config import ArrayConfig, MachineConfig

# Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017,
# arXiv:1704.04760.
TPU_V1 = MachineConfig(
    ArrayConfig(
        rows=256,  # section 2: 256 x 256 MACs, weight stationary
        cols=256,
        activation_dtype="int8",  # section 2: 8-bit multiply-and-adds on signed or unsigned integers
        weight_dtype="int8",
        double_buffered=True,  # section 2: one 64 KiB tile of weights plus one for double-buffering
        accumulator_rows=4096,  # section 2: 4096 256-element 32-bit accumulators, 4 MiB
    ),
    clock_mhz=700,  # table 2
)
"""Google's TPU v1."""

_PRESETS = {"tpu-v1": TPU_V1}


def names() -> tuple[str, ...]:
    """Return the presets' names.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.names()
    ('tpu-v1',)
    """
    return tuple(_PRESETS)


def get(name: str) -> MachineConfig:
    """Return a preset by its name.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists them.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.get("tpu-v1").clock_mhz
    700
    """
    return _PRESETS[_check.choice(name, "preset", names())]
