"""A scoreboard for RTL: in lockstep with the emulator, or of a recorded product in local time.

``board`` has the :class:`Scoreboard`, ``lockstep`` steps it beside RTL of other times. ``signals`` has the
map of a design's signals and their times, ``samples`` and ``vcd`` read what simulators give. ``local_time``
says which beat of a product makes which value, ``recorded`` compares them, and ``mistakes`` lists the usual
mistakes, which ``model`` makes on purpose. ``report`` says what was found.
"""

from systolic.cosim.board import Scoreboard as Scoreboard
from systolic.cosim.mistakes import MISTAKES as MISTAKES
from systolic.cosim.mistakes import Mistake as Mistake
from systolic.cosim.report import Finding as Finding
from systolic.cosim.report import Report as Report
from systolic.cosim.report import ScoreboardError as ScoreboardError
from systolic.cosim.report import WrongValue as WrongValue
from systolic.cosim.signals import Signal as Signal
from systolic.cosim.signals import SignalMap as SignalMap
from systolic.cosim.unpacking import unpack as unpack
from systolic.cosim.vcd import read_vcd as read_vcd
