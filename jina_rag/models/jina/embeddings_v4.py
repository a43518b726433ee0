"""jina-embeddings-v4: dense and multi-vector embeddings of texts, images and pages in one forward pass.

Deliberate differences from the published code:

- With the task text-matching, documents always get the prefix "Query: ", as documented. The published code uses
  "Passage: " unless a property of the model is set.
- Images are rotated according to EXIF orientation.
- Special tokens in an input text are encoded as ordinary text.
- Documents of several parts (texts and images) also have a dense vector.

Source: Günther et al., jina-embeddings-v4: Universal Embeddings for Multimodal Multilingual Retrieval (2025), and the
model card.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import nn

from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.images import LoadedImage, Opening
from jina_rag.inputs import EncodeSettings, as_input_list, length_limit, parts_of
from jina_rag.models.jina.image_patches import ImagePatcher
from jina_rag.models.jina.lora import activate, add_adapters, merge_adapter
from jina_rag.models.jina.prompt_texts import prompt_texts
from jina_rag.models.jina.qwen_vl import Batch, QwenVL, rename_key
from jina_rag.models.jina.vl_prompts import Prompt, Segment, check_length, grid_of
from jina_rag.models.runtime.batching import BatchRunner, Reader, split_rows, without_padding
from jina_rag.models.runtime.checkpoints import Checkpoint, CheckpointModel
from jina_rag.models.runtime.devices import HostCopy, Placement, no_autocast, to_device
from jina_rag.models.runtime.output_checks import check_vectors
from jina_rag.protocols import EncodeOptions, Input
from jina_rag.types import Embeddings, Float32

_log = logging.getLogger("jina_rag")

MAX_LENGTH = 32_768
_INSTRUCTION = "Describe the image."
_SYMMETRIC_TASK = "text-matching"
"""Task whose documents get the prefix "Query: ", as queries do."""
Side = Literal["Query", "Passage"]


@dataclass(frozen=True, slots=True)
class _Output:
    """Vectors of one input, float32, or None if not requested: `single`, (dim,), and `multi`, (tokens, multi_dim)."""

    single: Float32 | None
    multi: Float32 | None


class EmbeddingsV4(CheckpointModel):
    """Embedder for texts, images and pages; implements `jina_rag.protocols.Embedder`.

    Thread-safe; forward passes run one at a time. The dense vector of a text is the mean over all tokens. The dense
    vector of an image is the mean over the image tokens, the start token and the end token. A document of several parts
    (texts and images in a list) becomes one prompt, ``<|im_start|>user`` … ``<|im_end|>``, and the dense vector is the
    mean over the tokens of all parts. The published code has no dense vector for documents of several parts, and no
    evaluation scores of such vectors are published.

    Attributes:
        tasks: Tasks whose adapters are loaded; the first task is the default.
    """

    modality: Literal["text", "image"] = "image"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        task: str | Sequence[str] = "retrieval",
        truncate_dim: int | None = None,
        max_pixels: int | None = None,
        max_length: int | None = None,
        opening: Opening | None = None,
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights and the adapters.

        Args:
            checkpoint: Checkpoint folder.
            placement: Device and dtype.
            task: One task, whose adapter is merged into the weights; or several tasks, whose adapters stay separate.
                With several tasks, each call selects a task (default: the first task) and takes longer.
            truncate_dim: Length of the dense vectors, one of the checkpoint's Matryoshka dimensions; None for the
                checkpoint's default.
            max_pixels: Size in pixels (width times height) to which larger images are scaled down; None for the limit
                of the checkpoint (602,112 in the published checkpoint, 768 tokens).
            max_length: Maximum length of a text in tokens; None for 32,768.
            opening: Limits for opening images; None for the defaults.
            allow_unexpected: Whether to ignore unused tensors in the checkpoint.

        Raises:
            CheckpointError: If the weights or the adapters do not match the architecture.
            InvalidInputError: If a task is unknown, or another argument is invalid.
        """
        config = checkpoint.config
        super().__init__(checkpoint, placement)
        self._opening = opening or Opening()
        task_names = tuple(config.get("task_names") or ("retrieval", "text-matching", "code"))
        self.tasks = (task,) if isinstance(task, str) else tuple(dict.fromkeys(task))
        if not self.tasks or not set(self.tasks) <= set(task_names):
            raise InvalidInputError(f"task is {task!r}; expected one or several of {', '.join(task_names)}.")
        multi_dim = int(config.get("multi_vector_projector_dim") or 128)
        hidden = int((config.get("text_config") or config)["hidden_size"])
        self.matryoshka_dims = tuple(int(dim) for dim in config.get("matryoshka_dims") or (hidden,))
        self._dim, self.multi_dim = hidden, multi_dim
        self._truncate_dim = self._checked_dim(config.get("truncate_dim") if truncate_dim is None else truncate_dim)
        self._max_length = length_limit(max_length, MAX_LENGTH, minimum=1, maximum=MAX_LENGTH)
        with torch.device("meta"):
            projector = nn.Linear(hidden, multi_dim)
        self._model = QwenVL(
            checkpoint,
            kind="qwen2_5_vl",
            heads={"multi_vector_projector": projector},
            placement=placement,
            patcher=ImagePatcher(checkpoint, max_pixels=max_pixels, fixed_limits=False),
            allow_unexpected=allow_unexpected,
        )
        folder = checkpoint.folder / "adapters"
        if not folder.is_dir():
            raise CheckpointError(f"{checkpoint.folder} has no folder 'adapters'. Download the model again.")
        add_adapters(self._model.module, checkpoint, self.tasks, placement, rename=rename_key)
        if len(self.tasks) == 1:
            merge_adapter(self._model.module, self.tasks[0])
        self._active = self.tasks[0] if len(self.tasks) == 1 else ""
        self._start, self._end = (self._model.tokenizer.special(name) for name in ("<|im_start|>", "<|im_end|>"))
        self._runner: BatchRunner[Any, _Output] = BatchRunner(placement, name=checkpoint.name)

    @property
    def fingerprint(self) -> str:
        """Identifier of the vectors: hub id and commit (or family), hash of weights and adapters, task, pixel limit."""
        return self._checkpoint.fingerprint(self.tasks[0], f"{self._model.patcher.max_pixels}px")

    @property
    def dim(self) -> int:
        """Length of the dense vector: `truncate_dim`, or the model's hidden size."""
        return self._truncate_dim or self._dim

    def encode_query(
        self, queries: Sequence[Input], *, task: str | None = None, **options: Unpack[EncodeOptions]
    ) -> Embeddings:
        """Embed queries; texts get the prefix "Query: ".

        Args:
            queries: Texts, images, pages, or lists of these.
            task: One of `tasks`; None for the first task.
            options: See `EncodeOptions`; `max_length` truncates texts, never images.

        Returns:
            Dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim), float32.

        Raises:
            InvalidInputError: If an input or an argument is invalid.
            ModelError: If a vector contains NaN or infinity, or one input does not fit into memory.
        """
        return self._encode(as_input_list(queries, "queries"), "Query", task, EncodeSettings(**options))

    def encode_document(
        self, documents: Sequence[Input], *, task: str | None = None, **options: Unpack[EncodeOptions]
    ) -> Embeddings:
        """Embed texts (with the prefix "Passage: "), images and pages; see `encode_query` for the arguments.

        The multi-vector of an image has one row for each token of the prompt. The token grid contains the box of each
        row on the image; rows of the prompt template have NaN instead of a box.
        """
        return self._encode(as_input_list(documents, "documents"), "Passage", task, EncodeSettings(**options))

    def _encode(self, inputs: Sequence[Input], side: Side, task: str | None, settings: EncodeSettings) -> Embeddings:
        task = self.tasks[0] if task is None else task
        if task not in self.tasks:
            raise InvalidInputError(
                f"task is {task!r}, but the model is loaded for {', '.join(self.tasks)}. Load the model with "
                f"task={task!r}, or with a list of tasks."
            )
        single, multi = settings.single, settings.multi
        dim = self._checked_dim(settings.truncate_dim) or self._truncate_dim
        limit = length_limit(settings.max_length, self._max_length, minimum=1, maximum=MAX_LENGTH)
        prefix: Side = "Query" if task == _SYMMETRIC_TASK else side
        noun = "Query" if side == "Query" else "Document"
        labels = [f"{noun} {number} of {len(inputs)}" for number in range(1, len(inputs) + 1)]
        segments = [self._segments(item, prefix, label) for item, label in zip(inputs, labels, strict=True)]
        prompts, truncated = self._prompts(segments, limit, settings.max_pixels, labels)
        spans = [self._span(prompt, item) for prompt, item in zip(prompts, segments, strict=True)]

        def prepare(indices: Sequence[int]) -> tuple[Batch, list[tuple[int, int]]]:
            return self._model.prepare([prompts[i] for i in indices]), [spans[i] for i in indices]

        def launch(prepared: tuple[Batch, list[tuple[int, int]]]) -> Reader[_Output]:
            return self._launch(*prepared, task=task, single=single, multi=multi, dim=dim)

        lengths = [len(prompt) for prompt in prompts]
        with self._model.weights.on_device():
            vectors = self._runner.run(
                lengths, prepare, launch, batch_tokens=settings.batch_tokens, on_oom=self._model.offload_others
            )
        check_vectors([v.single for v in vectors] + [v.multi for v in vectors], self.name, self.placement)
        return Embeddings(
            single=np.array([v.single for v in vectors], np.float32).reshape(-1, dim or self._dim) if single else None,
            multi=[v.multi for v in vectors if v.multi is not None] if multi else None,
            grids=[grid_of(prompt) for prompt in prompts] if multi else None,
            tokens=[self._texts(*pair) for pair in zip(prompts, segments, strict=True)] if multi else None,
            truncated=truncated,
        )

    def _texts(self, prompt: Prompt, item: Sequence[Segment]) -> tuple[str, ...] | None:
        """Return the text of each token; None for an input of images only."""
        if _INSTRUCTION in item:
            return None
        # The space after "Query:" is part of the first token of the text, so the lead ends before the space.
        lead = "user\n" if prompt.images else str(item[0]).partition(" ")[0]
        return prompt_texts(item, prompt, self._model.tokenizer, lead=lead, trailing=bool(prompt.images))

    def _prompts(
        self, segments: Sequence[Sequence[Segment]], limit: int, max_pixels: int | None, labels: Sequence[str]
    ) -> tuple[list[Prompt], list[bool]]:
        """Return the prompts, with texts truncated to `limit` tokens, and whether each prompt was truncated."""
        prompts = self._model.prompts(segments, max_pixels=max_pixels)
        truncated = [not prompt.images and len(prompt) > limit for prompt in prompts]
        for prompt, label in zip(prompts, labels, strict=True):
            if prompt.images:
                check_length(prompt, MAX_LENGTH, label)
        if any(truncated):
            _log.warning("Truncated %d of %d texts to %d tokens (max_length).", sum(truncated), len(prompts), limit)
        return [prompt if prompt.images else Prompt(prompt.ids[:limit]) for prompt in prompts], truncated

    def _segments(self, item: Input, prefix: Side, label: str) -> list[Segment]:
        parts = parts_of(item, self._opening, label)
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return [f"{prefix}: " + "\n".join(texts)]
        segments: list[Segment] = [self._start, "user\n"]
        for part in parts:
            segments += self._model.image_segments(part) if isinstance(part, LoadedImage) else [part]
        return [*segments, *([] if texts else [_INSTRUCTION]), self._end, "\n"]

    def _span(self, prompt: Prompt, item: Sequence[Segment]) -> tuple[int, int]:
        """Return the span (start, stop) to pool: a whole text, images with start and end tokens, or all parts."""
        if not prompt.images:
            return 0, len(prompt)
        if _INSTRUCTION in item:
            first, last = prompt.images[0], prompt.images[-1]
            return first.start - 1, last.start + last.tokens + 1
        tokens = self._model.tokenizer.encode
        return 1 + len(tokens("user\n")), len(prompt) - 1 - len(tokens("\n"))

    def _launch(
        self,
        batch: Batch,
        spans: Sequence[tuple[int, int]],
        *,
        task: str,
        single: bool,
        multi: bool,
        dim: int | None,
    ) -> Reader[_Output]:
        """Submit a batch to the device, and return the function that waits for the vectors and returns them."""
        with self._model.lock, torch.inference_mode(), no_autocast(self.placement.device):
            if self._active != task:
                activate(self._model.module, task)
                self._active = task
            hidden = self._model.hidden(batch)
            vectors = [self._dense(hidden, spans, dim)] if single else []
            rows = [self._rows(hidden, batch.lengths)] if multi else []
            copy = HostCopy(*vectors, *rows)
        lengths = batch.lengths

        def read() -> list[_Output]:
            arrays = iter(copy.read())
            dense = next(arrays).copy() if single else [None] * len(lengths)
            parts = split_rows(next(arrays), lengths) if multi else [None] * len(lengths)
            return [_Output(*vectors) for vectors in zip(dense, parts, strict=True)]

        return read

    def _dense(self, hidden: torch.Tensor, spans: Sequence[tuple[int, int]], dim: int | None) -> torch.Tensor:
        """Return the normalized mean over each span, truncated to `dim`, renormalized; shape (batch, dim), float32."""
        position = torch.arange(hidden.shape[1], device=hidden.device)
        limits = to_device(np.array(spans, dtype=np.int64), hidden.device)
        is_inside = (position >= limits[:, :1]) & (position < limits[:, 1:])
        weights = is_inside / is_inside.sum(dim=1, keepdim=True)
        mean = torch.bmm(weights[:, None, :].float(), hidden.float())[:, 0]
        dense = nn.functional.normalize(mean, dim=-1)
        return dense if dim is None else nn.functional.normalize(dense[:, :dim], dim=-1)

    def _rows(self, hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Return the projected, normalized states of all tokens but padding; shape (tokens, multi_dim), float32."""
        projector: Any = self._model.module.multi_vector_projector
        return nn.functional.normalize(projector(without_padding(hidden, lengths)).float(), dim=-1)

    def _checked_dim(self, dim: int | None) -> int | None:
        if dim is not None and dim not in self.matryoshka_dims:
            raise InvalidInputError(
                f"truncate_dim is {dim}; expected one of {', '.join(map(str, self.matryoshka_dims))} for {self.name}."
            )
        return dim
