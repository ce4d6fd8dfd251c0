"""Plans of addresses: no two share a row at once, and the check that says so sees planted overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import examples, raises
from systolic.compiler.allocation import (
    Lifetime,
    check_plan,
    greedy_by_size,
    in_order,
    most_in_use,
    plan,
)


@st.composite
def lifetimes(draw: st.DrawFn) -> list[Lifetime]:
    """Rows in use for some of a few steps, many of them at once."""
    found = []
    for _ in range(draw(st.integers(0, 12))):
        start = draw(st.integers(0, 8))
        found.append(Lifetime(draw(st.integers(0, 9)), start, start + draw(st.integers(0, 8 - start))))
    return found


def shared(spans: list[Lifetime], addresses: list[int]) -> bool:
    """Whether two lifetimes hold one row at one step, row by row and step by step."""
    taken: set[tuple[int, int]] = set()
    for span, first in zip(spans, addresses, strict=True):
        for step in range(span.start, span.stop + 1):
            for row in range(first, first + span.rows):
                if (step, row) in taken:
                    return True
                taken.add((step, row))
    return False


@examples(60)
@given(lifetimes())
def test_plans_share_no_row(spans: list[Lifetime]) -> None:
    for make in (greedy_by_size, in_order):
        assert not shared(spans, make(spans))
    addresses, height = plan(spans)
    assert not shared(spans, addresses)
    ends = [first + span.rows for first, span in zip(addresses, spans, strict=True)]
    assert height == max(ends, default=0)
    at, most = most_in_use(spans)
    used = [sum(span.rows for span in spans if span.start <= step <= span.stop) for step in range(10)]
    assert most == max(used) and (not spans or used[at] == most)
    assert most <= height <= sum(span.rows for span in spans)


@examples(120)
@given(lifetimes(), st.data())
def test_the_check_agrees_with_counting_rows(spans: list[Lifetime], data: st.DataObject) -> None:
    """Of any addresses, most of which collide."""
    addresses = [data.draw(st.integers(0, 20)) for _ in spans]
    ends = max((first + span.rows for first, span in zip(addresses, spans, strict=True)), default=0)
    if shared(spans, addresses):
        with pytest.raises(AssertionError, match="are in use by allocations"):
            check_plan(spans, addresses, ends)
    else:
        check_plan(spans, addresses, ends)


@examples(40)
@given(lifetimes().filter(lambda spans: any(span.rows for span in spans)), st.data())
def test_a_planted_overlap_is_seen(spans: list[Lifetime], data: st.DataObject) -> None:
    """One allocation moved onto a row that another one has at a step of both."""
    addresses, _ = plan(spans)
    pairs = [
        (i, j)
        for i, one in enumerate(spans)
        for j, two in enumerate(spans)
        if i != j and one.rows and two.rows and one.start <= two.stop and two.start <= one.stop
    ]
    if not pairs:
        return
    moved, onto = data.draw(st.sampled_from(pairs))
    addresses[moved] = addresses[onto] + data.draw(st.integers(0, spans[onto].rows - 1))
    with pytest.raises(AssertionError, match=r"^step \d+: rows \d+ to \d+ are in use by allocations"):
        check_plan(spans, addresses, 10**6)


def test_addresses_beyond_the_limit() -> None:
    with raises(AssertionError, "allocation 0, rows 3 to 6, is beyond a limit of 6 rows"):
        check_plan([Lifetime(4, 0, 1)], [3], 6)
    with raises(AssertionError, "1 allocations, but 0 addresses"):
        check_plan([Lifetime(4, 0, 1)], [], 6)
