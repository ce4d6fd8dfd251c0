"""Probes, which look at registers between edges or change them; the traces, which record them."""

from systolic.trace.probe import Change as Change
from systolic.trace.probe import Probe as Probe
from systolic.trace.recording import Trace as Trace
from systolic.trace.streams import Streams as Streams
from systolic.trace.toggles import Toggles as Toggles
