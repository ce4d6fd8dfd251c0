"""Which nodes onnx's reference evaluator may compute: those that a test has compared with ONNX Runtime.

``tests/operators/test_fallback_compared.py`` draws nodes of every operator in :data:`COMPARED`, in every
version of it from operator set 10 on, and compares the evaluator with ONNX Runtime 1.32 wherever
:func:`refusal` allows the node. For every rule here it also finds a node for which the evaluator of onnx 1.23
differs, so that rules can be deleted once onnx is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from systolic.layers.host.subgraphs import own_names, subgraphs

NEWEST = {"": 28, "ai.onnx.ml": 5}
"""The newest operator sets that were compared, by domain."""

_DOUBLES = ("float32", "float64")
_REALS = (*_DOUBLES, "float16")


class Refused(ValueError):
    """The evaluator must not compute the node, and nothing else can."""


@dataclass(frozen=True)
class Use:
    """A node, the version of its operator set, and the known dtypes and shapes of its inputs."""

    node: Any
    opset: int
    dtypes: Mapping[str, str]
    shapes: Mapping[str, Sequence[int | None] | None]

    def value(self, name: str) -> Any:
        """Return the value of an attribute, None if it is not given."""
        from onnx import helper

        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return None

    def values(self, name: str) -> Sequence[Any]:
        """Return the values of an attribute that is a list, none if it is not given."""
        value = self.value(name)
        return value if isinstance(value, list) else ()

    def reads(self, place: int) -> bool:
        """Whether an input is given."""
        return place < len(self.node.input) and bool(self.node.input[place])

    def writes(self, place: int) -> bool:
        """Whether an output is in use."""
        return place < len(self.node.output) and bool(self.node.output[place])

    def dtype(self, place: int) -> str | None:
        """Return the type of an input, None if unknown."""
        return self.dtypes.get(self.node.input[place]) if self.reads(place) else None

    def shape(self, place: int) -> Sequence[int | None] | None:
        """Return the shape of an input, None if its rank is unknown."""
        return self.shapes.get(self.node.input[place]) if self.reads(place) else None

    def rank(self, place: int) -> int | None:
        """Return the rank of an input, None if unknown."""
        shape = self.shape(place)
        return None if shape is None else len(shape)


@dataclass(frozen=True)
class Rule:
    """Uses of an operator for which the evaluator differs from ONNX Runtime, or fails.

    If ``tried`` is False, uses that were not compared.
    """

    where: str
    holds: Callable[[Use], Any]
    tried: bool = True


@dataclass(frozen=True)
class Row:
    """An operator that was compared.

    Parameters
    ----------
    rules : sequence of Rule
        Uses that are refused because they differ.
    untried : str
        Attributes and inputs that were not compared; refused, too.
    until : int, optional
        The last version of the operator that ONNX Runtime has.
    loose : bool
        Whether the evaluator's results may have another dtype. The layer casts outputs of a node; inside a
        subgraph nothing does, so the node is refused there.
    """

    rules: tuple[Rule, ...] = ()
    untried: str = ""
    until: int | None = None
    loose: bool = False


def _row(*rules: Rule, **more: Any) -> Row:
    return Row(rules, **more)


def _below(opset: int) -> Rule:
    return Rule(f"below operator set {opset}", lambda use: use.opset < opset)


def _unless(name: str, *values: Any) -> Rule:
    """Refuse an attribute that is given with another value."""
    listed = " or ".join(map(str, values))
    return Rule(f"where {name} is not {listed}", lambda use: use.value(name) not in (None, *values))


def _needs(name: str, *values: Any) -> Rule:
    """Refuse an attribute with another value, including its default."""
    listed = " or ".join(map(str, values))
    return Rule(f"where {name} is not {listed}", lambda use: use.value(name) not in values)


def _given(name: str) -> Rule:
    return Rule(f"where {name} is given", lambda use: use.value(name) is not None)


def _each(name: str, number: int) -> Rule:
    """Refuse a list with another number in it."""
    return Rule(f"where {name} are not {number}", lambda use: any(n != number for n in use.values(name)))


def _reads(place: int, name: str) -> Rule:
    return Rule(f"where {name} is given", lambda use: use.reads(place))


def _lacks(place: int, name: str) -> Rule:
    return Rule(f"where {name} is missing", lambda use: not use.reads(place))


def _writes(place: int, name: str) -> Rule:
    return Rule(f"where {name} is an output", lambda use: use.writes(place))


def _types(*dtypes: str, place: int = 0) -> Rule:
    """Refuse other types, and those that are not known."""
    return Rule(f"for types other than {', '.join(dtypes)}", lambda use: use.dtype(place) not in dtypes)


def _differ(use: Use) -> bool:
    shapes = [use.shape(place) for place in range(len(use.node.input))]
    return None in shapes or any(tuple(shape or ()) != tuple(shapes[0] or ()) for shape in shapes)


_SCALAR = Rule("for a tensor without axes", lambda use: not use.rank(0))
_SEVERAL_AXES = Rule(
    "for several axes below operator set 13", lambda use: use.opset < 13 and len(use.values("axes")) > 1
)
_RECURRENT = (_reads(4, "sequence_lens"), _given("activations"), _given("clip"))
_WINDOW = (_unless("auto_pad", "NOTSET"), _each("dilations", 1))
_POOL = (*_WINDOW, _unless("ceil_mode", 0))

# Every attribute, and every type that ONNX Runtime has; SwiGLU, which that lacks, as in onnx's own tests.
_PLAIN = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot
    BitwiseOr BitwiseXor BlackmanWindow CausalConvWithState Ceil Celu CenterCropPad Clip Col2Im Compress
    Concat ConstantOfShape Conv ConvInteger Cos Cosh CumProd CumSum DFT DeformConv DepthToSpace Div Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    Greater GreaterOrEqual GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Identity If
    InstanceNormalization IsInf IsNaN LeakyRelu Less LessOrEqual LinearAttention Log Loop MatMul MatMulInteger
    Max MelWeightMatrix Min Mish Mod Mul Neg NegativeLogLikelihoodLoss Not OneHot Or PRelu Pad Pow QLinearConv
    QLinearMatMul RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Relu Reshape ReverseSequence RotaryEmbedding Round STFT ScatterElements ScatterND
    Selu Sigmoid Sign Sin Sinh Size Softplus SpaceToDepth Split Sqrt Sub Sum SwiGLU Swish Tan Tanh
    TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Where Xor
"""
_ML = "ai.onnx.ml"

