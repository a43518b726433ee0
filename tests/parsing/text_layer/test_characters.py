"""Statistics of characters: sound words of many languages are plausible, words of a wrong character map are not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.garbled_pages import rotated_alphabet, shifted_codes, shuffled
from helpers.garbled_texts import TEXTS

from jina_rag.parsing.text_layer.characters import character_classes, fold_latin, score_words, statistics

LATIN = ["en", "de", "fr", "es", "fi", "pl", "hu", "tr", "nl", "cs", "vi", "id"]
ALPHABETS = ["ru", "el", "he", "ar"]
LARGE = ["zh", "ja"]


def _mapped(text, mapping):
    return "".join(c if c.isspace() else mapping(ord(c)) for c in text).split()


@pytest.mark.parametrize("language", LATIN)
def test_latin_words_are_plausible(language):
    words = TEXTS[language].split()
    assert np.nanmean(score_words(words).latin) > -2.95


@pytest.mark.parametrize(
    "mapping", [rotated_alphabet(13), rotated_alphabet(3), shuffled("abcdefghijklmnopqrstuvwxyz", 1)]
)
@pytest.mark.parametrize("language", ["en", "de", "fi", "pl"])
def test_exchanged_letters_are_implausible(language, mapping):
    scores = score_words(_mapped(TEXTS[language].lower(), mapping))
    assert np.nanmean(scores.latin) < -3.3


def test_reversed_words_score_higher_in_reverse():
    scores = score_words([word[::-1] for word in TEXTS["en"].split()])
    assert np.nanmean(scores.reversed_latin - scores.latin) > 0.5


@pytest.mark.parametrize("language", ALPHABETS)
def test_pairs_of_alphabets_are_common(language):
    scores = score_words(TEXTS[language].split())
    assert _share(scores) > 0.9
    assert not scores.is_large_script.any()


@pytest.mark.parametrize("language", LARGE)
def test_pairs_of_chinese_and_japanese_are_more_common_than_pairs_of_shifted_codes(language):
    sound = score_words(TEXTS[language].split())
    shifted = score_words(_mapped(TEXTS[language], shifted_codes(977)))
    assert _share(sound) > 0.3
    assert _share(shifted) < 0.1
    assert sound.is_large_script.all()


def _share(scores):
    return float(np.nansum(scores.pairs * scores.pair_counts) / scores.pair_counts.sum())


def test_words_of_symbols():
    words = ['!"#', "$!#", "----", "e.g.", "12", "*°£†¶", "\ue001\ue002\ue003", "\ue001", "naïve", ""]
    scores = score_words(words)
    assert scores.is_symbols.tolist() == [True, True, False, False, False, True, False, False, False, False]
    assert [word for word, flag in zip(words, scores.is_private, strict=True) if flag] == ["\ue001\ue002\ue003"]


def test_short_words_and_words_with_digits_have_no_score():
    assert np.isnan(score_words(["of", "DB2", "x64", "A4RTX9", "1984", "–"]).latin).all()
    assert score_words([]).latin.shape == (0,)


def test_lone_surrogates_and_characters_outside_the_basic_plane():
    scores = score_words(["\ud800ab", "\U0001f600\U0001f601", "𠮷野"])
    assert len(scores.latin) == 3


@pytest.mark.parametrize(
    ("character", "letter"), [("É", "e"), ("ł", "l"), ("ß", "s"), ("ộ", "o"), ("1", ""), ("ж", "")]
)
def test_fold_latin(character, letter):
    assert fold_latin(character) == letter


def test_stored_classes_are_those_of_the_code():
    # Versions of Python differ in a few hundred characters of the Unicode database.
    assert (statistics().classes == character_classes()).mean() > 0.98
