"""Qwen2-VL and Qwen2.5-VL backbones of jina-reranker-m0 and jina-embeddings-v4, which map prompts to hidden states.

The backbones are stock transformers classes, and `jina_rag.models.runtime.weights` loads the weights. Only the last
hidden state of the base model is computed, without vocabulary logits. Positions are computed here and passed to the
modules, so the modules keep no state between calls. Rows are padded on the right, without an attention mask: in causal
attention, padding does not affect earlier tokens, and attention kernels are faster without a mask.

Source: Wang et al., Qwen2-VL (2024); Bai et al., Qwen2.5-VL Technical Report (2025).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from jina_rag._forks import RenewedLock
from jina_rag.errors import CheckpointError
from jina_rag.images import LoadedImage
from jina_rag.models.jina.fused_layers import replace_layers
from jina_rag.models.jina.image_patches import ImagePatcher
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.jina.vision_attention import VisionTower
from jina_rag.models.jina.vl_prompts import Int64, PlacedImage, Prompt, Segment, join_texts, mrope_positions
from jina_rag.models.runtime.checkpoints import Checkpoint, config_errors
from jina_rag.models.runtime.devices import Placement, in_host_memory, to_device
from jina_rag.models.runtime.kv_cache import KVCache, attend_with_cache
from jina_rag.models.runtime.offload import OffloadedWeights
from jina_rag.models.runtime.weights import load, open_weights, renamer

_log = logging.getLogger("jina_rag")

rename_key = renamer(
    {
        r"^visual\.": "model.visual.",
        r"^model\.(?!language_model\.|visual\.)": "model.language_model.",
    }
)
"""Maps keys of the older published layout to the module names of transformers 5, and returns newer keys unchanged."""
_IGNORED = (r"(model\.)?lm_head\.weight",)
_FULL_ATTENTION = "full_attention"
_IGNORED_CONFIG_KEYS = ("architectures", "model_type")


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of one forward pass, in host memory; in pinned memory for CUDA, so that copies to the device do not wait.

    Attributes:
        ids: Token ids, shape (batch, longest), int64, padded on the right.
        positions: Positions on the axes time, height and width, shape (3, batch, longest), int64.
        lengths: Number of tokens in each row.
        patches: Patches of the distinct images, shape (patches, channels x 14 x 14), uint8; or normalized values, see
            `ImagePatcher.pixel_values`; None without images.
        grids: Time, height and width of each image in patches, shape (images, 3), int64; None without images.
        image_positions: Index of each image token in the flattened `ids`, shape (image tokens,), int64; None without
            images.
        feature_rows: Row of each image token in the output of the vision tower, shape (image tokens,), int64; None
            without images.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    patches: torch.Tensor | None = None
    grids: torch.Tensor | None = None
    image_positions: torch.Tensor | None = None
    feature_rows: torch.Tensor | None = None


class QwenVL:
    """A loaded backbone with heads: tokenizes prompts, prepares batches and computes hidden states.

    Attributes:
        lock: Held by callers during a forward pass.
        weights: Weights of the backbone and the heads, which may be offloaded to host memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        kind: Literal["qwen2_vl", "qwen2_5_vl"],
        heads: Mapping[str, nn.Module],
        placement: Placement,
        patcher: ImagePatcher,
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: Checkpoint with the weights.
            kind: Architecture of the backbone.
            heads: Additional modules by key prefix in the checkpoint; the parameters may be on the meta device.
            placement: Device and dtype.
            patcher: Preprocessor of images.
            allow_unexpected: Whether to ignore unused tensors in the checkpoint.

        Raises:
            CheckpointError: If the weights do not match the architecture.
        """
        self.placement = placement
        self.patcher = patcher
        self.tokenizer = TextTokenizer(checkpoint.folder, fallback="Qwen2Tokenizer")
        self.module = nn.Module()
        base = _build(checkpoint, kind)
        self.module.add_module("model", base)
        for name, head in heads.items():
            self.module.add_module(name, head)
        with open_weights(checkpoint) as files:
            load(self.module, files, placement, rename=rename_key, ignore=_IGNORED, allow_unexpected=allow_unexpected)
        replace_layers(base)
        self.module.to(placement.device)  # moves the buffers; the rotary frequencies stay float32
        base.visual = VisionTower(base.visual, placement)
        self.module.eval()
        # transformers 5.24 renamed the cache argument and warns about the old name, so pass the name in the signature.
        parameters = inspect.signature(base.language_model.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self.config: Any = base.config
        self.text_config: Any = base.config.get_text_config()
        self.tokenizer.check_rows(self.text_config.vocab_size)
        self.image_id = _token_id(checkpoint, "image_token_id", self.tokenizer, "<|image_pad|>")
        self.vision_start = _token_id(checkpoint, "vision_start_token_id", self.tokenizer, "<|vision_start|>")
        self.vision_end = _token_id(checkpoint, "vision_end_token_id", self.tokenizer, "<|vision_end|>")
        self.lock = RenewedLock()
        self.weights = OffloadedWeights(checkpoint.name, self.module, placement.device)

    def offload_others(self) -> bool:
        """Offload idle models from the device, and return whether any idle model was present."""
        return self.weights.device.offload_idle(self.weights.name)

    def prompts(self, segments: Sequence[Sequence[Segment]], *, max_pixels: int | None = None) -> list[Prompt]:
        """Tokenize prompts; adjacent texts are joined before the tokenization.

        Args:
            segments: Segments of each prompt.
            max_pixels: Size in pixels to which larger images are scaled down; None for the model's limit.

        Raises:
            InvalidInputError: If one side of an image is more than 200 times the other.
        """
        parts_of_prompts = [join_texts(prompt) for prompt in segments]
        texts = list(dict.fromkeys(part for prompt in parts_of_prompts for part in prompt if isinstance(part, str)))
        ids_of = dict(zip(texts, self.tokenizer.encode_many(texts), strict=True))
        return [self._prompt(prompt, ids_of, max_pixels) for prompt in parts_of_prompts]

    def image_segments(self, image: LoadedImage) -> list[Segment]:
        """Return the prompt segments of an image: start token, image, end token."""
        return [self.vision_start, image, self.vision_end]

    def _prompt(self, segments: Sequence[Segment], ids_of: Mapping[str, list[int]], max_pixels: int | None) -> Prompt:
        ids: list[int] = []
        images = []
        for part in segments:
            if isinstance(part, str):
                ids += ids_of[part]
            elif isinstance(part, int):
                ids.append(part)
            else:
                limit = self.patcher.limit(max_pixels)
                rows, columns = self.patcher.tokens(part.size, limit, part.name)
                images.append(PlacedImage(part, len(ids), rows, columns, limit))
                ids += [self.image_id] * (rows * columns)
        return Prompt(np.array(ids, dtype=np.int64), tuple(images))

    def prepare(self, prompts: Sequence[Prompt], skip: Sequence[int] | None = None) -> Batch:
        """Return one batch with the padded prompts, the token positions and the decoded images.

        The preparation needs only the CPU, and can run while the device computes another batch.

        Args:
            prompts: One prompt for each row.
            skip: Number of leading tokens to omit from each prompt, because the keys and values are cached; None omits
                no tokens. At least one token must remain, and no image may be split. Positions count from the start of
                the whole prompt.
        """
        skip = skip or [0] * len(prompts)
        lengths = [len(prompt) - skip_count for prompt, skip_count in zip(prompts, skip, strict=True)]
        longest = max(lengths)
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        positions = np.zeros((3, len(prompts), longest), dtype=np.int64)
        slots: list[Int64] = []
        feature_rows: list[Int64] = []
        images: list[tuple[LoadedImage, int]] = []
        first_row: dict[tuple[int, int], int] = {}  # an image in several prompts is decoded once
        rows = 0
        for row, (prompt, skip_count) in enumerate(zip(prompts, skip, strict=True)):
            ids[row, : lengths[row]] = prompt.ids[skip_count:]
            positions[:, row, : lengths[row]] = mrope_positions(prompt)[:, skip_count:]
            for image in prompt.images:
                if image.start < skip_count:
                    continue
                key = id(image.image), image.max_pixels
                if key not in first_row:
                    images.append((image.image, image.max_pixels))
                    first_row[key] = rows
                    rows += image.tokens
                slots.append(np.arange(image.tokens, dtype=np.int64) + row * longest + image.start - skip_count)
                feature_rows.append(np.arange(image.tokens, dtype=np.int64) + first_row[key])
        device = self.placement.device
        batch = Batch(in_host_memory(ids, device), in_host_memory(positions, device), tuple(lengths))
        if not images:
            return batch
        patches, grids = self.patcher.patches_of(images, device)
        return replace(
            batch,
            patches=patches,
            grids=torch.tensor(grids, dtype=torch.int64),
            image_positions=in_host_memory(np.concatenate(slots), device),
            feature_rows=in_host_memory(np.concatenate(feature_rows), device),
        )

    @property
    def supports_prefix_cache(self) -> bool:
        """Whether each layer attends to all preceding tokens, as `hidden` requires for a KV cache."""
        base: Any = self.module.model
        return set(base.language_model.config.layer_types) == {_FULL_ATTENTION}

    def hidden(self, batch: Batch, kv_cache: KVCache | None = None) -> torch.Tensor:
        """Return the last hidden state after the final norm, in one forward pass.

        The caller holds `lock`, and disables gradients unless the caller needs gradients.

        Args:
            batch: Whole prompts, or the tokens after the prefixes in `kv_cache`.
            kv_cache: `PrefixRecorder` or `PrefixReplay`; None for a pass without a KV cache.

        Returns:
            Shape (batch, longest, hidden), in the model's dtype; values at padding positions are undefined.
        """
        device = self.placement.device
        base: Any = self.module.model
        embedded = base.language_model.embed_tokens(to_device(batch.ids, device))
        if batch.patches is not None:
            assert batch.grids is not None
            assert batch.image_positions is not None
            assert batch.feature_rows is not None
            pixels = self.patcher.pixel_values(batch.patches, device, self.placement.dtype, repeat=False)
            features = base.visual(pixels, grid_thw=batch.grids)
            flat = embedded.view(-1, embedded.shape[-1])
            rows = to_device(batch.feature_rows, device)
            flat[to_device(batch.image_positions, device)] = features.to(embedded.dtype)[rows]
        with attend_with_cache(base.language_model.config, kv_cache):
            output = base.language_model(
                inputs_embeds=embedded,
                position_ids=to_device(batch.positions, device),
                # Pass a dict, because transformers would replace a single mask by a mask without the cached keys.
                attention_mask=None if kv_cache is None else {_FULL_ATTENTION: kv_cache.mask},
                use_cache=kv_cache is not None,
                **({} if kv_cache is None else {self._cache_argument: kv_cache}),
            )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def _build(checkpoint: Checkpoint, kind: str) -> Any:  # noqa: ANN401  # one of two stock classes
    """Return the stock base model, with parameters on the meta device and rotary buffers in memory."""
    from accelerate import init_empty_weights
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLConfig, Qwen2VLModel

    options = {key: value for key, value in checkpoint.config.items() if key not in _IGNORED_CONFIG_KEYS}
    is_qwen2_5 = kind == "qwen2_5_vl"
    with config_errors(checkpoint), _silence_transformers(), init_empty_weights(include_buffers=False):
        config = (Qwen2_5_VLConfig if is_qwen2_5 else Qwen2VLConfig)(**options)
        config._attn_implementation = "sdpa"
        vision = config.vision_config
        _check_heads(config, vision.hidden_size if is_qwen2_5 else vision.embed_dim, checkpoint.folder / "config.json")
        return (Qwen2_5_VLModel if is_qwen2_5 else Qwen2VLModel)(config)


def _check_heads(config: Any, vision_width: int, path: Path) -> None:  # noqa: ANN401  # one of two stock classes
    """Check the dimensions that no tensor shape depends on, so that no forward pass fails.

    Raises:
        CheckpointError: If two values of the config contradict each other.
    """
    text, vision = config.get_text_config(), config.vision_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    sections = (getattr(text, "rope_parameters", None) or {}).get("mrope_section") or ()
    contradictions = {
        "hidden_size and num_attention_heads": text.hidden_size % text.num_attention_heads or width % 2,
        "num_attention_heads and num_key_value_heads": text.num_attention_heads % text.num_key_value_heads,
        "rope_scaling.mrope_section and the width of a head": len(sections) != 3 or 2 * sum(sections) != width,
        "vision_config.num_heads and the width": vision_width % vision.num_heads
        or vision_width // vision.num_heads % 4,
    }
    for keys, is_wrong in contradictions.items():
        if is_wrong:
            raise CheckpointError(f"{path}: {keys} contradict each other. Download the model again.")


@contextmanager
def _silence_transformers() -> Iterator[None]:
    """Suppress warnings about older names of rotary settings, because transformers reads the settings correctly."""
    from transformers.utils import logging

    previous = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(previous)


def _token_id(checkpoint: Checkpoint, key: str, tokenizer: TextTokenizer, content: str) -> int:
    value = checkpoint.config.get(key)
    if value is None:
        return tokenizer.special(content)
    rows = (checkpoint.config.get("text_config") or checkpoint.config).get("vocab_size")
    if rows is not None and value >= rows:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'}: {key} is {value:,}; expected less than vocab_size, {rows:,}. "
            "Download the model again."
        )
    return int(value)
