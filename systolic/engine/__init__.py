"""Where a model meets a machine: ``matmul``, ``conv2d``, ``run`` and ``estimate``."""

from systolic.engine.networks import LayerRun as LayerRun
from systolic.engine.networks import Observer as Observer
from systolic.engine.networks import Run as Run
from systolic.engine.networks import estimate as estimate
from systolic.engine.networks import run as run
from systolic.engine.products import MODES as MODES
from systolic.engine.products import Result as Result
from systolic.engine.products import conv2d as conv2d
from systolic.engine.products import matmul as matmul
