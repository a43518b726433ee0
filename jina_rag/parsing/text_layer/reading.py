"""Comparison of suspect words with the pixels by OCR, and their replacement by what OCR reads.

OCR reads a sample of the lines of each suspect font. If the sample agrees with the text layer, the words stay. If it
does not, all words of the font are replaced, each line at its place in the reading order.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import reduce

import numpy as np

from jina_rag.errors import MissingDependencyError
from jina_rag.ocr.boxes import BoxReading, read_boxes
from jina_rag.parsing.layout.boxes import touch, union
from jina_rag.parsing.text_layer.characters import score_words
from jina_rag.types import Box, Page, Region, SuspectText, Word

# Number of lines of a suspect font that OCR reads first, and before the words are replaced; and their best length in
# characters. A number has few characters.
_SAMPLES = {"letters": (2, 6), "digits": (6, 24)}
_SAMPLE_LENGTH = 25
# Confidence from which a line counts in the judgement, and from which its words are used.
_MIN_SCORE, _MIN_WORD_SCORE = 0.75, 0.5
# Similarity of OCR and text layer, 0 to 1. Between the two values, consistent exchanges of letters decide.
_DIFFERENT, _EQUAL = 0.5, 0.9
# A character is exchanged consistently if OCR reads the same other character this often, and in this share of cases.
_MIN_EXCHANGES, _EXCHANGE_SHARE = 2, 0.7
# Share of the digits that differ in a font with exchanged digits.
_DIGIT_SHARE = 0.25
# Mean log probability of the words that OCR read, below which OCR has not understood the script.
_MIN_PLAUSIBLE = -3.3
# Short texts are plausible if this share are letters and digits, and if they are long or different.
_LABEL_SHARE, _LABEL_LENGTH, _MIN_LABELS = 0.7, 3, 3
# Characters that OCR confuses.
_ALIKE = ("1liIjtf|!", "0oOQD", "5sS", "2zZ", "8B", "6bG", "9gq", "uvUV", "cCeo", "rn", "hnb", ".,'")
# Phonetic letters and modifiers, and arrows, mathematical and other signs, which OCR does not read reliably.
_PHONETIC = (range(0x250, 0x300), range(0x1D00, 0x1DC0))
_SIGNS = range(0x2190, 0x2C00)
# OCR cannot judge a text of which at least this share are such signs.
_SIGN_SHARE = 0.25
# A font that was sound on this many pages of a document is not compared again.
_SOUND_PAGES = 2
# Text of one line has gaps of at most this many line heights.
_GAP = 1.5


class SoundFonts:
    """Counts the pages on which OCR agreed with the text layer, by document and font. Shared by the OCR threads."""

    def __init__(self) -> None:
        self._pages: Counter[tuple[str, str, str]] = Counter()

    def is_sound(self, doc_id: str, suspect: SuspectText) -> bool:
        """Return whether enough pages of the document have shown that the font is sound.

        Args:
            doc_id: Id of the document.
            suspect: Words of the font.
        """
        return bool(suspect.font) and self._pages[doc_id, suspect.font, suspect.kind] >= _SOUND_PAGES

    def add(self, doc_id: str, suspect: SuspectText) -> None:
        """Record that OCR agreed with the words of a font on a page.

        Args:
            doc_id: Id of the document.
            suspect: Words of the font.
        """
        self._pages[doc_id, suspect.font, suspect.kind] += 1


def warn_about_suspects(page: Page) -> Page:
    """Return a page without OCR: with a warning if the text layer is certainly wrong, and without suspects.

    Args:
        page: The page with suspects.
    """
    warnings = tuple(
        f"The text layer looks wrong{_of_font(item)}: {_count(item)} may be nonsense. "
        'Read the page by OCR: IngestSettings(ocr="auto") (--ocr auto).'
        for item in page.suspects
        if item.is_certain
    )
    return replace(page, suspects=(), warnings=(*page.warnings, *warnings)).with_prepared(page.prepared)


def replace_wrong_words(page: Page, sound_fonts: SoundFonts) -> Page:
    """Return a page without suspects. Words that OCR has proved wrong are replaced by the words that OCR reads.

    Args:
        page: The page with suspects.
        sound_fonts: Fonts that earlier pages of the document have proved sound; extended by this page.

    Returns:
        The page, with ``prepared`` None if words were replaced.

    Raises:
        CheckpointError: If the weights of the OCR models are invalid.
    """
    warnings: list[str] = []
    replacements: dict[int, tuple[Word, ...]] = {}
    inserted: defaultdict[int, list[Word]] = defaultdict(list)
    for suspect in page.suspects:
        if sound_fonts.is_sound(page.doc_id, suspect):
            continue
        try:
            result = _compare(page, suspect)
        except MissingDependencyError:
            return warn_about_suspects(page)
        if result is None:
            sound_fonts.add(page.doc_id, suspect)
            continue
        if not result.is_readable:
            if suspect.is_certain:
                warnings.append(
                    f"The text layer looks wrong{_of_font(suspect)}, and OCR cannot read the words. "
                    f"{_count(suspect)} may be nonsense. Re-export the file."
                )
            continue
        replacements.update(result.words)
        for position, words in result.inserted:
            inserted[position] += words
        warnings.append(
            f"The text layer differs from the pixels{_of_font(suspect)}. {_count(suspect)} replaced by OCR."
        )
    if not replacements and not inserted:
        checked = replace(page, suspects=(), warnings=(*page.warnings, *warnings))
        return checked.with_prepared(page.prepared)
    pieces = [(*inserted.get(index, ()), *replacements.get(index, (word,))) for index, word in enumerate(page.words)]
    pieces.append(tuple(inserted.get(len(page.words), ())))
    return replace(
        page,
        words=tuple(word for piece in pieces for word in piece),
        regions=tuple(_with_caption(region, page.words, pieces, replacements) for region in page.regions),
        suspects=(),
        warnings=(*page.warnings, *warnings),
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Result of the comparison of wrong words.

    Attributes:
        is_readable: Whether OCR can read the words.
        words: Index of a wrong word → the words that replace it, none or several.
        inserted: (number of words before, words) of text that the text layer does not have.
    """

    is_readable: bool
    words: dict[int, tuple[Word, ...]]
    inserted: tuple[tuple[int, tuple[Word, ...]], ...] = ()


