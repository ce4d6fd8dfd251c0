"""Bugs to plant in the RTL, one change each, and where the comparison must see each one first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from support.rtl.twin import MODELS, SOURCES
from systolic.config import ArrayConfig

# Every bug is planted in an array of this size.
ROWS, COLS = 4, 3


@dataclass(frozen=True)
class RtlMutant:
    """One replacement in one file, whose old text must occur exactly once.

    Attributes
    ----------
    name, file, old, new : str
    seen : tuple of str
        The signals in which the first difference may show.
    signed, double_buffered : bool
        Parameters of the array it is planted in; `signed` is the weights'.
    held : bool
        Whether that is the output-stationary one.
    """

    name: str
    file: str
    old: str
    new: str
    seen: tuple[str, ...]
    signed: bool = True
    double_buffered: bool = True
    held: bool = False

    @property
    def config(self) -> ArrayConfig:
        """The array it is planted in."""
        return mutant_config(self.signed, self.double_buffered, self.held)

    def plant(self, folder: Path) -> None:
        """Copy the sources with the change made."""
        folder.mkdir(parents=True)
        model = MODELS[self.config.dataflow]
        for name in model.design:
            shutil.copy(SOURCES / name, folder)
        text = (folder / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.file} holds {self.old!r} {text.count(self.old)} times, not once"
            )
        (folder / self.file).write_text(text.replace(self.old, self.new))


def mutant_config(signed: bool = True, double_buffered: bool = True, held: bool = False) -> ArrayConfig:
    """Return the array that mutants are planted in."""
    weight = "int8" if signed else "uint8"
    return ArrayConfig(
        ROWS, COLS, weight_dtype=weight, double_buffered=double_buffered, accumulator_rows=13,
        dataflow="output_stationary" if held else "weight_stationary",
    )  # fmt: skip


_SHIFTED = ("next_weight", "weight_pass")
_PE, _GRID, _ACC, _FOLD = "pe.sv", "systolic_array.sv", "accumulators.sv", "fold_controller.sv"
_OUT_PE, _OUT_GRID, _OUT_FOLD = "output_pe.sv", "output_array.sv", "output_controller.sv"

MUTANTS = (
    # The PE's registers.
    RtlMutant("weight is not kept after the swap", _PE,
              "weight <= used;", "weight <= weight;", ("weight",)),
    RtlMutant("weight_pass dropped: the chain moves at once", _PE,
              "weight_pass <= next_weight;", "weight_pass <= arriving_weight;", ("weight_pass",)),
    RtlMutant("weight_pass moves without a shift", _PE,
              "weight <= used;", "weight <= used; weight_pass <= next_weight;", ("weight_pass",)),
    RtlMutant("next_weight not reset", _PE,
              "            next_weight <= 8'd0;\n", "", ("next_weight",)),
    RtlMutant("swap reset to 1", _PE,
              "swap        <= 1'b0;", "swap        <= 1'b1;", ("swap",)),
    RtlMutant("shift one beat late", _PE,
              "if (arriving_shift) begin", "if (shift) begin", _SHIFTED),
    RtlMutant("swap one beat late", _PE,
              "used = arriving_swap ?", "used = swap ?", ("weight", "psum")),
    RtlMutant("shift before swap on the same edge", _PE,
              "arriving_swap ? next_weight", "arriving_swap ? (arriving_shift ? arriving_weight : next_weight)",
              ("weight",)),
    RtlMutant("psum multiplies with the old weight", _PE,
              "factor_w = {{24{WEIGHT_SIGNED && used[7]}}, used}",
              "factor_w = {{24{WEIGHT_SIGNED && weight[7]}}, weight}", ("psum",)),
    RtlMutant("psum multiplies with the old activation", _PE,
              "factor_a = {{24{ACTIVATION_SIGNED && arriving_activation[7]}}, arriving_activation}",
              "factor_a = {{24{ACTIVATION_SIGNED && activation[7]}}, activation}", ("psum",)),
    # Arithmetic.
    RtlMutant("activation unsigned for signed", _PE,
              "ACTIVATION_SIGNED && arriving_activation[7]", "ACTIVATION_SIGNED && 1'b0", ("psum",)),
    RtlMutant("weight signed for unsigned", _PE,
              "WEIGHT_SIGNED && used[7]", "used[7]", ("psum",), signed=False),
    RtlMutant("product cut to 15 bits", _PE,
              "arriving_psum + factor_a * factor_w",
              "arriving_psum + 32'(signed'(15'(factor_a * factor_w)))", ("psum",)),
    RtlMutant("psum saturates at the top", _PE,
              "psum       <= arriving_psum + factor_a * factor_w;",
              "psum       <= !arriving_psum[31] && !(factor_a[31] ^ factor_w[31]) "
              "&& (arriving_psum + factor_a * factor_w) >= 32'h8000_0000 "
              "? 32'h7fff_ffff : arriving_psum + factor_a * factor_w;", ("psum",)),
    # Wires between PEs and at the ports.
    RtlMutant("swap taken from above, not from the left", _GRID,
              "arriving_swap       = row[r].col[c-1].swap",
              "arriving_swap       = row[r > 0 ? r-1 : 0].col[r > 0 ? c : c-1].swap", ("weight", "swap", "psum")),
    RtlMutant("weights taken from next_weight above", _GRID,
              "arriving_weight = row[r-1].col[c].weight_pass", "arriving_weight = row[r-1].col[c].pe.next_weight",
              ("next_weight",)),
    RtlMutant("north psum port left open", _GRID,
              "arriving_psum   = north_psum[32*c+:32]", "arriving_psum   = 32'd0", ("psum",)),
    RtlMutant("west ports not skewed", "skew.sv",
              ".DEPTH(p)", ".DEPTH(WIDTH == 10 ? 0 : p)", ("west shift",)),
    RtlMutant("north weights one row early in the last column", "skew.sv",
              ".DEPTH(p)", ".DEPTH(WIDTH == 8 && p == LANES - 1 ? p - 1 : p)",
              ("next_weight", "north weight")),
    # Accumulators.
    RtlMutant("sums taken one cycle early", _ACC,
              ".DEPTH(ROWS)", ".DEPTH(ROWS - 1)", ("accumulator", "accumulator write", "controller cycles")),
    RtlMutant("the first k tile adds too", _ACC,
              "(first ? 32'd0 : sums[address])", "sums[address]", ("accumulator",)),
    RtlMutant("one half only", _ACC,
              "(half ? HALF_ROWS : 0)", "(half ? 0 : 0)", ("accumulator",)),
    RtlMutant("a short tile writes all columns", _ACC,
              "valid && c < 32'(cols)", "valid", ("accumulator", "accumulator write")),
    # The fold controller.
    RtlMutant("the tile enters top row first", _FOLD,
              "w_row = LAST_ROW - beat", "w_row = beat",
              ("controller w_read", "controller w_address", "north weight", "next_weight")),
    RtlMutant("one shift beat too many", _FOLD,
              "BEATS    = 16'(ROWS)", "BEATS    = 16'(ROWS + 1)", ("west activation", "west swap", "west shift")),
    RtlMutant("the swap does not wait for the stream before", _FOLD,
              "shift_beat == BEATS && stream_left == 16'd0", "shift_beat == BEATS", ("west swap", "west activation")),
    RtlMutant("the next shift begins a cycle after the swap", _FOLD,
              "!next_valid || swap", "!next_valid", ("west shift",)),
    RtlMutant("the next shift begins before the array is drained", _FOLD,
              "DRAIN    = 16'(ROWS + COLS - 2)", "DRAIN    = 16'(ROWS + COLS - 3)",
              ("controller drain_left",), double_buffered=False),
    RtlMutant("double buffered though it should not be", _FOLD,
              "fold_ready = DOUBLE_BUFFERED ?", "fold_ready = 1'b1 ?", ("west shift",),
              double_buffered=False),
    RtlMutant("cycles count one too few", _FOLD,
              "cycles <= cycle;", "cycles <= cycle - 32'd1;", ("controller cycles",)),
    # Output stationary.
    RtlMutant("output: swap one beat late", _OUT_PE,
              "if (arriving_swap) out <= acc;", "if (swap) out <= acc;", ("out",), held=True),
    RtlMutant("output: the swap takes the sum of its own edge along", _OUT_PE,
              "if (arriving_swap) out <= acc;", "if (arriving_swap) out <= acc + factor_a * factor_w;",
              ("out",), held=True),
    RtlMutant("output: a sum goes on after the swap", _OUT_PE,
              "(arriving_swap ? 32'd0 : acc) + factor_a", "acc + factor_a", ("acc",), held=True),
    RtlMutant("output: a drain goes before a swap", _OUT_PE,
              "            if (arriving_swap) out <= acc;\n            else if (arriving_drain) out <= arriving_out;\n",
              "            if (arriving_drain) out <= arriving_out;\n            else if (arriving_swap) out <= acc;\n",
              ("out",), held=True),
    RtlMutant("output: out_pass moves without a drain", _OUT_PE,
              "if (arriving_drain) out_pass <= out;", "out_pass <= out;", ("out_pass",), held=True),
    RtlMutant("output: out_pass takes what arrives", _OUT_PE,
              "if (arriving_drain) out_pass <= out;", "if (arriving_drain) out_pass <= arriving_out;",
              ("out_pass",), held=True),
    RtlMutant("output: out_pass not reset", _OUT_PE,
              "            out_pass   <= 32'd0;\n", "", ("out_pass",), held=True),
    RtlMutant("output: weight multiplies a beat late", _OUT_PE,
              "factor_w = {{24{WEIGHT_SIGNED && arriving_weight[7]}}, arriving_weight}",
              "factor_w = {{24{WEIGHT_SIGNED && weight[7]}}, weight}", ("acc",), held=True),
    RtlMutant("output: weight signed for unsigned", _OUT_PE,
              "WEIGHT_SIGNED && arriving_weight[7]", "arriving_weight[7]", ("acc",), signed=False, held=True),
    RtlMutant("output: the chain taken from out above", _OUT_GRID,
              "row[r-1].col[c].out_pass", "row[r-1].col[c].out", ("out",), held=True),
    RtlMutant("output: north out port left open", _OUT_GRID,
              "arriving_out    = north_out[32*c+:32]", "arriving_out    = 32'd0", ("out",), held=True),
    RtlMutant("output: a fold ends while sums still drain", _OUT_FOLD,
              "open && left == 16'd0 && drain_left == 16'd0", "open && left == 16'd0", ("west swap",), held=True),
    RtlMutant("output: one drain beat too few", _OUT_FOLD,
              "drain_left <= LAST_ROW;", "drain_left <= LAST_ROW - 16'd1;",
              ("controller drain_left",), held=True),
    RtlMutant("output: a late fold does not wait for the drain", _OUT_FOLD,
              "(!open && drain_left == 16'd0)", "!open", ("west swap", "west activation"), held=True),
    RtlMutant("output: rows of sums are numbered in the order in which they leave", _OUT_FOLD,
              "write_row  = ends ? LAST_ROW : drain_left - 16'd1",
              "write_row  = ends ? 16'd0 : 16'(ROWS) - drain_left",
              ("controller write_row", "controller write"), held=True),
    RtlMutant("output: single-buffered folds begin a cycle early", _OUT_FOLD,
              "REST     = 16'(2 * ROWS + COLS - 3)", "REST     = 16'(2 * ROWS + COLS - 4)",
              ("controller rest_left",), double_buffered=False, held=True),
)  # fmt: skip
