"""From words with places to tokens with places: what the embedded default reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jina_rag.images import LoadedImage, Opening, is_data_uri
from jina_rag.inputs import parts_of
from jina_rag.models.lite.backbone import Backbone
from jina_rag.models.lite.stopwords import has_content, is_particle, is_stop_word
from jina_rag.protocols import Input
from jina_rag.types import Box, Float32, Page, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_NOWHERE: Box = (float("nan"), float("nan"), float("nan"), float("nan"))
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")
_CHUNK = 20_000
_LONGEST_WORD = 1_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one input.

    Attributes:
        ids: Shape (tokens,) int64.
        useful: Shape (tokens,) bool: whether its vector goes into the multi-vector.
        boxes: Shape (tokens, 4) float32 for pages and images; None for plain text.
        texts: The characters of each token.
        words: Shape (tokens,) int32: the word, counted from 0, that each token is a piece of.
        truncated: Whether the input had more tokens than were allowed.
    """

    ids: npt.NDArray[np.int64]
    useful: npt.NDArray[np.bool_]
    boxes: Float32 | None
    texts: tuple[str, ...]
    words: npt.NDArray[np.int32]
    truncated: bool

    def texts_of(self, mask: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        """The characters of some of the tokens; the first of each word has a space before it.

        What was left out between two pieces of a word (an apostrophe, a hyphen) goes with the second.

        Args:
            mask: Shape (tokens,): which.
        """
        pieces: list[str] = []
        before = -1
        for index in np.flatnonzero(mask).tolist():
            same = before >= 0 and self.words[before] == self.words[index]
            pieces.append("".join(self.texts[before + 1 : index + 1]) if same else f" {self.texts[index]}")
            before = index
        return tuple(pieces)


def words_of(document: Input, opening: Opening) -> tuple[list[tuple[str, Box]], bool]:
    """The words of an input, and whether they have places.

    A page gives its words, a text is split at white space, an image (PIL, bytes of a file, path, data URI) is read
    by OCR. Of several parts, the words of each in turn; places on different images mean nothing together.

    Raises:
        InvalidInputError: If it is none of these, or not a readable image.
    """
    if isinstance(document, Page):
        return [(word.text, word.box) for word in document.words], True
    if isinstance(document, str) and not is_data_uri(document):
        return [(word, _NOWHERE) for word in document.split()], False
    words: list[tuple[str, Box]] = []
    parts = parts_of(document, opening)
    for part in parts:
        if isinstance(part, LoadedImage):
            ocr_words = _read(part.load(alpha="white"))
            words += [(word.text, word.box if len(parts) == 1 else _NOWHERE) for word in ocr_words]
        else:
            words += [(word, _NOWHERE) for word in part.split()]
    return words, len(parts) == 1 and isinstance(parts[0], LoadedImage)


def _read(image: Image) -> Sequence[Word]:
    from jina_rag.ocr import read_words

    return read_words(image)


def tokens_of(words: Iterable[tuple[str, Box]], have_places: bool, backbone: Backbone, limit: int) -> Tokens:
    """Tokenise words, up to `limit` tokens; what comes after is not looked at.

    Args:
        words: Texts and where they stand.
        have_places: Whether the places mean anything.
        backbone: Splits the words.
        limit: Most tokens.
    """
    ids: list[int] = []
    useful: list[bool] = []
    boxes: list[Box] = []
    texts: list[str] = []
    numbers: list[int] = []
    count = 0
    for chunk in _chunks(words):
        for (text, box), tokens in zip(chunk, backbone.tokenize([text for text, _ in chunk]), strict=True):
            stop_word = is_stop_word(text)
            for token in tokens:
                ids.append(token.id)
                texts.append(token.text)
                numbers.append(count)
                useful.append(not stop_word and has_content(token.text) and not is_particle(token.text))
                if have_places:
                    boxes.append(slice_box(box, token.start, token.end, text))
            count += 1
        if len(ids) > limit:
            break
    return Tokens(
        np.array(ids[:limit], dtype=np.int64),
        np.array(useful[:limit], dtype=bool),
        np.array(boxes[:limit], dtype=np.float32).reshape(-1, 4) if have_places else None,
        tuple(texts[:limit]),
        np.array(numbers[:limit], dtype=np.int32),
        truncated=len(ids) > limit,
    )


def _chunks(words: Iterable[tuple[str, Box]]) -> Iterator[list[tuple[str, Box]]]:
    """Words in groups, endless ones (a page of base64, a book without a space) in parts."""
    chunk: list[tuple[str, Box]] = []
    size = 0
    for text, box in words:
        for at in range(0, len(text), _LONGEST_WORD):
            part = text[at : at + _LONGEST_WORD]
            place = slice_box(box, at / len(text), (at + len(part)) / len(text), part)
            chunk.append((part, place))
            size += len(part)
            if size >= _CHUNK:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def slice_box(box: Box, start: float, end: float, word: str) -> Box:
    """The part of a word's box that some characters cover, along the longer axis, in reading direction.

    A token without characters of its own (the mark of a word's beginning) has a box of no length there.

    Args:
        box: The word's.
        start: Where the characters begin, as a fraction of the word.
        end: Where they end.
        word: Tells the direction: Arabic and Hebrew run from the right.
    """
    if start <= 0.0 and end >= 1.0:
        return box
    x0, y0, x1, y1 = box
    if y1 - y0 > x1 - x0 and len(word) > 1:
        return x0, y0 + start * (y1 - y0), x1, y0 + end * (y1 - y0)
    if _RIGHT_TO_LEFT.search(word):
        start, end = 1 - end, 1 - start
    return x0 + start * (x1 - x0), y0, x0 + end * (x1 - x0), y1
