"""The lite models: windows, token boxes, stop words, embedding settings, both encoders and the reranker."""

import logging
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.models.lite import minilm, page_text
from jina_rag.models.lite.backbone import Token
from jina_rag.models.lite.embedder import LiteEmbedder, LiteRecipe
from jina_rag.models.lite.page_text import slice_box, tokens_of
from jina_rag.models.lite.reranker import LiteReranker
from jina_rag.models.lite.stopwords import is_stop_word
from jina_rag.models.lite.text_windows import windows
from jina_rag.models.registry import load_embedder, load_reranker
from jina_rag.protocols import Embedder, ExplainingReranker, PairReranker, PlacedModel, Reranker
from jina_rag.types import Page, PageScreenshot, Word


class LettersBackbone:
    """A backbone with one token per letter. A vector encodes the letter and the distance to both ends of a sequence."""

    name = "letters"
    fingerprint = "0"
    dim = 30
    typical = (0.5, 0.1)
    centre = None

    def __init__(self):
        self.lengths = []

    def tokenize(self, words):
        return [
            tuple(Token(ord(c) % 26, i / len(word), (i + 1) / len(word), c) for i, c in enumerate(word))
            for word in words
        ]

    def frame(self, side):
        return ([26, 27] if side == "query" else [26, 28]), [29]

    def encode(self, sequences):
        self.lengths += [len(ids) for ids in sequences]
        rows = []
        for ids in sequences:
            vectors = np.eye(self.dim, dtype=np.float32)[ids]
            edge = np.minimum(np.arange(len(ids)), np.arange(len(ids))[::-1])
            rows.append(vectors * 1 + 0.001 * edge[:, None].astype(np.float32) * np.eye(self.dim)[ids[1]])
        return rows


def page(*words):
    image = Image.new("RGB", (10, 10), "white")
    return Page("a.pdf", Path("a.pdf"), 1, 1, PageScreenshot(image, 72.0), tuple(words))


@pytest.fixture(scope="module")
def lite():
    return load_embedder("lite")


@pytest.fixture(scope="module")
def english():
    return load_embedder("lite-en")


@pytest.fixture(params=["lite", "lite-en"])
def embedder(request, lite, english):
    return {"lite": lite, "lite-en": english}[request.param]


