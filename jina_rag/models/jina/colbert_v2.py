"""jina-colbert-v2: late-interaction embeddings of texts, one row of the multi-vector per token.

Queries and documents have a marker token after the start token. Queries are padded with mask tokens, which take part in
attention by default. The rows of punctuation tokens are removed from documents. By default, queries and
documents are encoded as in PyLate; `ColbertOptions` can select the encoding rules of ColBERT.

Source: Jha et al., Jina-ColBERT-v2: A General-Purpose Multilingual Late Interaction Retriever (2024), and the model
card.
"""

from __future__ import annotations

import itertools
import logging
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from jina_rag._checks import check_whole_number
from jina_rag._forks import RenewedLock
from jina_rag.errors import InvalidInputError
from jina_rag.inputs import EncodeSettings, as_input_list, length_limit, text_of
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.jina.xlm_rotary import RotaryEncoder
from jina_rag.models.runtime.batching import BatchRunner, Reader, split_rows
from jina_rag.models.runtime.checkpoints import Checkpoint, CheckpointModel
from jina_rag.models.runtime.devices import HostCopy, Placement, in_host_memory, no_autocast, to_device
from jina_rag.models.runtime.output_checks import check_vectors
from jina_rag.models.runtime.weights import load, open_weights
from jina_rag.protocols import EncodeOptions, Input
from jina_rag.scoring import normalise
from jina_rag.types import Embeddings, Float32, TokenGrid

_log = logging.getLogger("jina_rag")

MAX_LENGTH = 8192
QUERY_LENGTH = 32
Skiplist: TypeAlias = Literal["pylate", "stanford", "none"]
_MATRYOSHKA = (128, 96, 64)
_IGNORED = (r"roberta\.pooler\..*", r"roberta\.embeddings\.position_ids", r"lm_head\..*")


@dataclass(frozen=True, slots=True)
class ColbertOptions:
    """Encoding rules that differ between ColBERT implementations.

    Attributes:
        skiplist: Rule that selects the tokens whose rows are removed from documents. ``"pylate"`` selects the
            vocabulary entry of each of the 32 ASCII punctuation symbols, or the unknown token for a symbol without an
            entry. ``"stanford"`` selects the first token of each symbol, tokenized as a separate word, as in ColBERT
            and fastembed. ``"none"`` keeps all rows.
        query_length: Length of a query in tokens, special tokens and mask tokens included; longer queries are
            truncated.
        attend_to_expansion: Whether tokens attend to the mask tokens that pad a query. True corresponds to the
            published code.

    Raises:
        InvalidInputError: If `skiplist` is unknown, or `query_length` is not an integer from 4 to 8,192.
    """

    skiplist: Skiplist = "pylate"
    query_length: int = QUERY_LENGTH
    attend_to_expansion: bool = True

    def __post_init__(self) -> None:
        if self.skiplist not in ("pylate", "stanford", "none"):
            raise InvalidInputError(f"skiplist is {self.skiplist!r}; expected one of pylate, stanford, none.")
        check_whole_number("query_length", self.query_length, minimum=4, maximum=MAX_LENGTH)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Token ids of one input, the attention mask, the mask of rows to keep, and token texts (empty if unused)."""

    ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.bool_]
    has_row: npt.NDArray[np.bool_]
    texts: tuple[str, ...]

    @property
    def row_texts(self) -> tuple[str, ...]:
        """Texts of the rows to keep."""
        return tuple(itertools.compress(self.texts, self.has_row))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Padded token ids and attention mask (None without padding), and the indices and the number of rows to keep."""

    ids: torch.Tensor
    attention_mask: torch.Tensor | None
    rows: torch.Tensor
    counts: list[int]


