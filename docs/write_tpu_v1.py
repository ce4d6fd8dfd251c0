"""Write docs/tpu-v1.md, the TPU v1's published tables beside ours: python docs/write_tpu_v1.py"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from systolic._show.table import Table
from systolic.accelerators import Validation, stand_ins, tpu_v1, validate_tpu_v1

PAGE = Path(__file__).with_name("tpu-v1.md")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(table: Table) -> str:
    """Return a table as Markdown, its note below."""
    rows = [
        [column.show(value) for column, value in zip(table.columns, row, strict=True)] for row in table.rows
    ]
    numbers = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    rule = ("---:" if number else "---" for number in numbers)
    lines = [_line(column.name for column in table.columns), f"|{'|'.join(rule)}|", *map(_line, rows)]
    if isinstance(table.footer, str):
        lines += ["", table.footer.replace("\n", " ")]
    return "\n".join(lines)


def _rules() -> str:
    """Return the rules of the stand-ins as they stand in the module."""
    text = inspect.getdoc(stand_ins)
    return text[text.index("1. ") :].strip()


def _wrapped(text: str) -> str:
    """Return a page whose paragraphs and list items are broken at 118 columns."""
    blocks: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        alone = not line.strip() or line.startswith(("|", "#"))
        if alone or not inside or re.match(r"- |\d+\. ", line):
            blocks.append([line])
        else:
            blocks[-1].append(line)
        inside = not alone
    made = []
    for block in blocks:
        indent = re.match(r"(- |\d+\. )?", block[0])[0]
        if block[0].startswith("|"):
            made.append(block[0])
        else:
            joined = " ".join(" ".join(block).split())
            made.append(
                textwrap.fill(
                    joined, 118, subsequent_indent=" " * len(indent), break_long_words=False,
                    break_on_hyphens=False,
                )
            )  # fmt: skip
    return "\n".join(made) + "\n"


class _Numbers:
    """Figures for sentences."""

    def __init__(self, found: Validation) -> None:
        self.tables = {key: table.to_dicts() for key, table in found.tables.items()}

    def row(self, table: str, **which: object) -> dict[str, object]:
        """Return the one row with these values."""
        (found,) = (
            row for row in self.tables[table] if all(row[name] == value for name, value in which.items())
        )
        return found

    def of(self, application: str, key: str, column: str = "ours") -> float:
        """Return a figure of table 3."""
        return self.row(f"table_3_{application}", row=tpu_v1.TABLE_3[key].name)[column]


def page(found: Validation | None = None) -> str:
    """Return the page."""
    found = found or validate_tpu_v1()
    tables = {key: _markdown(table) for key, table in found.tables.items()}
    n, fill = _Numbers(found), {name: each.useful_share_of_active for name, each in found.counters.items()}
    published = {name: tpu_v1.TABLE_3["useful"][name] / tpu_v1.TABLE_3["active"][name] for name in fill}
    met = len(found.checks) - len(found.failures)
    missed = ", ".join(check.name for check in found.failures) or "none"
    cnn1 = n.row("throughput", application="CNN1")
    means, has = "TeraOps/s they mean by table 1", "TeraOps/s in table 3"
    tile = {name: n.row("cycles_per_tile", application=name) for name in tpu_v1.APPLICATIONS}
    rate = {name: n.row("rates", application=name) for name in tpu_v1.APPLICATIONS}
    peak = "published, % of peak"
    variant = {row["machine"]: row for row in n.tables["what_if"] if row["time"] == "program"}
    exercise = {row["time"]: row["us"] for row in n.tables["exercise_7_2"]}
    weights = exercise["weights in closed form: 5 x 2048 x 2048 bytes at 30 GiB/s"]
    cycles = [f"{row['cycles per tile published']:.0f}" for name, row in tile.items() if name != "CNN0"]
    side = found.stand_ins["MLP1"].steps[0].inputs
    alone = n.row("batch", batch=200)
    together = exercise["program: together"]
    raw = max(n.of(name, "raw_stall") for name in tile)
    go = {**n.row("unified_buffer", application="CNN0"), **n.row("non_matrix", application="CNN0")}
    stand_in_table, _, _ = tables["stand_ins"].partition("\n\n")
    return _wrapped(
        f"""\
# The TPU v1 beside its paper

