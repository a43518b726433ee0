"""Write jina_rag/models/_assets/e5_graph.onnx: the 12 layers of multilingual-e5-small without the weights.

Run ``python tools/build_lite_graph.py`` after a change of the graph. A test compares the file with the output of this
script.

Design of the graph, with each choice measured on CPUs with AVX2 or AVX-512 and without VNNI:

- Matrix products use 8-bit activations and 7-bit weights (`MatMulIntegerToFloat`), which is 1.5 times as fast as
  float32. The weights have 7 bits because the kernel without VNNI adds two products in 16 bits, and 8-bit weights would
  overflow. 4-bit products (`MatMulNBits`) are slower than float32 on these CPUs.
- Activations are divided by a fixed factor per channel and then quantized with one fixed scale per product. The weights
  are multiplied by the same factors (SmoothQuant, Xiao et al., ICML 2023). tools/calibrate_lite.py determines the
  factors and scales. With fixed scales, the vector of a token does not depend on other sequences of the batch.
- The graph has no attention mask: a batch contains sequences of equal length, and the unmasked kernel is faster.
- Add and LayerNormalization are separate, because the kernel of the fused SkipLayerNormalization is four times slower.
  The session must not enable extended graph optimizations, which would fuse Add and LayerNormalization.
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
        """Add a tensor whose values are passed when the session is created, and return the name of the tensor."""
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
    """Return the graph from summed embeddings ``x`` to token vectors ``y``, shape (batch, length, 384), float32."""
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
    """Write the graph to the asset file, or to the path on the command line."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    path.write_bytes(build().SerializeToString(deterministic=True))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
