"""Turns user text into token ids that are never special: a text cannot open an image, close a prompt or pad itself.

The published code lets the tokenizer look for special tokens in whatever it is given, so that a document which holds
``<|vision_start|>`` takes another path through the model. Here the markup of a prompt is put in as ids, and text is
only ever text (a deliberate difference, tested).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.errors import CheckpointError

_META = "\u2581"
"""Stands for the space before a word in SentencePiece's pieces."""
_MARKUP = re.compile(r"<\|(im_|vision_|image_|video_|endoftext)")


class TextTokenizer:
    """The tokenizer of a checkpoint, for text alone; special tokens have to be asked for by name.

    Reads ``tokenizer.json`` (fast tokenizers' own format).
    """

    def __init__(self, folder: Path, *, fallback: str) -> None:
        """Read the tokenizer of a checkpoint.

        Args:
            folder: The checkpoint's.
            fallback: Class in transformers that reads the older files where there is no ``tokenizer.json``.

        Raises:
            CheckpointError: If there is no tokenizer, or it cannot be read.
        """
        tokenizers = require("tokenizers")
        path = folder / "tokenizer.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _converted(folder, fallback)
            data = _marked(data)
            self._special: dict[str, int] = {
                token["content"]: int(token["id"]) for token in data["added_tokens"] if token["special"]
            }
            self._vocabulary = _vocabulary(data)
            self._sentencepiece = data["model"].get("type") == "Unigram"
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(_for_text(data, self._special)))
        except Exception as exc:  # tokenizers raises plain Exception, transformers anything
            raise CheckpointError(f"The tokenizer in {folder} cannot be read: {exc}") from exc
        self._tokenizer.encode_special_tokens = True
        self._folder = folder

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any special token."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        return [item.ids for item in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pieces_many(self, texts: Sequence[str], *, skip: int = 0) -> list[tuple[str, ...]]:
        """What each id that `encode_many` gives stands for, as text.

        A piece that begins a word begins with the space before it. Joined, the pieces of a byte-level BPE are the text
        itself: a letter that is several tokens belongs to the first of them, and the others are empty. Those of
        SentencePiece are the text as its model reads it: NFKC, with one space before each word.

        Args:
            texts: As given to `encode_many`.
            skip: Characters at the beginning of each text, a prompt's, that are left out: their tokens are empty.
        """
        pieces_of_texts = []
        batch = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for text, encoded in zip(texts, batch, strict=True):
            ends = [end for _, end in encoded.offsets]
            if self._sentencepiece:
                pieces = [
                    piece.replace(_META, " ") if end > skip else ""
                    for piece, end in zip(encoded.tokens, ends, strict=True)
                ]
            else:
                # A normaliser may have dropped characters between two tokens, or behind the last.
                stops = [*ends[:-1], len(text)] if ends else []
                pieces = [text[max(start, skip) : stop] for start, stop in zip([0, *stops], stops, strict=False)]
            pieces_of_texts.append(tuple(pieces))
        return pieces_of_texts

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that `encode` gave; bytes of cut characters become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def special(self, content: str) -> int:
        """The id of a special token.

        Raises:
            CheckpointError: If the tokenizer has none of that name.
        """
        token_id = self._special.get(content, self._vocabulary.get(content))
        if token_id is None:
            raise CheckpointError(f"The tokenizer in {self._folder} has no token {content!r}.")
        return token_id

    def piece(self, content: str) -> int | None:
        """The id of an entry of the vocabulary, or None."""
        return self._vocabulary.get(content)


def _marked(data: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with all its markup marked as special, whatever the file says of each.

    A fine-tuned checkpoint may have its markers saved as ordinary added tokens; what a user writes must not become one
    all the same. Qwen's tokens for tools and code infilling stay what they are, as published.
    """
    every = isinstance(data["model"]["vocab"], list)  # Unigram: jina-colbert-v2 and v1, where all are markup
    added_tokens = [
        {**token, "special": bool(token.get("special") or every or _MARKUP.match(token["content"]))}
        for token in data.get("added_tokens") or []
    ]
    return {**data, "added_tokens": added_tokens}


def _vocabulary(data: dict[str, Any]) -> dict[str, int]:
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    return {piece: index for index, (piece, _) in enumerate(vocabulary)}


def _for_text(data: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """The tokenizer without what adds, cuts, pads or recognises markup."""
    data = {**data, "post_processor": None, "truncation": None, "padding": None}
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):
        # A Unigram vocabulary lists its control tokens as pieces, with the best score there is: "<s>" in a text
        # would be found. No piece can match a space, because the pre-tokenizer has replaced them all.
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


def _converted(folder: Path, name: str) -> dict[str, Any]:
    # Without its files transformers makes a tokenizer that knows nothing, and does not say so.
    missing_files = [file for file in _OLDER_FILES[name] if not (folder / file).is_file()]
    if missing_files:
        raise ValueError(f"there is no tokenizer.json and no {missing_files[0]}")
    transformers = require("transformers", extra="models")
    tokenizer = getattr(transformers, name).from_pretrained(str(folder), trust_remote_code=False)
    data: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return data