def _compare(page: Page, suspect: SuspectText) -> _Comparison | None:
    """Compare suspect words with the pixels; None if the words are right, or OCR cannot tell."""
    # Words between lost characters are read together with them.
    inside = [i for i in suspect.words if any(_contains(lost.box, page.words[i].box) for lost in suspect.lost)]
    lines = _lines(page.words, sorted(set(suspect.words) - set(inside)))
    texts = [" ".join(page.words[index].text for index in line) for line in lines]
    boxes = [reduce(union, [page.words[index].box for index in line]) for line in lines]
    boxes += [lost.box for lost in suspect.lost]
    texts += [""] * len(suspect.lost)
    # Lines of medium length are enough for a judgement, and take less time than long ones.
    order = sorted(range(len(boxes)), key=lambda at: abs(_length(boxes[at], texts[at]) - _SAMPLE_LENGTH))
    if suspect.kind == "letters" and _are_signs(texts):
        return None
    image = page.screenshot.image
    readings: dict[int, BoxReading] = {}
    pairs: list[tuple[str, str]] = []
    first, size = _SAMPLES[suspect.kind]
    for sample in (order[:first], order[first:size]):
        readings.update(zip(sample, read_boxes(image, [boxes[at] for at in sample]), strict=True))
        pairs += [(texts[at], readings[at].text) for at in sample if readings[at].score >= _MIN_SCORE]
        if pairs and not (_digits_differ(pairs) if suspect.kind == "digits" else _letters_differ(pairs)):
            return None
    if not pairs:
        return _Comparison(False, {}) if suspect.kind == "letters" else None
    if suspect.kind == "letters" and not _is_plausible([text for _, text in pairs]):
        return _Comparison(False, {})
    rest = [at for at in range(len(boxes)) if at not in readings]
    readings.update(zip(rest, read_boxes(image, [boxes[at] for at in rest]), strict=True))
    words: dict[int, tuple[Word, ...]] = dict.fromkeys(inside, ())
    for at, line in enumerate(lines):
        if suspect.kind == "digits" and (corrected := _with_digits([page.words[i] for i in line], readings[at].text)):
            words.update((index, (word,)) for index, word in zip(line, corrected, strict=True))
            continue
        words.update(_distribute([page.words[index].box for index in line], line, _usable(readings[at])))
    inserted = tuple(
        (lost.position, _usable(readings[len(lines) + number])) for number, lost in enumerate(suspect.lost)
    )
    return _Comparison(True, words, inserted)


