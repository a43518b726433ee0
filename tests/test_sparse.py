"""Sparse vectors: index terms of many scripts, BM25 weights of pages and query weights."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag import sparse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Growth, growth!", ["growth", "growth"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ΣΊΣΥΦΟΣ", ["σίσυφοσ"]),
        ("ｆｕｌｌ ①", ["full", "1"]),
        ("東京都", ["東京", "京都"]),
        ("東", ["東"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("한국어를", ["한국", "국어", "어를"]),
        ("2024年の売上", ["2024", "年の", "の売", "売上"]),
        ("AB-12/7", ["ab-12/7", "ab127", "ab", "12", "7"]),
        ("v1.2.3", ["v1.2.3", "v123", "v1", "2", "3"]),
        ("3.14", ["3.14", "3", "14"]),
        ("§ 7a und §§ 12, 13", ["7a", "und", "12", "13", "§7a", "§12"]),
        ("l'eau", ["l'eau", "l", "eau"]),
        ("snake_case", ["snake_case", "snake", "case"]),
        ("हिन्दी विकिपीडिया", ["हिन्दी", "विकिपीडिया"]),
        ("বাংলাদেশ", ["বাংলাদেশ"]),
        ("தமிழ்", ["தமிழ்"]),
        ("ที่นี่", ["ที่นี่"]),
        ("ភាសាខ្មែរ", ["ភាសា", "សាខ្មែ", "ខ្មែរ"]),
        ("مَكْتَبَة", ["مكتبه"]),
        ("שָׁלוֹם", ["שלום"]),
        ("İSTANBUL", ["istanbul"]),
        ("e\u0301te\u0301 x\u0302", ["été", "x\u0302"]),
        ("x\u0302-12", ["x\u0302-12", "x\u030212", "x\u0302", "12"]),
        ("AB–12", ["ab-12", "ab12", "ab", "12"]),
        ("AB-1–AB-9", ["ab-1-ab-9", "ab1ab9", "ab-1", "ab1", "ab-9", "ab9", "ab", "1", "ab", "9"]),
        ("word—word", ["word", "word"]),
        ("Umsatz¹ 10²", ["umsatz^1", "umsatz1", "umsatz", "1", "10^2", "10", "2"]),
        ("Donau\u00addampf", ["donaudampf", "donau", "dampf"]),
        ("Jah\u00ad res", ["jahres", "jah", "res"]),
        ("می\u200cخواهم", ["ميخواهم", "مي", "خواهم"]),
        ("األدوات سالم", ["االدوات", "الادوات", "سالم", "سلام"]),
        ("قال سالم", ["قال", "سالم"]),
        ("االبالتالثالج", ["االبالتالثالج", "الابلاتلاثلاج"]),
        ("االبت الاتالباليالغالف", ["االبت", "الابت", "الاتالباليالغالف", "لااتلابلايلاغلاف", "الاتلابلايلاغلاف"]),
        ("… — ?!", []),
        ("", []),
    ],
)
def test_terms(text, expected):
    assert list(sparse.terms(text)) == expected


def test_query_matches_code_and_its_parts():
    page = sparse.document_vector("Order part AB-12/7 today")
    for query in ("ab-12/7", "AB", "12"):
        assert np.isin(sparse.query_vector(query).indices, page.indices).any(), query
    assert not np.isin(sparse.query_vector("AB-13").indices, page.indices).all()


@pytest.mark.parametrize(
    "page", ["KX‑4471‑B", "ＫＸ－４４７１－Ｂ", "KX-4471-B–KX-4480-B", "KX\u00ad4471\u00adB", "KX—٤٤٧١—B"]
)
def test_identifier_matches_each_spelling_of_a_code(page):
    [term] = sparse.whole_terms("kx–4471–b")
    assert np.isin(sparse.exact_vector(term).indices, sparse.document_vector(page).indices).all()
    assert not np.isin(sparse.exact_vector("kx-4472-b").indices, sparse.document_vector(page).indices).any()


def test_document_weights_saturate_and_decrease_with_length():
    def weight(text):
        vector = sparse.document_vector(text)
        return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))[
            int(sparse.query_vector("growth").indices[0])
        ]

    one, two, ten = weight("growth"), weight("growth growth"), weight("growth " * 10)
    assert one < two < ten < sparse.K1 + 1
    assert two - one > (ten - two) / 8
    assert weight("growth " + "other " * 900) < one


def test_query_weights_each_distinct_term_once():
    vector = sparse.query_vector("rain rain snow")
    assert vector.values.tolist() == [1.0, 1.0]
    assert sparse.query_vector("…").indices.shape == (0,)


@given(st.text())
def test_any_text_gives_valid_sparse_vectors(text):
    for vector in (sparse.document_vector(text), sparse.query_vector(text)):
        assert vector.indices.dtype == np.uint32
        assert vector.values.dtype == np.float32
        assert len(vector.indices) == len(vector.values) == len(set(vector.indices.tolist()))
        assert (vector.values > 0).all()
    assert set(sparse.query_vector(text).indices) == set(sparse.document_vector(text).indices)


def test_document_vector_accepts_lone_surrogates():
    assert len(sparse.document_vector("part a\ud800b \ud800").indices) > 0


def test_docstring_examples():
    result = doctest.testmod(sparse)
    assert result.attempted
    assert not result.failed
