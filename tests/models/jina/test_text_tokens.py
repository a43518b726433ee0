"""Token texts: one text per row, in the order of the input; tokens of the prompt template have empty texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag import load_embedder
from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.testing import FakeEmbedder, make_page

QUERY = "Which région grew fastest?"
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


def test_every_row_has_a_token_text(models):
    @settings(max_examples=6)
    @given(st.lists(TEXTS, min_size=1, max_size=3))
    def check(texts):
        for name, model in models.items():
            inputs = [text if name != "fake" else f"{text} words" for text in texts]
            # A tokenizer may drop all characters of a text, and models differ for empty texts.
            inputs = [f"x {text}" for text in inputs]
            for encode in (model.encode_query, model.encode_document):
                embeddings = encode(inputs)
                assert [len(t) for t in embeddings.tokens] == [len(rows) for rows in embeddings.multi]
                assert all(isinstance(piece, str) for t in embeddings.tokens for piece in t)
                assert encode(inputs, multi=False).tokens is None

    check()


@pytest.mark.parametrize("name", ["v4", "colbert-v2"])
def test_joined_query_pieces_equal_query(models, name):
    tokens = models[name].encode_query([QUERY]).tokens[0]
    assert "".join(tokens).strip() == QUERY
    assert sum(token.startswith(" ") for token in tokens) == 4, "each word starts with its space"


def test_lite_token_texts_omit_dropped_words(models):
    assert "".join(models["lite"].encode_query([QUERY]).tokens[0]) == " région grew fastest"
    # MiniLM's tokens keep the original characters.
    assert "".join(models["lite-en"].encode_query([QUERY]).tokens[0]) == " région grew fastest"
    # A word whose first piece is dropped still starts with a space.
    assert "".join(models["lite"].encode_query(["cows (Lisbon)"]).tokens[0]) == " cows Lisbon"
    assert "".join(models["lite"].encode_query(["Cairo's harbour"]).tokens[0]) == " Cairo's harbour"
    assert models["fake"].encode_query([QUERY]).tokens[0] == (" which", " région", " grew", " fastest")


def test_tokens_of_the_prompt_template_have_empty_texts(models):
    v4 = models["v4"].encode_query(["Query: me"]).tokens[0]
    assert "".join(v4) == " Query: me", "the prefix is omitted, the words of the user are not"
    assert v4[0] == ""
    tokens = models["colbert-v2"].encode_query(["cats"]).tokens[0]
    assert len(tokens) == 32
    assert tokens[:2] == ("", "")
    assert "".join(tokens) == " cats"
    assert set(tokens[-20:]) == {""}
    truncated = models["colbert-v2"].encode_query(["cats and dogs " * 30]).tokens[0]
    assert len(truncated) == 32
    assert truncated[-1] == ""


def test_token_texts_of_mixed_documents(models):
    image = Image.new("RGB", (64, 64), "white")
    embeddings = models["v4"].encode_document([image, [image, "two cats", image], "a text", make_page("sun moon")])
    assert embeddings.tokens[0] is None
    assert embeddings.tokens[3] is None
    mixed = embeddings.tokens[1]
    assert len(mixed) == len(embeddings.multi[1])
    assert "".join(mixed) == "two cats"
    is_image_row = ~np.isnan(embeddings.grids[1].boxes).any(axis=1)
    assert {mixed[i] for i in np.flatnonzero(is_image_row)} == {""}
    before = models["v4"].encode_document([["two cats", image]]).tokens[0]
    assert "".join(before) == "two cats", "the template words next to the words of the user are omitted"
    assert "".join(embeddings.tokens[2]) == " a text"
    page = models["lite"].encode_document([make_page("the sun, the moon")])
    assert page.tokens[0] == (" sun", " moon")
    assert len(page.grids[0]) == 2


def test_truncated_text_has_one_piece_per_row(models):
    for name in ("lite", "v4", "colbert-v2"):
        embeddings = models[name].encode_document(["many words about the sea " * 10], max_length=12)
        assert len(embeddings.tokens[0]) == len(embeddings.multi[0]) <= 12
        assert embeddings.tokens[0] != ()
        assert embeddings.truncated == [True]
        assert models[name].encode_query(["the sea"], max_length=12).truncated == [False]


def test_single_vector_model_has_no_token_texts(tiny):
    assert load_embedder(tiny["v1"], device="cpu").encode_query(["cats"], multi=False).tokens is None


@settings(max_examples=100)
@given(text=TEXTS, skip=st.integers(0, 3))
def test_joined_byte_pieces_equal_text(tiny_tokenizer, text, skip):
    [pieces] = tiny_tokenizer.pieces_many([text], skip=skip)
    assert len(pieces) == len(tiny_tokenizer.encode(text))
    assert "".join(pieces) == text[skip:] or not pieces


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny):
    from pathlib import Path

    return TextTokenizer(Path(tiny["v4"]), fallback="Qwen2Tokenizer")


def test_multi_token_character_belongs_to_first_token(tiny_tokenizer):
    [pieces] = tiny_tokenizer.pieces_many(["東a"])
    assert pieces == ("東", "", "", "a")