_STANDARD = {
    **{name: Row() for name in _PLAIN.split()},
    "AffineGrid": _row(_unless("align_corners", 0), loose=True),
    "Attention": _row(
        _writes(3, "qk_matmul_output"),
        Rule(
            "where is_causal is set and past_key given", lambda use: use.value("is_causal") and use.reads(4)
        ),
        untried="nonpad_kv_seqlen left_window_size right_window_size softmax_precision",
    ),
    "AveragePool": _row(*_POOL),
    "BatchNormalization": _row(
        _below(14),
        Rule(
            "of float16 in training mode",
            lambda use: use.value("training_mode") and use.dtype(0) not in _DOUBLES,
        ),
        loose=True,
    ),
    "Cast": _row(
        # 8 is strings; bfloat16 and smaller types come after 13.
        Rule(
            "to a type that numpy lacks",
            lambda use: use.value("to") not in {*range(1, 8), *range(9, 14)},
            tried=False,
        ),
        untried="round_mode",
    ),
    "CastLike": _row(untried="round_mode"),
    "Constant": _row(untried="sparse_value value_string value_strings"),
    "ConvTranspose": _row(
        _unless("group", 1), _unless("auto_pad", "NOTSET", "VALID"), untried="output_shape"
    ),
    "DequantizeLinear": _row(_below(19), until=25, untried="output_dtype"),
    "Det": _row(_types(*_DOUBLES)),
    "Dropout": _row(
        Rule(
            "where the mask is an output, below operator set 12",
            lambda use: use.opset < 12 and use.writes(1),
        ),
        untried="seed training_mode",
    ),
    "GRU": _row(*_RECURRENT, untried="activation_alpha activation_beta"),
    "GlobalMaxPool": _row(Rule("for tensors of other ranks than 4", lambda use: use.rank(0) != 4)),
    "GridSample": _row(
        _below(20),
        _types(*_DOUBLES, place=1),
        Rule(
            "where mode is cubic and padding_mode border",
            lambda use: (use.value("mode"), use.value("padding_mode")) == ("cubic", "border"),
        ),
    ),
    "Hardmax": _row(_below(13)),
    "LSTM": _row(*_RECURRENT, _unless("input_forget", 0), untried="activation_alpha activation_beta"),
    "LayerNormalization": _row(
        Rule(
            "of float16 where Mean or InvStdDev is an output",
            lambda use: (use.writes(1) or use.writes(2)) and use.dtype(0) not in _DOUBLES,
        ),
        loose=True,
    ),
    "LpNormalization": _row(_unless("p", 2)),
    "LpPool": _row(*_POOL),
    "MaxPool": _row(_writes(1, "Indices"), _types(*_REALS), _each("pads", 0), *_WINDOW),
    "MaxUnpool": _row(_reads(2, "output_shape"), untried="pads"),
    "Mean": _row(Rule("for inputs of different shapes", _differ)),
    "MeanVarianceNormalization": _row(_types(*_DOUBLES)),
    "NonMaxSuppression": _row(_lacks(2, "max_output_boxes_per_class"), _lacks(3, "iou_threshold")),
    "NonZero": _row(_SCALAR),
    "QuantizeLinear": _row(until=25, untried="output_dtype precision saturate"),
    "RNN": _row(*_RECURRENT, untried="activation_alpha activation_beta"),
    "ReduceLogSum": _row(_types(*_REALS)),
    "ReduceLogSumExp": _row(_types(*_REALS), _SCALAR),
    "ReduceSumSquare": _row(loose=True),
    "Resize": _row(
        _below(11),
        _types(*_REALS),
        _needs("mode", "linear", "cubic"),
        _unless("coordinate_transformation_mode", "half_pixel", "half_pixel_symmetric", "asymmetric"),
        untried="axes",
    ),
    "RoiAlign": _row(_below(16), until=16),
    "Scan": _row(
        _given("scan_input_directions"),
        _given("scan_output_directions"),
        untried="scan_input_axes scan_output_axes",
    ),
    "Shape": _row(_given("end")),
    "Shrink": _row(_types(*_REALS)),
    "Slice": _row(_reads(4, "steps")),
    "Softmax": _row(_below(13)),
    "SoftmaxCrossEntropyLoss": _row(_types(*_DOUBLES)),
    "Softsign": _row(_SCALAR),
    "Squeeze": _row(_SEVERAL_AXES),
    "Unique": _row(_unless("sorted", 1)),
    "Unsqueeze": _row(_SEVERAL_AXES),
}

