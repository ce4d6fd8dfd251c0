"""Energy: counts of operations and accesses times a table of energies for each; toggles of registers."""

from systolic.energy.accounts import COMPONENTS as COMPONENTS
from systolic.energy.accounts import Activity as Activity
from systolic.energy.accounts import Energy as Energy
from systolic.energy.accounts import total_pj as total_pj
from systolic.energy.tables import DEFAULT as DEFAULT
from systolic.energy.tables import ENTRIES as ENTRIES
from systolic.energy.tables import TABLES as TABLES
from systolic.energy.tables import EnergyTable as EnergyTable
from systolic.energy.tables import as_table as as_table
from systolic.trace import Toggles as Toggles