@given(st.integers(0, 3000), st.integers(2, 200), st.data())
def test_windows_keep_each_token_once_with_most_context(count, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    result = windows(count, size, overlap)
    kept_tokens = [i for w in result for i in range(w.keep_start, w.keep_stop)]
    assert kept_tokens == list(range(count))
    assert len({w.stop - w.start for w in result}) <= 1
    for w in result:
        assert 0 <= w.start <= w.keep_start < w.keep_stop <= w.stop <= count
        assert w.stop - w.start <= size
    for first, second in pairwise(result):
        assert first.stop - second.start >= overlap
        # The border is in the middle of the overlap: each token comes from the window with the most context.
        context_after = first.stop - second.keep_start
        context_before = second.keep_start - second.start
        assert abs(context_after - context_before) <= 1


def test_short_text_gives_one_window():
    assert windows(190, 190, 30) == [(0, 190, 0, 190)]
    assert len(windows(191, 190, 30)) == 2
    assert windows(0, 190, 30) == []


def test_long_text_encoded_in_windows_of_equal_length():
    backbone = LettersBackbone()
    embedder = LiteEmbedder(backbone, LiteRecipe(window=20, overlap=4, drop=False))
    text = "abcdefghij" * 7
    multi = embedder.encode_document([text]).multi[0]
    assert multi.shape == (70, 30)
    np.testing.assert_array_equal(multi[:, :26].argmax(axis=1), [ord(c) % 26 for c in text])
    assert len(set(backbone.lengths)) == 1
    assert max(backbone.lengths) <= 20 + 3


def test_overlap_not_below_window_raises_invalid_input_error():
    with pytest.raises(InvalidInputError, match="overlap is 20"):
        LiteRecipe(window=20, overlap=20)


def test_slice_box_follows_longer_axis():
    wide, tall = (0.1, 0.2, 0.5, 0.25), (0.1, 0.2, 0.15, 0.6)
    assert slice_box(wide, 0.25, 0.5, "abcd") == pytest.approx((0.2, 0.2, 0.3, 0.25))
    assert slice_box(tall, 0.25, 0.5, "縦書き文") == pytest.approx((0.1, 0.3, 0.15, 0.4))
    assert slice_box(wide, 0.0, 1.0, "abcd") == wide


def test_slice_box_of_arabic_and_hebrew_starts_at_right():
    box = (0.0, 0.0, 0.8, 0.1)
    assert slice_box(box, 0.0, 0.25, "שלום") == pytest.approx((0.6, 0.0, 0.8, 0.1))
    assert slice_box(box, 0.75, 1.0, "مصر،") == pytest.approx((0.0, 0.0, 0.2, 0.1))


def test_each_spelling_of_a_reversed_lam_alef_has_the_box_and_the_letters_of_the_word():
    backbone = LettersBackbone()
    words = [("األدوات", (0.5, 0.0, 0.9, 0.1)), ("كالم", (0.1, 0.0, 0.5, 0.1))]
    tokens = tokens_of(words, True, backbone, 100)
    assert "".join(tokens.texts) == "األدوات" + "كالم" + "كالم"
    assert tokens.words.tolist() == [0] * 7 + [1] * 9  # with the space between the spellings
    assert tokens.ids.tolist() == [ord(letter) % 26 for letter in "الأدوات" + "كالم كلام"]
    for start in (7, 12):  # from right to left
        np.testing.assert_allclose(tokens.boxes[start : start + 4, 0], [0.4, 0.3, 0.2, 0.1], atol=1e-6)
    assert len(tokens_of(words[1:], True, backbone, 100).ids) == 4


def test_page_has_one_box_per_row(embedder):
    words = [
        Word("The", (0.1, 0.1, 0.2, 0.12)),
        Word("turbine", (0.3, 0.1, 0.4, 0.12)),
        Word("!", (0.4, 0.1, 0.41, 0.12)),
    ]
    embeddings = embedder.encode_document([page(*words)])
    [grid] = embeddings.grids
    assert grid.kind == "words"
    assert grid.boxes.dtype == np.float32
    assert len(grid) == len(embeddings.multi[0]) > 0
    assert (grid.boxes[:, 0] >= 0.3 - 1e-6).all()  # no rows for the article and the exclamation mark
    assert (grid.boxes[:, 2] <= 0.4 + 1e-6).all()


def test_chinese_line_gives_boxes_in_order(lite):
    embeddings = lite.encode_document([page(Word("北京市人口约两千一百万人", (0.0, 0.0, 0.8, 0.05)))])
    boxes = embeddings.grids[0].boxes
    assert len(boxes) > 3
    assert (np.diff(boxes[:, 0]) >= 0).all()
    assert boxes[-1, 0] > 0.4


def test_plain_text_has_no_boxes(embedder):
    assert embedder.encode_document(["plain text"]).grids == [None]


def test_stop_words_dropped_after_encoding_but_kept_in_dense_vector():
    text = "the river"
    content_rows = LiteEmbedder(LettersBackbone()).encode_document([text])
    all_rows = LiteEmbedder(LettersBackbone(), LiteRecipe(drop=False)).encode_document([text])
    assert content_rows.multi[0].shape == (5, 30)
    assert all_rows.multi[0].shape == (8, 30)
    np.testing.assert_array_equal(content_rows.multi[0], all_rows.multi[0][3:])  # encoded in the same context
    np.testing.assert_array_equal(content_rows.single, all_rows.single)
    np.testing.assert_allclose(np.linalg.norm(all_rows.single, axis=1), 1, atol=1e-6)


def test_query_of_stop_words_keeps_their_rows(embedder):
    embeddings = embedder.encode_query(["Who is it?"])
    assert len(embeddings.multi[0]) >= 3


def test_is_stop_word_in_several_languages():
    assert all(map(is_stop_word, ["The", "(und", "les", "и", "ال".replace("ال", "من"), "der,"]))
    assert not any(map(is_stop_word, ["thesis", "2023", "die", "no", "AB-12"]))


def test_prompts_of_query_and_document_differ_and_add_no_rows():
    backbone = LettersBackbone()
    embedder = LiteEmbedder(backbone, LiteRecipe(drop=False))
    query, text = embedder.encode_query(["river"]).multi[0], embedder.encode_document(["river"]).multi[0]
    assert query.shape == text.shape == (5, 30)
    assert (query[:, 27] > 0).any()  # the query prompt is part of the context
    assert (text[:, 27] == 0).all()


def test_centring_subtracts_backbone_centre():
    backbone = LettersBackbone()
    backbone.centre = np.eye(30, dtype=np.float32)[ord("a") % 26]
    multi = LiteEmbedder(backbone, LiteRecipe(centring=1.0, drop=False)).encode_document(["ab"]).multi[0]
    shared = ord("a") % 26
    assert abs(multi[0, shared]) < 0.01  # the vector of "a" equals the subtracted mean vector
    assert multi[1, shared] == pytest.approx(-(0.5**0.5), abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(multi, axis=1), 1, atol=1e-6)


def test_fingerprint_differs_between_recipes(lite):
    assert lite.fingerprint.startswith("lite@1571fc98")
    prints = {
        LiteEmbedder(LettersBackbone(), r).fingerprint for r in (None, LiteRecipe(drop=False), LiteRecipe(window=90))
    }
    assert len(prints) == 3


def test_embedding_shapes_dtypes_and_norms(embedder):
    embeddings = embedder.encode_document(["Rainfall in the Alps rose.", page(), ""])
    assert isinstance(embedder, Embedder)
    assert (embedder.dim, embedder.multi_dim, embedder.modality) == (384, 384, "text")
    assert (embedder.hubness, embedder.dense_weight, embedder.revision) == (0.5, 0.3, None)
    assert (embedder.matryoshka_dims, embedder.multi_matryoshka_dims) == ((), ())
    assert embeddings.single.shape == (3, 384)
    assert embeddings.single.dtype == np.float32
    assert [m.shape[1] for m in embeddings.multi] == [384] * 3
    assert all(m.dtype == np.float32 for m in embeddings.multi)
    np.testing.assert_allclose(np.linalg.norm(embeddings.multi[0], axis=1), 1, atol=1e-5)
    assert not embeddings.single[1:].any()
    assert [len(m) for m in embeddings.multi[1:]] == [0, 0]
    assert len(embeddings.grids[1]) == 0
    assert embedder.encode_document([]).multi == []


def test_single_false_and_multi_false_omit_vectors(embedder):
    assert embedder.encode_query(["river"], single=False).single is None
    embeddings = embedder.encode_query(["river"], multi=False)
    assert embeddings.multi is None
    assert embeddings.grids is None


def test_answer_scores_higher_than_unrelated_text(embedder):
    query = embedder.encode_query(["How many people live in Berlin?"])
    texts = embedder.encode_document(["Apples are red and sweet.", "Berlin has 3.7 million inhabitants."])
    assert query.single[0] @ texts.single[1] > query.single[0] @ texts.single[0]


def test_lite_ranks_cross_lingual_answer_first(lite):
    query = lite.encode_query(["How many people live in Berlin?"]).single[0]
    texts = lite.encode_document(["リンゴは赤くて甘い。", "ベルリンの人口は約370万人です。"]).single
    assert query @ texts[1] > query @ texts[0]


def test_vectors_independent_of_batch(embedder):
    texts = ["short", "a somewhat longer text about the weather in Norway", "river bank " * 120]
    batch_embeddings = embedder.encode_document(texts)
    for index, text in enumerate(texts):
        embeddings = embedder.encode_document([text])
        np.testing.assert_allclose(embeddings.single[0], batch_embeddings.single[index], atol=1e-5)
        np.testing.assert_allclose(embeddings.multi[0], batch_embeddings.multi[index], atol=1e-5)


def test_concurrent_encoding_gives_same_vectors(embedder):
    texts = [f"sentence number {i} about thread safety and word{i}" for i in range(12)]
    expected = embedder.encode_document(texts)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda text: embedder.encode_document([text]), texts * 2))
    for index, result in enumerate(results):
        np.testing.assert_allclose(result.multi[0], expected.multi[index % 12], atol=1e-5)