_LEARNING = {
    **{name: Row() for name in ("ArrayFeatureExtractor", "Binarizer", "Imputer")},
    "FeatureVectorizer": _row(loose=True),
    "LabelEncoder": _row(
        # The first version is of strings.
        Rule("below operator set 2", lambda use: use.opset < 2, tried=False),
        untried="classes_strings default_string default_tensor keys_strings keys_tensor values_strings "
        "values_tensor",
    ),
    "LinearClassifier": _row(
        _unless("post_transform", "NONE", "SOFTMAX", "SOFTMAX_ZERO"),
        untried="classlabels_strings",
        loose=True,
    ),
    "LinearRegressor": _row(
        _unless("post_transform", "NONE"),
        Rule("where intercepts are missing", lambda use: not use.values("intercepts")),
    ),
    "Normalizer": _row(_types(*_DOUBLES), _needs("norm", "L1", "L2"), loose=True),
    "OneHotEncoder": _row(_types("int32", "int64"), untried="cats_strings"),
    "SVMRegressor": _row(_unless("post_transform", "NONE")),
    "Scaler": _row(_types(*_DOUBLES), loose=True),
    "TreeEnsemble": _row(
        _unless("post_transform", 0),
        _unless("aggregate_function", 1),
        untried="membership_values nodes_hitrates nodes_missing_value_tracks_true",
    ),
    "TreeEnsembleRegressor": _row(
        _unless("post_transform", "NONE"),
        _unless("aggregate_function", "SUM"),
        _given("base_values"),
        untried="base_values_as_tensor nodes_hitrates_as_tensor nodes_values_as_tensor "
        "target_weights_as_tensor",
        loose=True,
    ),
}

COMPARED: dict[tuple[str, str], Row] = {
    (domain, name): row
    for domain, rows in (("", _STANDARD), (_ML, _LEARNING))
    for name, row in rows.items()
}
"""Operators that the evaluator may compute, by (domain, name)."""

