"""onnx's reference evaluator beside ONNX Runtime, on random nodes of every operator and operator set.

Where ``refusal`` allows a node, the two agree; what it refuses, and what is remarked here, is real.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs, helper

import systolic
from support.fallback_cases import CASES, Case, Source, kind
from systolic.frontend.operators import OPERATORS
from systolic.layers.host import compared
from systolic.layers.host.compared import COMPARED, DIFFERENT, NEWEST, UNCOMPARED, Rule, Use
from systolic.layers.host.evaluator import evaluator
from systolic.model import DTYPES

ort = pytest.importorskip("onnxruntime")

# Of these the table speaks; others have other faults.
LISTED = onnx.__version__.startswith("1.23") and ort.__version__.startswith("1.32")
listed = pytest.mark.skipif(not LISTED, reason="the table is of onnx 1.23 and ONNX Runtime 1.32")

LONG = os.environ.get("SYSTOLIC_HYPOTHESIS") == "long"
# Nodes compared per operator and operator set, and what a known difference may take to be found.
WANTED, TRIED = (400, 4000) if LONG else (8, 120)
SEED = int(os.environ.get("SYSTOLIC_FUZZ_SEED", "0")) if LONG else 0
KNOWN = 1500

# Largest errors, relative to the largest magnitude among the results, or 1. In float16 sums may cancel: there
# the inputs count too.
TOLERANCE = {"float16": 6e-3, "float32": 1e-5, "float64": 1e-5}

# ONNX Runtime lacks it: expected are the values of onnx's own tests of nodes.
BY_ONNX = ("", "SwiGLU")
BY_RUNTIME = [key for key in COMPARED if key != BY_ONNX]

# Where the two agree only without infinities and NaN, without integers that overflow, and on tensors that have
# elements; and where the evaluator raises an error for some values and sizes: an axis or depth given as a vector of
# one, fewer indices than data along another axis, reflection at an axis of one, negative pads, negative powers.
REMARKS = {
    "finite": "ArgMax ArgMin Clip Hardmax PRelu QuantizeLinear ReduceLogSumExp ReduceMax ReduceMin Sign",
    "bounded": "Pow ReduceL1 ReduceL2 ReduceMean ReduceProd ReduceSum ReduceSumSquare",
    "filled": "Flatten MatMulInteger QLinearMatMul ReduceLogSumExp ReduceMean",
    "raises": "CumProd CumSum GatherElements GridSample OneHot Pad Pow",
}


def remarked(key: tuple[str, str], remark: str) -> bool:
    if remark == "loose":
        return COMPARED[key].loose
    return not key[0] and key[1] in REMARKS[remark].split()


def name_of(value: Any) -> str:
    return ".".join(filter(None, value)) if isinstance(value, tuple) else value if isinstance(value, str) else ""


def opsets(key: tuple[str, str]) -> list[int]:
    """Operator sets to try an operator in: each that changes it, and for the standard ones 10, 13 and the newest."""
    domain, name = key
    found = {s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == key}
    if not domain:
        found = {version for version in found if version > 10} | {10, 13, NEWEST[""]}
    return sorted(
        version
        for version in found
        if version <= NEWEST[domain]
        and defs.has(name, version, domain)
        and not defs.get_schema(name, version, domain).deprecated
    )


def draws(
    key: tuple[str, str], version: int, count: int, seed: int = 0, **narrow: bool
) -> Iterator[Case]:
    domain, name = key
    for place in range(count):
        rng = np.random.default_rng([zlib.crc32(name.encode()), version, seed, place])
        try:
            yield Source(name, domain, version, rng, **narrow).draw(CASES[key])
        except LookupError:
            # The version has none of the types that the generator is for.
            continue


def narrowed(key: tuple[str, str]) -> dict[str, bool]:
    return {remark: remarked(key, remark) for remark in ("finite", "bounded", "filled")}


def refusal(case: Case) -> str | None:
    shapes = {name: x.shape for name, x in case.feeds.items()}
    return compared.refusal(case.node, case.opsets, case.dtypes, shapes)


@functools.cache
def options() -> Any:
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 4
    return chosen


def by_runtime(case: Case) -> list[np.ndarray] | None:
    """What ONNX Runtime computes; None if it has no kernel for the node or does not take its inputs."""
    inputs = [helper.make_tensor_value_info(n, kind(x.dtype), list(x.shape)) for n, x in case.feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in case.node.output if name]
    imports = [helper.make_opsetid(domain, version) for domain, version in case.opsets.items()]
    graph = helper.make_graph([case.node], "node", inputs, outputs)
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])
        return session.run(None, case.feeds)
    except Exception:
        # Its kinds have no common base of their own.
        return None


def by_evaluator(case: Case) -> list[np.ndarray]:
    types = tuple(case.dtypes.values())
    run = evaluator(case.node.SerializeToString(), tuple(case.feeds), types, tuple(case.opsets.items()))
    with np.errstate(all="ignore"):
        return run.run(None, case.feeds)


def difference(ours: Any, theirs: np.ndarray, inputs: Sequence[np.ndarray] = ()) -> str | None:
    if not isinstance(ours, np.ndarray | np.generic):
        return f"{type(ours).__name__} instead of a tensor"
    with np.errstate(all="ignore"):
        # As OnnxNode does: the evaluator is loose about types.
        ours = np.asarray(ours).astype(theirs.dtype)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape} instead of {theirs.shape}"
    if theirs.dtype.kind != "f":
        return None if np.array_equal(ours, theirs) else f"{ours.tolist()} instead of {theirs.tolist()}"
    finite = np.isfinite(theirs)
    same = np.array_equal(np.where(np.isfinite(ours), 0, ours), np.where(finite, 0, theirs), equal_nan=True)
    largest = max([1.0, magnitude(theirs), *(magnitude(x) for x in inputs if x.dtype == np.float16)])
    error = magnitude(np.subtract(ours, theirs, where=finite, out=np.zeros(ours.shape), dtype=np.float64))
    if same and error <= TOLERANCE[theirs.dtype.name] * largest:
        return None
    return f"{ours.tolist()} instead of {theirs.tolist()}"


def magnitude(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)].astype(np.float64)).max(initial=0))


def verdict(case: Case) -> str | None:
    """How the evaluator differs from ONNX Runtime, "" if it does not; None if ONNX Runtime does not compute it."""
    theirs = by_runtime(case)
    if theirs is None:
        return None
    try:
        ours = by_evaluator(case)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    inputs = list(case.feeds.values())
    pairs = list(zip(ours, theirs, strict=True))
    found = [difference(a, b, inputs) for a, b in pairs]
    if not any(found):
        found = [f"types: {a.dtype} instead of {b.dtype}" for a, b in pairs if a.dtype != b.dtype]
    return "; ".join(text for text in found if text)


def text_of(case: Case) -> str:
    feeds = {name: (x.dtype.name, x.shape, x.tolist()) for name, x in case.feeds.items()}
    return f"operator sets {case.opsets}\n{helper.printable_node(case.node)}\n{feeds}"


@pytest.mark.slow
@listed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", BY_RUNTIME, ids=name_of)
@pytest.mark.exhaustive
def test_nodes_that_are_allowed_are_equal_to_onnxruntime(key: tuple[str, str]) -> None:
    row = COMPARED[key]
    counts: dict[int, list[int]] = {}
    for version in opsets(key):
        # Versions that are allowed but have no kernel in one operator set may have it in another.
        count = counts.setdefault(defs.get_schema(key[1], version, key[0]).since_version, [0, 0])
        equal = 0
        for case in draws(key, version, TRIED, SEED, **narrowed(key)):
            if equal >= WANTED:
                break
            if refusal(case):
                continue
            count[0] += 1
            found = verdict(case)
            if found is None or (found.startswith("raises") and remarked(key, "raises")):
                continue
            if row.loose and found.startswith("types"):
                found = ""
            assert not found, f"{found}\n{text_of(case)}"
            equal += 1
        count[1] += equal
    for version, (allowed, equal) in counts.items():
        assert equal >= min(allowed, 3), f"only {equal} nodes of {allowed} allowed compared in version {version}"
    assert any(equal for _, equal in counts.values())


def within(case: Case) -> Case:
    """The node in both branches of an If."""
    outputs = [onnx.ValueInfoProto(name=name) for name in case.node.output if name]
    branches = [helper.make_graph([case.node], name, [], outputs) for name in ("then", "else")]
    names = [value.name + " if" for value in outputs]
    node = helper.make_node("If", ["c"], names, name="if", then_branch=branches[0], else_branch=branches[1])
    return Case(node, {"c": np.array(True), **case.feeds}, case.opsets)


@pytest.mark.slow
@listed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", BY_RUNTIME, ids=name_of)
@pytest.mark.exhaustive
def test_nodes_in_subgraphs_are_equal_to_onnxruntime(key: tuple[str, str]) -> None:
    row, equal = COMPARED[key], 0
    for case in map(within, draws(key, opsets(key)[-1], TRIED, SEED, **narrowed(key))):
        if equal >= WANTED // 4:
            break
        if refusal(case):
            continue
        found = verdict(case)
        if found is None or (found.startswith("raises") and remarked(key, "raises")):
            continue
        assert not found, f"{found}\n{text_of(case)}"
        equal += 1
    assert equal or row.loose or row.until or key[1] == "Swish"


def known() -> Iterator[tuple[tuple[str, str], str, Rule | None]]:
    """Yield what the table says is different: rules, remarks, and whole operators."""
    for key, row in COMPARED.items():
        for rule in row.rules:
            if rule.tried:
                yield key, rule.where, rule
        for remark in ("finite", "bounded", "filled", "loose", "raises"):
            if remarked(key, remark):
                yield key, remark, None
    for key, why in DIFFERENT.items():
        yield key, why, None


def only(case: Case, key: tuple[str, str], rule: Rule) -> bool:
    """Whether a node is refused by this rule and by no other."""
    shapes = {name: x.shape for name, x in case.feeds.items()}
    use = Use(case.node, case.opsets[key[0]], case.dtypes, shapes)
    return [r.where for r in COMPARED[key].rules if r.holds(use)] == [rule.where]


@pytest.mark.slow
@listed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("key", "what", "rule"), list(known()), ids=name_of)
@pytest.mark.exhaustive
def test_what_differs_is_real(key: tuple[str, str], what: str, rule: Rule | None) -> None:
    """One that is not found any more was mended: delete it."""
    for version in opsets(key):
        for case in draws(key, version, KNOWN // len(opsets(key))):
            if rule is None and key in COMPARED and refusal(case):
                continue
            if rule is not None and not only(case, key, rule):
                continue
            found = verdict(case)
            kind_ = {"raises": "raises", "loose": "types"}.get(what, "")
            if found and found.startswith(kind_) and (what == "loose" or not found.startswith("types")):
                return
    pytest.fail(f"no node differs: {key[1]} {what}")


# Coverage


def standard() -> dict[tuple[str, str], list[Any]]:
    """Every operator of the two domains, with its versions in use from operator set 10 on."""
    found: dict[tuple[str, str], list[Any]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain in NEWEST:
            found.setdefault((schema.domain, schema.name), []).append(schema)
    kept = {}
    for key, schemas in found.items():
        schemas.sort(key=lambda schema: schema.since_version)
        first = 0
        if not key[0]:
            first = max([i for i, s in enumerate(schemas) if s.since_version <= 10], default=0)
        live = [schema for schema in schemas[first:] if not schema.deprecated]
        if live:
            kept[key] = live
    return kept


@listed
def test_every_operator_is_in_the_table() -> None:
    """Also those that have layers of ours: in subgraphs the evaluator computes them."""
    listed_ = [*COMPARED, *DIFFERENT, *UNCOMPARED]
    assert len(set(listed_)) == len(listed_)
    assert set(listed_) == set(standard())
    assert {key for key in OPERATORS if key[0] in NEWEST} <= set(listed_)
    assert {*BY_RUNTIME, *DIFFERENT} <= set(CASES)


@pytest.mark.slow
@listed
@pytest.mark.parametrize("key", BY_RUNTIME, ids=name_of)
@pytest.mark.exhaustive
def test_draws_use_every_attribute_and_input(key: tuple[str, str]) -> None:
    """Or the table refuses those that they do not use."""
    names: set[str] = set()
    for schema in standard()[key]:
        names |= {*schema.attributes, *(value.name for value in schema.inputs)}
    used: set[str] = set()
    untried = set(COMPARED[key].untried.split())
    for version in reversed(opsets(key)):
        inputs = [value.name for value in defs.get_schema(key[1], version, key[0]).inputs]
        for case in draws(key, version, 60):
            if not names - used - untried:
                break
            used |= {attribute.name for attribute in case.node.attribute}
            used |= {name for name, given in zip(inputs, case.node.input, strict=False) if given}
    assert names - used == untried


# Single answers


def test_versions_that_were_not_compared_are_refused() -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    assert compared.refusal(node, {"": 21}) is None
    assert compared.refusal(node, {"": 9}, {}).endswith("not in version 6")
    node = helper.make_node("RoiAlign", ["x", "r", "b"], ["y"])
    assert compared.refusal(node, {"": 16}) is None
    assert "up to version 16 of its operator set, not in version 22" in compared.refusal(node, {"": 22})
    assert "has no RoiAlign" in compared.refusal(node, {"": 9})
    node = helper.make_node("Nobody", ["x"], ["y"], domain="some.where")
    assert "no test draws it" in compared.refusal(node, {"": 21, "some.where": 1})


def test_refusals_say_where() -> None:
    node = helper.make_node("LpNormalization", ["x"], ["y"], p=1)
    assert compared.refusal(node, {"": 13}) == (
        "onnx's reference evaluator differs from ONNX Runtime for LpNormalization where p is not 2"
    )
    node = helper.make_node("GlobalMaxPool", ["x"], ["y"])
    assert "for tensors of other ranks than 4" in compared.refusal(node, {"": 13})
    assert compared.refusal(node, {"": 13}, {"x": "float32"}, {"x": (None, 3, None, None)}) is None
    node = helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.BFLOAT16)
    assert "was not compared with ONNX Runtime for Cast to a type that numpy lacks" in compared.refusal(node, {"": 13})
    node = helper.make_node("Dropout", ["x", "", "training"], ["y"])
    assert compared.refusal(node, {"": 13}).endswith("with training_mode")


def test_nodes_of_subgraphs_are_looked_at() -> None:
    def branch(*nodes: Any, inner: str = "o") -> Any:
        return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("o", 1, None)], [
            onnx.numpy_helper.from_array(np.float32([[1]]), "own")
        ])  # fmt: skip

    def choice(*nodes: Any) -> Any:
        other = branch(helper.make_node("Identity", ["x"], ["o"]))
        return helper.make_node("If", ["c"], ["y"], then_branch=branch(*nodes), else_branch=other)

    def why(*nodes: Any) -> str | None:
        shapes = {"x": (2, 3), "own": (2, 3)}
        return compared.refusal(choice(*nodes), {"": 17}, {"x": "float32", "c": "bool", "own": "float32"}, shapes)

    assert why(helper.make_node("Relu", ["x"], ["o"])) is None
    lrn = helper.make_node("LRN", ["x"], ["o"], size=3, name="inner")
    assert "holds the node 'inner': onnx's reference evaluator differs" in why(lrn)
    assert "holds the node" in why(choice(lrn))
    # What is known of the graph around: of a name that the subgraph has of its own, nothing.
    assert why(helper.make_node("NonZero", ["x"], ["o"])) is None
    assert "without axes" in why(helper.make_node("NonZero", ["own"], ["o"]))
    assert "without axes" in why(helper.make_node("Relu", ["x"], ["r"]), helper.make_node("NonZero", ["r"], ["o"]))


# onnx's own tests of nodes


def own_cases() -> Iterator[tuple[str, Case, list[np.ndarray]]]:
    """Yield onnx's tests of single nodes on tensors: name, node, expected outputs."""
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        tests = collect_testcases(None)
    for test in tests:
        if len(test.model.graph.node) != 1:
            continue
        sets = {entry.domain: entry.version for entry in test.model.opset_import}
        for inputs, outputs in test.data_sets:
            if not all(isinstance(x, np.ndarray | np.generic) and x.dtype.name in DTYPES for x in (*inputs, *outputs)):
                continue
            feeds = {v.name: np.asarray(x) for v, x in zip(test.model.graph.input, inputs, strict=True)}
            yield test.name, Case(test.model.graph.node[0], feeds, sets), [np.asarray(x) for x in outputs]


