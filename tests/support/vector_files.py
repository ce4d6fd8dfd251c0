"""Reads folders of vectors as RTL would: words of bits, port by port, and a requantizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from systolic import ArrayConfig, SystolicArray


def read(folder: Path, manifest: dict[str, Any], name: str) -> np.ndarray:
    """Return a file's words as numbers, (lines, elements), as $readmemh and slicing would."""
    entry = manifest["files"][f"{name}.mem"]
    bits, elements = entry["bits"], entry["elements"]
    lines = (folder / f"{name}.mem").read_text().split()
    assert len(lines) == entry["lines"] and {len(line) for line in lines} == {-(-bits * elements // 4)}
    words = [int(line, 16) for line in lines]
    assert all(word < 1 << (bits * elements) for word in words)
    found = [[word >> (bits * i) & ((1 << bits) - 1) for i in range(elements)] for word in words]
    if bits == 1:
        return np.array(found, bool)
    return np.array(found, f"<u{bits // 8}").view(numbers_of(entry["type"]))


def numbers_of(name: str) -> Any:
    """Return a type by its name; those that numpy has not as integers of their bits."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def tensor(values: np.ndarray, manifest: dict[str, Any]) -> np.ndarray:
    """Return the lines of acc.mem or y.mem in the shape of the accumulators."""
    shape = manifest["accumulators"]["shape"]
    axes = manifest["accumulators"]["line_axes"]
    apart = values.reshape(*(shape[i] for i in axes), shape[manifest["accumulators"]["element_axis"]])
    return np.moveaxis(apart, -1, manifest["accumulators"]["element_axis"])


def replay(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """Drive an array with the port files and accumulate what leaves it, as RTL would; return acc.mem's lines."""
    config = ArrayConfig.from_dict(manifest["array"])
    dataflow, gemm = config.dataflow_record, manifest["gemm"]
    driven = {port.name: read(folder, manifest, f"{port.side}_{port.name}") for port in dataflow.ports}
    bottom = SystolicArray(config).clock(**driven)
    np.testing.assert_array_equal(bottom, read(folder, manifest, f"bottom_{dataflow.leaves}"))
    write, half, row, first = (
        read(folder, manifest, f"accumulator_{name}") for name in ("write", "half", "row", "first")
    )
    below = np.concatenate([np.zeros_like(bottom[:1]), bottom[:-1]])
    pack, images = gemm.get("pack", 1), "convolution" in manifest
    acc = np.zeros_like(read(folder, manifest, "acc"))
    for c in range(config.cols):
        memory: dict[tuple[int, int], Any] = {}
        times = iter(np.flatnonzero(write[:, c]))
        for fold in manifest["folds"]:
            # Lines that leave, and columns in use.
            m, n = (range(fold[f"{axis}_start"], fold[f"{axis}_stop"]) for axis in "mn")
            leave, used = (n, m) if dataflow.exchanged else (m, n)
            if c >= len(used):
                continue
            for t in (next(times) for _ in leave):
                place = int(half[t, c]), int(row[t, c])
                if first[t, c]:
                    memory[place] = below[t, c]
                else:
                    sums = memory[place][None]
                    config.format.accumulate(sums, below[t : t + 1, c])
                    memory[place] = sums[0]
                if fold["k_stop"] == gemm["k"] * pack:
                    line, element = leave[place[1]], used[c]
                    if dataflow.exchanged:
                        line, element = element, line
                    if images:
                        element += fold["group"] * pack * gemm["n"]
                    else:
                        line += fold["group"] * gemm["m"]
                    acc[line, element] = memory[place]
        assert next(times, None) is None
    return acc


def requantized(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """Compute y.mem's lines from acc.mem and the epilogue's files, in Python's integers and float32."""
    acc, e = read(folder, manifest, "acc"), manifest["epilogue"]
    images = manifest.get("convolution")

    def get(name: str) -> Any:
        if name not in e["parameters"]:
            return None
        entry = e["parameters"][name]
        values = read(folder, manifest, entry["file"].removesuffix(".mem"))
        if entry["per"] == "channel":
            values = values.T
        if entry["per"] == "row and group":
            values = np.repeat(values, acc.shape[1] // images["groups"], axis=1)
        return np.broadcast_to(values, acc.shape)

    with np.errstate(all="ignore"):
        if acc.dtype.kind == "f":
            total: Any = acc
        else:
            wide = 64 if "modulo 2^64" in e["formula"][0] else 32
            total = acc.astype(object)
            if get("bias") is not None:
                total = total + get("bias").astype(object)
            if get("weight_zero") is not None:
                total = total - get("row_sum").astype(object) * get("weight_zero").astype(object)
            total = wrapped(total, wide)
        if e["dtype"] == "int32":
            y: Any = total.astype(np.int32)
        elif e["dtype"] == "float32":
            y = total.astype(np.float32)
            if get("scale") is not None:
                y = (total.astype(get("scale").dtype) * get("scale")).astype(np.float32)
            if get("late_scale") is not None:
                y = y * get("late_scale")
            if get("float_bias") is not None:
                y = y + get("float_bias")
        else:
            y = codes(e, total, get).astype(e["dtype"])
    if "clamp" in e:
        y = np.clip(y, *e["clamp"])
    if "table.mem" in manifest["files"]:
        y = read(folder, manifest, "table")[:, 0][y.astype(int) & 255]
    return y


def codes(e: dict[str, Any], total: np.ndarray, get: Any) -> np.ndarray:
    """Return what the manifest's formulas make of totals, before clamp and table."""
    low, high, zero = e["lowest"], e["highest"], e["zero_point"]
    if e["rounding"] in ("half_even", "gemmini"):
        v = np.rint(total.astype(np.float32) * get("scale"))
        # NaN becomes the lowest code.
        v = np.fmin(np.fmax(v, np.float32(low - zero)), np.float32(high - zero))
        return v.astype(np.int64) + zero
    exponent = get("exponent").astype(object)
    if e["rounding"] == "shift":
        v = each(lambda x, s: x << s if s >= 0 else (x + (1 << (-s - 1))) >> -s, total, exponent)
        return np.clip((v + zero).astype(np.int64), low, high)
    q = get("multiplier").astype(object)
    if e["rounding"] == "tflite_single":
        v = each(lambda x, q, s: (x * q + (1 << (30 - s))) >> (31 - s), total, q, exponent)
    else:
        moved = wrapped(each(lambda x, s: x << max(s, 0), total, exponent), 32)
        h = each(lambda x, q: (x * q + (1 << 30)) >> 31, moved, q)

        def nearest(x: int, s: int) -> int:
            r = max(-s, 0)
            return (abs(x) + (1 << r >> 1) >> r) * (1 if x >= 0 else -1)

        v = each(nearest, h, exponent)
    return np.clip(wrapped(v + zero, 32).astype(np.int64), low, high)


def each(function: Any, *values: np.ndarray) -> np.ndarray:
    return np.frompyfunc(function, len(values), 1)(*values)


def wrapped(values: np.ndarray, bits: int) -> np.ndarray:
    """Return Python integers modulo 2^bits, signed."""
    return (values + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
