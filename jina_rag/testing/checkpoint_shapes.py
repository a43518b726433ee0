"""Configurations of random checkpoints, and the names and shapes of the tensors of each configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jina_rag.errors import InvalidInputError

Shapes = dict[str, tuple[int, ...]]

_QWEN_FULL: Mapping[str, Any] = {
    "v4": {
        "text": {
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "max_window_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151_936,
            "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [16, 24, 24]},
        },
        "vision": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        "top": {"matryoshka_dims": [128, 256, 512, 1024, 2048]},
        "rank": 32,
    },
    "m0": {
        "text": {
            "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "max_window_layers": 28,
            "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        },
        "vision": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 1536},
    },
}  # fmt: skip

# The width is a quarter of the width of the published models. The vocabulary is reduced to 8,500 entries, so that the
# output layer takes 10 % of the decoder's multiplications per token (512 x 8,500 = 4.4 million of 43.5 million), the
# same fraction as with the 151,936 entries of jina-embeddings-v4.
_QWEN_MID: Mapping[str, Any] = {
    "v4": {
        "text": {
            "hidden_size": 512, "intermediate_size": 2752, "num_hidden_layers": 8, "max_window_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8_500,
            "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [8, 12, 12]},
        },
        "vision": {
            "depth": 8, "hidden_size": 320, "intermediate_size": 856, "num_heads": 4, "out_hidden_size": 512,
            "fullatt_block_indexes": [7],  # full attention in one block of eight, as in the published model
        },
        "top": {"matryoshka_dims": [64, 128, 256, 512]},
        "rank": 8,
    },
    "m0": {
        "text": {
            "hidden_size": 512, "intermediate_size": 2984, "num_hidden_layers": 8, "max_window_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8_500,
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        },
        "vision": {"depth": 8, "embed_dim": 320, "mlp_ratio": 4, "num_heads": 4, "hidden_size": 512},
    },
}  # fmt: skip

_TEXT_MODELS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "colbert-v2": {
        "mid": {
            "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4,
            "vocab_size": 10_004,
        },
        "full": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "vocab_size": 250_004,
        },
    },
    "v1": {
        "mid": {"d_model": 256, "d_ff": 1024, "d_kv": 64, "num_heads": 4, "num_layers": 6, "vocab_size": 8_000},
        "full": {"d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "num_layers": 24, "vocab_size": 32_128},
    },
}  # fmt: skip


def config_of(family: str, size: str, tiny: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the config.json of a random checkpoint with the size `size`, and the default rank of the LoRA adapters.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        size: ``"tiny"``, ``"mid"`` or ``"full"``.
        tiny: The config.json of the tiny checkpoint, which is the base of the other sizes.

    Raises:
        InvalidInputError: If `size` is unknown.
    """
    config = dict(tiny)
    if size == "tiny":
        return config, 8
    if size not in ("mid", "full"):
        raise InvalidInputError(f"size is {size!r}; expected one of tiny, mid, full.")
    if family in _TEXT_MODELS:
        return {**config, **_TEXT_MODELS[family][size]}, 0
    numbers = (_QWEN_FULL if size == "full" else _QWEN_MID)[family]
    config |= numbers.get("top", {})
    config["vision_config"] = config["vision_config"] | numbers["vision"]
    if "text_config" in config:
        config["text_config"] = config["text_config"] | numbers["text"]
        config |= {key: value for key, value in numbers["text"].items() if key in config}
    else:
        config |= numbers["text"]
    return config, numbers.get("rank", 0)


def shapes_of(family: str, config: Mapping[str, Any]) -> Shapes:
    """Return the shapes of all tensors except the adapters, by key in the layout of the published files.

    Args:
        family: ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``.
        config: The config.json of the checkpoint.
    """
    if family == "v4":
        text = config["text_config"]
        dim = int(config["multi_vector_projector_dim"])
        return {
            **_qwen_text(text),
            **_qwen_2_5_vision(config["vision_config"]),
            **_linear("multi_vector_projector", dim, text["hidden_size"]),
        }
    if family == "m0":
        hidden = config["hidden_size"]
        return {
            **_qwen_text(config),
            **_qwen_2_vision(config["vision_config"]),
            **_linear("score.0", hidden, hidden),
            **_linear("score.2", 1, hidden),
        }
    return _colbert(config) if family == "colbert-v2" else _t5(config)


def adapter_shapes(config: Mapping[str, Any], rank: int) -> Shapes:
    """Return the shapes of the LoRA matrices of one task of jina-embeddings-v4.

    Args:
        config: The config.json of the checkpoint.
        rank: Rank of the adapters.

    Returns:
        Shapes by key, without the name of the task: (rank, inputs) for ``path.lora_A``, (outputs, rank) for
        ``path.lora_B``.
    """
    text = config["text_config"]
    linear = {
        key.removesuffix(".weight").replace("model.", "base_model.model.model.language_model.", 1): shape
        for key, shape in _qwen_text(text).items()
        if key.endswith("_proj.weight")
    }
    projector = (int(config["multi_vector_projector_dim"]), int(text["hidden_size"]))
    linear["base_model.model.multi_vector_projector"] = projector
    shapes: Shapes = {}
    for path, (outputs, inputs) in linear.items():
        shapes[f"{path}.lora_A"], shapes[f"{path}.lora_B"] = (rank, inputs), (outputs, rank)
    return shapes


