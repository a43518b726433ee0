"""Allowed keys and values of the JSON files in a checkpoint folder, for each model family.

A checkpoint from a hub is data that someone else wrote. Only the keys that are listed here reach the libraries that
build a model: a key such as ``attn_implementation`` can name code on a hub. A value outside its range raises an error
before a module is built: a billion layers would fill the memory, and a patch of 0 pixels would divide by zero.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.errors import CheckpointError

_MODULE_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
_MAX_QUOTE = 60
"""Maximum length of a value in an error message, in characters."""


class Rule(ABC):
    """The allowed values of a key. `allowed` describes the values as a phrase for error messages."""

    allowed: str

    @abstractmethod
    def accepts(self, value: Any) -> bool:  # noqa: ANN401  # any JSON value
        """Return whether a value is allowed."""


@dataclass(frozen=True)
class Whole(Rule):
    """Whole numbers from `low` to `high`."""

    low: int
    high: int

    @property
    def allowed(self) -> str:  # type: ignore[override]
        """Phrase for error messages."""
        return f"a whole number from {self.low:,} to {self.high:,}"

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is a whole number in the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Real(Rule):
    """Finite numbers from `low` to `high`."""

    low: float
    high: float

    @property
    def allowed(self) -> str:  # type: ignore[override]
        """Phrase for error messages."""
        return f"a number from {self.low:g} to {self.high:g}"

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is a finite number in the range."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and math.isfinite(value)


@dataclass(frozen=True)
class Flag(Rule):
    """True and false."""

    allowed: str = field(default="true or false", init=False)

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is a bool."""
        return isinstance(value, bool)


class Choice(Rule):
    """One of several strings."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.allowed = "one of " + ", ".join(names)

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is one of the strings."""
        return isinstance(value, str) and value in self._names


@dataclass(frozen=True)
class Name(Rule):
    """Strings of at most 200 characters."""

    allowed: str = field(default="a string of at most 200 characters", init=False)

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is a short string."""
        return isinstance(value, str) and len(value) <= 200


@dataclass(frozen=True)
class Items(Rule):
    """Lists of at most `length` values that `item` accepts."""

    item: Rule
    length: int

    @property
    def allowed(self) -> str:  # type: ignore[override]
        """Phrase for error messages."""
        return f"a list of at most {self.length:,} values, each {self.item.allowed}"

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is a list of accepted values."""
        return isinstance(value, list) and len(value) <= self.length and all(map(self.item.accepts, value))


