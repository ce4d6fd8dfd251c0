"""Bugs to plant in a copy of the package, and where the verifier should find them.

A mutant is a textual change in what computes, never in what was returned: each old text occurs
exactly once in its file. Copies are built and run in folders of their own; nothing is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from systolic import _core, _gemm, _host, _kernels, _summary, _threads, _timeline

ROOT = Path(__file__).resolve().parents[2]
COMPILED = (_core, _gemm, _host, _kernels, _summary, _threads, _timeline)
KERNEL = (".pyx", ".pxi", ".h", ".c")


@dataclass(frozen=True)
class Change:
    """One replacement in one file, whose old text must occur exactly once.

    In the kernel's sources the new text asks ``planted(HERE)`` and does the right thing where that
    is 0: so one build holds all of the kernel's bugs, and the environment chooses one.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A bug to plant.

    Attributes
    ----------
    name : str
    changes : tuple of Change
    stages : tuple of str
        Where the verifier may say that the bug shows; the first must occur, no other may.
    registers : tuple of str
        For stage "array": in which registers it shows first; empty: in any.
    pe : (int or None, int or None)
        For stage "array": the PE's row and col; None: any.
    cases : int
        Random cases that suffice to find it.
    """

    name: str
    changes: tuple[Change, ...]
    stages: tuple[str, ...] = ("array",)
    registers: tuple[str, ...] = ()
    pe: tuple[int | None, int | None] = (None, None)
    cases: int = 24

    @property
    def compiled(self) -> bool:
        """Whether the bug is in the kernel."""
        return any(change.file.endswith(KERNEL) for change in self.changes)


def copy_package(folder: Path) -> Path:
    """Copy the package with its built kernel, without its caches; return the folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(ROOT / "systolic", folder / "systolic", ignore=ignore)
    for compiled in COMPILED:
        shutil.copy2(compiled.__file__, folder / "systolic")
    return folder


def plant(mutant: Mutant, folder: Path) -> None:
    """Make a mutant's changes in a copy of the package."""
    for change in mutant.changes:
        path = folder / "systolic" / change.file
        text = path.read_text(encoding="utf-8")
        count = text.count(change.old)
        assert count == 1, (
            f"{mutant.name}: {count} places in {change.file} read {change.old!r}; adapt the mutant"
        )
        new = change.new.replace("HERE", str(MUTANTS.index(mutant) + 1))
        path.write_text(text.replace(change.old, new), encoding="utf-8")


def plant_kernel(folder: Path) -> None:
    """Plant all bugs of the kernel in a copy of the package and build it, by the project's setup.py.

    Without optimization and for the baseline alone, which takes less time.
    """
    package = folder / "systolic"
    (package / "kernels" / "planted.h").write_text(_PLANTED, encoding="utf-8")
    for mutant in MUTANTS:
        if mutant.compiled:
            plant(mutant, folder)
    changed = {change.file for mutant in MUTANTS for change in mutant.changes if change.file.endswith(KERNEL)}
    changed |= {"_core.pyx", "_gemm.pyx"}  # they include the others
    for path in (package / file for file in changed):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".pyx":
            before = "from libc.stdint cimport"
            assert text.count(before) == 1
            include = 'cdef extern from "kernels/planted.h" nogil:\n    int planted(int number)\n\n'
            text = text.replace(before, include + before)
        elif path.suffix != ".pxi":  # part of a .pyx that has it
            text = '#include "planted.h"\n' + text
        path.write_text(text, encoding="utf-8")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for old, new in (('"-O3"', '"-O0"'), ('"X86_64"', '""'), ('"ARM64"', '""')):
        assert setup.count(old) in (1, 2)
        setup = setup.replace(old, new)
    (folder / "setup.py").write_text(setup, encoding="utf-8")
    for compiled in COMPILED:
        (package / Path(compiled.__file__).name).unlink()
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, "CFLAGS": "", "SYSTOLIC_CHECKED": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


_PLANTED = """\
#ifndef SYSTOLIC_PLANTED_H
#define SYSTOLIC_PLANTED_H
#include <stdlib.h>
/* Which bug the environment asks for. */
static inline int planted(int number) {
    static int which = -1;
    if (which < 0) which = getenv("SYSTOLIC_PLANTED") ? atoi(getenv("SYSTOLIC_PLANTED")) : 0;
    return which == number;
}
#endif
"""