What `presets.TPU_V1` with its memories does, beside what was measured on the chip: {tpu_v1.CITATION}. Every
published figure here is from that paper or is arithmetic on its figures;
`systolic/accelerators/tpu_v1.py` has each with its source. `systolic validate tpu-v1` prints these tables,
with `--json` for programs, and ends with status 1 if a wanted figure is missed. `docs/write_tpu_v1.py`
writes this page from the same functions.

- The machine, its instructions and how they are timed: [programs.md](programs.md). The numbers of the
  preset, with their sources: `systolic/presets.py`.
- Nothing is fitted. The numbers of the preset are the paper's, or have a reason that does not depend on its
  measurements; the stand-ins below follow from the paper's table 1.
- {met} of {len(found.checks)} wanted figures are met; missed: {missed}.

{_markdown(found.check_table())}

*Scaled* shares are explained under [table 3](#table-3). Mini-TPU is another open simulator; it prints these
counts for three small programs.

## Stand-ins

The six applications are not public. Table 1 of the paper gives their layers, weights, batch size and how
often each weight byte is used. These rules turn that into layers with sizes. They were fixed before anything
was timed, and are the same for all six:

{_rules()}

{stand_in_table}

{chr(10).join(f"- **{name}.** {each.reasoning}" for name, each in found.stand_ins.items())}

`accelerators.stand_in(name)` returns one as data, `accelerators.model_of` as a `Model` with random
weights.

## Table 3

Shares of all cycles in percent; the causes are those of [programs.md](programs.md). *Ours* is one batch,
from the first instruction to the last result in host memory. *Scaled* leaves out what kept the array waiting
for anything but weights: it is the share of the cycles in which the array is active or waits for weights,
times one minus the *published* non-matrix share. RAW stalls and input data stalls are part of non-matrix time
and have no scaled value.

{chr(10).join(f"### {name}{chr(10)}{chr(10)}{tables[f'table_3_{name}']}{chr(10)}" for name in tile)}
### Where we miss, and why

- **Non-matrix time is too short**, everywhere. The machine here waits for rows, so that a layer's first
  tiles run while the last results of the layer before are on their way; the TPU's programs synchronize
  explicitly, and where they do is not published. With a Sync between all layers (the table below), CNN0
  comes close: {go["with a Sync"]:.1f} percent non-matrix and {go["active with a Sync"]:.1f} active. Where
  weights bound the time it changes little: tiles arrive meanwhile. The rest may be any of what is not
  modelled, listed at the end.
- **RAW stalls** are at most {raw:.1f} percent here for the same reason. **Input data stalls** are the time
  until a batch's first activations arrive; nothing precedes the batch that could hide it.
- **MLP1, active and unused.** Square layers of {side} fill 25 tiles each to {100 * fill["MLP1"]:.0f} percent;
  the real layers fill theirs to {100 * published["MLP1"]:.0f}. Widths are not published.
- **LSTM0 and LSTM1 have too few active cycles.** With activations of 16 bits, which stream at half speed,
  their scaled shares come within 3 points of all three rows. There is a sign of that in the paper: TeraOps/s
  over the peak, {rate["LSTM0"][peak]:.1f} and {rate["LSTM1"][peak]:.1f} percent, are half of the useful row
  for these two and for no other. But the paper does not say so, nor does table 1, and the stand-ins stay at
  8 bits. LSTM1's useful share of its active cycles, {fill["LSTM1"]:.3f}, follows from its 600 x 600
  matrices; the chip measured {published["LSTM1"]:.3f}.
- **CNN0.** Its 236 channels fill a tile to {100 * fill["CNN0"]:.0f} percent; the real ones leave nothing
  unused. Stalls are right: none.
- **CNN1 is missed**: active cycles by {n.of("CNN1", "active", "scaled difference"):+.1f} points and weight
  stalls by {n.of("CNN1", "weight_stall", "scaled difference"):+.1f}, scaled. The next sections say why.

{tables["non_matrix"]}

## What the stall and shift rows say

Table 3 does not list the time for a tile of weights, but its rows contain it.

{tables["cycles_per_tile"]}

The published rows mean {", ".join(cycles[:-1])} and {cycles[-1]} cycles for a tile that the array waits for;
reading 65,536 bytes at 34 GB/s takes 1350. That holds for CNN1 as well: its weight-bound tiles cost what the
bandwidth says. What differs is how many there are. They take
{tile["CNN1"]["weight-bound published, %"]:.0f} percent of the matrix unit's time on the chip, and
{tile["CNN1"]["weight-bound ours, %"]:.1f} percent here, as if the chip's four fully connected layers held far
more than an equal share of the weights. Table 1 does not tell.

## Operations per second, and table 7

{tables["rates"]}

*Designers' model* is table 7: how far the designers' own model was from the counters. The last two columns
compare the paper with itself. TeraOps/s are from production runs, the other rows of table 3 from counters,
and the paper calls the two not perfectly consistent.

## Table 4 and inferences per second

{tables["batch"]}

The published response time is the 99th percentile under load, with queues and the host. The machine alone
takes {alone["ms per batch"]:.2f} ms for 200 examples, hardly more than for 8: until a tile
is used 1350 times, the time is that of reading 320 tiles. A batch of 2048 has the throughput of one of 1350.

{tables["throughput"]}

*With host* adds the host's share of table 5 to our time. The last two columns compare the paper with itself:
inferences per second times the MACs of table 1, beside table 3. For CNN1 they differ by a factor of
{cnn1[means] / cnn1[has]:.1f}. Our {cnn1["ours"]:,.0f} inferences/s agree with the 4,700 of the paper, and our
{n.of("CNN1", "tera_ops"):.1f} TeraOps/s with table 1; neither can agree with the 14.1 of table 3.

## Ridge point, and a 600 x 600 matrix

65,536 MACs at 700 MHz and 34 GB/s meet at 1349 MACs for each byte of weights. The paper's example of an
array that is too large:

{tables["example_600"]}

Nine tiles of 64 KiB are read faster than four of 256 KiB, which hold more padding. The program adds the last
tile's shift, stream and drain and an Activate to the time of reading.

## Table 8

{tables["unified_buffer"]}

Ours is the highest row that a program touches: the input and the result of a layer, and what later layers
read. CNN0, whose image size follows from table 1, differs by {go["difference"]:+.1f} MiB. The others hold far
more on the chip than one layer's tensors of one batch; what its compiler keeps there is not published.

## What if

{tables["what_if"]}

- **GDDR5**: the geometric mean of the programs is {variant["GDDR5"]["all"]:.2f}, the paper's 2.6.
- **4x bandwidth**: {variant["4x bandwidth"]["MLP, LSTM"]:.2f} for what waits for weights and
  {variant["4x bandwidth"]["CNN"]:.2f} for what does not. A tile cannot take less than the 256 cycles of its
  shift.
- **4x clock**: nothing for what waits for weights; {variant["4x clock"]["CNN0"]:.2f} for CNN0, which then
  waits for them too.
- **512 x 512**: slower on the whole, {variant["512 x 512"]["all"]:.2f}, as in the paper: reading the same
  weights takes as long, and tiles hold more padding. CNN1's channels happen to fit better.

The second row of each machine keeps the published non-matrix time unchanged, as it would be if the host
caused all of it.

## Exercise 7.2 of Hennessy and Patterson

MLP0 as five layers of 2048 x 2048 with a batch of 128, weights at 30 GiB/s ("Computer Architecture", 6th
edition). The book answers 670 us for weights and products and 20 us each way for activations.

{tables["exercise_7_2"]}

Reading the weights takes {weights:.2f} us in closed form, and the program {together:.2f} us with all
transfers. It reads all activations before its first product and writes all results after its last. While the
activations arrive, the FIFO takes four tiles, and then the weight memory waits; the results hide behind
nothing. The book adds everything up.

## What the paper leaves open

{tables["open"]}

None of the defaults decides a figure above: no latency and no interval between instructions changes a time
by as much as one percent. What does is the bandwidth of the weight memory, which the paper gives as 34 GB/s
in its table 2 and as 30 GiB/s in a figure, and the width of the vector unit where it pools.

## Not modelled

- The host: its time between batches, its share of the link, queues. Table 5 says how long it took.
- DRAM beyond its bandwidth: refresh, rows, the order of accesses.
- The control pipeline beyond one instruction every `issue_cycles`.
- Shapes, order and synchronization of the real programs, which are not public.
- Vector layers beyond one pass over their operands.
"""
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
