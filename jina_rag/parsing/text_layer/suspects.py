"""Search for words of the text layer that may not be what the page shows, without OCR.

The check has two steps. The first step looks at all words of a page, takes about a millisecond, and finds nothing on
almost every page. Only if it finds implausible characters, or digits that differ from the pixels, the second step asks
the PDF library for the font of each word and judges the words font by font, because a wrong character map belongs to
one font. OCR then decides about the suspects; see `jina_rag.parsing.text_layer.reading`.
"""

from __future__ import annotations

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jina_rag.parsing.text_layer.characters import WordScores, score_words
from jina_rag.parsing.text_layer.digits import digit_probabilities, is_number
from jina_rag.types import Box, Float32, LostText, SuspectText, Word

if TYPE_CHECKING:
    from PIL.Image import Image

# A word with a lower mean log probability is implausible in every language. 1 % of the words of sound pages and two
# thirds of the words in rot13 are.
_IMPLAUSIBLE = -3.6
# Mean over the words of a font. Sound text has a mean of -2.2 to -2.8; the mean of few words varies.
_LOWEST_MEAN, _MEAN_SPREAD = -3.0, 1.2
_MIN_IMPLAUSIBLE_SHARE, _MIN_IMPLAUSIBLE = 0.25, 4
# Consecutive words with a lower mean make the second step look at the fonts; such words are suspect without a font of
# their own if there are many of them.
_WINDOW, _WINDOW_MEAN, _MIN_WINDOW_WORDS = 5, -3.55, 12
# Reversed letters score higher than the text by this much. In sound text, they score 0.8 lower.
_REVERSED, _MIN_REVERSED_WORDS = 0.25, 4
# Share of common pairs. Sound text of alphabets has 93 to 100 %, Latin text in Cyrillic letters 75 to 88 %, Chinese,
# Japanese and Korean text 40 to 60 %. The share of few pairs varies.
_ALPHABET_PAIRS, _FEW_ALPHABET_PAIRS, _LARGE_SCRIPT_PAIRS = 0.88, 0.7, 0.15
_MIN_PAIRS, _MANY_PAIRS = 10, 25
# Words of several symbols, or of private-use characters, and their share of the words of a font.
_MIN_SYMBOL_WORDS, _SYMBOL_SHARE = 2, 0.25
# Different words of that kind that make the second step look at the fonts.
_MIN_ODD_WORDS = 3
# Number of words whose digits are compared with the pixels: of a page in the first step, of a font in the second.
_PAGE_NUMBERS, _FONT_NUMBERS = 16, 32
# A digit differs from the pixels if the network is this sure, and sure that it is not the digit of the text.
_SURE, _IMPOSSIBLE = 0.85, 0.03
_DIGIT_SHARE, _MIN_DIGITS = 0.2, 4
# Characters that a page must have lost, and their share of a run.
MIN_LOST = 4
"""Number of characters without a valid code from which a page or font is suspect."""
_LOST_SHARE = 0.3
# Runs with fewer lost characters are bullets and icons.
_MIN_RUN_LOST = 2
# With these values, the suspicion alone justifies a warning.
_CERTAIN_WORDS, _CERTAIN_MEAN, _CERTAIN_SYMBOLS, _CERTAIN_PAIRS, _CERTAIN_DIGITS = 8, -3.4, 5, 20, 12
_CERTAIN_LOST, _CERTAIN_RUN_LOST, _CERTAIN_SHARE = 20, 4, 0.8
# Number of pairs of a word and a run that are compared at a time, to limit the memory.
_MAX_PAIRS = 1 << 20


@dataclass(frozen=True, slots=True)
class TextRun:
    """Consecutive characters of one font, as the PDF library returns them.

    Attributes:
        font: Name of the font, with the prefix of the subset.
        box: Box on the page, as fractions.
        lost: Number of characters without a valid code: U+FFFD and control characters.
        length: Number of characters, without white space.
    """

    font: str
    box: Box
    lost: int
    length: int


