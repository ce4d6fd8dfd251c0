"""What was recorded each cycle: chosen registers of chosen PEs in a window; as text, VCD, plot."""

from systolic.trace.recording import Trace as Trace
