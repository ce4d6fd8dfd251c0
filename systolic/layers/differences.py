"""Where our own layers are meant to differ from ONNX Runtime on the CPU, and why.

Everywhere else a test of random graphs finds equal shapes, types and integers, and floats within a stated
tolerance (``tests/test_random_operators.py``); another shows that each row below is still true.
"""

DIFFERENCES = {
    "approximations": (
        "Erf, Exp, Gelu, Log, Sigmoid, Tanh and Softmax are the true value rounded once. ONNX Runtime's "
        "float32 polynomials lie within 2e-6 of it, relative to the larger of 1 and the value: far below "
        "zero its Sigmoid stays near 1e-8 where the true value goes on falling. Its bits depend on the "
        "instruction set."
    ),
    "sums of floats": (
        "Products, means and sums are taken in float64 and rounded once. ONNX Runtime sums in the type "
        "itself, in an order that depends on sizes, threads and instruction set, and may overflow on the "
        "way."
    ),
    "Gelu with approximate='tanh' of float64": (
        "Computed in float64. ONNX Runtime's constants are float32 numbers, so that it is off by up to "
        "1e-7."
    ),
    "NaN in ReduceMax and ReduceMin": (
        "NaN spreads. In ONNX Runtime it spreads or is passed over, as it falls into vectors."
    ),
    "NaN in MaxPool": (
        "NaN spreads. In ONNX Runtime it is passed over or wins, by its place in the window and the "
        "instruction set."
    ),
    "minus infinity in MaxPool": (
        "The largest of minus infinities is minus infinity. Some of ONNX Runtime's loops begin with the "
        "smallest finite number and give that."
    ),
    "means of infinity in LayerNormalization": (
        "The mean of numbers with infinity among them is infinite. ONNX Runtime's is infinite or NaN, by "
        "sizes."
    ),
    "a bound of NaN in Clip": (
        "Everything becomes NaN. ONNX Runtime takes such a bound for none."
    ),
    "int64 beyond 2^53 in ReduceSum and ReduceProd": (
        "Both are taken in float64, as in ONNX Runtime, whose order of additions differs: so may the last "
        "bits."
    ),
    "halves in Resize by half_pixel_symmetric": (
        "Places are computed with float32 and float64 steps as in ONNX Runtime. By scales that do not "
        "divide the size some that fall on a half are rounded to the other side."
    ),
    "a pool's kernel larger than the padded image": (
        "Refused: there is no window. ONNX Runtime gives a tensor without elements, or dies "
        "(QLinearAveragePool)."
    ),
    "auto_pad SAME in MaxPool of float32 with strides beyond the kernel": (
        "Crops, as for every other type. ONNX Runtime refuses it for float32 alone."
    ),
    "integers divided by 0": (
        "Refused when it happens. In C, and so in ONNX Runtime, it ends the process."
    ),
}
"""Reasons by what differs."""
