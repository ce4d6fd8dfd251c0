"""Run the test benches beside this file under Icarus Verilog.

Exits with 1 if the design is wrong, with 2 if nothing could be run.

python run.py scoreboard             testbench.py, by cocotb
python run.py vectors [FOLDER]       the package's replay.sv, on a folder that `systolic vectors` wrote

Both take --dataflow output_stationary or input_stationary; a FOLDER's manifest says which it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from systolic import ArrayConfig, write_vectors
from systolic.rtl import SOURCES

FILES = {
    "weight_stationary": ("pe.sv", "systolic_array.sv"),
    "output_stationary": ("output_pe.sv", "output_array.sv"),
    "input_stationary": ("pe.sv", "systolic_array.sv"),
}


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=["scoreboard", "vectors"])
    parser.add_argument("folder", nargs="?", type=Path, help="vectors; default: some are made for a product")
    parser.add_argument("--design", type=Path, default=SOURCES, help="folder of the sources of PE and array")
    parser.add_argument("--dataflow", choices=FILES, help="default: weight_stationary")
    parser.add_argument("--vcd", type=Path, help="with vectors: write all signals to this file")
    arguments = parser.parse_args()
    if arguments.bench == "scoreboard" and (arguments.folder or arguments.vcd):
        parser.error("FOLDER and --vcd go with vectors")
    dataflow = arguments.dataflow or "weight_stationary"
    if arguments.folder:
        manifest = arguments.folder / "manifest.json"
        if not manifest.is_file():
            parser.error(f"there is no {manifest}")
        dataflow = json.loads(manifest.read_text())["array"]["dataflow"]
        if arguments.dataflow not in (None, dataflow):
            parser.error(f"the vectors are {dataflow}; leave out --dataflow")
    sources = [arguments.design.resolve() / name for name in FILES[dataflow]]
    for path in sources:
        if not path.is_file():
            parser.error(f"there is no {path}")
    if (needed := missing(arguments.bench)) is not None:
        parser.error(needed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        try:
            if arguments.bench == "scoreboard":
                right = scoreboard(sources, work, dataflow)
            else:
                vectors = arguments.folder or made(work / "vectors", dataflow)
                right = replay(sources, vectors.resolve(), work, arguments.vcd and arguments.vcd.resolve())
        except (subprocess.CalledProcessError, RuntimeError) as error:  # it cannot be built
            parser.error(str(error))
    return 0 if right else 1


def missing(bench: str) -> str | None:
    """Return what a bench needs and does not find, or None."""
    if shutil.which("iverilog") is None:
        return "Icarus Verilog is missing: apt-get install iverilog"
    if bench == "scoreboard" and importlib.util.find_spec("cocotb") is None:
        return 'cocotb is missing: pip install "systolic[rtl]"'
    return None


def scoreboard(sources: list[Path], work: Path, dataflow: str) -> bool:
    """Build the array and run testbench.py on it; return whether its tests passed."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    os.environ["DATAFLOW"] = dataflow
    from testbench import CONFIG

    runner = get_runner("icarus")
    runner.build(
        sources=sources,
        hdl_toplevel=sources[-1].stem,
        parameters=parameters(CONFIG),
        build_args=["-g2012"],
        build_dir=work,
        timescale=("1ns", "1ps"),
    )
    results = work / "results.xml"
    runner.test(
        hdl_toplevel=sources[-1].stem,
        test_module="testbench",
        build_dir=work,
        test_dir=work,
        results_xml=str(results),
    )
    tests, failed = get_results(results)
    return tests > 0 and failed == 0


def made(folder: Path, dataflow: str) -> Path:
    """Write vectors of a product of several folds."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (9, 6), np.uint8), rng.integers(-128, 128, (6, 5), np.int8)
    write_vectors(x, w, folder, array=ArrayConfig(4, 3, dataflow=dataflow))
    return folder


def replay(sources: list[Path], vectors: Path, work: Path, vcd: Path | None = None) -> bool:
    """Build replay.sv for the array in the manifest and run it; return whether all sums were equal."""
    manifest = json.loads((vectors / "manifest.json").read_text())
    config = ArrayConfig.from_dict(manifest["array"])
    if not config.format.is_plain:
        raise RuntimeError(f"the RTL multiplies int8 and uint8, but the vectors are {config.format.text}")
    given = parameters(config) | {"LINES": manifest["lines"]}
    simulation = work / "replay.vvp"
    build = ["iverilog", "-g2012", "-s", "replay", "-o", str(simulation)]
    build += [f"-Preplay.{name}={value}" for name, value in given.items()]
    if config.dataflow == "output_stationary":
        build.append("-DOUTPUT_STATIONARY")
    subprocess.run([*build, str(SOURCES / "replay.sv"), *map(str, sources)], check=True)
    run = ["vvp", "-n", str(simulation), f"+vectors={vectors}"]
    if vcd is not None:
        run.append(f"+vcd={vcd}")
    return subprocess.run(run, check=False).returncode == 0


def parameters(config: ArrayConfig) -> dict[str, int]:
    """Return the RTL's parameters for an array."""
    return {
        "ROWS": config.rows,
        "COLS": config.cols,
        # Of the ports: input stationary, `weight` carries activations.
        "ACTIVATION_SIGNED": int(config.port_dtypes["activation"] == "int8"),
        "WEIGHT_SIGNED": int(config.port_dtypes["weight"] == "int8"),
    }


if __name__ == "__main__":
    sys.exit(main())
