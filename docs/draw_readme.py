"""Draw the two plots of the README: ``python docs/draw_readme.py`` writes ``resnet50-*.png``.

It needs ``pip install -e ".[onnx,plot]"`` and takes some seconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import systolic
from systolic.machine import time_program
from systolic.sweeps import Grid

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))

import resnet50  # noqa: E402  (stands in bench/)

SIDES = [1 << power for power in range(3, 11)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        network = systolic.load_onnx(resnet50.write(Path(folder), 224)["int8"])
    machine = systolic.presets.TPU_V1
    timeline = time_program(systolic.compile(network, machine=machine, weights=False), machine)
    sweep = systolic.sweep({"ResNet-50": network}, Grid(systolic.ArrayConfig(), rows=SIDES, cols=SIDES))
    for name, figure in {"timeline": timeline.plot(), "sweep": sweep.plot()}.items():
        path = HERE / f"resnet50-{name}.png"
        figure.savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
