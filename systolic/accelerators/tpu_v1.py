"""The published tables of Google's TPU v1, as data.

Everything here is from Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit",
ISCA 2017, arXiv:1704.04760, unless a figure says otherwise. Its status is a letter:

=== ==========================================================
P   stated in the paper
S   taken from a second source that quotes it
D   arithmetic on such figures, which the figure's source shows
=== ==========================================================

1 MAC is 2 operations, but in "MACs per weight byte" a MAC counts once.

>>> from systolic.accelerators import tpu_v1
>>> tpu_v1.TABLE_3["weight_stall"]["MLP0"], tpu_v1.TABLE_3["weight_stall"].source
(53.9, 'table 3')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from systolic import _check

CITATION = (
    "Jouppi et al., In-Datacenter Performance Analysis of a Tensor Processing Unit, ISCA 2017, "
    "arXiv:1704.04760"
)

APPLICATIONS = ("MLP0", "MLP1", "LSTM0", "LSTM1", "CNN0", "CNN1")
"""The six applications that the paper measures."""

STATUS = MappingProxyType(
    {"P": "stated in the paper", "S": "quoted by a second source", "D": "arithmetic on such figures"}
)
"""What the letter beside a figure means."""


@dataclass(frozen=True)
class Figures(Mapping[str, float]):
    """Published figures of one kind, by application or by what else they are of.

    Parameters
    ----------
    name : str
        As the paper calls it.
    unit : str
    by_name : mapping of str to float
    source : str
        The table, figure or section, or the arithmetic.
    status : {"P", "S", "D"}

    Examples
    --------
    >>> from systolic.accelerators import tpu_v1
    >>> batch = tpu_v1.TABLE_1["batch"]
    >>> batch.unit, batch.status, dict(batch)["CNN0"]
    ('examples', 'P', 8)
    """

    name: str
    unit: str
    by_name: Mapping[str, float]
    source: str
    status: str = "P"

    def __post_init__(self) -> None:
        _check.choice(self.status, "status", tuple(STATUS))
        object.__setattr__(self, "by_name", dict(self.by_name))

    def __getitem__(self, name: str) -> float:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that JSON can hold."""
        return {
            "name": self.name,
            "unit": self.unit,
            "values": dict(self.by_name),
            "source": self.source,
            "status": self.status,
        }


def _rows(source: str, unit: str, rows: Mapping[str, tuple[str, tuple[float, ...]]]) -> dict[str, Figures]:
    return {
        key: Figures(name, unit, dict(zip(APPLICATIONS, values, strict=True)), source)
        for key, (name, values) in rows.items()
    }


TABLE_1 = MappingProxyType(
    {
        **_rows("table 1", "layers", {
            "fc": ("FC layers", (5, 4, 24, 37, 0, 4)),
            "conv": ("Conv layers", (0, 0, 0, 0, 16, 72)),
            "vector": ("Vector layers", (0, 0, 34, 19, 0, 0)),
            "pool": ("Pool layers", (0, 0, 0, 0, 0, 13)),
        }),
        **_rows("table 1", "million weights", {"weights": ("Weights", (20, 5, 52, 34, 8, 100))}),
        **_rows("table 1", "MACs/byte", {
            "macs_per_weight_byte": ("MACs per weight byte", (200, 168, 64, 96, 2888, 1750)),
        }),
        **_rows("table 1", "examples", {"batch": ("Batch size", (200, 168, 64, 96, 8, 32))}),
    }
)  # fmt: skip
"""What the applications are: layers by kind, weights, MACs per weight byte, batch size."""

TABLE_3 = MappingProxyType(
    {
        **_rows("table 3", "% of cycles", {
            "active": ("Array active", (12.7, 10.6, 8.2, 10.5, 78.2, 46.2)),
            "useful": ("Useful MACs (% of peak)", (12.5, 9.4, 8.2, 6.3, 78.2, 22.5)),
            "unused": ("Unused MACs", (0.3, 1.2, 0.0, 4.2, 0.0, 23.7)),
            "weight_stall": ("Weight stall", (53.9, 44.2, 58.1, 62.1, 0.0, 28.1)),
            "weight_shift": ("Weight shift", (15.9, 13.4, 15.8, 17.1, 0.0, 7.0)),
            "non_matrix": ("Non-matrix", (17.5, 31.9, 17.9, 10.3, 21.8, 18.7)),
            "raw_stall": ("RAW stalls", (3.3, 8.4, 14.6, 10.6, 3.5, 22.8)),
            "input_stall": ("Input data stalls", (6.1, 8.8, 5.1, 2.4, 3.4, 0.6)),
        }),
        **_rows("table 3", "TeraOps/s", {"tera_ops": ("TeraOps/s", (12.3, 9.7, 3.7, 2.8, 86.0, 14.1))}),
    }
)  # fmt: skip
"""Performance counters: active, weight stall, weight shift and non-matrix add up to 100; RAW stalls and input
data stalls are partial causes of non-matrix. TeraOps/s are from production runs, the rest from counters."""

TABLE_5 = _rows("table 5", "% of TPU time", {
    "host_time": ("Host interaction", (21, 76, 11, 20, 51, 14)),
})["host_time"]  # fmt: skip
"""Time to interact with the host, in percent of the TPU's own."""

TABLE_7 = _rows("table 7", "%", {
    "model_error": ("Difference between counters and the designers' model", (6.8, 10.9, 7.7, 5.4, 8.2, 11.2)),
})["model_error"]  # fmt: skip
"""How far the designers' own performance model was from their counters."""

TABLE_8 = _rows("table 8", "MiB", {
    "unified_buffer": ("Unified buffer used at most", (11.0, 2.3, 4.8, 4.5, 1.5, 13.9)),
})["unified_buffer"]  # fmt: skip
"""The largest amount of unified buffer that each application uses."""

TABLE_4_LATENCY = Figures("MLP0: 99th-percentile response", "ms", {"200": 7.0, "250": 10.0}, "table 4")
TABLE_4_THROUGHPUT = Figures(
    "MLP0: throughput", "inferences/s", {"200": 225_000, "250": 280_000}, "table 4"
)
"""MLP0's latency and throughput by batch size."""

THROUGHPUT = Figures("Throughput", "inferences/s", {"MLP1": 360_000, "CNN1": 4_700}, "section 8")

EXAMPLE_600 = Figures(
    "A 600 x 600 matrix by the size of the array", "us", {"256": 18.0, "512": 32.0}, "section 7"
)
EXAMPLE_600_TILES = Figures("Its tiles", "tiles", {"256": 9, "512": 4}, "section 7")

PEAK_TERA_OPS = Figures(
    "Peak", "TeraOps/s", {"8 bit": 91.75}, "2 x 65,536 MACs x 700 MHz; the paper rounds to 92", "D"
)
RIDGE_POINT = Figures(
    "Ridge point", "MACs/byte", {"DDR3": 1349, "GDDR5": 250},
    "65,536 MACs x 700 MHz / 34 GB/s; GDDR5 as in section 7", "D",
)  # fmt: skip

WHAT_IF = Figures(
    "Speed beside the TPU's, by what is changed",
    "times",
    {
        "4x bandwidth, weighted mean": 3.0,
        "4x clock, MLP and LSTM": 1.0,
        "4x clock, CNN": 2.0,
        "GDDR5, geometric mean": 2.6,
        "GDDR5, weighted mean": 3.9,
    },
    "section 7",
)
"""The paper's design study. A 512 x 512 array is "slightly slower", without a number."""
