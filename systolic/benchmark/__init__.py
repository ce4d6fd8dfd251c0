"""Benchmarks of the emulation as ratios: each measurement is interleaved with its baseline."""

from systolic.benchmark.sections import bench as bench
from systolic.benchmark.sections import suite as suite
from systolic.benchmark.stepping import FloatStepping as FloatStepping
from systolic.benchmark.stepping import NumpyStepping as NumpyStepping
from systolic.benchmark.stepping import OutputStepping as OutputStepping
from systolic.benchmark.timing import Measurement as Measurement
from systolic.benchmark.timing import Section as Section
from systolic.benchmark.timing import compare as compare
from systolic.benchmark.timing import markdown as markdown
from systolic.benchmark.timing import table as table
from systolic.benchmark.timing import title as title
