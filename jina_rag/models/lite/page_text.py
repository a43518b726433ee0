"""Extraction of words with boxes from the inputs of the lite models, and splitting of words into tokens with boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jina_rag.images import LoadedImage, Opening
from jina_rag.inputs import parts_of
from jina_rag.models.lite.backbone import Backbone, Token
from jina_rag.models.lite.stopwords import has_content, is_particle, is_stop_word
from jina_rag.normalization import has_reversed_lam_alef, token_form_with_offsets
from jina_rag.protocols import Input
from jina_rag.types import Box, Float32, Page, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_BOX: Box = (float("nan"), float("nan"), float("nan"), float("nan"))
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")
_CHUNK = 20_000
_LONGEST_WORD = 1_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one input.

    Attributes:
        ids: Token ids, shape (tokens,), int64.
        useful: False for tokens of stop words, particles and punctuation, shape (tokens,), bool.
        boxes: Box of each token as fractions of the page, shape (tokens, 4), float32; None for plain text.
        texts: Characters of each token.
        words: Index of the word of each token, shape (tokens,), int32.
        truncated: Whether the input had more tokens than the limit.
    """

    ids: npt.NDArray[np.int64]
    useful: npt.NDArray[np.bool_]
    boxes: Float32 | None
    texts: tuple[str, ...]
    words: npt.NDArray[np.int32]
    truncated: bool

    def texts_of(self, mask: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        """Return the characters of the selected tokens; the first token of a word starts with a space.

        An unselected token between two selected tokens of a word (an apostrophe, a hyphen) is prepended to the text of
        the second selected token.

        Args:
            mask: Selected tokens, shape (tokens,), bool.
        """
        pieces: list[str] = []
        previous = -1
        for index in np.flatnonzero(mask).tolist():
            same_word = previous >= 0 and self.words[previous] == self.words[index]
            pieces.append("".join(self.texts[previous + 1 : index + 1]) if same_word else f" {self.texts[index]}")
            previous = index
        return tuple(pieces)


def words_of(document: Input, opening: Opening, label: str) -> tuple[list[tuple[str, Box]], bool]:
    """Return the words of an input, the box of each word, and whether the boxes are valid.

    For a page, the words of the page are returned. A text is split at white space, and an image (PIL, bytes, path, data
    URI) is read by OCR. The words of an input with several parts are concatenated without boxes, because boxes on
    different images have no common coordinates.

    Args:
        document: The input.
        opening: Limits on images, and whether http and https URLs are downloaded.
        label: Name and position of the input, for the error message.

    Returns:
        Pairs of text and box, and True if all words have boxes on the same page or image. Boxes are fractions of the
        page or image, NaN for words without a box.

    Raises:
        InvalidInputError: If the input has another type, or an image cannot be read.
    """
    if isinstance(document, Page):
        return [(word.text, word.box) for word in document.words], True
    if isinstance(document, str):
        return [(word, _NO_BOX) for word in document.split()], False
    words: list[tuple[str, Box]] = []
    parts = parts_of(document, opening, label)
    for part in parts:
        if isinstance(part, LoadedImage):
            ocr_words = _read(part.load(alpha="white"))
            words += [(word.text, word.box if len(parts) == 1 else _NO_BOX) for word in ocr_words]
        else:
            words += [(word, _NO_BOX) for word in part.split()]
    return words, len(parts) == 1 and isinstance(parts[0], LoadedImage)


def _read(image: Image) -> Sequence[Word]:
    from jina_rag.ocr import read_words

    return read_words(image)


def tokens_of(words: Sequence[tuple[str, Box]], has_boxes: bool, backbone: Backbone, limit: int) -> Tokens:
    """Return the tokens of words, truncated to `limit` tokens.

    Args:
        words: Pairs of text and box, the box as fractions of the page. The model gets the `token_form` of each text,
            and the tokens keep the characters of the text.
        has_boxes: Whether the boxes are valid.
        backbone: Tokenizer of the words.
        limit: Limit of tokens.
    """
    ids: list[int] = []
    useful: list[bool] = []
    boxes: list[Box] = []
    texts: list[str] = []
    word_indices: list[int] = []
    word_index = 0
    is_reversed = any(not text.isascii() and has_reversed_lam_alef(text) for text, _ in words)
    for chunk in _chunks(words):
        forms = [
            (text, None) if text.isascii() else token_form_with_offsets(text, is_reversed=is_reversed)
            for text, _ in chunk
        ]
        tokens_of_words = backbone.tokenize([form for form, _ in forms])
        for (text, box), (form, offsets), tokens in zip(chunk, forms, tokens_of_words, strict=True):
            stop_word = is_stop_word(form)
            for token in tokens:
                useful.append(not stop_word and has_content(token.text) and not is_particle(token.text))
                shown = token if form == text else _in_word(token, text, offsets)
                ids.append(token.id)
                texts.append(shown.text)
                word_indices.append(word_index)
                if has_boxes:
                    boxes.append(slice_box(box, shown.start, shown.end, text))
            word_index += 1
        if len(ids) > limit:
            break
    return Tokens(
        np.array(ids[:limit], dtype=np.int64),
        np.array(useful[:limit], dtype=bool),
        np.array(boxes[:limit], dtype=np.float32).reshape(-1, 4) if has_boxes else None,
        tuple(texts[:limit]),
        np.array(word_indices[:limit], dtype=np.int32),
        truncated=len(ids) > limit,
    )


def _in_word(token: Token, word: str, offsets: tuple[int, ...] | None) -> Token:
    """Return a token of the normalized word with the characters and the position of the original word.

    Args:
        token: Token of the token form of the word; see `jina_rag.normalization`.
        word: The word as written on the page.
        offsets: Position in `word` of each character of the token form, and of its end; None for equal positions.
    """
    size = len(word) if offsets is None else len(offsets) - 1
    start, end = round(token.start * size), round(token.end * size)
    if offsets is not None:
        start, end = offsets[start], offsets[end]
    return Token(token.id, start / len(word), end / len(word), word[start:end])


def _chunks(words: Iterable[tuple[str, Box]]) -> Iterator[list[tuple[str, Box]]]:
    """Yield words in chunks of about 20,000 characters; words of over 1,000 characters (base64) are split."""
    chunk: list[tuple[str, Box]] = []
    size = 0
    for text, box in words:
        for start in range(0, len(text), _LONGEST_WORD):
            part = text[start : start + _LONGEST_WORD]
            part_box = slice_box(box, start / len(text), (start + len(part)) / len(text), part)
            chunk.append((part, part_box))
            size += len(part)
            if size >= _CHUNK:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def slice_box(box: Box, start: float, end: float, word: str) -> Box:
    """Return the box of a range of characters, as a slice of the box of a word.

    The box of the word is sliced along the longer axis, in reading direction. A token without characters (the
    word-start marker) gets a box of length 0.

    Args:
        box: Box of the word as fractions of the page.
        start: Start of the characters, as a fraction (0 to 1) of the word.
        end: End of the characters, as a fraction (0 to 1) of the word.
        word: Text of the word; Arabic and Hebrew words are sliced from the right.

    Returns:
        The box (x0, y0, x1, y1) of the characters, as fractions of the page.
    """
    if start <= 0.0 and end >= 1.0:
        return box
    x0, y0, x1, y1 = box
    if y1 - y0 > x1 - x0 and len(word) > 1:
        return x0, y0 + start * (y1 - y0), x1, y0 + end * (y1 - y0)
    if _RIGHT_TO_LEFT.search(word):
        start, end = 1 - end, 1 - start
    return x0 + start * (x1 - x0), y0, x0 + end * (x1 - x0), y1