@pytest.mark.parametrize("empty", ["", "  \n", "\u200b"])
def test_empty_query_raises_invalid_input_error(lite, empty):
    with pytest.raises(InvalidInputError, match="Query 2 of 2 is empty"):
        lite.encode_query(["river", empty])


def test_image_query_without_words_raises_invalid_input_error(lite):
    with pytest.raises(InvalidInputError, match="OCR found no words in query 1 of 1"):
        lite.encode_query([Image.new("RGB", (64, 64), "white")])


def test_unusual_unicode_gives_finite_vectors(embedder):
    texts = [
        "\x00",
        "a\x00b",
        "\ud800 lone \udfff",
        "\U0001f600",
        "<s></s>[SEP]",
        "e" + "\u0301" * 500,
        "\u200f\u200f",
    ]
    embeddings = embedder.encode_document(texts)
    assert all(np.isfinite(m).all() for m in embeddings.multi)
    assert np.isfinite(embeddings.single).all()


def test_long_word_truncated_at_max_length_with_warning(lite, caplog):
    with caplog.at_level(logging.WARNING, "jina_rag"):
        embeddings = lite.encode_document(["x1" * 500_000], max_length=300)
    assert 0 < len(embeddings.multi[0]) <= 300
    assert "Document 1 of 1 was truncated to 300 tokens" in caplog.text


def test_long_query_truncated_at_max_length_with_warning(embedder, caplog):
    with caplog.at_level(logging.WARNING, "jina_rag"):
        embeddings = embedder.encode_query(["river " * 2000], max_length=40)
    assert len(embeddings.multi[0]) <= 40
    assert "Query 1 of 1 was truncated to 40 tokens" in caplog.text


def test_truncate_dim_and_max_length_are_validated(embedder):
    assert embedder.encode_query(["river"], truncate_dim=384).single.shape == (1, 384)
    with pytest.raises(InvalidInputError, match="supports only 384, because the model has no Matryoshka"):
        embedder.encode_query(["river"], truncate_dim=128)
    with pytest.raises(InvalidInputError, match="max_length is 0"):
        embedder.encode_query(["river"], max_length=0)


