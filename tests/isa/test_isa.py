"""Instructions as values, bytes and text: each form gives the others back, and damage is named."""

from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import examples, raises
from systolic import isa
from systolic.isa import (
    INSTRUCTIONS,
    Function,
    HostTensor,
    Instruction,
    Program,
    Section,
    Symbol,
    assemble,
    decode,
    disassemble,
)  # fmt: skip
from systolic.isa.instructions import OPERANDS, Field, Patterns, encode

NUMBERS = {
    "row": lambda field: st.sampled_from((0, 1, 256**field.size - 1)) | st.integers(0, 256**field.size - 1),
    "count": lambda field: st.sampled_from((1, 256**field.size - 1)) | st.integers(1, 256**field.size - 1),
}
PATTERNS = st.lists(
    st.tuples(st.integers(1, 2**32 - 1), st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=4
).map(tuple)
RANGES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)), max_size=4).map(tuple)


def values(kind: type[Instruction], field: Field) -> st.SearchStrategy[Any]:
    if field.kind == "pattern":
        return PATTERNS if kind is isa.Convolve else st.none() | PATTERNS
    if field.kind == "ranges":
        return RANGES
    if field.kind == "rows":
        return st.lists(st.integers(0, 256**field.size - 1), min_size=1, max_size=5).map(tuple)
    if field.kind == "operand":
        return st.sampled_from(OPERANDS)
    return NUMBERS["count" if field.kind == "count" else "row"](field)


def instruction(kind: type[Instruction]) -> st.SearchStrategy[Instruction]:
    fields = {field.name: values(kind, field) for field in kind.layout}
    return st.builds(kind, **fields, **{flag: st.booleans() for flag in kind.flags})


ANY = st.sampled_from(INSTRUCTIONS).flatmap(instruction)
LISTS = st.lists(ANY.filter(lambda item: not isinstance(item, isa.Halt)), max_size=12)


@examples(4)
@given(LISTS)
def test_bytes_and_text_give_the_instructions_back(items: list[Instruction]) -> None:
    patterns = Patterns()
    code = b"".join(encode(item, patterns) for item in items)
    assert decode(code, tuple(patterns.table)) == tuple(items)
    assert assemble(disassemble(items)) == tuple(items)


@pytest.mark.parametrize("kind", INSTRUCTIONS, ids=lambda kind: kind.__name__)
def test_every_instruction_is_in_both_tables(kind: type[Instruction]) -> None:
    assert [k for k in INSTRUCTIONS if k.opcode == kind.opcode or k.mnemonic == kind.mnemonic] == [kind]
    assert {field.name for field in kind.layout} | set(kind.flags) == {
        f.name for f in dataclasses.fields(kind)
    }
    assert len(kind.flags) <= 8


