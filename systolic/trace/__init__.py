"""Probes, which look at registers between edges or change them; the trace, which records them."""

from systolic.trace.probe import Change as Change
from systolic.trace.probe import Probe as Probe
from systolic.trace.recording import Trace as Trace
