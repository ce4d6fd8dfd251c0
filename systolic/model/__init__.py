"""Models: layers in order with named tensors; their shapes, cost, placement and files."""

from systolic.model.archive import LAYERS as LAYERS
from systolic.model.model import Model as Model
from systolic.model.node import Node as Node
from systolic.model.spec import DTYPES as DTYPES
from systolic.model.spec import TensorSpec as TensorSpec
from systolic.model.summaries import Summary as Summary
