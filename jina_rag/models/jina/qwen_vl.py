"""The Qwen2-VL and Qwen2.5-VL backbones of jina-embeddings-v4 and jina-reranker-m0: prompts in, hidden states out.

Stock transformers classes by composition, filled by our own loader. Only the base model's last hidden state is
computed: no vocabulary logits, no kept layers. Positions are computed here and passed, so that no state is kept on the
modules between calls. Rows are padded on the right and nothing is masked: attention is causal, so padding cannot
reach an earlier token, and the kernels without a mask are the fast ones.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from jina_rag.errors import CheckpointError
from jina_rag.images import LoadedImage
from jina_rag.models.jina.image_patches import ImagePatcher
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.jina.vl_prompts import Int64, PlacedImage, Prompt, Segment, join_texts, mrope_positions
from jina_rag.models.runtime.checkpoints import UNRELATED_TO_VECTORS, Checkpoint
from jina_rag.models.runtime.devices import Placement
from jina_rag.models.runtime.kv_cache import LayerKeys, attending
from jina_rag.models.runtime.offload import OffloadedWeights
from jina_rag.models.runtime.weights import WeightFiles, fill, renamer

_log = logging.getLogger("jina_rag")

rename_key = renamer(
    {
        r"^visual\.": "model.visual.",
        r"^model\.(?!language_model\.|visual\.)": "model.language_model.",
    }
)
"""From the older layout of the published files to the module names of transformers 5; the newer one passes."""
_IGNORED = (r"(model\.)?lm_head\.weight",)
_FULL = "full_attention"
_NOT_FOR_CONFIG = (*UNRELATED_TO_VECTORS, "architectures", "_attn_implementation", "model_type")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass takes; on the CPU.

    Attributes:
        ids: Shape (batch, longest), padded on the right.
        positions: Shape (3, batch, longest): time, height, width.
        lengths: Tokens of each row.
        patches: Patches of the different pictures, shape (patches, channels x 2 x 14 x 14), or None.
        grids: Shape (pictures, 3): time, height, width in patches; or None.
        places: Flat indices into (batch x longest) of the tokens that pictures fill; or None.
        sources: Which row of the pictures' features goes to each of them; or None.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    patches: torch.Tensor | None = None
    grids: torch.Tensor | None = None
    places: torch.Tensor | None = None
    sources: torch.Tensor | None = None


class QwenVL:
    """A loaded backbone with its heads."""

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
            checkpoint: Where they are.
            kind: Which of the two architectures.
            heads: Modules beside the backbone, by the name their keys start with, without memory or with.
            placement: Device and dtype.
            patcher: Turns pictures into patches.
            allow_unexpected: Whether keys that nothing uses are let pass.

        Raises:
            CheckpointError: If the weights do not fit.
        """
        self.placement = placement
        self.patcher = patcher
        self.tokenizer = TextTokenizer(checkpoint.folder, fallback="Qwen2Tokenizer")
        self.module = nn.Module()
        base = _build(checkpoint, kind)
        self.module.add_module("model", base)
        for name, head in heads.items():
            self.module.add_module(name, head)
        with WeightFiles(checkpoint.weights) as files:
            fill(self.module, files, placement, rename=rename_key, ignore=_IGNORED, allow_unexpected=allow_unexpected)
        base.visual.patch_embed = _LinearPatches(base.visual.patch_embed)
        _prefer_flash_attention(base, placement)
        self.module.to(placement.device)  # the buffers: rotary frequencies, which stay float32
        self.module.eval()
        # transformers 5.24 has renamed it, and warns of the old name.
        parameters = inspect.signature(base.language_model.forward).parameters
        self._keys_name = "cache" if "cache" in parameters else "past_key_values"
        self.config: Any = base.config
        self.text_config: Any = base.config.get_text_config()
        self.image_id = _token_id(checkpoint, "image_token_id", self.tokenizer, "<|image_pad|>")
        self.vision_start = _token_id(checkpoint, "vision_start_token_id", self.tokenizer, "<|vision_start|>")
        self.vision_end = _token_id(checkpoint, "vision_end_token_id", self.tokenizer, "<|vision_end|>")
        self.lock = threading.Lock()
        self.weights = OffloadedWeights(checkpoint.name, self.module, placement.device)

    def offload_others(self) -> bool:
        """Offload the models that nobody uses from the device; whether there was one."""
        return self.weights.device.offload_idle(self.weights.name)

    def prompts(self, segments: Sequence[Sequence[Segment]], *, max_pixels: int | None = None) -> list[Prompt]:
        """Tokenise prompts; texts that follow each other are tokenised as one.

        Args:
            segments: Of each prompt.
            max_pixels: What pictures are scaled down to; None for the model's own limit.

        Raises:
            InvalidInputError: If a picture cannot be scaled (longer than 200 times its width).
        """
        parts_of_prompts = [join_texts(prompt) for prompt in segments]
        texts = list(dict.fromkeys(part for prompt in parts_of_prompts for part in prompt if isinstance(part, str)))
        ids_of = dict(zip(texts, self.tokenizer.encode_many(texts), strict=True))
        return [self._prompt(prompt, ids_of, max_pixels) for prompt in parts_of_prompts]

    def image_segments(self, image: LoadedImage) -> list[Segment]:
        """A picture between its two marks."""
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
        """Pad, position, and decode the pictures: the processor's work, done while the device is busy.

        Args:
            prompts: One for each row.
            skip: How many tokens of each are left out, because their keys and values are known; at least one
                remains, and no picture may be cut. Positions are those in the whole prompt.
        """
        skip = skip or [0] * len(prompts)
        lengths = [len(prompt) - skip_count for prompt, skip_count in zip(prompts, skip, strict=True)]
        longest = max(lengths)
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        positions = np.zeros((3, len(prompts), longest), dtype=np.int64)
        places: list[Int64] = []
        sources: list[Int64] = []
        patches: list[npt.NDArray[np.float32]] = []
        grids: list[tuple[int, int, int]] = []
        first_row: dict[tuple[int, int], int] = {}  # a picture that several prompts share is looked at once
        rows = 0
        for row, (prompt, skip_count) in enumerate(zip(prompts, skip, strict=True)):
            ids[row, : lengths[row]] = prompt.ids[skip_count:]
            positions[:, row, : lengths[row]] = mrope_positions(prompt)[:, skip_count:]
            for image in prompt.images:
                if image.start < skip_count:
                    continue
                key = id(image.image), image.max_pixels
                if key not in first_row:
                    pixels, grid = self.patcher.patches(image.image, image.max_pixels)
                    patches.append(pixels)
                    grids.append(grid)
                    first_row[key] = rows
                    rows += image.tokens
                places.append(np.arange(image.tokens, dtype=np.int64) + row * longest + image.start - skip_count)
                sources.append(np.arange(image.tokens, dtype=np.int64) + first_row[key])
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            tuple(lengths),
            torch.from_numpy(np.concatenate(patches)) if patches else None,
            torch.tensor(grids, dtype=torch.int64) if grids else None,
            torch.from_numpy(np.concatenate(places)) if places else None,
            torch.from_numpy(np.concatenate(sources)) if sources else None,
        )

    @property
    def keeps_keys(self) -> bool:
        """Whether each layer attends to all that precedes, so that `hidden` can take `keys`."""
        base: Any = self.module.model
        return set(base.language_model.config.layer_types) == {_FULL}

    def hidden(self, batch: Batch, keys: LayerKeys | None = None) -> torch.Tensor:
        """The last hidden state after the final norm, shape (batch, longest, hidden); one forward pass.

        What stands behind a row's length is without meaning. Call it under `torch.inference_mode` and `lock`.

        Args:
            batch: Of whole prompts, or of what follows on `keys`.
            keys: What to do with each layer's keys and values; None to let them go.
        """
        device = self.placement.device
        base: Any = self.module.model
        embedded = base.language_model.embed_tokens(batch.ids.to(device))
        if batch.patches is not None:
            assert batch.grids is not None
            assert batch.places is not None
            assert batch.sources is not None
            pixels = batch.patches.to(device=device, dtype=self.placement.dtype)
            out = base.visual(pixels, grid_thw=batch.grids.to(device))
            features = out if isinstance(out, torch.Tensor) else out.pooler_output
            flat = embedded.view(-1, embedded.shape[-1])
            flat[batch.places.to(device)] = features.to(embedded.dtype)[batch.sources.to(device)]
        with attending(base.language_model.config, keys):
            output = base.language_model(
                inputs_embeds=embedded,
                position_ids=batch.positions.to(device),
                # By kind of layer, a mask is taken as it is; alone it would be made anew without knowing of the keys.
                attention_mask=None if keys is None else {_FULL: keys.mask},
                use_cache=keys is not None,
                **({} if keys is None else {self._keys_name: keys}),
            )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


