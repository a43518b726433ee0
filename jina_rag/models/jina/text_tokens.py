"""Tokenization of user text without special tokens, which prevents the injection of markup into a prompt.

The published code lets the tokenizer parse special tokens in input texts, so a document that contains
``<|vision_start|>`` changes the structure of the prompt. This package inserts the markup of a prompt as token ids and
always encodes input texts as ordinary text. This difference is deliberate and tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import CheckpointError
from jina_rag.models.jina.tokenizer_checks import MAX_BYTES, check_tokenizer

_WORD_BOUNDARY = "\u2581"
"""Character that represents the space before a word in the pieces of SentencePiece."""
_MARKUP = re.compile(r"<\|(im_|vision_|image_|video_|endoftext)")


class TextTokenizer:
    """Tokenizer of a checkpoint for plain text; special tokens are available by name only.

    The tokenizer is read from ``tokenizer.json``, the format of fast tokenizers.
    """

    def __init__(self, folder: Path, *, fallback: str) -> None:
        """Read the tokenizer of a checkpoint.

        Args:
            folder: Folder of the checkpoint.
            fallback: Name of the transformers class that reads the older file formats if ``tokenizer.json`` is missing.

        Raises:
            CheckpointError: If the tokenizer is missing or cannot be read.
        """
        self._folder = folder
        tokenizers = require("tokenizers")
        path = folder / "tokenizer.json"
        try:
            data = _read(path) if path.is_file() else _convert(folder, fallback)
            check_tokenizer(data)
            data = _mark_special_tokens(data)
            self._special: dict[str, int] = {
                token["content"]: int(token["id"]) for token in data["added_tokens"] if token["special"]
            }
            self._vocabulary = _vocabulary(data)
            self._sentencepiece = data["model"].get("type") == "Unigram"
            content = json.dumps(_disable_special_tokens(data, self._special))
            with self._panics_as_errors():
                self._tokenizer = tokenizers.Tokenizer.from_str(content)
        except CheckpointError:
            raise
        except (Exception, RecursionError) as exc:  # tokenizers raises `Exception` itself
            detail = str(exc)[:100] or type(exc).__name__
            raise CheckpointError(
                f"{path}: the tokenizer cannot be read ({detail}). Download the model again."
            ) from exc
        self._tokenizer.encode_special_tokens = True

    @contextmanager
    def _panics_as_errors(self) -> Iterator[None]:
        """Convert a panic of tokenizers, which is no `Exception` and which only the tables of the file can cause.

        Raises:
            CheckpointError: Instead of a panic.
        """
        try:
            yield
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":
                raise
            raise CheckpointError(
                f"{self._folder / 'tokenizer.json'}: the tokenizer failed ({str(exc)[:80]}). Download the model again."
            ) from exc

    def check_rows(self, rows: int) -> None:
        """Check that the table of token embeddings has a row for each token id.

        Args:
            rows: Number of rows of the table.

        Raises:
            CheckpointError: If a token id has no row.
        """
        largest = max([*self._vocabulary.values(), *self._special.values()], default=0)
        if largest >= rows:
            raise CheckpointError(
                f"{self._folder / 'tokenizer.json'} has the token id {largest:,}; expected less than vocab_size of "
                f"config.json, {rows:,}. Download the model again."
            )

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        with self._panics_as_errors():
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, using all cores; see `encode`."""
        with self._panics_as_errors():
            return [item.ids for item in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pieces_many(self, texts: Sequence[str], *, skip: int = 0) -> list[tuple[str, ...]]:
        """Return the text of each token id from `encode_many`.

        The first piece of a word starts with the space before the word. With byte-level BPE, the joined pieces equal
        the text; if a character has several tokens, the first token gets the whole character and the other tokens get
        empty texts. With SentencePiece, the joined pieces equal the text after NFKC normalization, with one space
        before each word.

        Args:
            texts: Same texts as for `encode_many`.
            skip: Number of characters at the start of each text, for example a prompt prefix, whose tokens get empty
                texts.
        """
        pieces_of_texts = []
        with self._panics_as_errors():
            batch = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, batch, strict=True):
            ends = [end for _, end in encoding.offsets]
            if self._sentencepiece:
                pieces = [
                    piece.replace(_WORD_BOUNDARY, " ") if end > skip else ""
                    for piece, end in zip(encoding.tokens, ends, strict=True)
                ]
            else:
                # A normalizer may drop characters between tokens or at the end of the text. Each piece therefore starts
                # where the previous piece stops, and the last piece stops at the end of the text.
                stops = [*ends[:-1], len(text)] if ends else []
                pieces = [text[max(start, skip) : stop] for start, stop in zip([0, *stops], stops, strict=False)]
            pieces_of_texts.append(tuple(pieces))
        return pieces_of_texts

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; bytes of incomplete characters become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def special(self, content: str) -> int:
        """Return the id of a special token.

        Args:
            content: Text of the token, for example ``"<|im_start|>"``.

        Raises:
            CheckpointError: If the tokenizer has no such token.
        """
        token_id = self._special.get(content, self._vocabulary.get(content))
        if token_id is None:
            raise CheckpointError(f"The tokenizer in {self._folder} lacks {content!r}. Download the model again.")
        return token_id

    def piece(self, content: str) -> int | None:
        """Return the id of the vocabulary entry `content`, or None if the vocabulary has no such entry."""
        return self._vocabulary.get(content)


def _read(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, limit {MAX_BYTES:,}")
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError("no JSON object")  # the value is data of a file
    return data


def _mark_special_tokens(data: dict[str, Any]) -> dict[str, Any]:
    """Return the tokenizer data with all markup tokens marked as special, regardless of the flags in the file.

    A fine-tuned checkpoint may store markup tokens as ordinary added tokens, but user text must not match markup.
    Qwen's tokens for tools and code infilling are unchanged, as published.
    """
    is_unigram = isinstance(data["model"]["vocab"], list)  # jina-colbert-v2 and v1: all added tokens are special tokens
    added_tokens = [
        {**token, "special": bool(token.get("special") or is_unigram or _MARKUP.match(token["content"]))}
        for token in data.get("added_tokens") or []
    ]
    return {**data, "added_tokens": added_tokens}


def _vocabulary(data: dict[str, Any]) -> dict[str, int]:
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    return {piece: index for index, (piece, _) in enumerate(vocabulary)}


def _disable_special_tokens(data: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """Return the tokenizer data without post-processing, truncation, padding and special tokens."""
    data = {**data, "post_processor": None, "truncation": None, "padding": None}
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):
        # A Unigram vocabulary lists control tokens as pieces with the highest score, and "<s>" in a text would
        # match. Here each control token gets a space, so that no text matches: the pre-tokenizer replaces all spaces.
        data["model"] = {
            **data["model"],
            "vocab": [[f"{piece} never" if piece in special else piece, score] for piece, score in vocabulary],
        }
        data["added_tokens"] = []
    return data


_OLDER_FILES = {
    "Qwen2Tokenizer": ("vocab.json", "merges.txt"),
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model",),
    "T5Tokenizer": ("spiece.model",),
}


def _convert(folder: Path, name: str) -> dict[str, Any]:
    # If a file of the older format is missing, transformers returns an empty tokenizer without an error, so the
    # files are checked first.
    missing_files = [file for file in _OLDER_FILES[name] if not (folder / file).is_file()]
    if missing_files:
        raise ValueError(f"tokenizer.json and {missing_files[0]} are missing")
    transformers = require("transformers", extra="models")
    tokenizer = getattr(transformers, name).from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    data: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return data
