"""The registers of an array between two clock edges, and all else that determines its future."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from systolic import _check
from systolic.array.queues import Queues
from systolic.config import ArrayConfig


class _Named:
    """Attributes that are set once: arrays by the names of a dataflow's registers."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, *value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to {name!r}: a {type(self).__name__} does not change")

    __delattr__ = __setattr__

    def __setstate__(self, state: dict[str, Any]) -> None:
        # numpy drops the flag in copies and in unpickled arrays.
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        vars(self).update(state)


class Registers(_Named, Mapping[str, np.ndarray]):
    """The registers of every PE, as a mapping and by attribute; read-only arrays.

    Their names are those of the array's dataflow: weight, next_weight, weight_pass, activation,
    psum, shift and swap of a weight-stationary array.

    Examples
    --------
    >>> from systolic import ArrayConfig, SystolicArray
    >>> registers = SystolicArray(ArrayConfig(2, 3)).registers
    >>> registers.psum.shape, registers["shift"].dtype
    ((2, 3), dtype('bool'))
    >>> SystolicArray(ArrayConfig(1, 2)).step(activation=5, weight=[3, 4], shift=1).registers
                       col 0  col 1
    row 0 weight           0      0
          next_weight      3      0
          weight_pass      0      0
          activation       5      0
          psum             0      0
          shift            1      0
          swap             0      0
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            view = values.view()
            view.flags.writeable = False
            vars(self)[name] = view

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return vars(self)[name]
        except (KeyError, TypeError):
            raise KeyError(f"no register {name!r}; the registers are {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Registers):
            return NotImplemented
        return _check.same_values(tuple(self.items()), tuple(other.items()))

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        from systolic._show.grids import grid_html

        return grid_html("Registers", self)

    def __repr__(self) -> str:
        """Return a grid of PEs; of more than 16 rows or columns, the first and last four."""
        from systolic._show.grids import grid_text

        return grid_text(self)


class State(_Named):
    """All that determines the array's future: the registers, the cycle and the queues.

    Parameters
    ----------
    **registers : ndarray, (rows, cols)
        By the names of the array's dataflow. Weight stationary: weight, next_weight and weight_pass
        of the weight type, activation of the activation type, psum of int32, shift and swap of bool.
    cycle : int
        Clock edges done.
    queues : Queues, optional
        What is queued; absent: nothing.

    Notes
    -----
    A state is never changed: clocking the array makes a new one.

    Examples
    --------
    >>> from systolic import ArrayConfig, SystolicArray
    >>> array = SystolicArray(ArrayConfig(2, 3))
    >>> state = array.state()
    >>> array.step(activation=1).restore(state).cycle
    0
    >>> array.restore(state.replace(psum=state.psum + 5)).registers.psum[1]
    array([5, 5, 5], dtype=int32)
    """

    cycle: int
    queues: Queues | None

    def __init__(self, *, cycle: int = 0, queues: Queues | None = None, **registers: np.ndarray) -> None:
        if not registers:
            raise TypeError("a State takes the registers of an array by name; array.state() returns one")
        vars(self).update(registers, cycle=cycle, queues=queues)

    @classmethod
    @lru_cache(maxsize=16)
    def idle(cls, config: ArrayConfig) -> State:
        """Return the state after reset: all registers 0, nothing queued."""
        size = (config.rows, config.cols)
        # Nobody writes to a state: one zero serves all PEs.
        registers: dict[str, Any] = {
            n: np.broadcast_to(np.zeros((), d), size) for n, d in config.register_dtypes.items()
        }
        return cls(**registers, queues=Queues.empty(config.cols, config.format.sum))

    @property
    def registers(self) -> Registers:
        """The registers, read-only."""
        return Registers({name: v for name, v in vars(self).items() if name not in ("cycle", "queues")})

    def replace(self, **changes: Any) -> State:
        """Return a state with other registers, another cycle or other queues."""
        unknown = sorted(changes.keys() - vars(self).keys())
        if unknown:
            raise TypeError(f"a state has no {unknown[0]!r}; it has {', '.join(vars(self))}")
        return State(**vars(self) | changes)

    __replace__ = replace

    def with_queues(self, queues: Queues) -> State:
        """Return a state with other queues; for the array, which queues many."""
        state = State.__new__(State)
        vars(state).update(vars(self), queues=queues)
        return state

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        mine, theirs = self.registers, other.registers
        return (
            self.cycle == other.cycle
            and mine.keys() == theirs.keys()
            and all(_check.same_values(mine[name], theirs[name]) for name in mine)
            and self._filled_queues() == other._filled_queues()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        rows, cols = np.shape(next(iter(self.registers.values())))
        return f"State(rows={rows}, cols={cols}, cycle={self.cycle})"

    def checked(self, config: ArrayConfig) -> State:
        """Return a copy that fits `config`, or raise: wrong shapes ValueError, types TypeError."""
        size = (config.rows, config.cols)
        arrays: dict[str, Any] = {}
        given = vars(self).keys() - {"cycle", "queues"}
        if given != config.register_dtypes.keys():
            raise TypeError(
                f"the registers of a {config.dataflow_record.name} array are "
                f"{', '.join(config.register_dtypes)}, not {', '.join(sorted(given)) or 'none'}"
            )
        for name, dtype in config.register_dtypes.items():
            value = _check.as_array(vars(self)[name], f"register {name}")
            if value.shape != size:
                raise ValueError(
                    f"register {name} must be {_check.shape(size)}, the array's size, "
                    f"not {_check.shape(value.shape)}"
                )
            if value.dtype.newbyteorder("=") != dtype:
                raise TypeError(f"register {name} must be {dtype}, not {value.dtype}")
            if name in config.register_limits:
                _check.integers(value, f"register {name}", dtype.name, config.register_limits[name])
            arrays[name] = np.array(value, dtype=dtype, order="C")
            arrays[name].flags.writeable = False
        cycle = _check.integer(self.cycle, "cycle", minimum=0)
        if self.queues is not None and not isinstance(self.queues, Queues):
            raise TypeError(f"queues must be those of a state, or None, not {_check.kind(self.queues)}")
        queues = self._filled_queues(config.format.sum)
        queues.check(config, cycle)
        return State(**arrays, cycle=cycle, queues=queues)

    def _filled_queues(self, sum_dtype: Any = "int32") -> Queues:
        if self.queues is not None:
            return self.queues
        return Queues.empty(np.shape(next(iter(vars(self).values())))[1], sum_dtype, self.cycle)