class _LinearPatches(nn.Module):
    """The first layer of the vision tower as the matrix product that it is.

    The stock class calls a three-dimensional convolution whose stride is its kernel, which takes several times as
    long on the CPU and in half precision on GPUs.
    """

    def __init__(self, stock: Any) -> None:  # noqa: ANN401  # PatchEmbed of either architecture
        super().__init__()
        self.proj = stock.proj

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches, shape (n, numbers), to vectors, shape (n, width)."""
        weight = self.proj.weight
        return nn.functional.linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


def _build(checkpoint: Checkpoint, kind: str) -> Any:  # noqa: ANN401  # one of two stock classes
    """The stock base model with parameters that hold no memory; its rotary buffers are real."""
    from accelerate import init_empty_weights
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLConfig, Qwen2VLModel

    plain = {key: value for key, value in checkpoint.config.items() if key not in _NOT_FOR_CONFIG}
    new = kind == "qwen2_5_vl"
    try:
        with _quiet(), init_empty_weights(include_buffers=False):
            config = (Qwen2_5_VLConfig if new else Qwen2VLConfig)(**plain)
            config._attn_implementation = "sdpa"
            return (Qwen2_5_VLModel if new else Qwen2VLModel)(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as exc:
        raise CheckpointError(f"The config.json in {checkpoint.folder} does not describe this model: {exc}") from exc


def _prefer_flash_attention(base: Any, placement: Placement) -> None:  # noqa: ANN401  # one of two stock classes
    """Let the vision tower use flash-attn where it is installed: its windows then run as one call a layer.

    The decoder needs none: without a mask, PyTorch's own attention takes its flash kernel.
    """
    from transformers.utils import is_flash_attn_2_available

    if placement.device.type != "cuda" or placement.dtype == torch.float32 or not is_flash_attn_2_available():
        return
    try:
        base.visual.set_attn_implementation("flash_attention_2")
    except (ImportError, ValueError, RuntimeError) as exc:
        _log.warning("flash-attn is installed but cannot be used (%s); PyTorch's own attention is.", exc)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says about rotary settings under older names, which it reads right."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _token_id(checkpoint: Checkpoint, key: str, tokenizer: TextTokenizer, content: str) -> int:
    value = checkpoint.config.get(key)
    return int(value) if value is not None else tokenizer.special(content)
