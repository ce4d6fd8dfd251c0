"""Draw the picture of docs/energy.md: ``python docs/draw_energy.py`` writes ``energy/digits.svg``."""

from __future__ import annotations

from pathlib import Path

import systolic
from systolic.energy import Toggles

HERE = Path(__file__).resolve().parent


def energy() -> systolic.energy.Energy:
    """Return the energy of the digits network on 16 x 16, with toggles from one image."""
    example = systolic.load_example()
    run = systolic.run(
        example.model, example.images[:1], machine=systolic.ArrayConfig(16, 16), probe=Toggles()
    )
    assert run.energy is not None
    return run.energy


if __name__ == "__main__":
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "energy"
    path = HERE / "energy" / "digits.svg"
    energy().plot().savefig(path, metadata={"Date": None})
    print(path)