class ColbertV2(CheckpointModel):
    """Embedder for texts and the text of pages; implements `jina_rag.protocols.Embedder`. Thread-safe.

    The published model has no dense vector. This class returns the normalized mean of the rows as a dense vector,
    for the retrieval of candidates. No scores of this extension are published.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        options: ColbertOptions | None = None,
        allow_unexpected: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: Checkpoint folder.
            placement: Device and dtype.
            truncate_dim: Length of the rows; None for the full length. Truncating the rows of jina-colbert-v2 from 128
                to 96 or 64 dimensions equals truncating the projection layer. The checkpoints jina-colbert-v2-96 and
                jina-colbert-v2-64 may return other rows; load these checkpoints to reproduce the published scores.
            max_length: Maximum length of a document in tokens; None for 8,192.
            options: Encoding rules; None for the defaults of `ColbertOptions`.
            allow_unexpected: Whether to ignore unused tensors in the checkpoint.

        Raises:
            CheckpointError: If the weights do not match the architecture.
            InvalidInputError: If an argument is invalid.
        """
        super().__init__(checkpoint, placement)
        self._options = options or ColbertOptions()
        self._max_length = length_limit(max_length, MAX_LENGTH, minimum=4, maximum=MAX_LENGTH)
        self._tokenizer = TextTokenizer(checkpoint.folder, fallback="XLMRobertaTokenizer")
        self._tokenizer.check_rows(checkpoint.config["vocab_size"])
        with open_weights(checkpoint) as files:
            out = files.shape("linear.weight")[0] if "linear.weight" in files else 128
            self._full_dim = int(out)
            self._module = nn.Module()
            self._module.add_module("roberta", RotaryEncoder.empty(checkpoint.config, checkpoint.folder))
            with torch.device("meta"):
                self._module.add_module("linear", nn.Linear(int(checkpoint.config["hidden_size"]), out, bias=False))
            load(self._module, files, placement, ignore=_IGNORED, allow_unexpected=allow_unexpected)
        self._module.to(placement.device).eval()
        self.dim = self.multi_dim = self._checked_dim(truncate_dim) or self._full_dim
        # Dimensions that the model was trained for, according to the model card.
        self.multi_matryoshka_dims = tuple(dim for dim in _MATRYOSHKA if dim <= self.multi_dim)
        special = self._tokenizer.special
        self._bos, self._eos, self._mask = special("<s>"), special("</s>"), special("<mask>")
        self._markers = {side: special(f"[{side}Marker]") for side in ("Query", "Document")}
        self._skipped_ids = np.array(sorted(self._skiplist()), dtype=np.int64)
        self._lock = RenewedLock()
        self._runner: BatchRunner[_Batch, Float32] = BatchRunner(placement, name=checkpoint.name)

    @property
    def fingerprint(self) -> str:
        """Identifier of the vectors: hub id and commit (or family), hash of the weights, encoding rules, row length."""
        rules = self._options
        attention = "" if rules.attend_to_expansion else "-no-attend"
        return self._checkpoint.fingerprint(f"{rules.skiplist}-q{rules.query_length}{attention}-d{self.multi_dim}")

    def encode_query(self, queries: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed queries as `query_length` rows each, including the rows of the mask tokens.

        Args:
            queries: Texts and pages; a page is encoded as the words of the page.
            options: See `EncodeOptions`. `single` returns the normalized mean of the rows, `truncate_dim` truncates the
                rows, and `max_length` replaces `query_length`.

        Returns:
            Dense vectors of shape (n, dim) and multi-vectors of shape (tokens, multi_dim), float32.

        Raises:
            InvalidInputError: If an input is or contains an image, or an option is invalid.
        """
        settings = EncodeSettings(**options)
        length = length_limit(settings.max_length, self._options.query_length, minimum=4, maximum=MAX_LENGTH)
        pieces_of = self._ids_and_pieces(as_input_list(queries, "queries"), "Query", settings.multi)
        tokens = [self._query(ids, pieces, length) for ids, pieces in pieces_of]
        return self._encode(tokens, [len(ids) + 3 > length for ids, _ in pieces_of], settings)

    def encode_document(self, documents: Sequence[Input], **options: Unpack[EncodeOptions]) -> Embeddings:
        """Embed texts and the text of pages; see `encode_query` for the arguments.

        A multi-vector has one row for each token except punctuation. The option `max_length` replaces the limit that
        the model was loaded with.
        """
        settings = EncodeSettings(**options)
        limit = length_limit(settings.max_length, self._max_length, minimum=4, maximum=MAX_LENGTH)
        pieces_of = self._ids_and_pieces(as_input_list(documents, "documents"), "Document", settings.multi)
        truncated = [len(ids) + 3 > limit for ids, _ in pieces_of]
        if truncated_count := sum(truncated):
            _log.warning(
                "Truncated %d of %d documents to %d tokens (max_length).", truncated_count, len(truncated), limit
            )
        return self._encode([self._document(ids, pieces, limit) for ids, pieces in pieces_of], truncated, settings)

    def _ids_and_pieces(
        self, inputs: list[Input], noun: str, with_pieces: bool
    ) -> list[tuple[list[int], tuple[str, ...]]]:
        """Return the token ids of each input and the text of each token; the texts are empty unless `with_pieces`."""
        labels = [f"{noun} {number} of {len(inputs)}" for number in range(1, len(inputs) + 1)]
        texts = [text_of(item, self.name, label).strip() for item, label in zip(inputs, labels, strict=True)]
        ids = self._tokenizer.encode_many(texts)
        pieces = self._tokenizer.pieces_many(texts) if with_pieces else [("",) * len(item) for item in ids]
        return list(zip(ids, pieces, strict=True))

    def _query(self, ids: list[int], pieces: tuple[str, ...], length: int) -> _Tokens:
        """Return a query of `length` tokens: <s>, marker, truncated text, </s> and mask tokens."""
        text = [self._bos, self._markers["Query"], *ids[: length - 3], self._eos]
        all_ids = np.array(text + [self._mask] * (length - len(text)), dtype=np.int64)
        attention_mask = np.ones(length, dtype=bool)
        if not self._options.attend_to_expansion:
            attention_mask[len(text) :] = False
        texts = ("", "", *pieces[: length - 3], *[""] * (length + 1 - len(text)))
        return _Tokens(all_ids, attention_mask, np.ones(length, dtype=bool), texts)

    def _document(self, ids: list[int], pieces: tuple[str, ...], limit: int) -> _Tokens:
        all_ids = np.array([self._bos, self._markers["Document"], *ids[: limit - 3], self._eos], dtype=np.int64)
        texts = ("", "", *pieces[: limit - 3], "")
        return _Tokens(all_ids, np.ones(len(all_ids), dtype=bool), ~np.isin(all_ids, self._skipped_ids), texts)

    def _encode(self, tokens: list[_Tokens], truncated: list[bool], settings: EncodeSettings) -> Embeddings:
        single, multi = settings.single, settings.multi
        dim = self._checked_dim(settings.truncate_dim) or self.multi_dim
        rows = self._runner.run(
            [len(item.ids) for item in tokens],
            lambda indices: self._prepare([tokens[i] for i in indices]),
            lambda batch: self._launch(batch, dim),
            batch_tokens=settings.batch_tokens,
        )
        check_vectors(rows, self.name, self.placement)
        grids: list[TokenGrid | None] = [None] * len(rows)
        means = [row.mean(axis=0) for row in rows]
        return Embeddings(
            single=normalise(np.reshape(means, (len(rows), dim))) if single else None,
            multi=rows if multi else None,
            grids=grids if multi else None,
            tokens=[item.row_texts for item in tokens] if multi else None,
            truncated=truncated,
        )

    def _prepare(self, tokens: list[_Tokens]) -> _Batch:
        """Return a padded batch, in host memory that can be copied to the device asynchronously."""
        longest = max(len(item.ids) for item in tokens)
        ids = np.zeros((len(tokens), longest), dtype=np.int64)
        attention_mask = np.zeros((len(tokens), longest), dtype=bool)
        has_row = np.zeros((len(tokens), longest), dtype=bool)
        for row, item in enumerate(tokens):
            ids[row, : len(item.ids)] = item.ids
            attention_mask[row, : len(item.ids)] = item.attention_mask
            has_row[row, : len(item.ids)] = item.has_row
        device = self.placement.device
        return _Batch(
            in_host_memory(ids, device),
            None if attention_mask.all() else in_host_memory(attention_mask, device),
            in_host_memory(np.flatnonzero(has_row), device),
            has_row.sum(axis=1).tolist(),
        )

    def _launch(self, batch: _Batch, dim: int) -> Reader[Float32]:
        """Submit a batch to the device, and return the function that waits for the rows and returns them."""
        device = self.placement.device
        module: Any = self._module
        with self._lock, torch.inference_mode(), no_autocast(device):
            mask = None if batch.attention_mask is None else to_device(batch.attention_mask, device)
            hidden = module.roberta(to_device(batch.ids, device), mask)
            rows = module.linear(hidden.flatten(0, 1)[to_device(batch.rows, device)])[..., :dim].float()
            copy = HostCopy(nn.functional.normalize(rows, dim=-1))
        counts = batch.counts
        return lambda: split_rows(copy.read()[0], counts)

    def _skiplist(self) -> set[int]:
        if self._options.skiplist == "none":
            return set()
        if self._options.skiplist == "stanford":
            return {self._tokenizer.encode(symbol)[0] for symbol in string.punctuation}
        unknown = self._tokenizer.special("<unk>")
        pieces = (self._tokenizer.piece(symbol) for symbol in string.punctuation)
        return {unknown if piece is None else piece for piece in pieces}

    def _checked_dim(self, dim: int | None) -> int | None:
        if dim is not None and not 1 <= dim <= self._full_dim:
            raise InvalidInputError(f"truncate_dim is {dim}; expected 1 to {self._full_dim} for {self.name}.")
        return dim
