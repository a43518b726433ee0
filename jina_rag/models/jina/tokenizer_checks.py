"""Checks of ``tokenizer.json`` before the library tokenizers reads the file.

A tokenizer file is a program of normalizers and pre-tokenizers. Regular expressions can take hours for a short text,
replacements can multiply a text, and damaged tables end in a panic of the library. Only the components that the
published tokenizers have are accepted, with their regular expressions word for word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MAX_BYTES: Final = 128 * 1024**2
"""Largest accepted ``tokenizer.json``. The file of jina-colbert-v2 has about 17 MB."""
MAX_ID: Final = 4_194_303
"""Largest accepted token id."""
_COMPONENTS: Final = {
    "normalizer": {
        "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Replace", "Strip", "Prepend", "Lowercase",
        "StripAccents",
    },
    "pre_tokenizer": {"Sequence", "Split", "ByteLevel", "Metaspace", "WhitespaceSplit", "Whitespace"},
    "decoder": {"Sequence", "ByteLevel", "Metaspace", "Replace", "Fuse", "ByteFallback", "Strip", "WordPiece"},
}  # fmt: skip
_SPLITS: Final = {
    # Qwen2 and Qwen2.5
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # GPT-2
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"\s+",
    " ",
}
_REPLACED_STRINGS: Final = {" ", "\u2581", "``", "''"}
_REPLACED_EXPRESSIONS: Final = {" {2,}", r"\s+"}
_PARTS: Final = {"normalizers", "pretokenizers", "decoders"}
_MAX_COMPONENTS: Final = 20
_MAX_CHARSMAP: Final = 8 * 1024**2


def check_tokenizer(data: Mapping[str, Any]) -> None:
    """Check the components and the vocabulary of a tokenizer.

    Args:
        data: Content of ``tokenizer.json``.

    Raises:
        ValueError: If a component or a token id is not accepted. The message names the key.
    """
    for key, types in _COMPONENTS.items():
        if data.get(key) is not None:
            _check_component(data[key], key, types)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") not in {"BPE", "Unigram"}:
        raise ValueError("model.type is not BPE or Unigram")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        ids = list(vocabulary.values())
    elif isinstance(vocabulary, list):
        ids = list(range(len(vocabulary)))
    else:
        raise ValueError("model.vocab is missing")  # the value is data of a file
    tokens = data.get("added_tokens") or []
    ids += [token["id"] for token in tokens]
    if not all(isinstance(token_id, int) and 0 <= token_id <= MAX_ID for token_id in ids):
        raise ValueError(f"a token id is not a whole number from 0 to {MAX_ID:,}")
    if not all(isinstance(token["content"], str) and token["content"] for token in tokens):
        raise ValueError("added_tokens has a token without content")


def _check_component(component: Any, key: str, types: set[str]) -> None:  # noqa: ANN401  # any JSON value
    pending, count = [component], 0
    while pending:
        item = pending.pop()
        count += 1
        if count > _MAX_COMPONENTS:
            raise ValueError(f"{key} has more than {_MAX_COMPONENTS} components")
        kind = item.get("type") if isinstance(item, dict) else None
        if kind not in types:
            raise ValueError(f"{key} has the type {str(kind)[:40]!r}, which is not supported")
        if kind == "Split":
            _check_pattern(item.get("pattern"), key, _SPLITS, _SPLITS)
        elif kind == "Replace":
            _check_pattern(item.get("pattern"), key, _REPLACED_STRINGS, _REPLACED_EXPRESSIONS)
            if not isinstance(item.get("content"), str) or len(item["content"]) > 1:
                raise ValueError(f"{key} replaces text by more than one character")
        elif kind == "Prepend" and len(str(item.get("prepend"))) > 1:
            raise ValueError(f"{key} prepends more than one character")
        elif kind == "Precompiled" and len(str(item.get("precompiled_charsmap"))) > _MAX_CHARSMAP:
            raise ValueError(f"{key} has a precompiled_charsmap of more than {_MAX_CHARSMAP:,} characters")
        for part in _PARTS & item.keys():
            if not isinstance(item[part], list):
                raise ValueError(f"{key}.{part} is not a list")  # the value is data of a file
            pending.extend(item[part])


def _check_pattern(pattern: Any, key: str, strings: set[str], expressions: set[str]) -> None:  # noqa: ANN401
    accepted = {"String": strings, "Regex": expressions}
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise ValueError(f"{key} has a pattern that is not supported")
    (kind, text), *_ = pattern.items()
    if kind not in accepted or text not in accepted[kind]:
        raise ValueError(f"{key} has the pattern {str(text)[:40]!r}, which no published tokenizer has")
