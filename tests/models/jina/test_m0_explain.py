"""Which part of a page carried its score of jina-reranker-m0: by gradient, and by attention."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.paths import DATA
from PIL import Image, ImageDraw, ImageFont

from jina_rag import load_reranker
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.testing import make_page

torch = pytest.importorskip("torch")

from jina_rag import images  # noqa: E402  # behind the check for torch
from jina_rag.models.jina import m0_explain  # noqa: E402

IMAGES = DATA / "golden" / "images"
PICTURE, OTHER = IMAGES / "photo_320x240.png", IMAGES / "odd_57x43.png"
WORDS = (
    "energy report the total of revenue pressure valve table figure page system model increase percent safety value "
    "annual water cost design error range note engine"
).split()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def m0(tiny):
    return load_reranker(tiny["m0"], device="cpu", dtype="float32")


# -- what covering the brightest place does -----------------------------------------------------------------------


def document_page(rng, size):
    """A page as documents have them: a heading, paragraphs, bar charts, tables, photos and gaps, in any order."""
    width, height = size
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    font, y = ImageFont.load_default(int(rng.integers(9, 13))), 48
    draw.text((20, 16), " ".join(rng.choice(WORDS, 3)), fill="black", font=ImageFont.load_default(18))
    while y < height - 50:
        kind = rng.choice(["text", "text", "chart", "table", "photo", "gap"])
        room = height - y
        if kind == "text":
            for _ in range(int(rng.integers(2, 6))):
                draw.text((20, y), " ".join(rng.choice(WORDS, 7)), fill=(20, 20, 20), font=font)
                y += 15
            y += 8
        elif kind == "chart" and room > 90:
            left, colour = int(rng.integers(20, 90)), tuple(int(value) for value in rng.integers(0, 200, 3))
            for bar in range(int(rng.integers(4, 8))):
                top = y + 70 - int(rng.integers(10, 68))
                draw.rectangle((left + 22 * bar, top, left + 22 * bar + 14, y + 70), fill=colour)
            y += 82
        elif kind == "table" and room > 80:
            for row in range(4):
                for column in range(4):
                    x0, y0 = 20 + 65 * column, y + 16 * row
                    draw.rectangle((x0, y0, x0 + 65, y0 + 16), outline=(90, 90, 90))
                    draw.text((x0 + 4, y0 + 2), str(rng.integers(0, 9999)), fill="black", font=font)
            y += 76
        elif kind == "photo" and room > 100:
            blotches = Image.fromarray(rng.integers(0, 255, (5, 7, 3)).astype(np.uint8))
            page.paste(blotches.resize((120, 85), Image.Resampling.BICUBIC), (int(rng.integers(20, width - 140)), y))
            y += 95
        else:
            y += 22
    return page


def brightest_window(attribution, side):
    """The window of `side` x `side` tokens with the greatest weights together, as (row, column), and the grid."""
    columns = round(1 / float(attribution.boxes[0, 2] - attribution.boxes[0, 0]))
    weights = attribution.weights.reshape(-1, columns)
    sums = np.lib.stride_tricks.sliding_window_view(weights, (side, side)).sum(axis=(2, 3))
    return tuple(int(value) for value in np.unravel_index(sums.argmax(), sums.shape)), weights.shape


def covered(page, place, side, shape):
    """The page with a window of tokens filled with the page's mean colour."""
    (row, column), (rows, columns) = place, shape
    x0, x1 = (round(value * page.width / columns) for value in (column, column + side))
    y0, y1 = (round(value * page.height / rows) for value in (row, row + side))
    colour = tuple(int(value) for value in np.asarray(page).reshape(-1, 3).mean(axis=0).round())
    done = page.copy()
    done.paste(colour, (x0, y0, x1, y1))
    return done


def rates(model, seed, pairs, *, sizes=((308, 392), (280, 364), (336, 420), (392, 308)), side=3):
    """For each method, the share of pairs where covering its best window changes the raw score more than covering a
    window of equal size at a random place (drawn before anything is known, never the same one) does."""
    rng = np.random.default_rng(seed)
    won = {"gradient": [], "attention": []}
    for number in range(pairs):
        page = document_page(rng, sizes[number % len(sizes)])
        query = " ".join(rng.choice(WORDS, int(rng.integers(3, 9)))) + "?"
        found = {method: model.explain(query, page, method=method) for method in won}
        best = {method: brightest_window(attribution, side)[0] for method, attribution in found.items()}
        shape = brightest_window(found["gradient"], side)[1]
        other = tuple(int(rng.integers(0, limit - side + 1)) for limit in shape)
        while other in best.values():
            other = tuple(int(rng.integers(0, limit - side + 1)) for limit in shape)
        pages = [page, *(covered(page, place, side, shape) for place in (*best.values(), other))]
        whole, *without = model.score(query, pages, raw=True).tolist()
        for method, score in zip(best, without[:-1], strict=True):
            won[method].append(abs(score - whole) > abs(without[-1] - whole))
    return {method: float(np.mean(wins)) for method, wins in won.items()}