def _qwen_text(text: Mapping[str, Any]) -> Shapes:
    hidden, ffn = text["hidden_size"], text["intermediate_size"]
    keys = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (text["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not text.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (text["vocab_size"], hidden)
    for i in range(text["num_hidden_layers"]):
        root = f"model.layers.{i}"
        shapes |= {f"{root}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        for name, width in (("q", hidden), ("k", keys), ("v", keys)):
            shapes |= _linear(f"{root}.self_attn.{name}_proj", width, hidden)
        shapes[f"{root}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes |= {f"{root}.mlp.{name}_proj.weight": (ffn, hidden) for name in ("gate", "up")}
        shapes[f"{root}.mlp.down_proj.weight"] = (hidden, ffn)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _patch_embed(vision: Mapping[str, Any], width: int) -> Shapes:
    patch = vision["patch_size"]
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    return {"visual.patch_embed.proj.weight": (width, channels, vision.get("temporal_patch_size", 2), patch, patch)}


def _merger(vision: Mapping[str, Any], width: int, outputs: int) -> Shapes:
    merger_width = width * vision["spatial_merge_size"] ** 2
    return {
        **_linear("visual.merger.mlp.0", merger_width, merger_width),
        **_linear("visual.merger.mlp.2", outputs, merger_width),
    }


def _qwen_2_5_vision(vision: Mapping[str, Any]) -> Shapes:
    width, ffn = vision["hidden_size"], vision["intermediate_size"]
    shapes = _patch_embed(vision, width)
    for i in range(vision["depth"]):
        root = f"visual.blocks.{i}"
        shapes |= {f"{root}.norm1.weight": (width,), f"{root}.norm2.weight": (width,)}
        shapes |= _linear(f"{root}.attn.qkv", 3 * width, width) | _linear(f"{root}.attn.proj", width, width)
        shapes |= _linear(f"{root}.mlp.gate_proj", ffn, width) | _linear(f"{root}.mlp.up_proj", ffn, width)
        shapes |= _linear(f"{root}.mlp.down_proj", width, ffn)
    return shapes | {"visual.merger.ln_q.weight": (width,)} | _merger(vision, width, vision["out_hidden_size"])


def _qwen_2_vision(vision: Mapping[str, Any]) -> Shapes:
    width, ffn = vision["embed_dim"], int(vision["embed_dim"] * vision["mlp_ratio"])
    shapes = _patch_embed(vision, width)
    for i in range(vision["depth"]):
        root = f"visual.blocks.{i}"
        for name in ("norm1", "norm2"):
            shapes |= {f"{root}.{name}.weight": (width,), f"{root}.{name}.bias": (width,)}
        shapes |= _linear(f"{root}.attn.qkv", 3 * width, width) | _linear(f"{root}.attn.proj", width, width)
        shapes |= _linear(f"{root}.mlp.fc1", ffn, width) | _linear(f"{root}.mlp.fc2", width, ffn)
    shapes |= {"visual.merger.ln_q.weight": (width,), "visual.merger.ln_q.bias": (width,)}
    return shapes | _merger(vision, width, vision["hidden_size"])


def _colbert(config: Mapping[str, Any]) -> Shapes:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {
        "roberta.embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "roberta.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "roberta.emb_ln.weight": (hidden,),
        "roberta.emb_ln.bias": (hidden,),
        **_linear("roberta.pooler.dense", hidden, hidden),  # unused, but present in the published files
        "linear.weight": (128, hidden),
    }
    for i in range(config["num_hidden_layers"]):
        root = f"roberta.encoder.layers.{i}"
        shapes |= _linear(f"{root}.mixer.Wqkv", 3 * hidden, hidden) | _linear(f"{root}.mixer.out_proj", hidden, hidden)
        shapes |= _linear(f"{root}.mlp.fc1", ffn, hidden) | _linear(f"{root}.mlp.fc2", hidden, ffn)
        for name in ("norm1", "norm2"):
            shapes |= {f"{root}.{name}.weight": (hidden,), f"{root}.{name}.bias": (hidden,)}
    return shapes


def _t5(config: Mapping[str, Any]) -> Shapes:
    hidden, ffn, width = config["d_model"], config["d_ff"], config["d_kv"] * config["num_heads"]
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    buckets = (config["relative_attention_num_buckets"], config["num_heads"])
    shapes: Shapes = {
        "shared.weight": (config["vocab_size"], hidden),
        "encoder.final_layer_norm.weight": (hidden,),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": buckets,
    }
    for i in range(config["num_layers"]):
        root = f"encoder.block.{i}.layer"
        shapes |= {f"{root}.0.SelfAttention.{name}.weight": (width, hidden) for name in "qkv"}
        shapes[f"{root}.0.SelfAttention.o.weight"] = (hidden, width)
        shapes |= {
            f"{root}.1.DenseReluDense.{name}.weight": (ffn, hidden) for name in (("wi_0", "wi_1") if gated else ("wi",))
        }
        shapes[f"{root}.1.DenseReluDense.wo.weight"] = (hidden, ffn)
        shapes |= {f"{root}.{part}.layer_norm.weight": (hidden,) for part in (0, 1)}
    return shapes
