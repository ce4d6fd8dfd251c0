"""Animations of arrays."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from systolic import ArrayConfig, SystolicArray

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def folded(side: int = 2) -> SystolicArray:
    return SystolicArray(ArrayConfig(side, side)).fold(x=np.int8([[1, 2]]), w=np.ones((2, 2), np.int8))


def test_a_gif_has_a_frame_for_each_cycle(tmp_path: Path) -> None:
    array, path = folded(), tmp_path / "array.gif"
    array.animate(path)
    with Image.open(path) as image:
        frames = []
        for frame in range(image.n_frames):
            image.seek(frame)
            frames.append(np.asarray(image.convert("L"), dtype=int))
    # Cycles 0 to 5; all show other registers or another number.
    assert len(frames) == 6 and array.cycle == 0
    assert all((a != b).any() for a, b in pairwise(frames))
    assert [path.name for path in tmp_path.iterdir()] == ["array.gif"]


def test_a_large_array_is_a_heat_map_of_its_sums(tmp_path: Path) -> None:
    array = folded(17)
    array.animate(tmp_path / "a.gif", 2)
    array.animate(tmp_path / "b.gif", 2, register="psum", frames_per_second=10)
    with Image.open(tmp_path / "a.gif") as a, Image.open(tmp_path / "b.gif") as b:
        assert np.array_equal(np.asarray(a.convert("RGB")), np.asarray(b.convert("RGB")))
        assert (a.info["duration"] / b.info["duration"]) == 5


@pytest.mark.parametrize("register", [None, "activation"])
def test_an_mp4_where_ffmpeg_is_installed(register: str | None, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg")
    folded().animate(tmp_path / "array.mp4", register=register)
    assert (tmp_path / "array.mp4").read_bytes()[4:8] == b"ftyp"


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = folded()
    with pytest.raises(ValueError, match=r"an animation is a \.gif or an \.mp4, not 'a\.png'"):
        array.animate(tmp_path / "a.png")
    with pytest.raises(ValueError, match="register must be one of weight, .*, not 'acc'"):
        array.animate(tmp_path / "a.gif", register="acc")
    with pytest.raises(ValueError, match="at most 1,000 cycles, not 1,001"):
        array.animate(tmp_path / "a.gif", 1001)
    with pytest.raises(ValueError, match="frames_per_second must be above 0"):
        array.animate(tmp_path / "a.gif", frames_per_second=0)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        array.animate(tmp_path / "none" / "a.gif")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"\.mp4 needs ffmpeg, which is not installed; a \.gif does not"):
        array.animate(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