def test_covering_the_brightest_place_changes_the_score_more_than_covering_another(m0):
    rate = rates(m0, seed=0, pairs=50)
    assert rate["gradient"] >= 0.8
    # Why it is the default: attention tells where the model looked, not what came of it.
    assert rate["gradient"] > rate["attention"]


# -- gradient -----------------------------------------------------------------------------------------------------


def test_the_weights_add_up_to_what_the_page_adds_to_the_score(m0):
    """Integrated gradients share out the difference to the plain image, and nothing else."""
    page = document_page(np.random.default_rng(3), (280, 364))
    fine = m0.explain("total revenue?", page, steps=24)
    colour = np.asarray(page).reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    plain = Image.fromarray(np.full((364, 280, 3), colour, np.uint8))
    raw, without = m0.score("total revenue?", [page, plain], raw=True).tolist()
    np.testing.assert_allclose(fine.score, raw, atol=1e-5)
    assert abs(raw - without) > 0.1
    np.testing.assert_allclose(fine.weights.sum(), raw - without, rtol=0.03)
    # The default takes fewer steps and finds the same places.
    assert np.corrcoef(fine.weights, m0.explain("total revenue?", page).weights)[0, 1] > 0.9


def test_an_image_of_one_colour_has_no_place_that_matters(m0):
    found = m0.explain("anything?", Image.new("RGB", (120, 90), (200, 30, 60)))
    assert np.abs(found.weights).max() < 1e-4


def test_nothing_is_left_on_the_model(m0):
    before = m0.score("q", [PICTURE], raw=True)
    m0.explain("q", PICTURE)
    base = m0._model.module.model
    assert all(value.grad is None and not value.requires_grad for value in m0._model.module.parameters())
    assert not any("forward" in vars(module) for module in base.modules())
    np.testing.assert_allclose(m0.score("q", [PICTURE], raw=True), before, atol=1e-5)


def test_a_failure_leaves_nothing_on_the_model_either(m0):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    base = m0._model.module.model
    for method in ("gradient", "attention"):
        handle = base.language_model.layers[1].register_forward_pre_hook(full)
        with pytest.raises(ModelError, match=r"tokens does not fit into the memory of cpu: lower max_pixels"):
            m0.explain("q", PICTURE, method=method)
        handle.remove()
    assert not any("forward" in vars(module) for module in base.modules())
    assert np.isfinite(m0.explain("q", PICTURE).weights).all()


def test_a_caller_in_inference_mode_gets_the_same(m0):
    expected = m0.explain("q", PICTURE)
    with torch.inference_mode():
        found = m0.explain("q", PICTURE)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)


def test_layers_are_computed_again_rather_than_kept(m0, monkeypatch):
    """What a pass keeps for the way back is a fraction of what lies inside its layers."""
    from contextlib import nullcontext

    def kept():
        held = []

        def keep(tensor):
            held.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = m0.explain("q", PICTURE, steps=1)
        return sum(held), found.weights

    small, weights = kept()
    monkeypatch.setattr(m0_explain, "_recomputing", lambda _: nullcontext())
    large, expected = kept()
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert small < large / 5


# -- attention ----------------------------------------------------------------------------------------------------


def test_attention_is_what_the_library_gives_without_its_fast_kernels(tiny, m0):
    """The last row of each layer's weights, computed beside the kernel, against the slow path that returns them."""
    found = m0.explain("total revenue?", PICTURE, method="attention")
    slow = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    base = slow._model.module.model
    (prompt,), _ = slow._prompts([("total revenue?", PICTURE)], 10_240, 9_728, None)
    batch = slow._model.prepare([prompt])
    rows = []
    base.config._attn_implementation = base.config.text_config._attn_implementation = "eager"
    for layer in base.language_model.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: rows.append(out[1][0, :, -1].mean(dim=0)))
    with torch.no_grad():
        slow._model.hidden(batch)
    start = prompt.images[0].start
    expected = torch.stack(rows).mean(dim=0)[start : start + prompt.images[0].tokens]
    np.testing.assert_allclose(found.weights, expected.numpy(), atol=1e-6)
    assert (found.weights >= 0).all()
    assert 0 < found.weights.sum() < 1


