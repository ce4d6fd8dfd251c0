"""The RTL model of the array in SystemVerilog, which equals the emulator in every register on every clock.

:data:`SOURCES` holds its files; :func:`write_rtl` writes them for one array, with a test bench.
"""

from systolic.rtl.sources import DESIGN as DESIGN
from systolic.rtl.sources import SOURCES as SOURCES
from systolic.rtl.writing import write_rtl as write_rtl