DIFFERENT: dict[tuple[str, str], str] = {
    ("", "DynamicQuantizeLinear"): "it gives another scale for zeros",
    ("", "GlobalLpPool"): "it has none",
    ("", "LRN"): "it computes another function",
    ("", "LogSoftmax"): "it gives infinities where values lie far apart",
    ("", "MaxRoiPool"): "it has none",
    ("", "Scatter"): "it has none",
    (_ML, "SVMClassifier"): "it gives other scores",
    (_ML, "TreeEnsembleClassifier"): "it gives other scores and classes",
}  # fmt: skip
"""Operators for which it differs from ONNX Runtime, or fails, with the reason."""

_WHY_NOT = {
    ("", "ONNX Runtime has none"): "ImageDecoder",
    ("", "its numbers are random"): (
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
    ),
    ("", "it is of sequences or optionals"): (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct "
        "SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence"
    ),
    ("", "it is of strings or maps"): (
        "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer"
    ),
    (_ML, "it is of strings or maps"): "CastMap CategoryMapper DictVectorizer ZipMap",
}

UNCOMPARED: dict[tuple[str, str], str] = {
    (domain, name): why for (domain, why), names in _WHY_NOT.items() for name in names.split()
}
"""Operators that were not compared, with the reason."""


def refusal(
    node: Any,
    opsets: Mapping[str, int],
    dtypes: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int | None] | None] | None = None,
) -> str | None:
    """Return why onnx's reference evaluator must not compute a node, or one of its subgraphs; None if it may.

    `dtypes` and `shapes` are those, as far as known, of the tensors that they read, by name. A node that may
    be computed for some types or ranks only is refused where they are not known.
    """
    from onnx import defs

    domain = "" if node.domain == "ai.onnx" else node.domain
    key, opset = (domain, node.op_type), opsets.get(domain, 1)
    if key in DIFFERENT:
        return f"onnx's reference evaluator differs from ONNX Runtime for {node.op_type}: {DIFFERENT[key]}"
    row = COMPARED.get(key)
    if row is None:
        why = UNCOMPARED.get(key, "no test draws it")
        return f"{node.op_type} of onnx's reference evaluator was not compared with ONNX Runtime: {why}"
    if not defs.has(node.op_type, opset, domain):
        return f"operator set {opset} has no {node.op_type}"
    schema = defs.get_schema(node.op_type, opset, domain)
    newest = NEWEST[domain] if row.until is None else row.until
    if schema.since_version > newest or (not domain and opset < 10):
        return (
            f"{node.op_type} of onnx's reference evaluator was compared with ONNX Runtime up to version "
            f"{newest} of its operator set, not in version {schema.since_version}"
        )
    use = Use(node, opset, dtypes or {}, shapes or {})
    for rule in row.rules:
        if rule.holds(use):
            what = "differs from" if rule.tried else "was not compared with"
            return f"onnx's reference evaluator {what} ONNX Runtime for {node.op_type} {rule.where}"
    inputs = zip(node.input, schema.inputs, strict=False)
    given = {attribute.name for attribute in node.attribute} | {value.name for name, value in inputs if name}
    untried = sorted(given & set(row.untried.split()))
    if untried:
        return (
            f"{node.op_type} of onnx's reference evaluator was not compared with ONNX Runtime with "
            f"{' and '.join(untried)}"
        )
    return _inner_refusal(use, opsets)


def _inner_refusal(use: Use, opsets: Mapping[str, int]) -> str | None:
    """Return why the evaluator must not compute a node in one of a node's subgraphs, None if it may."""
    for graph in subgraphs(use.node):
        # A name of the subgraph's own is no tensor of the graph around it.
        own = own_names(graph)
        dtypes = {name: dtype for name, dtype in use.dtypes.items() if name not in own}
        shapes = {name: shape for name, shape in use.shapes.items() if name not in own}
        for inner in graph.node:
            why = refusal(inner, opsets, dtypes, shapes)
            row = COMPARED.get(("" if inner.domain == "ai.onnx" else inner.domain, inner.op_type))
            if why is None and row is not None and row.loose:
                what = "in the types of its results"
                why = f"onnx's reference evaluator differs from ONNX Runtime for {inner.op_type} {what}"
            if why is not None:
                return f"its subgraph holds the node {inner.name or inner.output[:1]!r}: {why}"
    return None
