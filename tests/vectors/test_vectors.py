"""Golden vectors: the files replay into the product, and the command writes them whole or not at all."""

import json

import numpy as np
import pytest

from support.number_formats import OPERAND_NAMES
from support.vector_files import read
from systolic import ArrayConfig, SystolicArray, cli, ports, write_vectors

RNG = np.random.default_rng(5)
X = RNG.integers(-128, 128, (9, 7), np.int8)
W = RNG.integers(0, 256, (7, 5), np.uint8)
CONFIG = ArrayConfig(4, 3, accumulator_rows=8)


def test_files_replay_into_the_product(tmp_path):
    out = tmp_path / "vectors"
    manifest = write_vectors(X, W, out, array=CONFIG)
    assert manifest == json.loads((out / "manifest.json").read_text())
    files = {name.removesuffix(".mem") for name in manifest["files"]}
    assert {p.name for p in out.iterdir()} == {f"{name}.mem" for name in files} | {"manifest.json"}
    data = {name: read(out, manifest, name) for name in files}
    # A test bench in Python: ports in, bottom psums out, accumulators beside it.
    array = SystolicArray(ArrayConfig(4, 3, weight_dtype="uint8"))
    acc = np.zeros((2, 4, 3), dtype=np.int64)
    below = np.zeros(3, dtype=np.int64)
    written = 0
    for t in range(manifest["lines"]):
        for c in np.flatnonzero(data["accumulator_write"][t]):
            place = int(data["accumulator_half"][t][c]), data["accumulator_row"][t][c], c
            acc[place] = below[c] + (0 if data["accumulator_first"][t][c] else acc[place])
            written += 1
        array.step(
            activation=data["west_activation"][t],
            shift=data["west_shift"][t],
            swap=data["west_swap"][t],
            weight=data["north_weight"][t],
            psum=data["north_psum"][t],
        )
        below = array.registers.psum[-1].astype(np.int64)
        np.testing.assert_array_equal(below, data["bottom_psum"][t])
    product = X.astype(np.int64) @ W.astype(np.int64)
    np.testing.assert_array_equal(data["acc"], product)
    assert written == sum(
        (f["m_stop"] - f["m_start"]) * (f["n_stop"] - f["n_start"]) for f in manifest["folds"]
    )
    # The last chunk of the last n tile still stands in its half.
    fold = manifest["folds"][-1]
    rows, cols = fold["m_stop"] - fold["m_start"], fold["n_stop"] - fold["n_start"]
    half = (len(manifest["folds"]) // 2 - 1) % 2
    np.testing.assert_array_equal(acc[half, :rows, :cols], product[fold["m_start"] :, fold["n_start"] :])


def test_manifest_says_the_convention(tmp_path):
    manifest = write_vectors(X, W, tmp_path / "v", array=CONFIG)
    assert manifest["schema"] == 2 and manifest["gemm"] == {"m": 9, "k": 7, "n": 5, "groups": 1}
    assert manifest["array"]["weight_dtype"] == "uint8" and manifest["array"]["rows"] == 4
    assert manifest["lines"] == manifest["cycles"] + 1 == sum(1 for _ in ports(X, W, array=CONFIG))
    for phrase in ("skewed", "two's complement", "modulo 2^32", "accumulator_first"):
        assert phrase in manifest["convention"]


def test_nothing_half_written(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there exists; name a folder that does not"):
        write_vectors(X, W, tmp_path / "there")
    with pytest.raises(OSError):
        write_vectors(X, W, tmp_path / "no" / "where", array=CONFIG)
    with pytest.raises(ValueError, match="empty product"):
        write_vectors(X[:0], W, tmp_path / "v")
    with pytest.raises(TypeError, match=f"x must hold {OPERAND_NAMES}"):
        write_vectors(X.astype(float), W, tmp_path / "v")
    monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_vectors(X, W, tmp_path / "v", array=CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_command(tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "w.npy", W)
    words = ["vectors", str(tmp_path / "x.npy"), str(tmp_path / "w.npy"), "--out", str(tmp_path / "v")]
    assert cli.main([*words, "--rows", "4", "--cols", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1 and printed["manifest"]["array"]["rows"] == 4
    assert (tmp_path / "v" / "west_shift.mem").exists()
    assert cli.main(words) == 2
    assert "exists" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    assert cli.main([*words[:-1], str(tmp_path / "other")]) == 2
    assert f"x must hold {OPERAND_NAMES}, not float32" in capsys.readouterr().err