def test_str_instead_of_list_raises_invalid_input_error(embedder):
    with pytest.raises(InvalidInputError, match="Pass a list"):
        embedder.encode_query("river")


@pytest.fixture
def ocr_images(monkeypatch):
    images = []

    def read(image):
        images.append(image)
        return [Word("turbine", (0.2, 0.2, 0.4, 0.3), ocr=True)]

    monkeypatch.setattr(page_text, "_read", read)
    return images


def test_ocr_reads_pil_bytes_and_path_images(lite, ocr_images, tmp_path):
    image = Image.new("RGB", (40, 30), "white")
    buffer = BytesIO()
    image.save(buffer, "png")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    embeddings = lite.encode_document([image, buffer.getvalue(), tmp_path / "a.png"])
    assert [i.size for i in ocr_images] == [(40, 30)] * 3
    for rows, grid in zip(embeddings.multi, embeddings.grids, strict=True):
        np.testing.assert_array_equal(rows, embeddings.multi[0])
        np.testing.assert_allclose(grid.boxes[0, :2], [0.2, 0.2])
    assert len(lite.encode_query([image]).multi[0]) == len(embeddings.multi[0])


def test_ocr_gets_white_background_and_upright_image(lite, ocr_images):
    transparent = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    sideways = Image.new("RGB", (4, 2))
    sideways.getexif()[0x0112] = 6
    lite.encode_document([transparent, sideways])
    assert ocr_images[0].getpixel((0, 0)) == (255, 255, 255)
    assert ocr_images[1].size == (2, 4)


def test_document_parts_are_read_in_order(lite, ocr_images):
    image = Image.new("RGB", (40, 30), "white")
    embeddings = lite.encode_document(
        [["first words", image, {"text": "last words"}], {"image": image}, {"text": "first words"}]
    )
    assert len(ocr_images) == 2
    assert embeddings.grids[0] is None  # boxes on different images have no common coordinates
    assert embeddings.grids[1] is not None
    assert len(embeddings.multi[0]) > len(embeddings.multi[1])
    expected = lite.encode_document(["first words"])
    np.testing.assert_array_equal(embeddings.multi[2], expected.multi[0])


def test_invalid_image_raises_invalid_input_error(lite, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"broken\.png is not a readable image"):
        lite.encode_document([tmp_path / "broken.png"])
    with pytest.raises(InvalidInputError, match="input of 2 bytes is not a readable image"):
        lite.encode_document([b"no"])
    with pytest.raises(InvalidInputError, match="Document 1 of 1 is int"):
        lite.encode_document([3])


def test_minilm_with_wrong_hash_raises_checkpoint_error(tmp_path, monkeypatch):
    other = tmp_path / "model.onnx"
    other.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"model\.onnx have sha256"):
        minilm.MiniLM(other)
    monkeypatch.setattr(minilm, "TOKENIZER_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"minilm_tokenizer\.json"):
        minilm.MiniLM(minilm.weights_path())


def test_minilm_splits_words_above_wordpiece_limit(english):
    tokens = english._backbone.tokenize(["ab" * 150])[0]
    assert len(tokens) > 10
    assert tokens[-1].end == 1.0


@pytest.mark.parametrize("name", ["lite", "lite-en"])
def test_reranker_ranks_answer_first(name):
    reranker = load_reranker(name)
    assert isinstance(reranker, Reranker)
    assert not isinstance(reranker, ExplainingReranker | PairReranker | PlacedModel)
    assert reranker.name == name
    assert reranker.fingerprint.startswith(f"{name}@")
    texts = [
        "Apples are red.",
        "",
        "Berlin has 3.7 million inhabitants.",
        page(),
        page(Word("Berlin", (0, 0, 1, 1))),
    ]
    scores = reranker.score("How many people live in Berlin?", texts)
    assert scores.shape == (5,)
    assert scores.dtype == np.float32
    assert scores[1] == scores[3] == 0.0
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.argmax() == 2
    assert scores[2] > 0.7
    assert scores[0] < 0.3
    assert reranker.score("river", []).shape == (0,)


def test_reranker_with_str_documents_raises_invalid_input_error():
    reranker = LiteReranker(LiteEmbedder(LettersBackbone()), middle=0.5, width=0.1)
    with pytest.raises(InvalidInputError, match="Pass a list"):
        reranker.score("river", "bank")


def test_reranker_prefers_adjacent_words():
    reranker = LiteReranker(LiteEmbedder(LettersBackbone()), middle=0.5, width=0.1, window=8)
    adjacent, distant = reranker.score("xyz", ["xyz" + "b" * 40, "x" + "b" * 20 + "y" + "b" * 20 + "z"])
    assert adjacent > distant