@pytest.mark.slow
@listed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.exhaustive
def test_onnx_own_nodes_that_are_allowed() -> None:
    """They are equal to ONNX Runtime, and to what onnx expects where ONNX Runtime has no kernel."""
    by_runtime_, by_onnx = 0, set()
    for name, case, expected in own_cases():
        if refusal(case):
            continue
        theirs = by_runtime(case)
        if theirs is None:
            by_onnx.add((case.node.domain, case.node.op_type))
        else:
            by_runtime_ += 1
        pairs = zip(by_evaluator(case), theirs or expected, strict=True)
        assert not any(difference(a, b, list(case.feeds.values())) for a, b in pairs), name
    # A floor, so that a change in the package cannot empty the list.
    assert by_runtime_ >= 900
    # That have no kernel at all.
    assert BY_ONNX in by_onnx


FOREIGN = sorted(key for key in CASES if key not in OPERATORS)

LEFT_OUT = {
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"), "random numbers"),
    "CausalConvWithState": "expanded into other operators, in an order that depends on declared shapes",
    "LinearAttention": "expanded into a Scan that ONNX Runtime runs only with declared shapes",
    "SwiGLU": "ONNX Runtime has no kernel",
    "Upsample": "deprecated since operator set 10",
}


@pytest.mark.slow
@pytest.mark.parametrize("key", FOREIGN, ids=name_of)
@pytest.mark.exhaustive
def test_models_of_one_node(key: tuple[str, str], tmp_path: Any) -> None:
    """Loaded and run, a node without a layer of ours gives ONNX Runtime's results, bit for bit."""
    if key[1] in LEFT_OUT:
        pytest.skip(LEFT_OUT[key[1]])
    tries = 0
    for version in opsets(key):
        for case in draws(key, version, 40 if LONG else 6, seed=SEED + 1):
            if not case.feeds or any(dtype not in DTYPES for dtype in case.dtypes.values()):
                continue
            theirs = by_runtime(case)
            if theirs is None or any(not isinstance(y, np.ndarray) or y.dtype.name not in DTYPES for y in theirs):
                continue
            tries += 1
            inputs = [helper.make_tensor_value_info(n, kind(x.dtype), [None] * x.ndim) for n, x in case.feeds.items()]
            names = [name for name in case.node.output if name]
            outputs = [helper.make_tensor_value_info(n, kind(y.dtype), None) for n, y in zip(names, theirs, strict=True)]
            imports = [helper.make_opsetid(domain, v) for domain, v in case.opsets.items()]
            graph = helper.make_graph([case.node], "node", inputs, outputs)
            path = tmp_path / "model.onnx"
            path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())
            run = systolic.run(systolic.load_onnx(path), case.feeds, machine=systolic.ArrayConfig(256, 256))
            for name, want in zip(names, theirs, strict=True):
                np.testing.assert_array_equal(run.outputs[name], want, strict=True)
    assert tries, "ONNX Runtime took none of the nodes"
