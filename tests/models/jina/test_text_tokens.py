"""The texts of tokens: as many as there are rows, the user's words in order, nothing of a prompt's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_embedder
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.testing import FakeEmbedder, make_page

QUESTION = "Which région grew fastest?"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def models(tiny):
    return {
        "lite": load_embedder("lite"),
        "lite-en": load_embedder("lite-en"),
        "v4": load_embedder(tiny["v4"], device="cpu"),
        "colbert-v2": load_embedder(tiny["colbert-v2"], device="cpu"),
        "fake": FakeEmbedder(),
    }


def test_every_row_has_a_text_whatever_the_question(models):
    @settings(max_examples=6)
    @given(st.lists(TEXTS, min_size=1, max_size=3))
    def check(texts):
        for name, model in models.items():
            asked = [text if name != "fake" else f"{text} words" for text in texts]
            # What a tokenizer drops whole leaves nothing to embed; each model says so by itself.
            asked = [f"x {text}" for text in asked]
            for encode in (model.encode_query, model.encode_document):
                found = encode(asked)
                assert [len(t) for t in found.tokens] == [len(rows) for rows in found.multi]
                assert all(isinstance(piece, str) for t in found.tokens for piece in t)
                assert encode(asked, multi=False).tokens is None

    check()


@pytest.mark.parametrize("name", ["v4", "colbert-v2"])
def test_the_pieces_of_a_question_joined_are_the_question(models, name):
    tokens = models[name].encode_query([QUESTION]).tokens[0]
    assert "".join(tokens).strip() == QUESTION
    assert sum(token.startswith(" ") for token in tokens) == 4, "each word begins with its space"


def test_lite_tells_the_words_it_kept(models):
    assert "".join(models["lite"].encode_query([QUESTION]).tokens[0]) == " région grew fastest"
    # MiniLM's tokens keep the characters as they were written.
    assert "".join(models["lite-en"].encode_query([QUESTION]).tokens[0]) == " région grew fastest"
    # A word whose first piece is dropped still begins with a space.
    assert "".join(models["lite"].encode_query(["cows (Lisbon)"]).tokens[0]) == " cows Lisbon"
    assert "".join(models["lite"].encode_query(["Cairo's harbour"]).tokens[0]) == " Cairo's harbour"
    assert models["fake"].encode_query([QUESTION]).tokens[0] == (" which", " région", " grew", " fastest")


def test_what_is_not_the_users_has_no_text(models):
    v4 = models["v4"].encode_query(["Query: me"]).tokens[0]
    assert "".join(v4) == " Query: me", "the prefix is left out, the user's own words are not"
    assert v4[0] == ""
    tokens = models["colbert-v2"].encode_query(["cats"]).tokens[0]
    assert len(tokens) == 32
    assert tokens[:2] == ("", "")
    assert "".join(tokens) == " cats"
    assert set(tokens[-20:]) == {""}
    cut = models["colbert-v2"].encode_query(["cats and dogs " * 30]).tokens[0]
    assert len(cut) == 32
    assert cut[-1] == ""


def test_documents_of_texts_and_pictures(models):
    image = Image.new("RGB", (64, 64), "white")
    found = models["v4"].encode_document([image, [image, "two cats", image], "a text", make_page("sun moon")])
    assert found.tokens[0] is None
    assert found.tokens[3] is None
    mixed = found.tokens[1]
    assert len(mixed) == len(found.multi[1])
    assert "".join(mixed) == "two cats"
    placed = ~np.isnan(found.grids[1].boxes).any(axis=1)
    assert {mixed[i] for i in np.flatnonzero(placed)} == {""}
    before = models["v4"].encode_document([["two cats", image]]).tokens[0]
    assert "".join(before) == "two cats", "the words of the prompt that touch the user's are left out"
    assert "".join(found.tokens[2]) == " a text"
    page = models["lite"].encode_document([make_page("the sun, the moon")])
    assert page.tokens[0] == (" sun", " moon")
    assert len(page.grids[0]) == 2


def test_cut_texts_have_as_many_pieces_as_rows(models):
    for name in ("lite", "v4", "colbert-v2"):
        found = models[name].encode_document(["many words about the sea " * 10], max_length=12)
        assert len(found.tokens[0]) == len(found.multi[0]) <= 12
        assert found.tokens[0] != ()
        assert found.truncated == [True]
        assert models[name].encode_query(["the sea"], max_length=12).truncated == [False]


def test_the_single_vector_model_tells_nothing(tiny):
    assert load_embedder(tiny["v1"], device="cpu").encode_query(["cats"], multi=False).tokens is None


@settings(max_examples=100)
@given(text=TEXTS, skip=st.integers(0, 3))
def test_pieces_of_bytes_joined_are_the_text(tiny_tokenizer, text, skip):
    [pieces] = tiny_tokenizer.pieces_many([text], skip=skip)
    assert len(pieces) == len(tiny_tokenizer.encode(text))
    assert "".join(pieces) == text[skip:] or not pieces


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny):
    from pathlib import Path

    return TextTokenizer(Path(tiny["v4"]), fallback="Qwen2Tokenizer")


def test_a_letter_of_several_tokens_belongs_to_the_first(tiny_tokenizer):
    [pieces] = tiny_tokenizer.pieces_many(["東a"])
    assert pieces == ("東", "", "", "a")