def find_suspects(
    image: Image, words: Sequence[Word], read_runs: Callable[[], Sequence[TextRun]], *, any_lost: bool
) -> tuple[SuspectText, ...]:
    """Return the parts of the text layer that may not be what the page shows; empty for almost every page.

    Args:
        image: RGB screenshot of the page.
        words: Words of the text layer.
        read_runs: Function that reads the fonts of the page, called only if the words are implausible.
        any_lost: Whether a font of the page may have characters without a valid code.
    """
    scores = score_words([word.text for word in words])
    windows = _implausible_windows(scores)
    indices = np.arange(len(words))
    numbers = _sample([i for i, word in enumerate(words) if is_number(word.text)], _PAGE_NUMBERS)
    observed = _Digits(image, words, numbers)
    odd_words = {words[int(index)].text for index in np.flatnonzero(scores.is_symbols | scores.is_private)}
    is_odd = len(odd_words) >= _MIN_ODD_WORDS
    if not (any_lost or is_odd or len(windows) or observed.any_wrong or _judge(scores, indices)):
        return ()
    runs = read_runs()
    fonts, positions = _assign(words, runs)
    suspects = []
    by_font: defaultdict[str, list[int]] = defaultdict(list)
    for index, font in enumerate(fonts):
        by_font[font].append(index)
    covered = np.zeros(len(words), bool)
    for font, members in by_font.items():
        lost, is_mostly_lost, is_certainly_lost = _lost_runs(runs, positions, font)
        judgement = _judge(scores, np.array(members))
        if judgement or lost:
            wrong = tuple(members) if judgement or is_mostly_lost else ()
            certain = judgement == "certain" or is_certainly_lost
            suspects.append(SuspectText("letters", font, wrong, lost, certain))
            covered[members] = True
            continue
        font_numbers = _sample([i for i in members if is_number(words[i].text)], _FONT_NUMBERS)
        digits = _Digits(image, words, font_numbers)
        if digits.is_wrong:
            with_digits = tuple(i for i in members if any(c.isdigit() for c in words[i].text))
            suspects.append(SuspectText("digits", font, with_digits, (), digits.is_certain))
    for font in {run.font for run in runs} - set(by_font):
        lost, _, is_certainly_lost = _lost_runs(runs, positions, font)
        if lost:
            suspects.append(SuspectText("letters", font, (), lost, is_certainly_lost))
    # Implausible words in a font that is sound elsewhere: the figure of another document, with a font of the same name.
    rest = [int(i) for i in windows if not covered[i]]
    if len({words[i].text for i in rest}) >= _MIN_WINDOW_WORDS and not suspects:
        suspects.append(SuspectText("letters", "", tuple(rest), (), False))
    return tuple(suspects)


def _implausible_windows(scores: WordScores) -> npt.NDArray[np.intp]:
    """Return the indices of the words in windows of five scored words whose mean is implausible."""
    scored = np.flatnonzero(~np.isnan(scores.latin))
    if len(scored) < _WINDOW:
        return np.zeros(0, np.intp)
    sums = np.concatenate(([0.0], np.cumsum(scores.latin[scored].clip(-6, None))))
    starts = np.flatnonzero((sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW < _WINDOW_MEAN)
    members = np.unique((starts[:, None] + np.arange(_WINDOW)).ravel())
    return scored[members]


def _judge(scores: WordScores, members: npt.NDArray[np.intp]) -> str:
    """Return "" for plausible words, "suspect", or "certain" if the words alone prove that the text is wrong."""
    latin = scores.latin[members]
    is_scored = ~np.isnan(latin)
    # A term that is repeated counts once. Equal scores are the same word in almost every case.
    latin, first = np.unique(latin[is_scored], return_index=True)
    count = len(latin)
    result = ""
    if count >= 2:
        mean = float(latin.mean())
        implausible = int((latin < _IMPLAUSIBLE).sum())
        backwards = float((scores.reversed_latin[members][is_scored][first] - latin).mean())
        is_backwards = count >= _MIN_REVERSED_WORDS and backwards > _REVERSED
        if (
            mean < _LOWEST_MEAN - _MEAN_SPREAD / np.sqrt(count)
            or (implausible >= _MIN_IMPLAUSIBLE and implausible >= _MIN_IMPLAUSIBLE_SHARE * count)
            or is_backwards
        ):
            result = "suspect"
        if count >= _CERTAIN_WORDS and (mean < _CERTAIN_MEAN or (is_backwards and backwards > 2 * _REVERSED)):
            return "certain"
    for mask in (scores.is_symbols[members], scores.is_private[members]):
        symbols = int(mask.sum())
        if symbols >= _MIN_SYMBOL_WORDS and symbols >= _SYMBOL_SHARE * len(members):
            result = "suspect"
            if symbols >= _CERTAIN_SYMBOLS and symbols >= _CERTAIN_SHARE * len(members):
                return "certain"
    return _judge_pairs(scores, members) or result


def _judge_pairs(scores: WordScores, members: npt.NDArray[np.intp]) -> str:
    counts = scores.pair_counts[members]
    total = int(counts.sum())
    if total < _MIN_PAIRS:
        return ""
    share = float((np.nan_to_num(scores.pairs[members]) * counts).sum() / total)
    large = float(counts[scores.is_large_script[members]].sum() / total)
    few, many = (
        large * _LARGE_SCRIPT_PAIRS + (1 - large) * alphabet for alphabet in (_FEW_ALPHABET_PAIRS, _ALPHABET_PAIRS)
    )
    if share >= (many if total >= _MANY_PAIRS else few):
        return ""
    return "certain" if total >= _CERTAIN_PAIRS and share < 0.7 * few else "suspect"


class _Digits:
    """Comparison of the digits of some words with the pixels.

    Attributes:
        any_wrong: Whether a word has two digits, or all words together have two digits, that differ from the pixels.
        is_wrong: Whether so many digits differ that the character map of the font may be wrong.
        is_certain: Whether the pixels alone prove that the character map is wrong.
    """

    def __init__(self, image: Image, words: Sequence[Word], indices: Sequence[int]) -> None:
        numbers = [words[index] for index in indices]
        owners, probabilities = digit_probabilities(image, numbers)
        legible = set(owners.tolist())
        text = "".join(word.text for number, word in enumerate(numbers) if number in legible)
        claimed = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.intp) - 48
        self._compare(claimed, probabilities)

    def _compare(self, claimed: npt.NDArray[np.intp], probabilities: Float32) -> None:
        own = probabilities[np.arange(len(claimed)), claimed]
        best = probabilities.argmax(axis=1)
        is_different = (own < _IMPOSSIBLE) & (probabilities.max(axis=1) > _SURE)
        different = int(is_different.sum())
        # A wrong character map shows the same other digit every time, an unusual font does not.
        consistent = 0
        for digit in np.unique(claimed[is_different]):
            shown = best[claimed == digit]
            commonest = np.bincount(shown, minlength=10)
            if len(shown) >= 2 and commonest.argmax() != digit and commonest.max() >= 0.7 * len(shown):
                consistent += int(commonest.max())
        self.any_wrong = different >= 2
        self.is_wrong = (different >= _MIN_DIGITS and different >= _DIGIT_SHARE * len(claimed)) or consistent >= 3
        self.is_certain = consistent >= _CERTAIN_DIGITS and different >= 2 * _DIGIT_SHARE * len(claimed)


