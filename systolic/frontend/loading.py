"""Files of models and programs, read by what they are."""

from __future__ import annotations

import os
from pathlib import Path

from systolic._files import check_plain, path_text
from systolic.frontend.from_onnx import load_onnx
from systolic.isa import Program
from systolic.model import Model


def is_program(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that Program.save wrote; what cannot be read is none."""
    import zipfile

    try:
        check_plain(path, "")
        with zipfile.ZipFile(path) as archive:
            return "program.json" in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def load_model(path: str | os.PathLike[str], qdq: str = "integer", compute: str | None = None) -> Model:
    """Read a model by its file's suffix: ``.onnx`` by load_onnx, others by Model.load."""
    if Path(path_text(path)).suffix.lower() == ".onnx":
        return load_onnx(path, qdq=qdq, compute=compute)
    if compute is not None:
        raise ValueError(f"compute says how an .onnx file is read; {os.fspath(path)} holds a model's layers")
    return Model.load(path)


def load_runnable(path: str | os.PathLike[str]) -> Model | Program:
    """Read a program if the file holds one, else a model.

    Examples
    --------
    >>> import os, tempfile
    >>> import systolic
    >>> from systolic.frontend import load_runnable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.zip")
    ...     systolic.load_example().model.save(path)
    ...     load_runnable(path).outputs
    ('logits',)
    """
    return Program.load(path) if is_program(path_text(path)) else load_model(path)
