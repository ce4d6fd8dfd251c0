"""Cuts a ``Gemm`` into folds and predicts their cycles in closed form; runs nothing.

A *fold* is one weight tile's stay on the array. Folds run in this order: groups outermost, then
n tiles, then chunks of x (what half the accumulators hold), then k tiles, so that a chunk's sums
are complete before the next chunk begins.

The cycles follow from the clock convention. A tile takes `rows` shift beats; its swap comes with
the first row of x, no earlier than the shift's end and the previous stream's end; the next shift
may begin on the very edge of this swap (double buffering)::

    shift_0 = 0,  swap_i = max(shift_i + rows, swap_{i-1} + m_{i-1}),  shift_{i+1} = swap_i
    cycles  = swap_last + m_last + rows + cols - 2

that is ``rows + sum over all folds but the last of max(m_i, rows) + m_last + rows + cols - 2``.
Without double buffering each fold takes ``2 rows + cols + m - 2`` cycles, one after the other: the
weight-stationary formula of SCALE-Sim (Samajdar et al., arXiv:1811.02883).
"""

from systolic.tiling.estimates import estimate_cycles as estimate_cycles
from systolic.tiling.estimates import estimate_gemm as estimate_gemm
from systolic.tiling.estimates import estimate_many as estimate_many
from systolic.tiling.fold import Fold as Fold
from systolic.tiling.fold import Folds as Folds
from systolic.tiling.fold import Schedule as Schedule
from systolic.tiling.fold import folds as folds
from systolic.tiling.fold import schedule as schedule
