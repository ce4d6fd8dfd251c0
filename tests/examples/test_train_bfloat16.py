"""The training example: its loss falls, and every product is the oracle's, in both modes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from systolic import ArrayConfig, training

PATH = Path(__file__).resolve().parents[2] / "examples" / "train_bfloat16.py"


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_bfloat16", PATH)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_both_modes_learn_the_same() -> None:
    example, found = module(), []
    for mode in ("cycle", "wavefront"):
        network, losses, _ = example.train(3, 8, mode=mode, array=ArrayConfig(16, 16))
        assert network.checked == 3 * 5 + 2
        found.append((losses, network.costs))
    assert found[0] == found[1]
    assert set(found[0][1]) == set(training.PASSES) and all(stats.cycles for stats in found[0][1].values())


@pytest.mark.slow
def test_the_loss_falls() -> None:
    network, losses, known = module().train()
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10]) and known > 0.8
    assert network.checked == 5 * len(losses) + 2
