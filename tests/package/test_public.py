"""The public names, which ``help``, completion and ``import *`` show, and the old names that warn."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import pydoc
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import QuantParams, _renamed, layers
from systolic.model import archive

WORKLOAD = """Gemm Model Node QuantParams TensorSpec UnsupportedOperator dequantize layers load_example load_onnx
    quantize quantize_model requantize save_onnx"""
HARDWARE = """ArrayConfig Fold MachineConfig MemoryConfig PortValues State SystolicArray estimate_cycles estimate_many folds
    ports presets"""
WHERE_THEY_MEET = (
    """Change LayerRun Probe Program Result Run Stats Trace compare compile conv2d estimate matmul run set_threads summary
    sweep"""
)
PROOF = "Scoreboard ScoreboardError VerificationError show_config verify write_vectors"
NAMES = set(f"{WORKLOAD} {HARDWARE} {WHERE_THEY_MEET} {PROOF}".split())

MODULES = ["systolic", *(found.name for found in pkgutil.walk_packages(systolic.__path__, "systolic."))]


def test_names_at_the_top() -> None:
    assert set(systolic.__all__) == NAMES and len(systolic.__all__) == len(NAMES)
    assert 38 <= len(NAMES) <= 50


def test_import_star_brings_these_names() -> None:
    brought: dict[str, Any] = {}
    exec("from systolic import *", brought)
    assert set(brought) - {"__builtins__"} == NAMES


@pytest.mark.parametrize("module", [systolic, layers], ids=lambda module: module.__name__)
def test_completion_and_help_show_these_names(module: ModuleType) -> None:
    assert {name for name in dir(module) if not name.startswith("__")} == set(module.__all__)
    text = pydoc.plain(pydoc.render_doc(module))
    shown = set(re.findall(r"^    (?:class )?(\w+)\(", text, re.MULTILINE))
    assert shown == {name for name in module.__all__ if callable(getattr(module, name))}


def test_layers_are_the_classes_of_layers() -> None:
    assert layers.__all__ == sorted(layers.__all__)
    kinds = [getattr(layers, name) for name in layers.__all__]
    # Functions are names of the field for uses of a layer.
    assert all(issubclass(kind, layers.Layer) for kind in kinds if isinstance(kind, type))


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_no_module_hides_a_name_of_its_package(name: str) -> None:
    module = importlib.import_module(name)
    package, _, last = name.rpartition(".")
    if package:
        assert getattr(importlib.import_module(package), last) is module


@pytest.mark.parametrize("name", _renamed.MOVED)
def test_old_names_at_the_top_warn(name: str) -> None:
    place = _renamed.MOVED[name]
    new = _renamed.LAYERS.get(name, (name, None))[0] if place == "systolic.layers" else name
    with pytest.warns(
        DeprecationWarning, match=f"^systolic.{name} is deprecated: use {place}.{new}$"
    ) as warned:
        found = getattr(systolic, name)
    assert warned[0].filename == __file__
    if isinstance(found, type):
        assert found is getattr(importlib.import_module(place), new)
    assert name not in NAMES


def test_old_layers_lead_to_layers_of_today() -> None:
    for name, (new, fields) in _renamed.LAYERS.items():
        assert new in layers.__all__
        assert new != name or fields is not None


Q, HALF, EYE = QuantParams(0.5), QuantParams(0.5, 3), np.eye(3, dtype=np.int8)

CONV = {"x": Q, "w": Q, "y": HALF}


def conv(rank: int, last: bool = False) -> layers.Layer:
    return layers.QLinearConv(
        np.ones((4, 1, *[1] * rank), np.int8), x=Q, w=Q, y=HALF, groups=2, channels_last=last
    )


# Old names, the fields of then, and the layer of today.
OLD: list[tuple[str, dict[str, Any], layers.Layer]] = [
    ("Add", {"a": HALF, "b": HALF, "y": HALF}, layers.QLinearAdd(HALF, HALF, HALF)),
    ("Add", {}, layers.Binary("Add")),
    (
        "AveragePool2d", {"kernel": 2, "x": Q, "y": HALF, "padding": (1, 0), "layout": "NHWC"},
        layers.QLinearAveragePool((2, 2), Q, HALF, stride=2, padding=((1, 1), (0, 0)), channels_last=True),
    ),
    (
        "GlobalAveragePool2d", {"x": Q, "y": HALF, "layout": "NHWC"},
        layers.QLinearGlobalAveragePool(Q, HALF, channels_last=True),
    ),
    *(
        (name, CONV | {"weight": np.ones((4, 1, *[1] * rank), np.int8), "groups": 2, "layout": layout}, conv(rank, last))
        for name, rank, layout, last in (
            ("Conv1d", 1, "NCW", False), ("Conv2d", 2, "NHWC", True), ("Conv3d", 3, "NDHWC", True),
        )
    ),
    ("DepthwiseConv2d", CONV | {"weight": np.ones((4, 1, 1, 1), np.int8), "multiplier": 2}, conv(2)),
    (
        "FloatConv2d", {"weight": np.ones((1, 1, 2, 2)), "relu": True, "stride": 2},
        layers.FloatConv(np.ones((1, 1, 2, 2)), activation="Relu", stride=2),
    ),
    ("FloatDense", {"weight": np.eye(2), "relu": True}, layers.FloatMatMul(np.eye(2), activation="Relu")),
    ("Dense", {"weight": EYE, "x": HALF, "w": HALF, "y": None, "bias": None}, layers.Dense(EYE, x=HALF, w=HALF, y=None)),
    ("MatMul", {"x": HALF, "w": HALF, "y": None, "transpose_w": True},
     layers.QLinearMatMul(x=HALF, w=HALF, transpose_w=True)),
    ("Dequantize", {"x": HALF}, layers.DequantizeLinear(HALF)),
    ("MaxPool2d", {"kernel": (2, 3), "ceil_mode": True}, layers.MaxPool((2, 3), stride=(2, 3), ceil_mode=True)),
    ("MaxPoolIndices", {"kernel": (2,), "order": "column"}, layers.MaxPool((2,), indices="column")),
    ("Quantize", {"y": HALF}, layers.QuantizeLinear(HALF)),
    ("ReshapeTo", {"allowzero": True}, layers.Reshape(allowzero=True)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "layer"), OLD, ids=lambda value: value if isinstance(value, str) else "")
def test_old_layers_are_made_and_read_as_layers_of_today(
    name: str, fields: dict[str, Any], layer: layers.Layer
) -> None:
    if name not in layers.__all__:
        with pytest.warns(DeprecationWarning, match=f"use systolic.layers.{_renamed.LAYERS[name][0]}$"):
            old = getattr(layers, name)
        assert old(**fields) == layer
    assert archive._layer(name, fields, archive.VERSION - 1) == layer


def test_every_old_layer_is_made_and_read() -> None:
    assert {name for name, _, _ in OLD} == set(_renamed.LAYERS)


def test_a_renamed_layer_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_renamed.LAYERS, "Bounded", ("Clip", None))
    with pytest.warns(
        DeprecationWarning, match=r"^systolic.layers.Bounded is deprecated: use systolic.layers.Clip$"
    ):
        from systolic.layers import Bounded  # type: ignore[attr-defined]
    assert Bounded is layers.Clip


def test_a_layer_with_other_fields_is_made_from_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def fields(least: float, span: float = 1.0) -> dict[str, float]:
        return {"low": least, "high": least + span}

    monkeypatch.setitem(_renamed.LAYERS, "Bounded", ("Clip", fields))
    monkeypatch.setitem(_renamed.MOVED, "Bounded", "systolic.layers")
    for module in (layers, systolic):
        with pytest.warns(DeprecationWarning, match=r"use systolic.layers.Clip$"):
            old = module.Bounded  # type: ignore[attr-defined]
        assert old(2.0) == layers.Clip(2.0, 3.0) and old(2.0, span=2.0) == layers.Clip(2.0, 4.0)
        assert isinstance(layers.Clip(), old) and not isinstance(layers.Relu(), old)


@pytest.mark.parametrize("module", [systolic, layers], ids=lambda module: module.__name__)
def test_other_names_are_no_attributes(module: ModuleType) -> None:
    for name in ("Sotfmax", "lower_conv2d", "__wrapped__"):
        with pytest.raises(AttributeError, match=rf"^module '{module.__name__}' has no attribute '{name}'$"):
            getattr(module, name)


def test_pickles_name_the_module_of_a_layer() -> None:
    assert b"systolic.layers.host" in pickle.dumps(layers.Relu())
    assert pickle.loads(pickle.dumps(layers.Relu())) == layers.Relu()


WEIGHT = np.ones((4, 1, 3, 3), np.int8)
ONE = {"x": HALF, "w": HALF, "y": HALF}


@pytest.mark.parametrize(
    ("name", "args", "fields"),
    [
        ("MaxPool2d", (2,), {"layout": "nhwc"}),
        ("MaxPool2d", (2,), {"layout": "NWC"}),
        ("Conv1d", (WEIGHT[..., 0],), {"layout": "NHWC", **ONE}),
        ("Conv1d", (WEIGHT,), ONE),
        ("Conv3d", (WEIGHT,), ONE),
        ("FloatDense", (np.ones((2, 3), np.float32),), {"relu": "no"}),
        ("Add", (0, 0, 0), {}),
        ("Conv2d", (WEIGHT,), {"layout": None, **ONE}),
        ("Conv2d", (WEIGHT,), {"x": HALF, "w": HALF}),
        ("Dense", (EYE,), {"x": HALF, "w": HALF}),
        ("DepthwiseConv2d", (WEIGHT,), {"multiplier": 3, **ONE}),
        ("DepthwiseConv2d", (WEIGHT,), {"groups": 3, **ONE}),
    ],
)
def test_old_layers_refuse_what_they_refused(name: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    with pytest.warns(DeprecationWarning):
        old = getattr(systolic, name)
    with pytest.raises((TypeError, ValueError)):
        old(*args, **fields)
