"""Timelines as trace events: the JSON that Perfetto and Chrome show, written, and read back with checks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from systolic._files import write_file
from systolic.machine.lanes import Lane, Occupancy
from systolic.machine.spans import CAUSES, Spans

_UNITS, _ARRAY = 1, 2  # processes: the units; what the array did or waited for
_SCHEMA = 1


def write_trace(
    path: str | os.PathLike[str],
    lanes: Sequence[Lane],
    texts: Sequence[str],
    spans: Spans,
    causes: Mapping[str, int],
    occupancy: Mapping[str, Occupancy],
    cycles: int,
) -> None:
    """Write the trace of a timeline, completely or not at all; see ``Timeline.save_trace``."""
    import json

    lines = [
        _name("process_name", _UNITS, 0, "units"),
        _name("process_name", _ARRAY, 0, "array"),
        _name("thread_name", _ARRAY, 1, "cause"),
    ]
    names = [json.dumps(text) for text in texts]
    for tid, lane in enumerate(lanes, 1):
        lines.append(_name("thread_name", _UNITS, tid, lane.unit))
        for number, start, end, complete in zip(*(v.tolist() for v in lane[1:]), strict=True):
            args = f'{{"instruction":{number},"complete":{complete}}}'
            lines.append(_span(_UNITS, tid, lane.unit, names[number], start, end, args))
    causes_shown = [json.dumps(cause) for cause in CAUSES]
    for start, end, code, multiply in zip(*(values.tolist() for values in spans), strict=True):
        lines.append(_span(_ARRAY, 1, "cause", causes_shown[code], start, end, f'{{"multiply":{multiply}}}'))
    for curve in occupancy.values():
        for cycle, used in zip(curve.cycle.tolist(), curve.used.tolist(), strict=True):
            count = {"name": curve.memory, "ph": "C", "ts": cycle, "pid": _UNITS, "args": {curve.unit: used}}
            lines.append(json.dumps(count, separators=(",", ":")))
    stated = {"schema": _SCHEMA, "unit": "1 us is a cycle", "cycles": cycles, "causes": dict(causes)}
    # A line per event keeps the file readable, and its differences small.
    text = '{"traceEvents": [\n' + ",\n".join(lines) + f'\n],\n"otherData": {json.dumps(stated)}}}\n'
    write_file(path, lambda file: file.write(text), "w", encoding="utf-8", newline="")


def _name(kind: str, pid: int, tid: int, name: str) -> str:
    import json

    event = {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
    return json.dumps(event, separators=(",", ":"))


def _span(pid: int, tid: int, category: str, name: str, start: int, end: int, args: str) -> str:
    """Return a span as JSON; `name` and `args` are JSON already."""
    return (
        f'{{"name":{name},"cat":"{category}","ph":"X","ts":{start},"dur":{end - start},"pid":{pid},'
        f'"tid":{tid},"args":{args}}}'
    )


@dataclass(frozen=True)
class TraceFile:
    """A trace that was read and checked.

    Attributes
    ----------
    cycles : int
    causes : dict of str to int
        The cycles of each cause, added up from the events.
    lanes : dict of str to list of (name, start, end)
        The events of each unit, and those of the array as ``"cause"``, in the order of time.
    counters : dict of str to list of (cycle, number)
        By memory.
    """

    cycles: int
    causes: dict[str, int]
    lanes: dict[str, list[tuple[str, int, int]]]
    counters: dict[str, list[tuple[int, int]]]


_KEYS = {
    "M": ("name", "pid", "tid", "args"),
    "X": ("name", "cat", "ts", "dur", "pid", "tid", "args"),
    "C": ("name", "ts", "pid", "args"),
}


def read_trace(path: str | os.PathLike[str]) -> TraceFile:
    """Read a trace that ``Timeline.save_trace`` wrote, and check it.

    Parameters
    ----------
    path : path
        Of a file.

    Raises
    ------
    ValueError
        If it is no JSON of trace events, an event lacks a key or has a negative time, two events of a lane
        overlap, or the durations of a cause do not add up to the cycles that the file states.

    Examples
    --------
    >>> from systolic import presets
    >>> from systolic.isa import Program
    >>> from systolic.machine import read_trace, time_program
    >>> machine = presets.TPU_V1
    >>> timeline = time_program(Program("read_host u#0, 8"), machine)
    >>> timeline.save_trace("trace.json")                                            # doctest: +SKIP
    >>> read_trace("trace.json").causes == timeline.causes                           # doctest: +SKIP
    True
    """
    import json

    name = os.fspath(path)
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name!s} is no JSON: {error}") from None
    try:
        return _checked(content)
    except ValueError as error:
        raise ValueError(f"{name!s} is no trace of a timeline: {error}") from None


def _checked(content: Any) -> TraceFile:
    if not isinstance(content, dict) or not isinstance(content.get("traceEvents"), list):
        raise ValueError('it must hold a list "traceEvents"')
    names: dict[tuple[int, int], str] = {}
    spans: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
    counters: dict[str, list[tuple[int, int]]] = {}
    for number, event in enumerate(content["traceEvents"]):
        kind = event.get("ph") if isinstance(event, dict) else None
        if kind not in _KEYS:
            raise ValueError(f"event {number} must have a phase ph of {', '.join(_KEYS)}, not {kind!r}")
        missing = [key for key in _KEYS[kind] if key not in event]
        if missing:
            raise ValueError(f"event {number} ({kind}) lacks {', '.join(missing)}")
        for key in ("ts", "dur", "pid", "tid"):
            if key in event and (type(event[key]) is not int or event[key] < 0):
                raise ValueError(f"event {number}: {key} must be a non-negative integer, not {event[key]!r}")
        if kind == "M" and event["name"] == "thread_name":
            names[event["pid"], event["tid"]] = event["args"]["name"]
        elif kind == "X":
            lane = spans.setdefault((event["pid"], event["tid"]), [])
            lane.append((event["ts"], event["ts"] + event["dur"], event["name"]))
        elif kind == "C":
            (value,) = event["args"].values()
            counters.setdefault(event["name"], []).append((event["ts"], value))
    lanes = {}
    for place, events in spans.items():
        if place not in names:
            raise ValueError(f"the lane of process {place[0]} and thread {place[1]} has no thread_name")
        events.sort()
        for (start, end, before), (following, _, after) in pairwise(events):
            if following < end:
                raise ValueError(
                    f"lane {names[place]!r}: {after!r} starts at {following}, while {before!r} lasts from "
                    f"{start} to {end}"
                )
        lanes[names[place]] = [(name, start, end) for start, end, name in events]
    causes = dict.fromkeys(CAUSES, 0)
    for name, start, end in lanes.get("cause", []):
        if name not in causes:
            raise ValueError(f"lane 'cause' has {name!r}, which is no cause")
        causes[name] += end - start
    stated = content.get("otherData")
    if not isinstance(stated, dict) or "cycles" not in stated or "causes" not in stated:
        raise ValueError('it must state cycles and causes in "otherData"')
    if causes != stated["causes"] or sum(causes.values()) != stated["cycles"]:
        raise ValueError(
            f"its events last {causes}, together {sum(causes.values())}, but it states "
            f"{stated['causes']} and {stated['cycles']} cycles"
        )
    return TraceFile(stated["cycles"], causes, lanes, counters)