def test_multiplies_have_the_papers_widths() -> None:
    """Jouppi et al., section 2: 12 bytes; 3 address the unified buffer, 2 the accumulators, 4 are a length."""
    (multiply,) = decode(encode(isa.MatrixMultiply(2**24 - 1, 2**16 - 1, 2**32 - 1), Patterns()))
    assert [field.size for field in multiply.layout] == [3, 2, 4]
    for item in (multiply, isa.Convolve(0, 0, ((2, 3),))):
        assert len(encode(item, Patterns())) == 12


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ff 00 00", "instruction 0, at byte 0: unknown opcode 255; there are 1 to 12"),
        ("0b 00 00 0a", "instruction 1, at byte 3: Sync ends after 4 bytes, in the middle"),
        ("0b 01 00", "instruction 0, at byte 0: Nop has the flags 0x1 and 0x0, which mean nothing"),
        ("0b 00 07", "instruction 0, at byte 0: Nop has the flags 0x0 and 0x7, which mean nothing"),
        ("04 01 00 00 00 00 00 00 00 00 00 00", "MatrixMultiply: rows must be a positive integer, not 0"),
        ("05 01 00 00 00 00 00 00 01 00 00 00", "pattern 1 of a table of 0"),
        ("05 01 00 00 00 00 00 00 00 00 00 00", "Convolve: pattern must hold 1 to 4 pairs"),
        ("09 00 00 00 09", "weight 9 is no operand type; there are 0 to 3"),
    ],
)
def test_damaged_code_is_named(code: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        decode(bytes.fromhex(code))


@examples(2)
@given(LISTS, st.data())
def test_cut_code_is_refused_or_a_shorter_program(items: list[Instruction], data: st.DataObject) -> None:
    patterns = Patterns()
    parts = [encode(item, patterns) for item in items]
    code = b"".join(parts)
    cut = data.draw(st.integers(0, len(code)))
    whole = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    if cut in whole:
        assert decode(code[:cut], tuple(patterns.table)) == tuple(items[: whole.index(cut)])
    else:
        with pytest.raises(
            ValueError, match=f"instruction {sum(place <= cut for place in whole) - 1}, at byte"
        ):
            decode(code[:cut], tuple(patterns.table))


TEXTS = {
    "foo u#1": (1, "unknown mnemonic 'foo'; there are read_host, write_host"),
    "  matmul a#0, u#0": (3, "matmul lacks a number of rows"),
    "matmul a#0, a#1, 16": (13, "matmul has its acc twice"),
    "matmul x#0, u#1, 16": (8, "matmul takes u#, a#, a number of rows, same_weights, accumulate, not 'x#0'"),
    "read_host u#0, 0": (1, "ReadHost: rows must be a positive integer, not 0"),
    "host_call f#0, reads (u#0:16), writes ()": (23, "reads holds h#first:rows, not 'u#0:16'"),
    "vector u#0, inputs (h#1), 4, f#0": (21, "inputs holds u#row, not 'h#1'"),
    "activate u#1, a#2, 3, 5*2*3": (23, "not '5*2*3'"),
    "sync 5": (6, "sync takes no operands, not '5'"),
    "matmul a#70000, u#0, 1": (1, "MatrixMultiply: acc must be an integer of at most 65535, not 70000"),
    "set_configuration int8 x int9": (
        1,
        "SetConfiguration: weight must be one of 'int8', 'uint8', 'int16', 'uint16'",
    ),
    "matmul a#0,, u#0, 1": (12, "not ''"),
}


@pytest.mark.parametrize("line", TEXTS)
def test_wrong_text_is_named_with_line_and_column(line: str) -> None:
    column, message = TEXTS[line]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        assemble(f"nop\n\n{line}  ; a comment")
    assert str(error.value).startswith(f"line 3, column {column}: ")
    assert str(error.value).endswith(f"\n  {line}  ; a comment\n  {' ' * (column - 1)}^")


def test_mnemonics_of_hennessy_and_patterson() -> None:
    """Computer Architecture, 6th edition, exercise 7.3: host rows, functions and new weights are left out."""
    program = assemble(
        """
        read_host u#0, 2048
        READ_WEIGHTS w#0, 1   // upper case, and another comment
        matmul a#0, u#0, 2048
        activate u#2048, a#0, 0x800
        write_host u#2048, 2048
        """
    )
    assert program == (
        isa.ReadHost(0, 0, 2048), isa.ReadWeights(0, 1), isa.MatrixMultiply(0, 0, 2048),
        isa.Activate(0, 2048, 2048), isa.WriteHost(2048, 2048, 2048),
    )  # fmt: skip


def test_wrong_fields_of_instructions() -> None:
    with raises(TypeError, "MatrixMultiply: ub must be an integer, not str 'a'"):
        isa.MatrixMultiply("a", 0, 1)
    with raises(ValueError, "MatrixMultiply: ub must be an integer of at most 16777215, not 16777216"):
        isa.MatrixMultiply(2**24, 0, 1)
    with raises(TypeError, "MatrixMultiply: accumulate must be True or False, not int 1"):
        isa.MatrixMultiply(0, 0, 1, accumulate=1)
    with raises(TypeError, "Convolve: pattern must hold 1 to 4 pairs (count, stride), not list []"):
        isa.Convolve(0, 0, [])
    with raises(ValueError, "Vector: inputs must hold at least one row"):
        isa.Vector((), 0, 1, 0)
    with raises(TypeError, "HostCall: reads must hold pairs (first row, rows), not int 5"):
        isa.HostCall(0, [5], [])


def test_patterns_span_their_rows() -> None:
    assert isa.pattern_rows(((3, 30), (4, 1))) == 12
    assert isa.pattern_range(100, ((3, 30), (4, 1))) == (100, 64)
    assert isa.pattern_range(100, ((3, -30), (4, 1))) == (40, 64)
    assert isa.Convolve(0, 0, ((3, 30), (4, 1))).rows == 12


PROGRAM = Program(
    "read_weights w#0, 2\nread_host u#0, 4\nconvolve a#0, u#0, 2*2+2*1\nactivate u#8, a#0, 4, f#1\nhalt",
    functions=[
        Function(),
        Function("pool", pool=4),
        Function("table", kind="pair", attributes={"dtype": "int8"}, arrays={"table": np.arange(3)}),
    ],
    weights=np.arange(8, dtype=np.int8).reshape(2, 2, 2),
    symbols={"x": Symbol("host", 0, 4)},
    inputs={"x": HostTensor(0, (4, 2), "int8", width=2)},
    outputs={"y": HostTensor(4, (1, 2), "float32")},
    sections=[Section("conv", "QLinearConv", 0, 4, macs=16, weight_bytes=7), Section("end", "Halt", 4, 5)],
)


def test_programs_are_values(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(PROGRAM)) == PROGRAM
    PROGRAM.save(tmp_path / "p.zip")
    loaded = Program.load(tmp_path / "p.zip")
    assert loaded == PROGRAM and loaded.patterns == (((2, 2), (2, 1)),)
    assert not loaded.weights.flags.writeable
    assert Program(PROGRAM.listing(), PROGRAM.functions).instructions == PROGRAM.instructions
    assert Program(PROGRAM.instructions, PROGRAM.functions) != PROGRAM
    assert repr(PROGRAM) == "<Program: 5 instructions, 58 bytes, 2 weight tiles>"
    assert [*PROGRAM][-1] == isa.Halt() and PROGRAM[0] == isa.ReadWeights(0, 2) and len(PROGRAM) == 5
    assert "x: host 0, 4 rows" in PROGRAM.listing() and "f#1: pool" in PROGRAM.listing()
    assert PROGRAM.table().to_dicts()[3] == {
        "instruction": 3, "code_bytes": 18, "text": "activate u#8, a#0, 4, f#1", "function": "pool",
    }  # fmt: skip
    assert "activate u#8" in PROGRAM._repr_html_()


def test_wrong_programs() -> None:
    with raises(ValueError, "instruction 1, 'nop', follows a halt"):
        Program("halt\nnop")
    with raises(
        ValueError,
        "instruction 0, 'activate u#0, a#0, 1, f#1', uses function 1, but the table has 1; pass functions=",
    ):
        Program("activate u#0, a#0, 1, f#1")
    with raises(ValueError, "function 0 must be the identity, Function(), not Function('f')"):
        Program("nop", functions=[Function("f")])
    with raises(TypeError, "instruction 0 must be an Instruction, not int 5"):
        Program([5])
    with raises(TypeError, "symbols must map names to Symbol, not 'a' to int 3"):
        Program("nop", symbols={"a": 3})
    with raises(TypeError, "inputs must map names to HostTensor, not 'a' to int 3"):
        Program("nop", inputs={"a": 3})
    with raises(
        ValueError,
        "section 'b' holds instructions 0 to 1, but sections follow each other among 1 instructions",
    ):
        Program("nop", sections=[Section("b", "Gemm", 0, 2)])
    with raises(ValueError, "macs must be a non-negative integer, not -1"):
        Section("b", "Gemm", 0, 2, macs=-1)


@examples(4)
@given(st.data())
def test_tensors_of_host_memory_give_their_values_back(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5)))
    dtype = data.draw(st.sampled_from(("int8", "uint8", "float32", "int64", "bool")))
    options: dict[str, Any] = {}
    if dtype in ("int8", "uint8") and data.draw(st.booleans()):
        options = {"width": data.draw(st.integers(1, 4)), "fill": data.draw(st.integers(0, 127))}
        options["axis"] = data.draw(st.sampled_from((1, -1) if len(shape) > 1 else (-1,)))
        if len(shape) == 4 and options["axis"] == 1:
            options["border"] = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    tensor = HostTensor(0, shape, dtype, **options)
    count = int(np.prod(shape))
    values = np.random.default_rng(count).integers(0, 100, shape).astype(dtype)
    rows = tensor.pack(values, row_bytes=4)
    assert rows.shape == (tensor.rows(4), 4) and rows.dtype == np.uint8
    assert np.array_equal(tensor.unpack(rows), values) and tensor.unpack(rows).dtype == values.dtype
    assert HostTensor.from_dict(tensor.to_dict()) == tensor
    if "border" in options:  # pixel by pixel, from the definition
        top, left, bottom, right = tensor.border
        padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=tensor.fill)
        flat = padded.transpose(0, 2, 3, 1).reshape(-1, shape[1])
        for channel in range(shape[1]):
            block, lane = divmod(channel, tensor.width)
            first = block * tensor.block_rows
            part = rows[first : first + tensor.block_rows, lane].view(dtype)
            assert part.tolist() == flat[:, channel].tolist()