@dataclass(frozen=True)
class ByModule(Rule):
    """Objects with a value that `value` accepts for each literal module name; regular expressions are not allowed."""

    value: Rule

    @property
    def allowed(self) -> str:  # type: ignore[override]
        """Phrase for error messages."""
        return f"an object of module names without wildcards, each with {self.value.allowed}"

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether a value is an object of module names and accepted values."""
        return isinstance(value, dict) and all(
            _MODULE_NAME.fullmatch(name) and self.value.accepts(item) for name, item in value.items()
        )


class Either(Rule):
    """Values that one of several rules accepts."""

    def __init__(self, *rules: Rule) -> None:
        self._rules = rules
        self.allowed = " or ".join(rule.allowed for rule in rules)

    def accepts(self, value: Any) -> bool:  # noqa: ANN401
        """Return whether one of the rules accepts a value."""
        return any(rule.accepts(value) for rule in self._rules)


@dataclass(frozen=True)
class Schema:
    """The allowed keys of a JSON object.

    Attributes:
        rules: Rule, or schema of a nested object, of each allowed key. Other keys are dropped.
        required: Keys that must be present and not null.
    """

    rules: Mapping[str, Rule | Schema]
    required: frozenset[str] = frozenset()

    def check(self, content: Mapping[str, Any], path: Path, *, prefix: str = "") -> dict[str, Any]:
        """Return the allowed keys of an object, after a check of the values. Null is allowed, except if required.

        Args:
            content: The object.
            path: File that contains the object, for the message.
            prefix: Keys of the enclosing objects, for the message.

        Raises:
            CheckpointError: If a required key is missing, or a value is not allowed. The message names file and key.
        """
        for key in sorted(self.required):
            if content.get(key) is None:
                raise CheckpointError(f"{path} lacks {prefix}{key}. Download the model again.")
        checked = {}
        for key, rule in self.rules.items():
            if key not in content:
                continue
            value = content[key]
            if value is not None:
                if isinstance(rule, Schema):
                    if not isinstance(value, dict):
                        raise _wrong_value(path, prefix + key, value, "an object")
                    value = rule.check(value, path, prefix=f"{prefix}{key}.")
                elif not rule.accepts(value):
                    raise _wrong_value(path, prefix + key, value, rule.allowed)
            checked[key] = value
        return checked


def _wrong_value(path: Path, key: str, value: Any, allowed: str) -> CheckpointError:  # noqa: ANN401
    text = repr(value)
    text = text if len(text) <= _MAX_QUOTE else text[:_MAX_QUOTE] + "…"
    return CheckpointError(f"{path}: {key} is {text}; expected {allowed}. Download the model again.")


_LAYERS = Whole(1, 1_000)
_WIDTH = Whole(1, 65_536)
_INNER_WIDTH = Whole(1, 1_048_576)
_HEADS = Whole(1, 1_024)
_VOCABULARY = Whole(1, 4_194_304)
_POSITIONS = Whole(1, 16_777_216)
_TOKEN_ID = Whole(0, _VOCABULARY.high)
_EPSILON = Real(1e-12, 0.1)
_RATE = Real(0, 1)
_BASE = Real(1, 1e12)
_PATCH = Whole(1, 256)
_ACTIVATION = Choice(
    "silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "swish"
)  # fmt: skip
_TEXT = Choice("", "qwen2_vl", "qwen2_5_vl", "qwen2_vl_text", "qwen2_5_vl_text", "t5", "xlm-roberta")
_COMMON: dict[str, Rule | Schema] = {
    "architectures": Items(Name(), 10),
    "model_type": _TEXT,
    "bos_token_id": _TOKEN_ID,
    "eos_token_id": Either(_TOKEN_ID, Items(_TOKEN_ID, 20)),
    "pad_token_id": _TOKEN_ID,
    "initializer_range": _RATE,
    "use_cache": Flag(),
}
_ROPE = Schema(
    {
        "type": Choice("default", "mrope", "linear", "dynamic", "yarn"),
        "rope_type": Choice("default", "mrope", "linear", "dynamic", "yarn"),
        "mrope_section": Items(Whole(1, 4_096), 3),
        "rope_theta": _BASE,
        "factor": Real(1, 1_000),
        "original_max_position_embeddings": _POSITIONS,
        "attention_factor": Real(0, 100),
        "beta_fast": Real(0, 1_000),
        "beta_slow": Real(0, 1_000),
        "partial_rotary_factor": _RATE,
    }
)
_QWEN_TEXT: dict[str, Rule | Schema] = {
    **_COMMON,
    "vocab_size": _VOCABULARY,
    "hidden_size": _WIDTH,
    "intermediate_size": _INNER_WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "head_dim": Whole(2, 4_096),
    "hidden_act": _ACTIVATION,
    "max_position_embeddings": _POSITIONS,
    "rms_norm_eps": _EPSILON,
    "tie_word_embeddings": Flag(),
    "rope_theta": _BASE,
    "rope_scaling": _ROPE,
    "rope_parameters": _ROPE,
    "attention_dropout": _RATE,
    "use_sliding_window": Flag(),
    "sliding_window": _POSITIONS,
    "max_window_layers": Whole(0, _LAYERS.high),
    "layer_types": Items(Choice("full_attention", "sliding_attention"), _LAYERS.high),
    "image_token_id": _TOKEN_ID,
    "video_token_id": _TOKEN_ID,
    "vision_start_token_id": _TOKEN_ID,
    "vision_end_token_id": _TOKEN_ID,
    "vision_token_id": _TOKEN_ID,
}
_QWEN_VISION = Schema(
    {
        "model_type": _TEXT,
        "depth": _LAYERS,
        "embed_dim": _WIDTH,
        "hidden_size": _WIDTH,
        "out_hidden_size": _WIDTH,
        "intermediate_size": _INNER_WIDTH,
        "mlp_ratio": Real(0.01, 64),
        "num_heads": _HEADS,
        "hidden_act": _ACTIVATION,
        "in_channels": Whole(3, 3),
        "in_chans": Whole(3, 3),
        "patch_size": _PATCH,
        "spatial_patch_size": _PATCH,
        "spatial_merge_size": Whole(1, 16),
        "temporal_patch_size": Whole(1, 16),
        "tokens_per_second": Real(0, 1_000),
        "window_size": Whole(1, 65_536),
        "fullatt_block_indexes": Items(Whole(0, _LAYERS.high), _LAYERS.high),
        "initializer_range": _RATE,
    },
    frozenset({"depth", "num_heads", "patch_size"}),
)
_SIZES = frozenset({"hidden_size", "num_hidden_layers", "num_attention_heads"})
_QWEN: dict[str, Rule | Schema] = {
    **_QWEN_TEXT,
    "text_config": Schema(_QWEN_TEXT, _SIZES),
    "vision_config": _QWEN_VISION,
}
CONFIGS: Mapping[str, Schema] = {
    "v4": Schema(
        {
            **_QWEN,
            "multi_vector_projector_dim": Whole(1, 4_096),
            "single_vector_pool_strategy": Choice("mean"),
            "matryoshka_dims": Items(_WIDTH, 100),
            "truncate_dim": _WIDTH,
            "task_names": Items(Name(), 100),
        },
        frozenset({"vision_config"}),
    ),
    "m0": Schema(_QWEN, frozenset({"vision_config"})),
    "colbert-v2": Schema(
        {
            **_COMMON,
            "vocab_size": _VOCABULARY,
            "hidden_size": _WIDTH,
            "intermediate_size": _INNER_WIDTH,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS,
            "type_vocab_size": Whole(1, 16),
            "layer_norm_eps": _EPSILON,
            "rotary_emb_base": _BASE,
            "hidden_act": Name(),
            "position_embedding_type": Name(),
            "max_position_embeddings": _POSITIONS,
        },
        _SIZES | {"vocab_size", "intermediate_size"},
    ),
    "v1": Schema(
        {
            **_COMMON,
            "vocab_size": _VOCABULARY,
            "d_model": _WIDTH,
            "d_kv": Whole(1, 4_096),
            "d_ff": _INNER_WIDTH,
            "num_layers": _LAYERS,
            "num_decoder_layers": Whole(0, _LAYERS.high),
            "num_heads": _HEADS,
            "relative_attention_num_buckets": Whole(4, 4_096),
            "relative_attention_max_distance": Whole(2, 1_048_576),
            "dropout_rate": _RATE,
            "classifier_dropout": _RATE,
            "layer_norm_epsilon": _EPSILON,
            "initializer_factor": Real(0, 100),
            "feed_forward_proj": Choice("relu", "gelu", "silu", "gated-gelu", "gated-silu", "gated-relu"),
            "is_encoder_decoder": Flag(),
            "tie_word_embeddings": Flag(),
        },
        frozenset({"vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"}),
    ),
}
"""Model family → schema of config.json."""
PREPROCESSOR = Schema(
    {
        "patch_size": _PATCH,
        "merge_size": Whole(1, 16),
        "temporal_patch_size": Whole(1, 16),
        "min_pixels": Whole(1, 16_777_216),
        "max_pixels": Whole(1, 1_073_741_824),
        "size": Schema(
            {
                "shortest_edge": Whole(1, 16_777_216),
                "longest_edge": Whole(1, 1_073_741_824),
                "min_pixels": Whole(1, 16_777_216),
                "max_pixels": Whole(1, 1_073_741_824),
            }
        ),
        "resample": Whole(0, 5),
        "rescale_factor": Real(1e-6, 1),
        "image_mean": Either(Items(Real(-10, 10), 3), Real(-10, 10)),
        "image_std": Either(Items(Real(1e-6, 10), 3), Real(1e-6, 10)),
    }
)
"""Schema of preprocessor_config.json."""
ADAPTERS = Schema(
    {
        "r": Whole(1, 4_096),
        "lora_alpha": Real(1e-6, 1_048_576),
        "use_rslora": Flag(),
        "use_dora": Flag(),
        "lora_bias": Flag(),
        "bias": Choice("none", "all", "lora_only"),
        "modules_to_save": Items(Name(), 1_000),
        "rank_pattern": ByModule(Whole(1, 4_096)),
        "alpha_pattern": ByModule(Real(1e-6, 1_048_576)),
    },
    frozenset({"r"}),
)
"""Schema of adapter_config.json. The layers with adapters are those that the weight file has matrices for."""
POOLING = Schema({"pooling_mode_mean_tokens": Flag()})
"""Schema of 1_Pooling/config.json."""
SENTENCE_TRANSFORMER = Schema({"max_seq_length": Whole(2, 16_777_216)})
"""Schema of sentence_bert_config.json."""