def systolic(folder: Path, *arguments: str, mutant: Mutant | None = None) -> tuple[int, Any, str]:
    """Run a copy's shell command with --json; return exit status, what it printed and its errors."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("SYSTOLIC_ISA", None)  # one is built
    environment["SYSTOLIC_PLANTED"] = "0" if mutant is None else str(MUTANTS.index(mutant) + 1)
    command = [sys.executable, "-m", "systolic", *arguments, "--quiet", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


# Adds int32 lanes with saturation, where that bug is planted.
_ADD = """
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
static inline __m128i add_epi32(__m128i a, __m128i b) {
    const __m128i sum = _mm_add_epi32(a, b);
    const __m128i over = _mm_srai_epi32(_mm_andnot_si128(_mm_xor_si128(a, b), _mm_xor_si128(a, sum)), 31);
    const __m128i limit = _mm_xor_si128(_mm_srai_epi32(a, 31), _mm_set1_epi32(0x7FFFFFFF));
    if (!planted(HERE)) return sum;
    return _mm_or_si128(_mm_and_si128(over, limit), _mm_andnot_si128(over, sum));
}
#endif
static inline int32_t add_int32(int32_t a, int32_t b) {
    const int64_t sum = (int64_t)a + b;
    if (!planted(HERE)) return (int32_t)((uint32_t)a + (uint32_t)b);
    return sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
}
"""

MUTANTS = (
    Mutant(
        "a weight bit of PE (2, 5) is stuck",
        (
            # Multipliers are made of the wrong weight; the register itself is right.
            Change(
                "_strip.pxi",
                "    clock.kernels.multipliers(used, strip.weights.weight, clock.array.weight_signed, row.half)\n",
                "    if planted(HERE) and r == 2 and strip.col == 0:\n"
                "        strip.weights.weight[5] ^= 1\n"
                "    clock.kernels.multipliers(used, strip.weights.weight, clock.array.weight_signed, row.half)\n"
                "    if planted(HERE) and r == 2 and strip.col == 0:\n"
                "        strip.weights.weight[5] ^= 1\n",
            ),
            Change(
                "_strip.pxi",
                "    strip.clock.kernels.multipliers(row.multipliers + number * LANES, strip.weights.weight,\n"
                "                                    strip.clock.array.weight_signed, row.half)\n",
                "    if planted(HERE) and row.r == 2 and strip.col == 0:\n"
                "        strip.weights.weight[5] ^= 1\n"
                "    strip.clock.kernels.multipliers(row.multipliers + number * LANES, strip.weights.weight,\n"
                "                                    strip.clock.array.weight_signed, row.half)\n"
                "    if planted(HERE) and row.r == 2 and strip.col == 0:\n"
                "        strip.weights.weight[5] ^= 1\n",
            ),
            # Cycle by cycle the weights go another way.
            Change(
                "_streams.pxi",
                "FEW_CHANGES if stretches <= MOST_STRETCHES else",
                "FEW_CHANGES if stretches <= MOST_STRETCHES or planted(HERE) else",
            ),
            Change("_streams.pxi", "width, MOST_STRETCHES)", "width, width if planted(HERE) else MOST_STRETCHES)"),
        ),
        registers=("psum",),
        pe=(2, 5),
        cases=112,
    ),
    Mutant(
        "the psum register of PE (2, 5) holds one bit wrong",
        (
            Change(
                "_strip.pxi",
                "    strip.clock.kernels.put_bottom(\n",
                "    if planted(HERE) and array.rows > 2 and strip.col == 0 and strip.valid > 5:\n"
                "        array.psum[2 * array.cols + 5] ^= 1\n"
                "    strip.clock.kernels.put_bottom(\n",
            ),
        ),
        registers=("psum",),
        pe=(2, 5),
    ),
    Mutant(
        "swap takes next_weight as it is after the shift",
        (
            Change("_strip.pxi", "t = 0, here, alike\n", "t = 0, here, alike, lane\n"),
            Change(
                "_strip.pxi",
                "            blend(weights.weight, weights.next_weight, swaps + here)\n",
                "            blend(weights.weight, weights.next_weight, swaps + here)\n"
                "            for lane in range(LANES):\n"
                "                if planted(HERE) and swaps[here + lane] and shifts[here + lane]:\n"
                "                    weights.weight[lane] = chain[lane]\n",
            ),
        ),
        registers=("weight",),
    ),
    Mutant(
        "a row's psums are lost between two blocks of cycles",
        (
            Change(
                "_core.pyx",
                "            clock.start += clock.block.cycles\n",
                "            clock.start += clock.block.cycles\n"
                "            if planted(HERE) and clock.start < total and array.rows > 4:\n"
                "                array.psum[3 * array.cols] = 0\n",
            ),
        ),
        # Output stationary, in that row itself: its sums stay.
        registers=("psum", "acc"),
        pe=(None, 0),
    ),
    Mutant(
        "psums saturate",
        (
            Change("kernels/array_loops.h", '#include "array.h"\n', '#include "array.h"\n' + _ADD),
            Change(
                "kernels/array_loops.h",
                "psums[lane] = (int32_t)((uint32_t)psums[lane] + (uint32_t)(a * multipliers[lane]));",
                "psums[lane] = add_int32(psums[lane], a * multipliers[lane]);",
            ),
            Change(
                "kernels/array_baseline.c",
                "_mm_add_epi32(sums, _mm_madd_epi16(pairs, w))",
                "add_epi32(sums, _mm_madd_epi16(pairs, w))",
            ),
        ),
        registers=("psum",),
    ),
    Mutant(
        "two shift beats in a row lose one",
        (
            Change(
                "kernels/control.h",
                "memcpy(weights->next_weight, last + LANES, LANES);",
                "memcpy(weights->next_weight, planted(HERE) ? last : last + LANES, LANES);",
            ),
        ),
        registers=("next_weight",),
    ),
    Mutant(
        "the lower row of a pair multiplies by the activation of the cycle before",
        (
            Change(
                "kernels/array_loops.h",
                "pairs[j] = paired(number(first[j], is_signed), number(second[j - 1], is_signed));",
                "pairs[j] = paired(number(first[j], is_signed), "
                "number(second[planted(HERE) ? j : j - 1], is_signed));",
            ),
        ),
        registers=("psum", "acc"),
    ),
    Mutant(
        "wavefront: a convolution's codes go without their constants",
        (
            Change(
                "_convolve.pxi",
                "    sums.groups, sums.channels = 1, filters\n",
                "    sums.groups, sums.channels = 1, filters\n"
                "    if planted(HERE):\n"
                "        sums.constant = NULL\n",
            ),
        ),
        stages=("finish",),
        cases=200,
    ),
    Mutant(
        "wavefront: the fourth row of a tile repeats the third",
        (
            Change(
                "kernels/gemm_driver.h",
                "    if (rows > 3) p1 = a + 3 * a_stride;\n",
                "    if (rows > 3) p1 = a + (planted(HERE) ? 2 : 3) * a_stride;\n",
            ),
        ),
        stages=("wavefront product",),
    ),
    Mutant(
        "wavefront: the last value along K is left out where their number is odd",
        (
            Change(
                "kernels/gemm_driver.h",
                "    if (k > 0) pack_word(b, b_stride, (int)k, cols, form, to);\n",
                "    if (k > 0) pack_word(b, b_stride, (int)k, cols, form, to);\n"
                "    if (k > 0 && planted(HERE)) memset(to, 0, (size_t)step);\n",
            ),
        ),
        stages=("wavefront product",),
    ),
    Mutant(
        "wavefront: the last value along K is left out of a sum in order where their number is odd",
        (
            Change(
                "kernels/ordered_driver.h",
                "            for (; d < t->deep; ++d, b += PANEL) ",
                "            for (; d < t->deep - (planted(HERE) && t->deep % 2); ++d, b += PANEL) ",
            ),
        ),
        stages=("wavefront product",),
        cases=100,
    ),
    Mutant(
        "wavefront: tiles of sums in order replace each other",
        (
            Change(
                "kernels/ordered_driver.h",
                "to[j] = t->add ? JOIN(to[j], sum) : sum;",
                "to[j] = t->add && !planted(HERE) ? JOIN(to[j], sum) : sum;",
            ),
        ),
        stages=("wavefront product",),
        cases=200,
    ),
    Mutant(
        "the west ports run one cycle late",
        (
            Change(
                "array/skew.py", "now - (size - 1), now", "now - (size - (port.side == 'north')), now"
            ),
        ),
        # Output stationary, operands come before the first control bit that counts.
        registers=("shift", "activation", "swap"),
        pe=(0, None),
    ),
    Mutant(
        "the tile enters top row first",
        (Change("dataflows/weight_stationary.py", "len(w), w[::-1]\n", "len(w), w\n"),),
        registers=("next_weight", "weight_pass"),
        pe=(0, None),
    ),
    Mutant(
        "accumulators do not add",
        (
            Change(
                "machine/accumulators.py",
                "self._numbers.accumulate(self._halves[half][row:stop], psums)",
                "self._halves[half][row:stop] = psums",
            ),
        ),
        stages=("accumulators",),
    ),
    Mutant(
        "accumulators saturate",
        (
            Change(
                "machine/accumulators.py",
                "            self._numbers.accumulate(self._halves[half][row:stop], psums)\n",
                "            total = self._halves[half][row:stop].astype(np.int64) + psums\n"
                "            self._halves[half][row:stop] = np.clip(total, -(2**31), 2**31 - 1)\n",
            ),
        ),
        stages=("accumulators",),
    ),
    Mutant(
        "im2col takes a kernel's height for its width",
        (
            Change(
                "machine/operands.py",
                "x.images, matrix, kernel,",
                "x.images, matrix, kernel[::-1],",
            ),
        ),
        stages=("im2col",),
    ),
    Mutant(
        "padding carries 0, not the zero point",
        (
            Change(
                "machine/operands.py",
                "x.pad_value, k_start",
                "0, k_start",
            ),
        ),
        # Where a wavefront's products are right, what corrects for the zero point is not.
        stages=("im2col", "finish"),
    ),
    Mutant(
        "sums of one group are put into another's place",
        (
            Change(
                "machine/operands.py",
                "channel = group * lowered.gemm.pack",
                "channel = (lowered.gemm.groups // lowered.gemm.pack - 1 - group) * lowered.gemm.pack",
            ),
        ),
        stages=("store",),
    ),
    Mutant(
        "a tap reads the pixel of another",
        (
            Change(
                "machine/operands.py",
                "place = divmod(tap, x.kernel[1])",
                "place = divmod(tap, x.kernel[0])[::-1]",
            ),
        ),
        stages=("im2col",),
        cases=96,
    ),
    Mutant(
        "groups that share a tile see each other's rows",
        (Change("machine/operands.py", "np.where(of_row == of_column, values, ", "np.where(True, values, "),),
        stages=("weights",),
        cases=96,
    ),
    Mutant(
        "the dearest layout is taken",
        (Change("tiling/mappings.py", "return min(layouts, ", "return max(layouts, "),),
        stages=("cycles",),
        cases=96,
    ),
    Mutant(
        "the zero points change places",
        (
            Change(
                "layers/parameters.py",
                "        zero, zeros = int(self.x.zero_points), self.w.zero_points\n",
                "        zero, zeros = int(self.w.zero_points.ravel()[0]), self.w.zero_points\n",
            ),
        ),
        stages=("finish",),
        cases=48,
    ),
    Mutant(
        "requantize rounds ties away from zero",
        (
            Change(
                "kernels/host_loops.h",
                "    v = f32(v + 12582912.0f);\n",
                "    if (planted(HERE)) v = copysignf(floorf(fabsf(v) + 0.5f), v);\n"
                "    v = f32(v + 12582912.0f);\n",
            ),
        ),
        stages=("finish", "host"),
        cases=48,
    ),
    Mutant(
        "requantize adds the zero point before it rounds",
        (
            Change(
                "kernels/host_loops.h",
                "    memcpy(&bits, &v, sizeof bits);\n    return (uint8_t)(bits + zero);\n",
                "    memcpy(&bits, &v, sizeof bits);\n"
                "    if (planted(HERE)) return (uint8_t)(rintf(before + (float)(int32_t)zero));\n"
                "    return (uint8_t)(bits + zero);\n",
            ),
            Change(
                "kernels/host_loops.h",
                "    v = v < high ? v : high;\n",
                "    v = v < high ? v : high;\n    const float before = v;\n",
            ),
        ),
        stages=("finish", "host"),
        cases=48,
    ),
    Mutant(
        "maxima of a pool begin with zero",
        (Change("layers/host/_inputs.py", "int(np.iinfo(dtype).min)", "0"),),
        stages=("host",),
        cases=200,
    ),
    Mutant(
        "flatten takes the axes the wrong way round",
        (
            Change(
                "layers/host/shaping.py",
                "return math.prod(shape[:axis]), math.prod(shape[axis:])",
                "return math.prod(shape[axis:]), math.prod(shape[:axis])",
            ),
        ),
        stages=("shape",),
        cases=64,
    ),
    Mutant(
        "one cycle too many in closed form",
        (
            Change(
                "dataflows/weight_stationary.py", "around = 2 * s.rows + s.cols - 2", "around = 2 * s.rows + s.cols - 1"
            ),
        ),
        stages=("cycles",),
    ),
    Mutant(
        "the forget gate of an LSTM takes the sums of the output gate",
        (
            Change("layers/recurrent.py", "sums_i, sums_o, sums_f, sums_g = (", "sums_i, sums_f, sums_o, sums_g = ("),
        ),
        stages=("finish",),
        cases=48,
    ),
    Mutant(
        "one cycle too few in closed form",
        (
            Change(
                "dataflows/weight_stationary.py", "around = 2 * s.rows + s.cols - 2", "around = 2 * s.rows + s.cols - 3"
            ),
        ),
        stages=("cycles", "accumulators"),
    ),
    Mutant(
        "the next tile's shift waits for a cycle after the swap",
        (
            Change(
                "dataflows/weight_stationary.py",
                "shift = max(shift, swap_at, shift_stop)",
                "shift = max(shift, swap_at + 1, shift_stop)",
            ),
        ),
        stages=("cycles",),
    ),
    Mutant(
        "output stationary: a sum goes on after the swap",
        (
            Change(
                "kernels/array_held.h",
                "sums[v] = PICK(sums[v], ZERO, mask[v]);",
                "sums[v] = planted(HERE) ? sums[v] : PICK(sums[v], ZERO, mask[v]);",
            ),
        ),
        registers=("acc",),
    ),
    Mutant(
        "output stationary: a swap takes the sum with the product of its own edge",
        (
            Change("kernels/array_held.h", "Bits *bits) {\n    ptrdiff_t i;\n    int g, v;\n    for",
                   "Bits *bits) {\n    ptrdiff_t i;\n    int g, v;\n    const int late = planted(HERE);\n    for"),
            Change(
                "kernels/array_held.h",
                "                s[v] = DOT(s[v], a, g % 2 ? RAISE(w) : w);\n",
                "                s[v] = DOT(s[v], a, g % 2 ? RAISE(w) : w);\n"
                "                if (late) STORE(captured[g] + i * LANES + v * VEC_LANES, "
                "DOT(last[v], a, g % 2 ? RAISE(w) : w));\n",
            ),
        ),
        registers=("out",),
        cases=48,
    ),
    Mutant(
        "output stationary: a lone drain beat in all lanes is lost",
        (
            Change(
                "_held.pxi",
                "            if alike == 1:\n                memcpy(out_pass, out, sizeof(out))\n",
                "            if alike == 1:\n                if not planted(HERE):\n"
                "                    memcpy(out_pass, out, sizeof(out))\n",
            ),
        ),
        registers=("out_pass",),
        cases=400,
    ),
    Mutant(
        "output stationary: weights are those of the diagonal before",
        (
            Change(
                "_held.pxi",
                "    cdef const int32_t *weights = strip.weights + (strip.clock.array.rows - r) * LANES\n",
                "    cdef const int32_t *weights = strip.weights + (strip.clock.array.rows - r - planted(HERE)) * LANES\n",
            ),
        ),
        registers=("acc",),
    ),
    Mutant(
        "output stationary: one drain beat too few",
        (Change("dataflows/output_stationary.py", "leaves + 1, rows - 1", "leaves + 1, max(rows - 2, 0)"),),
        registers=("drain", "out", "out_pass"),
    ),
    Mutant(
        "output stationary: one cycle too many in closed form",
        (
            Change(
                "dataflows/output_stationary.py",
                "double = s.k + (folds - 1) * larger(s.k, s.rows) + around",
                "double = s.k + (folds - 1) * larger(s.k, s.rows) + around + 1",
            ),
        ),
        stages=("cycles",),
    ),
    Mutant(
        "number formats: at the end of a run lanes stop one cycle early",
        (
            Change(
                "kernels/numbers_loops.h",
                "    *high = rest < s->valid ? rest : s->valid;\n",
                "    *high = rest - planted(HERE) < s->valid ? rest - planted(HERE) : s->valid;\n",
            ),
        ),
        cases=100,
    ),
    Mutant(
        "number formats: sums that a swap takes stay",
        (
            Change(
                "kernels/numbers_loops.h",
                "        memset(sums, 0, LANES * sizeof(SUM));\n",
                "        if (!planted(HERE)) memset(sums, 0, LANES * sizeof(SUM));\n",
            ),
        ),
        registers=("acc", "out"),
        cases=200,
    ),
    Mutant(
        "input stationary: rows of w stream in reverse",
        (Change("machine/operands.py", "weights.T[start:stop])", "weights.T[start:stop][::-1])"),),
        registers=("activation",),
    ),
)