def test_wrong_tensors_of_host_memory() -> None:
    with raises(ValueError, "only tensors of int8 or uint8 lie in blocks of channels, not float32"):
        HostTensor(0, (1, 2), "float32", width=2)
    with raises(ValueError, "a border needs images, of four axes, not (1, 2)"):
        HostTensor(0, (1, 2), "int8", width=2, border=(1, 0, 0, 0))
    with raises(ValueError, "axis must be 1 or -1, an axis of (3,), not 1"):
        HostTensor(0, (3,), "int8", width=2, axis=1)


@examples(2)
@given(st.data())
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("programs") / "p.zip"
    PROGRAM.save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = Program.load(path)
    except ValueError as error:
        assert "is not a systolic program, or is damaged" in str(error)
    else:
        assert loaded == PROGRAM  # a byte that zip does not read, such as a date


def test_what_is_no_code_and_no_path() -> None:
    for wrong in ("halt", 5, None):
        with raises(TypeError, f"code must be bytes, not {type(wrong).__name__} {wrong!r}; assemble takes text"):
            Program.decode(wrong)  # type: ignore[arg-type]
    halt = Program("halt")
    assert Program.decode(bytearray(halt.encode())) == Program.decode(memoryview(halt.encode())) == halt
    with raises(TypeError, "path must be a str or a pathlib.Path, not int 3"):
        Program.load(3)  # type: ignore[arg-type]  # and not the open file of that number


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Program.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a folder; Program.save writes the files"):
        Program.load(tmp_path)