def _sample(indices: Sequence[int], size: int) -> list[int]:
    """Return at most `size` indices, spread evenly."""
    if len(indices) <= size:
        return list(indices)
    return [indices[position * len(indices) // size] for position in range(size)]


def _assign(words: Sequence[Word], runs: Sequence[TextRun]) -> tuple[list[str], list[int]]:
    """Return the font of each word, and the number of words before each run."""
    if not runs or not words:
        return [""] * len(words), [0] * len(runs)
    x0, y0, x1, y1 = np.array([run.box for run in runs], np.float32).T
    word_boxes = np.array([word.box for word in words], np.float32)
    centers = (word_boxes[:, :2] + word_boxes[:, 2:]) / 2
    owners = np.full(len(words), -1, np.intp)
    step = max(_MAX_PAIRS // len(runs), 1)
    for start in range(0, len(words), step):
        x, y = centers[start : start + step, :, None].transpose(1, 0, 2)
        inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
        first = inside.argmax(axis=1)
        owners[start : start + step] = np.where(inside.any(axis=1), first, -1)
    fonts = [runs[at].font if at >= 0 else "" for at in owners.tolist()]
    # Words and runs have the order of the text layer.
    order = np.maximum.accumulate(owners)
    return fonts, np.searchsorted(order, np.arange(len(runs)), side="left").tolist()


@lru_cache(maxsize=4096)
def is_lost(code: int) -> bool:
    """Return whether a code of a text layer is no character: control codes, private use, unassigned and U+FFFD.

    Args:
        code: Code point.
    """
    return code == 0xFFFD or code > sys.maxunicode or unicodedata.category(chr(code)) in ("Cc", "Co", "Cn", "Cs")


def count_lost(texts: Iterable[str]) -> int:
    """Return the number of characters of raw words for which `is_lost` is True.

    Args:
        texts: Words as the PDF library returns them.
    """
    return sum(
        sum(is_lost(ord(character)) for character in text)
        for text in texts
        if not (text.isascii() and text.isprintable())
    )


def _lost_runs(runs: Sequence[TextRun], positions: Sequence[int], font: str) -> tuple[tuple[LostText, ...], bool, bool]:
    """Return the lost text of a font, whether most of its text is lost, and whether that alone proves an error."""
    own = [(run, position) for run, position in zip(runs, positions, strict=True) if run.font == font]
    total, length = sum(run.lost for run, _ in own), sum(run.length for run, _ in own)
    lost = tuple(
        LostText(run.box, position)
        for run, position in own
        if run.lost >= _MIN_RUN_LOST and run.lost >= _LOST_SHARE * run.length
    )
    if total < MIN_LOST or not lost:
        return (), False, False
    is_mostly_lost = total >= _LOST_SHARE * length
    # Signs of a symbol font stand alone or in pairs.
    is_text = total >= max(_CERTAIN_LOST, _CERTAIN_RUN_LOST * sum(run.lost > 0 for run, _ in own))
    return lost, is_mostly_lost, is_mostly_lost and is_text
