"""The blocks around the array, a file each: they turn a product into folds, clocks and sums."""

from systolic.machine.control import run_product as run_product
from systolic.machine.ports import PortValues as PortValues
from systolic.machine.ports import ports as ports
