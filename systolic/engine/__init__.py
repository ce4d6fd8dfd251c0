"""Where a model meets a machine: ``matmul``, ``conv2d``, ``run``, ``compile``, and costs without data."""

from systolic.compiler import compile as compile
from systolic.engine.comparisons import Comparison as Comparison
from systolic.engine.comparisons import DataflowCost as DataflowCost
from systolic.engine.comparisons import compare as compare
from systolic.engine.costs import estimate as estimate
from systolic.engine.costs import summary as summary
from systolic.engine.finite import NotFiniteWarning as NotFiniteWarning
from systolic.engine.layer_run import LayerRun as LayerRun
from systolic.engine.networks import Observer as Observer
from systolic.engine.networks import WideSumsWarning as WideSumsWarning
from systolic.engine.networks import run as run
from systolic.engine.products import MODES as MODES
from systolic.engine.products import Result as Result
from systolic.engine.products import conv2d as conv2d
from systolic.engine.products import matmul as matmul
from systolic.engine.program_runs import LayerByLayerWarning as LayerByLayerWarning
from systolic.engine.program_runs import RuntimeShapeWarning as RuntimeShapeWarning
from systolic.engine.results import Run as Run
from systolic.engine.run_report import RunReport as RunReport
