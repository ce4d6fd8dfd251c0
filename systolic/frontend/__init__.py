"""Model files to ``Model`` and back; the formats' packages are imported when they are used."""

from systolic.frontend.costing import PRODUCTS as PRODUCTS
from systolic.frontend.costing import as_model as as_model
from systolic.frontend.costing import costed as costed
from systolic.frontend.costing import read_model as read_model
from systolic.frontend.from_onnx import UnsupportedOperator as UnsupportedOperator
from systolic.frontend.from_onnx import load_onnx as load_onnx
from systolic.frontend.loading import is_program as is_program
from systolic.frontend.loading import load_model as load_model
from systolic.frontend.loading import load_runnable as load_runnable
from systolic.frontend.to_onnx import save_onnx as save_onnx