def _contains(outer: Box, inner: Box) -> bool:
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def _with_digits(words: Sequence[Word], text: str) -> list[Word]:
    """Return words with the digits of a text; an empty list if the text has another number of digits."""
    digits = iter([character for character in text if character.isdigit()])
    if sum(c.isdigit() for word in words for c in word.text) != sum(map(str.isdigit, text)):
        return []
    return [
        replace(word, text="".join(next(digits) if c.isdigit() else c for c in word.text), ocr=True) for word in words
    ]


def _distribute(boxes: Sequence[Box], line: Sequence[int], words: Sequence[Word]) -> dict[int, tuple[Word, ...]]:
    """Assign the words that OCR read in a line to the nearest words of the text layer, in the order of OCR."""
    assigned: dict[int, tuple[Word, ...]] = dict.fromkeys(line, ())
    first = 0
    for word in words:
        x, y = word.box[0] + word.box[2], word.box[1] + word.box[3]
        distances = [abs(box[0] + box[2] - x) + abs(box[1] + box[3] - y) for box in boxes[first:]]
        first += distances.index(min(distances))
        assigned[line[first]] += (word,)
    return assigned


def _usable(reading: BoxReading) -> tuple[Word, ...]:
    return reading.words if reading.score >= _MIN_WORD_SCORE else ()


def _lines(words: Sequence[Word], indices: Sequence[int]) -> list[list[int]]:
    """Group consecutive words into lines. Words with a wide gap, or with vertical text, are lines of their own."""
    lines: list[list[int]] = []
    for index in indices:
        if lines and lines[-1][-1] == index - 1 and _continues(words[index - 1].box, words[index].box):
            lines[-1].append(index)
        else:
            lines.append([index])
    return lines


def _continues(last: Box, box: Box) -> bool:
    # The boxes are fractions of the page, whose sides differ by less than a factor of two for almost every page.
    high = min(last[3] - last[1], box[3] - box[1])
    return min(last[3], box[3]) - max(last[1], box[1]) > 0.5 * high and touch(last, box, _GAP * high, 0)


def _length(box: Box, text: str) -> float:
    """Return the number of characters of a line, estimated from the box if the text layer has no text."""
    return len(text) or 2 * (box[2] - box[0]) / max(box[3] - box[1], 1e-6)


def _normalize(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in folded if not c.isspace() and not unicodedata.combining(c))


def _letters_differ(pairs: Sequence[tuple[str, str]]) -> bool:
    """Return whether (text layer, OCR) of the sampled lines are different texts."""
    total = similar = 0.0
    exchanges: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer, ocr in pairs:
        a, b = _normalize(layer), _normalize(ocr)
        matcher = SequenceMatcher(None, a, b, autojunk=False)
        size = max(len(a), len(b), 1)
        total += size
        similar += sum(block.size for block in matcher.get_matching_blocks())
        for tag, start, end, other_start, other_end in matcher.get_opcodes():
            if tag == "equal" or (tag == "replace" and end - start == other_end - other_start):
                for one, other in zip(a[start:end], b[other_start:other_end], strict=True):
                    exchanges[one][other] += 1
    share = similar / max(total, 1)
    if share < _DIFFERENT:
        return True
    return share < _EQUAL and len(_exchanged(exchanges)) >= 2


