"""Writes jina_rag/models/_assets/e5_graph.onnx: the 12 layers of multilingual-e5-small without their weights.

Run it after changing the graph: ``python tools/build_lite_graph.py``. A test holds the file to what this
makes.

The graph, and why it looks as it does (each choice measured on CPUs with AVX2 or AVX-512 and without VNNI):

- Matrix products take 8-bit activations and 7-bit weights (`MatMulIntegerToFloat`): 1.5 times as fast as
  float32. 7 bits, because without VNNI the kernel adds two products in 16 bits, which 8-bit weights overflow.
  4-bit products (`MatMulNBits`) were slower than float32 there.
- Activations are quantised with one fixed scale per product, found by tools/calibrate_lite.py, after a
  division by a fixed factor per channel which the weights take up (SmoothQuant, Xiao et al., ICML 2023).
  Fixed scales make a token's vector independent of what else is in the batch.
- No attention mask: a batch holds sequences of one length only, and the unmasked attention kernel is faster.
- Add and LayerNormalization, not the fused SkipLayerNormalization, whose kernel is four times slower. The
  session must therefore not run the extended graph optimisations, which would fuse them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

LAYERS, HIDDEN, HEADS, FFN = 12, 384, 12, 1536
EPSILON = 9.999999960041972e-13
MICROSOFT = "com.microsoft"
OUTPUT = Path(__file__).parents[1] / "jina_rag" / "models" / "_assets" / "e5_graph.onnx"


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> str:
        """A tensor that the program hands over when it opens the session."""
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights")
        self.weights.append(tensor)
        return name

    def node(self, kind: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: object) -> list[str]:
        names = [f"{kind}{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def norm(self, x: str, name: str) -> str:
        weight, bias = self.weight(f"{name}.w", (HIDDEN,)), self.weight(f"{name}.b", (HIDDEN,))
        return self.node("LayerNormalization", [x, weight, bias], epsilon=EPSILON)[0]

    def linear(self, x: str, name: str, columns: int, rows: int, *, smooth: bool = True) -> str:
        if smooth:
            [x] = self.node("Mul", [x, self.weight(f"{name}.smooth", (columns,))])
        scale = self.weight(f"{name}.scale", ())
        zero = self.weight(f"{name}.zero", (), TensorProto.UINT8)
        [x] = self.node("QuantizeLinear", [x, scale, zero])
        weight = self.weight(f"{name}.w", (columns, rows), TensorProto.INT8)
        steps, bias = self.weight(f"{name}.steps", (rows,)), self.weight(f"{name}.b", (rows,))
        return self.node("MatMulIntegerToFloat", [x, weight, scale, steps, zero, "", bias], domain=MICROSOFT)[0]


def build() -> onnx.ModelProto:
    """The graph: input ``x`` (batch, length, 384), summed embeddings; output ``y``, the same shape."""
    b = _Builder()
    x = b.norm("x", "emb.ln")
    for layer in range(LAYERS):
        at = f"l{layer}"
        query, key, value = b.node("Split", [b.linear(x, f"{at}.qkv", HIDDEN, 3 * HIDDEN)], 3, axis=-1, num_outputs=3)
        [mixed] = b.node("MultiHeadAttention", [query, key, value], domain=MICROSOFT, num_heads=HEADS)
        mixed = b.linear(mixed, f"{at}.ao", HIDDEN, HIDDEN, smooth=False)
        x = b.norm(b.node("Add", [mixed, x])[0], f"{at}.aln")
        [inner] = b.node("Gelu", [b.linear(x, f"{at}.fi", HIDDEN, FFN)])
        inner = b.linear(inner, f"{at}.fo", FFN, HIDDEN)
        x = b.norm(b.node("Add", [inner, x])[0], f"{at}.oln")
    b.nodes[-1].output[0] = "y"
    shape = ["batch", "length", HIDDEN]
    graph = helper.make_graph(
        b.nodes,
        "multilingual-e5-small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        b.weights,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="jina_rag")


def main() -> None:
    """Write the file, or the one named on the command line."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    path.write_bytes(build().SerializeToString(deterministic=True))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
