"""Stand-ins have the layers, weights and reuse of table 1 of the TPU paper."""

from __future__ import annotations

import json

import pytest

from support.strategies import raises
from systolic.accelerators import stand_in
from systolic.accelerators.stand_ins import KINDS
from systolic.accelerators.tpu_v1 import APPLICATIONS, TABLE_1


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_batch_weights_and_reuse_are_those_of_table_1(name: str) -> None:
    made = stand_in(name)
    assert {kind: made.layers(kind) for kind in KINDS} == {kind: TABLE_1[kind][name] for kind in KINDS}
    assert made.batch == TABLE_1["batch"][name]
    # Sides are integers, and a 600 x 600 matrix is 1 percent of LSTM1's weights.
    assert made.weights == pytest.approx(TABLE_1["weights"][name] * 1e6, rel=0.005)
    # 7 x 8 pixels instead of 57.67; all others exactly.
    assert made.macs_per_weight_byte == pytest.approx(
        TABLE_1["macs_per_weight_byte"][name], rel=0.03 if name == "CNN1" else 1e-12
    )
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_steps_are_one_chain_whose_sizes_fit(name: str) -> None:
    made = stand_in(name)
    read = set()
    for number, step in enumerate(made.steps):
        read.update(step.reads)
        assert all(0 <= tensor <= number for tensor in step.reads)
        for tensor in step.reads:
            if tensor:
                before = made.steps[tensor - 1]
                assert (before.outputs, before.result) == (step.inputs, step.image)
    # Every result but the last is used.
    assert read == set(range(len(made.steps)))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_layers_with_weights_are_equal(name: str) -> None:
    made = stand_in(name)
    held: dict[str, int] = {}
    for step in made.steps:
        held[step.layer] = held.get(step.layer, 0) + step.weights
    sizes = [held[layer] for layer in held if layer.startswith(("fc", "conv"))]
    if name == "LSTM1":
        assert set(sizes) == {2 * 600**2, 3 * 600**2}
    elif name == "CNN1":
        convolutions = [size for layer, size in held.items() if layer.startswith("conv")]
        assert len(set(convolutions)) == 1
        assert sum(sizes) - sum(convolutions) == pytest.approx(4 * convolutions[0], rel=0.002)
    else:
        assert len(set(sizes)) == 1


def test_shapes_that_can_be_worked_out_by_hand() -> None:
    assert {(step.inputs, step.outputs) for step in stand_in("MLP0").steps} == {(2000, 2000)}
    go = stand_in("CNN0").steps
    assert {(step.image, step.result, step.kernel, step.border) for step in go} == {((19, 19), (19, 19), 3, 1)}
    last = stand_in("CNN1").steps[-5]
    assert (last.kind, last.image, last.result, last.border) == ("pool", (7, 8), (1, 1), 0)


def test_rejects_another_application() -> None:
    with raises(ValueError, f"application must be one of {', '.join(map(repr, APPLICATIONS))}, not 'MLP2'"):
        stand_in("MLP2")
