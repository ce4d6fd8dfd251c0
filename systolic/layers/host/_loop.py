"""ONNX's Loop for its reference evaluator, which stacks what the body collects only if those are vectors.

Of onnx 1.23 (and before): a Loop without a condition does not run at all, scalars collected give
(n, 1) instead of (n,), and matrices are joined along their rows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


@functools.cache
def loop_operator() -> Any:
    """Return a class that ``ReferenceEvaluator(..., new_ops=[...])`` takes for Loop."""
    import onnx
    from onnx.reference.op_run import OpRun

    class Loop(OpRun):
        op_domain = ""

        def need_context(self) -> bool:
            """The body may use any tensor of the graph around it."""
            return True

        def _run(self, most: Any, go: Any, *states: Any, context: Any = None, **options: Any) -> Any:
            given = {
                name: options[name] for name in ("attributes", "bindings") if options.get(name) is not None
            }
            body = self.body
            names = body.input_names
            states, collected, turn = tuple(states), [], 0
            go = True if go is None else bool(np.all(go))
            while go and (most is None or turn < int(np.reshape(most, ()))):
                feeds = dict(context or {})
                feeds |= zip(names, (np.array(turn, np.int64), np.array(go), *states), strict=True)
                again, *results = self._run_body(feeds, **given)
                go, turn = bool(np.all(again)), turn + 1
                states = tuple(results[: len(states)])
                collected.append(results[len(states) :])
            stacked = [np.stack(column) for column in zip(*collected, strict=True)]
            if not turn:
                stacked = [self._nothing(value) for value in body.proto_.output[1 + len(states) :]]
            return (*states, *stacked)

        @staticmethod
        def _nothing(value: Any) -> np.ndarray:
            """Return what no turn collects, of the type and sizes that the body declares."""
            tensor = value.type.tensor_type
            sizes = [d.dim_value for d in tensor.shape.dim]
            return np.zeros((0, *sizes), onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))

    return Loop
