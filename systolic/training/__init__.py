"""Training steps of dense and convolutional layers: forward and backward passes as products on the array.

A layer has three products: forward, ``y = f(x, w)``; backward-data, the gradient of a loss with respect to x;
and backward-weight, that with respect to w. The last two are products of transposed matrices, or convolutions
of rotated or exchanged operands:

=============== ========== ==================================================================
pass            dense      convolution
=============== ========== ==================================================================
forward         x @ w      x with w
backward-data   dy @ w.T   dy, spread out by the stride, with w rotated, its channels exchanged
backward-weight x.T @ dy   x, its batch as channels, with dy as the kernel
=============== ========== ==================================================================

Biases, activations and the loss are the host's. Operands are rounded to a float format of the array and the
products added in float32, in the array's order.
"""

from systolic.training.models import PASSES as PASSES
from systolic.training.models import LayerStep as LayerStep
from systolic.training.models import StepCosts as StepCosts
from systolic.training.models import costs as costs
from systolic.training.passes import Pass as Pass
from systolic.training.passes import conv2d as conv2d
from systolic.training.passes import conv2d_backward_data as conv2d_backward_data
from systolic.training.passes import conv2d_backward_weight as conv2d_backward_weight
from systolic.training.passes import dense as dense
from systolic.training.passes import dense_backward_data as dense_backward_data
from systolic.training.passes import dense_backward_weight as dense_backward_weight
