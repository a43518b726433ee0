"""Normalization: spellings that mean the same are equal, and spellings with another meaning stay different."""

from __future__ import annotations

import doctest
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag import normalization
from jina_rag.normalization import (
    has_reversed_lam_alef,
    name_form,
    pattern_form,
    same_name,
    term_text,
    token_form,
    token_form_with_offsets,
)


def term_form(text: str) -> str:
    return term_text(text).text


DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d\u2014\u2015\u2500\u05be\u058a"
ZEROS = "\u0660\u06f0\u07c0\u0966\u09e6\u0be6\u0c66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810\uff10\U0001d7ce\U0001e950"


@pytest.mark.parametrize("dash", DASHES)
def test_dashes_of_a_code_are_hyphens_in_every_form(dash):
    code = f"KX{dash}4471{dash}B"
    assert token_form(code) == name_form(code) == "KX-4471-B"
    assert term_form(code).replace("\u2013", "-") == "kx-4471-b"


@pytest.mark.parametrize("zero", ZEROS)
def test_decimal_digits_of_all_scripts_are_ascii(zero):
    code = "".join(chr(ord(zero) + int(digit)) for digit in "4471")
    assert token_form(code) == term_form(code) == name_form(code) == "4471"


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        ("ＫＸ－４４７１", "KX-4471"),
        ("ＫＸー４４７１", "KX-4471"),
        ("ﬁne oﬃce", "fine office"),
        ("CO₂", "CO2"),
        ("12½", "12 1/2"),
        ("1⁄2", "1/2"),
        ("3٫5", "3.5"),
        ("don’t l´eau ʼ", "don't l'eau '"),
        ("KX\u200b-4471\ufeff", "KX-4471"),
        ("KX-\u200b4471\u00adB", "KX-4471-B"),
        ("Donau\u00addampf", "Donaudampf"),
        ("葛\U000e0100城", "葛城"),
        ("U\u0308bersicht", "Übersicht"),
        ("e\u034f\u0301", "é"),
        ("ـــصفحةـ", "صفحة"),
        ("مَكْتَبَة", "مكتبة"),
        ("שָׁלוֹם", "שלום"),
        ("ﻻ", "لا"),
        ("األدوات", "الأدوات"),
        ("باألدوات", "بالأدوات"),
        ("االجتماع", "الاجتماع"),
        ("צה״ל", 'צה"ל'),
        ("Acme™", "Acme "),
    ],
)
def test_spellings_that_mean_the_same(spelling, plain):
    assert token_form(spelling) == plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10²", "102"),
        ("1½", "11/2"),
        ("①②", "12"),
        ("Müller", "Muller"),
        ("か", "が"),
        ("हिन्दी", "हन्द"),
        ("ภาษา", "ภษา"),
        ("한국", "하국"),
        ("KX-4471", "KX 4471"),
        ("А-12", "A-12"),  # Cyrillic
        ("word.¹Next", "word.1Next"),
    ],
)
def test_spellings_with_another_meaning_stay_different(one, other):
    for form in (token_form, term_form, name_form):
        assert form(one) != form(other)


@pytest.mark.parametrize(
    "text", ["قال المسألة السلام ألا لألمانيا", "االله", "word—word – a - b", "ラーメン", "می‌خواهم"]
)
def test_honest_text_stays_as_it_is(text):
    assert token_form(text) == text


@pytest.mark.parametrize(
    ("word", "spellings"),
    [
        ("األدوات", "الأدوات"),
        ("كالم", "كالم كلام"),
        ("مجاالت", "مجاالت مجالات"),
        ("األعمال", "الأعمال الأعملا"),
        ("بالسالمة", "بالسالمة بلاسلامة بالسلامة"),
        ("ال", "ال لا"),
        ("الكتاب", "الكتاب"),
        ("عقد", "عقد"),
        ("AB‑12", "AB-12"),
    ],
)
def test_words_of_a_text_with_reversed_lam_alef_have_each_possible_spelling(word, spellings):
    form, offsets = token_form_with_offsets(word, is_reversed=True)
    assert form == spellings
    assert offsets is None or len(offsets) == len(form) + 1
    assert token_form_with_offsets(word)[0] == token_form(word)


def test_offsets_of_each_spelling_point_into_the_word():
    form, offsets = token_form_with_offsets("كَالم", is_reversed=True)
    assert form == "كالم كلام"
    assert offsets == (0, 2, 3, 4, 5, 0, 2, 3, 4, 5)


@pytest.mark.parametrize("text", ["األدوات", "في االجتماع", "بألاألعاب األلعاب", "اَألدوات"])
def test_reversed_lam_alef_is_detected(text):
    assert has_reversed_lam_alef(text)


@pytest.mark.parametrize("text", ["الأدوات", "قال المسألة السلام ألا لألمانيا", "االله", "Lam-Alef", ""])
def test_honest_text_has_no_reversed_lam_alef(text):
    assert not has_reversed_lam_alef(text)


@pytest.mark.parametrize("mark", ["\u200b", "\u200c", "\u00ad"])
def test_invisible_breaks_in_words_with_two_cases_are_removed(mark):
    assert token_form(f"Donau{mark}dampf") == "Donaudampf"


def test_term_form_folds_case_and_letters_of_one_sound():
    assert term_form("İSTANBUL KIŞ") == term_form("istanbul kış")
    assert term_form("إدارة ی ک") == term_form("اداره ي ك")
    assert term_form("Straße Σίσυφος") == "strasse σίσυφοσ"


def test_names_gain_no_wildcards_separators_or_dots():
    for name in ("a＊b", "a？b", "a／b", "a［b］", "½", "a‥b", "a．b", "℀", "a\u2044b"):
        assert name_form(name) == name
    assert pattern_form("[a–z]‑*.pdf") == "[a–z]-*.pdf"
    assert pattern_form("[u\u0308]*") == "[ü]*"


def test_same_name():
    assert same_name("Mu\u0308ller – 3\u202fPM.pdf", "Müller - 3 PM.pdf")
    assert not same_name("Müller.pdf", "müller.pdf")


@pytest.mark.parametrize(
    "word", ["½m²", "مَكْتَبَة", "U\u0308ber\u00adsicht", "ﬁne²", "KX‑4471", "㎡", "\u200b", "e\u0301"]
)
def test_offsets_cover_the_word_in_order(word):
    form, offsets = token_form_with_offsets(word)
    assert form == token_form(word)
    if offsets is None:
        assert len(form) in (0, len(word))
    else:
        assert len(offsets) == len(form) + 1
        assert list(offsets) == sorted(offsets)
        assert (offsets[0], offsets[-1]) == (0, len(word))


def test_offsets_point_to_the_letter():
    word = "مَكْتَبَة"
    form, offsets = token_form_with_offsets(word)
    assert offsets is not None
    assert [word[offset] for offset in offsets[:-1]] == list(form)


@given(st.text(max_size=40))
def test_forms_are_stable(text):
    for form in (name_form, term_form):
        once = form(text)
        assert form(once) == form(form(once))
    composed, decomposed = (unicodedata.normalize(kind, text) for kind in ("NFC", "NFD"))
    assert name_form(composed) == name_form(decomposed)
    assert term_form(composed) == term_form(decomposed)
    assert token_form_with_offsets(text)[0] == token_form(text)


def test_docstring_examples():
    result = doctest.testmod(normalization)
    assert result.attempted
    assert not result.failed
