"""``RayExecutor``: Ray through the interface of ``concurrent.futures``, which Dask and MPI have."""

from __future__ import annotations

from typing import Any

from systolic.model import Model


class RayExecutor:
    """Run functions as tasks of Ray: an executor for :func:`systolic.sweep`.

    Parameters
    ----------
    **options
        Of each task, as ``ray.remote`` takes them: ``num_cpus=2`` for example, or ``max_retries``, how often
        Ray runs the task of a worker that died again (3 unless stated).

    Raises
    ------
    ImportError
        If Ray is not installed.

    Notes
    -----
    Tasks go to the cluster that ``ray.init`` has connected to; if it was not called, Ray starts workers on
    this machine. A model is sent to each node once.

    Examples
    --------
    >>> from systolic.sweeps import RayExecutor
    >>> systolic.sweep(model, machines, executor=RayExecutor(), out="rows.csv")  # doctest: +SKIP
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError('RayExecutor needs Ray: pip install "systolic[ray]"') from error
        self._ray = ray
        self._task = ray.remote(**options)(_call) if options else ray.remote(_call)
        self._sent: dict[int, tuple[Model, Any]] = {}

    def submit(self, fn: Any, /, *args: Any) -> Any:
        """Run ``fn(*args)`` on a worker; return a ``concurrent.futures.Future``."""
        return self._task.remote(fn, *map(self._shared, args)).future()

    def _shared(self, value: Any) -> Any:
        """Return a model as a reference to a copy that workers share."""
        if not isinstance(value, Model):
            return value
        if id(value) not in self._sent:
            self._sent[id(value)] = value, self._ray.put(value)
        return self._sent[id(value)][1]


def _call(fn: Any, *args: Any) -> Any:
    return fn(*args)
