"""Layers of the Qwen-VL backbones that compute the same as the stock layers, in fewer passes over memory.

The stock layers of transformers allocate a tensor for each step. On a CPU, much of the time of a norm or an activation
is the allocation; on a GPU, each step is a kernel of its own. The layers here share the parameters of the stock layers
under the same names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """Root mean square norm with a weight for each element.

    In half precision, the stock layer rounds the norm before it multiplies by the weight; here, only the result is
    rounded.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019).
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # the RMSNorm of either architecture
        super().__init__()
        self.weight = stock.weight
        self.variance_epsilon = float(stock.variance_epsilon)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the normalized `hidden`, shape (..., width), in the same shape and dtype."""
        if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
            # PyTorch has no fused norm on a CPU, and its composite takes twice as long as these steps.
            norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
            scale = torch.rsqrt(norm * norm / hidden.shape[-1] + self.variance_epsilon)
            return (hidden * scale).mul_(self.weight)
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.variance_epsilon)


class GatedMLP(nn.Module):
    """Gated feed-forward layer: down(silu(gate(x)) * up(x)).

    Source: Shazeer, GLU Variants Improve Transformer (2020).
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # the MLP of the decoder or of the Qwen2.5-VL tower
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = stock.gate_proj, stock.up_proj, stock.down_proj

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output for `hidden`, shape (..., width), in the same shape and dtype."""
        gate = functional.silu(self.gate_proj(hidden), inplace=True)
        gate *= self.up_proj(hidden)
        output: torch.Tensor = self.down_proj(gate)
        return output


class QuickGELUMLP(nn.Module):
    """Feed-forward layer of the Qwen2-VL tower: fc2(a * sigmoid(1.702 a)), where a = fc1(x).

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # the MLP of the Qwen2-VL tower
        super().__init__()
        self.fc1, self.fc2 = stock.fc1, stock.fc2

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output for `hidden`, shape (..., width), in the same shape and dtype."""
        value = self.fc1(hidden)
        value *= (1.702 * value).sigmoid_()
        output: torch.Tensor = self.fc2(value)
        return output


def replace_layers(module: nn.Module) -> None:
    """Replace the norms and feed-forward layers of a stock module by the layers of this file, in place.

    Layers of another kind, for example with another activation, are kept. Call after the weights are loaded and before
    adapters are added.

    Args:
        module: Stock module; names and parameters do not change.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            replacement = _replacement(child)
            if replacement is not None:
                setattr(parent, name, replacement)


def _replacement(stock: Any) -> nn.Module | None:  # noqa: ANN401  # any module
    kind = type(stock).__name__
    if kind.endswith("RMSNorm") and hasattr(stock, "variance_epsilon"):
        return RMSNorm(stock)
    if hasattr(stock, "gate_proj") and type(stock.act_fn).__name__ in ("SiLU", "SiLUActivation"):
        return GatedMLP(stock)
    if hasattr(stock, "fc1") and type(stock.act).__name__ == "QuickGELUActivation":
        return QuickGELUMLP(stock)
    return None