def test_attention_that_cannot_be_seen_ends_in_a_sentence(m0, monkeypatch):
    """A version of the library that calls another kernel must not give an empty map."""
    monkeypatch.setattr(m0_explain._LastRows, "__torch_function__", lambda self, f, t, a=(), k=None: f(*a, **(k or {})))
    with pytest.raises(ModelError, match="0 of 3 layers showed their attention"):
        m0.explain("q", PICTURE, method="attention")


# -- places, arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "attention"])
def test_places_are_those_of_the_documents_images(m0, method):
    """A question's image and the texts between have none; boxes are fractions of their own image."""
    found = m0.explain([OTHER, "and this?"], ["first", PICTURE, "second", OTHER], method=method)
    rows, columns = m0._model.patcher.tokens((320, 240), 602_112)
    small = m0._model.patcher.tokens((57, 43), 602_112)
    assert (found.images == 0).sum() == rows * columns
    assert (found.images == 1).sum() == small[0] * small[1]
    assert found.boxes.shape == (len(found.weights), 4)
    assert found.boxes.dtype == found.weights.dtype == np.float32
    assert found.images.dtype == np.int32
    for number in (0, 1):
        part = found.boxes[found.images == number]
        np.testing.assert_array_equal(part.min(axis=0)[:2], [0, 0])
        np.testing.assert_array_equal(part.max(axis=0)[2:], [1, 1])
    expected = m0.score([OTHER, "and this?"], [["first", PICTURE, "second", OTHER]], raw=True)
    np.testing.assert_allclose(found.score, expected[0], atol=1e-5)


def test_each_image_is_compared_with_its_own_colour(m0):
    """One bright image and one dark one, each of one colour: neither has a place that matters."""
    parts = [Image.new("RGB", (90, 90), "white"), "between", Image.new("RGB", (90, 60), "black")]
    assert np.abs(m0.explain("q", parts).weights).max() < 1e-4


def test_a_page_is_explained_by_its_picture(m0):
    page = make_page("some words on it", size=(170, 220))
    found = m0.explain("words", page)
    np.testing.assert_array_equal(found.weights, m0.explain("words", page.screenshot.image).weights)
    assert len(m0.explain("words", page, max_pixels=12_544).weights) < len(found.weights)


def test_bfloat16_finds_the_same_places(tiny, m0):
    short = load_reranker(tiny["m0"], device="cpu", dtype="bfloat16")
    for method in ("gradient", "attention"):
        ours, exact = (model.explain("total revenue?", PICTURE, method=method).weights for model in (short, m0))
        assert ours.dtype == np.float32
        assert np.corrcoef(ours, exact)[0, 1] > 0.9


def test_what_cannot_be_explained_is_refused(m0):
    for document in ("only words", ["words", "and words"], make_page("x").text):
        with pytest.raises(InvalidInputError, match="The document has no image"):
            m0.explain("q", document)
    with pytest.raises(InvalidInputError, match="The document has no image"):
        m0.explain(PICTURE, "only words")
    with pytest.raises(InvalidInputError, match="method is 'gradient' or 'attention', got 'rollout'"):
        m0.explain("q", PICTURE, method="rollout")
    with pytest.raises(InvalidInputError, match="steps is 0"):
        m0.explain("q", PICTURE, steps=0)


def test_weights_that_are_no_numbers_end_in_a_sentence(tiny):
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    model._model.module.score[2].weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not made of numbers"):
        model.explain("q", PICTURE)


# -- what is whose ------------------------------------------------------------------------------------------------


def test_an_image_that_is_question_and_document_counts_as_the_document_only(m0):
    with Image.open(OTHER) as opened:
        image = opened.convert("RGB")
    same, copied = m0.explain(image, image), m0.explain(image.copy(), image)
    np.testing.assert_allclose(same.weights, copied.weights, atol=1e-6)
    assert same.score == pytest.approx(copied.score)


def test_an_address_is_fetched_once(tiny, monkeypatch):
    fetched = []
    monkeypatch.setattr(images, "_fetch", lambda url: fetched.append(url) or OTHER.read_bytes())
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32", allow_urls=True)
    model.explain("q", {"image": "https://x.example/a.png"}, method="attention")
    assert fetched == ["https://x.example/a.png"]


def test_a_model_loaded_in_a_callers_inference_mode_explains(tiny, m0):
    with torch.inference_mode():
        model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert not any(value.is_inference() for value in model._model.module.parameters())
    np.testing.assert_allclose(model.explain("q", OTHER).weights, m0.explain("q", OTHER).weights, atol=1e-6)


def test_a_callers_autocast_changes_no_explanation(m0):
    for method in ("gradient", "attention"):
        expected = m0.explain("q", OTHER, method=method)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(m0.explain("q", OTHER, method=method).weights, expected.weights)