def _are_signs(texts: Sequence[str]) -> bool:
    """Return whether many characters of the text layer are signs that OCR does not read reliably."""
    codes = [ord(character) for text in texts for character in text if not character.isspace()]
    count = sum(any(code in block for block in (_SIGNS, *_PHONETIC)) for code in codes)
    return bool(codes) and count >= _SIGN_SHARE * len(codes)


def _exchanged(exchanges: dict[str, Counter[str]]) -> list[tuple[str, str]]:
    """Return (character of the text layer, character of OCR) of consistent exchanges that are no errors of OCR."""
    results = []
    for character, counts in exchanges.items():
        other, count = counts.most_common(1)[0]
        is_alike = other == character or any(character in group and other in group for group in _ALIKE)
        is_letter = character.isalnum() and other.isalnum()
        is_letter &= not any(ord(character) in block for block in _PHONETIC)
        if is_letter and not is_alike and count >= _MIN_EXCHANGES and count >= _EXCHANGE_SHARE * counts.total():
            results.append((character, other))
    return results


def _digits_differ(pairs: Sequence[tuple[str, str]]) -> bool:
    """Return whether the digits of the sampled lines differ, comparing lines with equally many digits."""
    exchanges: defaultdict[str, Counter[str]] = defaultdict(Counter)
    different = total = 0
    for layer, ocr in pairs:
        a, b = ("".join(c for c in text if c.isdigit()) for text in (layer, ocr))
        if len(a) == len(b):
            total += len(a)
            for one, other in zip(a, b, strict=True):
                exchanges[one][other] += 1
                different += one != other
    if total == 0:
        return False
    return different >= _DIGIT_SHARE * total or bool(_exchanged(exchanges))


def _is_plausible(texts: Sequence[str]) -> bool:
    """Return whether the words that OCR read are words of a language, or numbers."""
    words = " ".join(texts).split()
    scores = score_words(words)
    latin = scores.latin[~np.isnan(scores.latin)]
    pairs = int(scores.pair_counts.sum())
    if pairs > 2 * len(latin):
        return float((np.nan_to_num(scores.pairs) * scores.pair_counts).sum()) >= 0.15 * pairs
    if len(latin):
        return float(np.median(latin)) >= _MIN_PLAUSIBLE
    # Numbers and short labels, which OCR also reads in mathematical signs and ornaments, but then always the same.
    text = "".join(words)
    share = sum(map(str.isalnum, text)) / max(len(text), 1)
    return share >= _LABEL_SHARE and (len(text) >= _LABEL_LENGTH * len(texts) or len(set(texts)) >= _MIN_LABELS)


def _with_caption(
    region: Region, words: Sequence[Word], pieces: Sequence[Sequence[Word]], replaced: dict[int, tuple[Word, ...]]
) -> Region:
    """Return a region whose caption has the words of OCR in place of the wrong words."""
    text = "".join(f"{word.text} " for word in words)
    start = text.find(region.caption) if region.caption else -1
    if start < 0:
        return region
    ends = np.cumsum([len(word.text) + 1 for word in words])
    first, last = (int(np.searchsorted(ends, at, side="right")) for at in (start, start + len(region.caption) - 1))
    members = range(first, last + 1)
    if not any(index in replaced for index in members):
        return region
    return replace(region, caption=" ".join(word.text for index in members for word in pieces[index]))


def _of_font(suspect: SuspectText) -> str:
    return f" in the font {suspect.font[:60]!r}" if suspect.font else ""


def _count(suspect: SuspectText) -> str:
    count = len(suspect.words) + len(suspect.lost)
    return f"{count:,} words" if count != 1 else "1 word"
