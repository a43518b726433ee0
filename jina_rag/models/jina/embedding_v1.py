"""Jina Embeddings v1: dense embeddings of English texts.

The published models are jina-embedding-s-en-v1, jina-embedding-b-en-v1 and jina-embedding-l-en-v1.

The model is a T5 encoder with mean pooling over at most 512 tokens, without prompt prefixes. The published vectors are
not normalized and are compared by cosine similarity. `EmbeddingV1` normalizes the vectors unless `raw` is set.

Source: Günther et al., Jina Embeddings: A Novel Set of High-Performance Sentence Embedding Models (2023).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch

from jina_rag._forks import RenewedLock
from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.inputs import EncodeSettings, as_input_list, check_truncate_dim, length_limit, text_of
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.runtime.batching import BatchRunner, Reader
from jina_rag.models.runtime.checkpoints import Checkpoint, CheckpointModel, config_errors
from jina_rag.models.runtime.config_schemas import POOLING, SENTENCE_TRANSFORMER
from jina_rag.models.runtime.devices import HostCopy, Placement, in_host_memory, no_autocast, to_device
from jina_rag.models.runtime.output_checks import check_vectors
from jina_rag.models.runtime.weights import load, open_weights
from jina_rag.protocols import EncodeOptions, Input
from jina_rag.scoring import normalise
from jina_rag.types import Embeddings, Float32

_log = logging.getLogger("jina_rag")

MAX_LENGTH = 512
_IGNORED = (r"encoder\.embed_tokens\.weight", r"decoder\..*", r"lm_head\..*")
Ids = npt.NDArray[np.int64]


class EmbeddingV1(CheckpointModel):
    """Embedder for texts and the text of pages; implements `jina_rag.protocols.Embedder`. Thread-safe.

    The model returns one vector per text. The multi-vector of a text has this vector as the only row, so MaxSim equals
    the cosine similarity.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        max_length: int | None = None,
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: Checkpoint folder, in the layout of sentence-transformers.
            placement: Device and dtype; float16 is invalid, because T5 overflows in float16.
            max_length: Maximum length of a text in tokens, from 2 to 512; None for the limit of the checkpoint, or 512
                if the checkpoint sets no limit.
            allow_unexpected: Whether to ignore unused tensors in the checkpoint.

        Raises:
            CheckpointError: If the weights do not match the architecture, or the checkpoint does not use mean pooling.
            InvalidInputError: If an argument is invalid.
        """
        if placement.dtype == torch.float16:
            name = checkpoint.name
            raise InvalidInputError(f"{name} overflows in float16. Pass dtype='bfloat16' or 'float32' (--dtype).")
        pooling = checkpoint.json("1_Pooling/config.json", POOLING, required=False)
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise CheckpointError(f"{checkpoint.folder} does not use mean pooling. Pass another checkpoint.")
        super().__init__(checkpoint, placement)
        self.dim = self.multi_dim = int(checkpoint.config["d_model"])  # 512 (s), 768 (b), 1024 (l)
        lengths = checkpoint.json("sentence_bert_config.json", SENTENCE_TRANSFORMER, required=False)
        default_length = int(lengths.get("max_seq_length") or MAX_LENGTH)
        self._max_length = length_limit(max_length, default_length, minimum=2, maximum=MAX_LENGTH)
        self._tokenizer = TextTokenizer(checkpoint.folder, fallback="T5Tokenizer")
        self._tokenizer.check_rows(checkpoint.config["vocab_size"])
        self._eos = self._tokenizer.special("</s>")
        self._module = _empty_encoder(checkpoint)
        with open_weights(checkpoint) as files:
            load(self._module, files, placement, ignore=_IGNORED, allow_unexpected=allow_unexpected)
        self._module.encoder.embed_tokens = self._module.shared
        self._module.to(placement.device).eval()
        self._lock = RenewedLock()
        self._runner: BatchRunner[Any, Float32] = BatchRunner(placement, name=checkpoint.name)

    @property
    def fingerprint(self) -> str:
        """Identifier of the vectors: hub id and commit (or family), and hash of the weights."""
        return self._checkpoint.fingerprint()

    def encode_query(
        self, queries: Sequence[Input], *, raw: bool = False, **options: Unpack[EncodeOptions]
    ) -> Embeddings:
        """Embed queries. Documents are encoded in the same way.

        Args:
            queries: Texts and pages; a page is encoded as the words of the page.
            raw: Whether to return the vectors without normalization, as published.
            options: See `EncodeOptions`; each multi-vector has one row.

        Returns:
            Dense vectors of shape (n, dim) and multi-vectors of shape (1, dim), float32.

        Raises:
            InvalidInputError: If an input is or contains an image, or an option is invalid.
        """
        settings = EncodeSettings(**options)
        check_truncate_dim(settings.truncate_dim, self.dim, self.name)
        limit = length_limit(settings.max_length, self._max_length, minimum=2, maximum=MAX_LENGTH)
        inputs = as_input_list(queries, "queries")
        labels = [f"Text {number} of {len(inputs)}" for number in range(1, len(inputs) + 1)]
        texts = [text_of(item, self.name, label).strip() for item, label in zip(inputs, labels, strict=True)]
        ids_of_texts = self._tokenizer.encode_many(texts)
        if truncated_count := sum(len(ids) + 1 > limit for ids in ids_of_texts):
            _log.warning("Truncated %d of %d texts to %d tokens (max_length).", truncated_count, len(texts), limit)
        tokens = [np.array([*ids[: limit - 1], self._eos], dtype=np.int64) for ids in ids_of_texts]
        vectors = self._runner.run(
            [len(ids) for ids in tokens],
            lambda indices: self._prepare([tokens[i] for i in indices]),
            lambda batch: self._launch(*batch),
            batch_tokens=settings.batch_tokens,
        )
        check_vectors(vectors, self.name, self.placement)
        dense = np.reshape(np.array(vectors, dtype=np.float32), (len(vectors), self.dim))
        dense = dense if raw else normalise(dense)
        return Embeddings(
            single=dense if settings.single else None,
            multi=[row[None] for row in dense] if settings.multi else None,
            grids=[None] * len(dense) if settings.multi else None,
        )

    def encode_document(
        self, documents: Sequence[Input], *, raw: bool = False, **options: Unpack[EncodeOptions]
    ) -> Embeddings:
        """Embed documents; see `encode_query` for the arguments."""
        return self.encode_query(as_input_list(documents, "documents"), raw=raw, **options)

    def _prepare(self, batch: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded token ids, and 1 for each token but padding, in memory that can be copied asynchronously."""
        longest = max(len(ids) for ids in batch)
        ids_of_rows = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.int64)
        for row, ids in enumerate(batch):
            ids_of_rows[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        return in_host_memory(ids_of_rows, self.placement.device), in_host_memory(mask, self.placement.device)

    def _launch(self, ids: torch.Tensor, mask: torch.Tensor) -> Reader[Float32]:
        """Submit a batch to the device, and return the function that waits for the vectors and returns them."""
        device = self.placement.device
        with self._lock, torch.inference_mode(), no_autocast(device):
            is_token = to_device(mask, device)
            # A mask of the logits: to expand a mask of tokens, transformers would wait for the device.
            dtype = self.placement.dtype
            logit_mask = (1 - is_token[:, None, None, :]).to(dtype) * torch.finfo(dtype).min
            hidden = self._module(input_ids=to_device(ids, device), attention_mask=logit_mask)
            weights = is_token / is_token.sum(dim=1, keepdim=True)
            states = hidden.last_hidden_state.float()
            copy = HostCopy(torch.bmm(weights[:, None, :].float(), states)[:, 0])
        return lambda: list(copy.read()[0].copy())


def _empty_encoder(checkpoint: Checkpoint) -> Any:  # noqa: ANN401  # transformers' T5EncoderModel
    from accelerate import init_empty_weights
    from transformers import T5Config, T5EncoderModel

    options = {key: value for key, value in checkpoint.config.items() if key != "architectures"}
    with config_errors(checkpoint), init_empty_weights(include_buffers=False):
        module = T5EncoderModel(T5Config(**options))
    # `embed_tokens` and `shared` are one table; only the key `shared` of the weight file is loaded.
    del module.encoder.embed_tokens
    return module
