"""Published tables of the TPU v1 agree with themselves."""

from __future__ import annotations

import json
import pickle

import pytest

from support.strategies import raises
from systolic import presets
from systolic.accelerators import tpu_v1
from systolic.accelerators.tpu_v1 import APPLICATIONS, TABLE_1, TABLE_3, Figures

ROWS = [*TABLE_1.values(), *TABLE_3.values(), tpu_v1.TABLE_5, tpu_v1.TABLE_7, tpu_v1.TABLE_8]
OTHERS = [value for value in vars(tpu_v1).values() if isinstance(value, Figures)]


@pytest.mark.parametrize("figures", [*ROWS, *OTHERS], ids=lambda figures: figures.name)
def test_every_figure_has_a_unit_a_source_and_a_status(figures: Figures) -> None:
    assert figures.unit and figures.source and figures.status in tpu_v1.STATUS
    assert json.loads(json.dumps(figures.to_dict()))["values"] == dict(figures)
    assert pickle.loads(pickle.dumps(figures)) == figures


@pytest.mark.parametrize("figures", ROWS, ids=lambda figures: figures.name)
def test_rows_have_all_applications_in_order(figures: Figures) -> None:
    assert tuple(figures) == APPLICATIONS


@pytest.mark.parametrize("name", APPLICATIONS)
def test_table_3_adds_up(name: str) -> None:
    # Rounded to a tenth: each sum of so many figures may be off by half of one for each.
    causes = ("active", "weight_stall", "weight_shift", "non_matrix")
    assert sum(TABLE_3[cause][name] for cause in causes) == pytest.approx(100, abs=0.2)
    assert TABLE_3["useful"][name] + TABLE_3["unused"][name] == pytest.approx(TABLE_3["active"][name], abs=0.15)


@pytest.mark.parametrize("name", ["MLP0", "MLP1", "LSTM0", "LSTM1", "CNN0"])
def test_fully_connected_layers_use_a_weight_once_for_each_example(name: str) -> None:
    images = 361 if name == "CNN0" else 1
    assert TABLE_1["macs_per_weight_byte"][name] == TABLE_1["batch"][name] * images


def test_peak_and_ridge_point_follow_from_the_preset() -> None:
    array, clock = presets.TPU_V1.array, presets.TPU_V1.clock_mhz
    assert 2 * array.rows * array.cols * clock / 1e6 == pytest.approx(tpu_v1.PEAK_TERA_OPS["8 bit"], abs=0.005)
    bandwidth = presets.TPU_V1.memory.weight_bytes_per_second
    assert round(array.rows * array.cols * clock * 1e6 / bandwidth) == tpu_v1.RIDGE_POINT["DDR3"]


def test_figures_reject() -> None:
    with raises(ValueError, "status must be one of 'P', 'S', 'D', not 'U'"):
        Figures("a", "%", {}, "table 1", "U")
