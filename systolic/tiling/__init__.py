"""Cuts a ``Gemm`` into folds and predicts their cycles in closed form; runs nothing.

Weight stationary, a *fold* is one weight tile's stay on the array. Folds run in this order: groups
outermost, then n tiles, then chunks of x (what half the accumulators hold), then k tiles, so that a chunk's
sums are complete before the next chunk begins. Input stationary is the same with x and w, m and n exchanged.

The cycles follow from the clock convention. A tile takes `rows` shift beats; its swap comes with
the first row of x, no earlier than the shift's end and the previous stream's end; the next shift
may begin on the very edge of this swap (double buffering)::

    shift_0 = 0,  swap_i = max(shift_i + rows, swap_{i-1} + m_{i-1}),  shift_{i+1} = swap_i
    cycles  = swap_last + m_last + rows + cols - 2

that is ``rows + sum over all folds but the last of max(m_i, rows) + m_last + rows + cols - 2``.
Without double buffering each fold takes ``2 rows + cols + m - 2`` cycles, one after the other: the
weight-stationary formula of SCALE-Sim (Samajdar et al., arXiv:1811.02883).

Output stationary, a fold is one tile of sums, `rows` rows of x by `cols` columns of w over all of k. Folds
run groups outermost, then n tiles, then m tiles. A swap comes with a fold's first operands; the swap of the
next fold, or a closing one, ends it, and its sums take `rows` beats down the drain chain::

    swap_0 = 0,  swap_1 = k,  swap_{i+1} = swap_i + max(k, rows)
    cycles  = swap_last + 2 rows + cols - 2

A single fold, or each without double buffering, takes ``2 rows + cols + k - 2`` cycles: the
output-stationary formula of SCALE-Sim.
"""

from systolic.tiling.estimates import estimate_cycles as estimate_cycles
from systolic.tiling.estimates import estimate_gemm as estimate_gemm
from systolic.tiling.estimates import estimate_many as estimate_many
from systolic.tiling.fold import Fold as Fold
from systolic.tiling.fold import Folds as Folds
from systolic.tiling.fold import Schedule as Schedule
from systolic.tiling.fold import folds as folds
from systolic.tiling.fold import schedule as schedule
from systolic.tiling.fold import sizes_of as sizes_of
from systolic.tiling.traffic import PortBytes as PortBytes
from systolic.tiling.traffic import port_bytes as port_bytes
