"""XLM-RoBERTa with rotary positions in plain torch: the encoder of jina-colbert-v2.

The published implementation requires remote code and flash-attn. This implementation has the same tensor names and
returns the same values. The layers are post-norm with exact GELU. Half-split rotary embeddings over the full
width of each head replace the table of position embeddings.

Source: Jha et al., Jina-ColBERT-v2 (2024), and the published code; Su et al., RoFormer (2021), for rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from jina_rag.errors import CheckpointError


class RotaryEncoder(nn.Module):
    """Encoder that maps token ids to hidden states, with the parameter names of the published files (``roberta.…``).

    Args:
        config: Content of config.json.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, eps = int(config["hidden_size"]), float(config.get("layer_norm_eps") or 1e-5)
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(int(config["vocab_size"]), hidden)
        self.embeddings.token_type_embeddings = nn.Embedding(int(config.get("type_vocab_size") or 1), hidden)
        self.emb_ln = nn.LayerNorm(hidden, eps=eps)
        heads, inner = int(config["num_attention_heads"]), int(config["intermediate_size"])
        self.encoder = nn.Module()
        layers = [_Layer(hidden, heads, inner, eps) for _ in range(int(config["num_hidden_layers"]))]
        self.encoder.layers = nn.ModuleList(layers)
        self._base = float(config.get("rotary_emb_base") or 10_000.0)
        self._head_dim = hidden // heads

    @classmethod
    def empty(cls, config: Mapping[str, Any], folder: Path) -> RotaryEncoder:
        """Return an encoder with parameters on the meta device.

        Args:
            config: Content of config.json.
            folder: Folder of the checkpoint, for messages.

        Raises:
            CheckpointError: If the config is invalid or describes another architecture.
        """
        only = {"hidden_act": "gelu", "position_embedding_type": "rotary"}
        for key, value in only.items():
            if config.get(key, value) != value:
                raise CheckpointError(
                    f"{folder}: config.json has {key}={config[key]!r}; expected {value!r}. Pass jina-colbert-v2."
                )
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        if hidden % heads or hidden // heads % 2:
            raise CheckpointError(
                f"{folder / 'config.json'}: hidden_size ({hidden}) must be an even multiple of num_attention_heads "
                f"({heads}). Download the model again."
            )
        with torch.device("meta"):
            return cls(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the hidden states, shape (batch, tokens, hidden), in the dtype of the weights.

        Args:
            ids: Token ids, shape (batch, tokens), int64.
            mask: Attention mask, shape (batch, tokens), bool, True for tokens to attend to; None to attend to all.
        """
        types: Any = self.embeddings.token_type_embeddings
        words: Any = self.embeddings.word_embeddings
        hidden: torch.Tensor = self.emb_ln(words(ids) + types.weight[0])
        rotary = _rotary(ids.shape[1], self._head_dim, self._base, hidden)
        attention_mask = None if mask is None else mask[:, None, None, :]
        layers: Any = self.encoder.layers
        for layer in layers:
            hidden = layer(hidden, rotary, attention_mask)
        return hidden


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.mixer = nn.Module()
        self.mixer.Wqkv = nn.Linear(hidden, 3 * hidden)
        self.mixer.out_proj = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, eps=eps)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(hidden, inner)
        self.mlp.fc2 = nn.Linear(inner, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=eps)
        self._heads = heads

    def forward(
        self, hidden: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        mixer: Any = self.mixer
        mlp: Any = self.mlp
        batch, tokens, width = hidden.shape
        query_key_value = mixer.Wqkv(hidden).view(batch, tokens, 3, self._heads, width // self._heads)
        query, key, value = query_key_value.permute(2, 0, 3, 1, 4)
        attention = scaled_dot_product_attention(
            _rotate(query, rotary), _rotate(key, rotary), value, attn_mask=attention_mask
        )
        projected = mixer.out_proj(attention.transpose(1, 2).reshape(batch, tokens, width))
        hidden = self.norm1(hidden + projected)
        output: torch.Tensor = self.norm2(hidden + mlp.fc2(gelu(mlp.fc1(hidden))))
        return output


def _rotary(tokens: int, dim: int, base: float, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of the rotary angles, shape (tokens, dim), in the dtype of `like`."""
    steps = torch.arange(0, dim, 2, device=like.device, dtype=torch.float32)
    angles = torch.outer(torch.arange(tokens, device=like.device, dtype=torch.float32), base ** (-steps / dim))
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _rotate(heads: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cosines, sines = rotary
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-second, first], dim=-1) * sines
