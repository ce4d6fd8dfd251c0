"""Cycles, time and memory of other simulators on the same products: the tables of docs/comparison.md.

Run with a Python that has this package and the peers, ``pip install scalesim==3.0.0 zigzag-dse==3.9.1 six
"numpy<2.3"`` (SCALE-Sim 3.0.0 fails with newer numpy): ``python bench/peers.py``. A peer that is not
installed is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from systolic import ArrayConfig, Gemm, estimate

SIZE = 32
"""Rows and columns of the array, those of ZigZag's weight-stationary example."""

# Layers of ResNet-50 v1.5, as products.
GEMMS = {
    "fc1000": Gemm(1, 2048, 1000),
    "conv5 1x1 expand": Gemm(49, 512, 2048),
    "conv5 1x1 reduce": Gemm(49, 2048, 512),
    "conv4 1x1 expand": Gemm(196, 256, 1024),
    "conv4 1x1 reduce": Gemm(196, 1024, 256),
    "conv3 1x1 expand": Gemm(784, 128, 512),
}

DATAFLOWS = {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}

_SCALE_SIM = """
[general]
run_name = peers
[architecture_presets]
ArrayHeight = {size}
ArrayWidth = {size}
IfmapSramSzkB = 8192
FilterSramSzkB = 8192
OfmapSramSzkB = 8192
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 100
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def scale_sim(gemm: Gemm, dataflow: str) -> int:
    """Return the "Total Cycles" that SCALE-Sim reports, in its mode without a bandwidth limit."""
    from scalesim.scale_sim import scalesim

    with open("scale.cfg", "w") as file:
        file.write(_SCALE_SIM.format(size=SIZE, dataflow=dataflow))
    with open("topology.csv", "w") as file:
        file.write(f"Layer, M, N, K,\nproduct, {gemm.m}, {gemm.n}, {gemm.k},\n")
    with open("layout.csv", "w") as file:
        file.write("Layer, none,\nproduct, 1,\n")
    files = {"config": "scale.cfg", "topology": "topology.csv", "layout": "layout.csv"}
    scalesim(save_disk_space=True, verbose=False, input_type_gemm=True, **files).run_scale(top_path="out")
    with open("out/peers/COMPUTE_REPORT.csv") as file:
        header, row = (line.split(",") for line in file)
    return int(float(row[[name.strip() for name in header].index("Total Cycles")]))


def zigzag(gemm: Gemm, dataflow: str) -> tuple[int, int]:
    """Return ZigZag's cycles on its example of a weight-stationary array: without stalls, and its latency."""
    import yaml
    from zigzag import api

    inputs = os.path.join(os.path.dirname(api.__file__), "inputs")
    layer = {
        "id": 0, "name": "product", "operator_type": "Gemm", "equation": "O[b][k]+=W[k][c]*I[b][c]",
        "loop_dims": ["B", "K", "C"], "loop_sizes": [gemm.m, gemm.n, gemm.k],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8}, "operand_source": {"I": 0, "W": 0},
    }  # fmt: skip
    with open("product.yaml", "w") as file:
        yaml.safe_dump([layer], file)
    logging.disable(logging.CRITICAL)
    _, latency, [(cost, _)] = api.get_hardware_performance_zigzag(
        "product.yaml", f"{inputs}/hardware/tpu_like.yaml", f"{inputs}/mapping/tpu_like.yaml", opt="latency",
        dump_folder="zigzag", loma_show_progress_bar=False,
    )  # fmt: skip
    return int(cost.ideal_temporal_cycle + cost.systolic_drain_cycle), int(latency)


def ours(gemm: Gemm, dataflow: str) -> int:
    """Return our closed form in SCALE-Sim's convention: the next tile is not shifted in behind the last."""
    return estimate(gemm, machine=_array(dataflow, double_buffered=False)).cycles


def stepped(gemm: Gemm, dataflow: str) -> int:
    """Return the cycles counted by stepping every register of every PE, with data."""
    import numpy as np

    from systolic import matmul

    rng = np.random.default_rng(0)
    x, w = (rng.integers(-128, 128, s, dtype=np.int8) for s in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
    return matmul(x, w, array=_array(dataflow, double_buffered=False), threads=1).cycles


def _array(dataflow: str, **fields: Any) -> ArrayConfig:
    return ArrayConfig(SIZE, SIZE, dataflow=DATAFLOWS[dataflow], accumulator_rows=None, **fields)


Work = Callable[[Gemm, str], int | tuple[int, int]]


def measured(work: Work, gemm: Gemm, dataflow: str) -> tuple[Any, float, float]:
    """Return cycles, seconds and the growth of memory in MB, in a process of its own, without imports."""
    results: Any = multiprocessing.get_context("fork").Queue()

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            os.chdir(folder)
            work(Gemm(2, 33, 34), dataflow)  # imports, and what is made once
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started = time.perf_counter()
            cycles = work(gemm, dataflow)
            seconds = time.perf_counter() - started
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            results.put((cycles, seconds, grown))

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    result: tuple[Any, float, float] = results.get(timeout=600)
    child.join()
    return result


def main() -> None:
    """Print the tables in Markdown."""
    peers = {"SCALE-Sim": (scale_sim, "scalesim"), "ZigZag": (zigzag, "zigzag")}
    works: dict[str, Work] = {"estimate": ours, "cycle mode": stepped}
    works |= {name: work for name, (work, module) in peers.items() if importlib.util.find_spec(module)}
    for short, dataflow in DATAFLOWS.items():
        known = {name: work for name, work in works.items() if name != "ZigZag" or short == "ws"}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in known}
        doubled = "double buffered"
        print(f"\n{dataflow}, {SIZE} x {SIZE}\n\n| product | {' | '.join((*known, doubled))} |")
        print("| --- |" + " ---: |" * (len(known) + 1))
        for name, gemm in GEMMS.items():
            cells = []
            for peer, work in known.items():
                cycles, seconds, grown = measured(work, gemm, short)
                spent[peer].append((seconds, grown))
                cells.append(f"{cycles:,}" if isinstance(cycles, int) else "{:,} ({:,})".format(*cycles))
            cells.append(f"{estimate(gemm, machine=_array(short)).cycles:,}")
            print(f"| {name} {gemm.m} x {gemm.k} x {gemm.n} | {' | '.join(cells)} |", flush=True)
        for line, at, unit in (("seconds", 0, ".3g"), ("MB", 1, ".0f")):
            middle = (statistics.median(each[at] for each in spent[peer]) for peer in known)
            print(f"| {line}, median | {' | '.join(format(m, unit) for m in middle)} | |")


if __name__ == "__main__":
    main()
