"""Attribution of jina-reranker-m0 scores to image tokens, by gradient and by attention."""

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
IMAGE, OTHER_IMAGE = IMAGES / "photo_320x240.png", IMAGES / "odd_57x43.png"
WORDS = (
    "energy report the total of revenue pressure valve table figure page system model increase percent safety value "
    "annual water cost design error range note engine"
).split()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def m0(tiny):
    return load_reranker(tiny["m0"], device="cpu", dtype="float32")


# Covering the region of highest attribution


def document_page(rng, size):
    """Return a synthetic page: a heading, and paragraphs, bar charts, tables, photos and gaps in random order."""
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
            left, color = int(rng.integers(20, 90)), tuple(int(value) for value in rng.integers(0, 200, 3))
            for bar in range(int(rng.integers(4, 8))):
                top = y + 70 - int(rng.integers(10, 68))
                draw.rectangle((left + 22 * bar, top, left + 22 * bar + 14, y + 70), fill=color)
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


def best_window(attribution, side):
    """Return the (row, column) of the `side` x `side` token window of highest total weight, and the grid's shape."""
    columns = round(1 / float(attribution.boxes[0, 2] - attribution.boxes[0, 0]))
    weights = attribution.weights.reshape(-1, columns)
    sums = np.lib.stride_tricks.sliding_window_view(weights, (side, side)).sum(axis=(2, 3))
    return tuple(int(value) for value in np.unravel_index(sums.argmax(), sums.shape)), weights.shape


def cover_window(page, place, side, shape):
    """Return the page with a window of tokens filled with the page's mean color."""
    (row, column), (rows, columns) = place, shape
    x0, x1 = (round(value * page.width / columns) for value in (column, column + side))
    y0, y1 = (round(value * page.height / rows) for value in (row, row + side))
    color = tuple(int(value) for value in np.asarray(page).reshape(-1, 3).mean(axis=0).round())
    result = page.copy()
    result.paste(color, (x0, y0, x1, y1))
    return result


def win_rates(model, seed, pairs, *, sizes=((308, 392), (280, 364), (336, 420), (392, 308)), side=3):
    """Return the win rate of each method against chance.

    A method wins a pair if covering the window of highest attribution changes the raw score more than covering another
    random window of equal size.
    """
    rng = np.random.default_rng(seed)
    wins = {"gradient": [], "attention": []}
    for number in range(pairs):
        page = document_page(rng, sizes[number % len(sizes)])
        query = " ".join(rng.choice(WORDS, int(rng.integers(3, 9)))) + "?"
        attributions = {method: model.explain(query, page, method=method) for method in wins}
        best = {method: best_window(attribution, side)[0] for method, attribution in attributions.items()}
        shape = best_window(attributions["gradient"], side)[1]
        other = tuple(int(rng.integers(0, limit - side + 1)) for limit in shape)
        while other in best.values():
            other = tuple(int(rng.integers(0, limit - side + 1)) for limit in shape)
        pages = [page, *(cover_window(page, place, side, shape) for place in (*best.values(), other))]
        whole, *without = model.score(query, pages, raw=True).tolist()
        for method, score in zip(best, without[:-1], strict=True):
            wins[method].append(abs(score - whole) > abs(without[-1] - whole))
    return {method: float(np.mean(outcomes)) for method, outcomes in wins.items()}


def test_covering_highest_attribution_changes_score_most(m0):
    rate = win_rates(m0, seed=0, pairs=50)
    assert rate["gradient"] >= 0.8
    # Attention does not measure the effect on the score, so the default is the gradient.
    assert rate["gradient"] > rate["attention"]


# Gradient


def test_gradient_weights_sum_to_score_difference(m0):
    """The weights sum to the difference between the score of the page and the score of the mean-color image."""
    page = document_page(np.random.default_rng(3), (280, 364))
    fine = m0.explain("total revenue?", page, steps=24)
    color = np.asarray(page).reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    plain = Image.fromarray(np.full((364, 280, 3), color, np.uint8))
    raw, without = m0.score("total revenue?", [page, plain], raw=True).tolist()
    np.testing.assert_allclose(fine.score, raw, atol=1e-5)
    assert abs(raw - without) > 0.1
    np.testing.assert_allclose(fine.weights.sum(), raw - without, rtol=0.03)
    # The default number of steps is lower and highlights the same regions.
    assert np.corrcoef(fine.weights, m0.explain("total revenue?", page).weights)[0, 1] > 0.9


def test_single_color_image_has_no_attribution(m0):
    attribution = m0.explain("anything?", Image.new("RGB", (120, 90), (200, 30, 60)))
    assert np.abs(attribution.weights).max() < 1e-4


def test_explain_leaves_model_unchanged(m0):
    before = m0.score("q", [IMAGE], raw=True)
    m0.explain("q", IMAGE)
    base = m0._model.module.model
    assert all(value.grad is None and not value.requires_grad for value in m0._model.module.parameters())
    assert not any("forward" in vars(module) for module in base.modules())
    np.testing.assert_allclose(m0.score("q", [IMAGE], raw=True), before, atol=1e-5)


def test_failed_explain_leaves_model_unchanged(m0):
    def raise_out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    base = m0._model.module.model
    for method in ("gradient", "attention"):
        handle = base.language_model.layers[1].register_forward_pre_hook(raise_out_of_memory)
        with pytest.raises(ModelError, match=r"tokens does not fit into the memory of cpu\. Lower max_pixels"):
            m0.explain("q", IMAGE, method=method)
        handle.remove()
    assert not any("forward" in vars(module) for module in base.modules())
    assert np.isfinite(m0.explain("q", IMAGE).weights).all()


def test_explain_in_inference_mode_gives_same_weights(m0):
    expected = m0.explain("q", IMAGE)
    with torch.inference_mode():
        attribution = m0.explain("q", IMAGE)
    np.testing.assert_allclose(attribution.weights, expected.weights, atol=1e-6)


def test_gradient_uses_activation_checkpointing(m0, monkeypatch):
    """Activation checkpointing saves fewer than a fifth of the bytes for the backward pass."""
    from contextlib import nullcontext

    def saved_bytes():
        sizes = []

        def record(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            attribution = m0.explain("q", IMAGE, steps=1)
        return sum(sizes), attribution.weights

    small, weights = saved_bytes()
    monkeypatch.setattr(m0_explain, "_activation_checkpointing", lambda _: nullcontext())
    large, expected = saved_bytes()
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert small < large / 5


# Attention


def test_attention_matches_eager_implementation(tiny, m0):
    """For each layer, the recorded attention weights equal the last row of the eager implementation's weights."""
    attribution = m0.explain("total revenue?", IMAGE, method="attention")
    eager_model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    base = eager_model._model.module.model
    (prompt,), _ = eager_model._prompts([("total revenue?", IMAGE)], 10_240, 9_728, None)
    batch = eager_model._model.prepare([prompt])
    rows = []
    base.config._attn_implementation = base.config.text_config._attn_implementation = "eager"
    for layer in base.language_model.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: rows.append(out[1][0, :, -1].mean(dim=0)))
    with torch.no_grad():
        eager_model._model.hidden(batch)
    start = prompt.images[0].start
    expected = torch.stack(rows).mean(dim=0)[start : start + prompt.images[0].tokens]
    np.testing.assert_allclose(attribution.weights, expected.numpy(), atol=1e-6)
    assert (attribution.weights >= 0).all()
    assert 0 < attribution.weights.sum() < 1


def test_unrecorded_attention_raises_model_error(m0, monkeypatch):
    """An unsupported version of transformers must not result in an empty heat map."""
    monkeypatch.setattr(
        m0_explain._LastTokenAttention, "__torch_function__", lambda self, f, t, a=(), k=None: f(*a, **(k or {}))
    )
    with pytest.raises(ModelError, match="recorded for 0 of 3 layers"):
        m0.explain("q", IMAGE, method="attention")


# Boxes, arguments


@pytest.mark.parametrize("method", ["gradient", "attention"])
def test_boxes_cover_document_images_only(m0, method):
    """The query's image and the texts have no boxes; each box is in fractions of one image."""
    attribution = m0.explain([OTHER_IMAGE, "and this?"], ["first", IMAGE, "second", OTHER_IMAGE], method=method)
    rows, columns = m0._model.patcher.tokens((320, 240), 602_112)
    small = m0._model.patcher.tokens((57, 43), 602_112)
    assert (attribution.images == 0).sum() == rows * columns
    assert (attribution.images == 1).sum() == small[0] * small[1]
    assert attribution.boxes.shape == (len(attribution.weights), 4)
    assert attribution.boxes.dtype == attribution.weights.dtype == np.float32
    assert attribution.images.dtype == np.int32
    for number in (0, 1):
        part = attribution.boxes[attribution.images == number]
        np.testing.assert_array_equal(part.min(axis=0)[:2], [0, 0])
        np.testing.assert_array_equal(part.max(axis=0)[2:], [1, 1])
    expected = m0.score([OTHER_IMAGE, "and this?"], [["first", IMAGE, "second", OTHER_IMAGE]], raw=True)
    np.testing.assert_allclose(attribution.score, expected[0], atol=1e-5)


def test_each_image_has_its_own_baseline_color(m0):
    """A white and a black image have no region of high attribution."""
    parts = [Image.new("RGB", (90, 90), "white"), "between", Image.new("RGB", (90, 60), "black")]
    assert np.abs(m0.explain("q", parts).weights).max() < 1e-4


def test_page_is_explained_by_its_image(m0):
    page = make_page("some words on it", size=(170, 220))
    attribution = m0.explain("words", page)
    np.testing.assert_array_equal(attribution.weights, m0.explain("words", page.screenshot.image).weights)
    assert len(m0.explain("words", page, max_pixels=12_544).weights) < len(attribution.weights)


def test_bfloat16_attribution_correlates_with_float32(tiny, m0):
    bfloat16_model = load_reranker(tiny["m0"], device="cpu", dtype="bfloat16")
    for method in ("gradient", "attention"):
        correlations = []
        for query in ("total revenue?", "words", "late interaction", "price of pears", "table of sales"):
            ours, exact = (model.explain(query, IMAGE, method=method).weights for model in (bfloat16_model, m0))
            assert ours.dtype == np.float32
            correlations.append(np.corrcoef(ours, exact)[0, 1])
        # The median, because one query may be at the kink of a ReLU, where the gradient has two values.
        assert np.median(correlations) > 0.9


def test_explain_refuses_documents_without_image(m0):
    for document in ("only words", ["words", "and words"], make_page("x").text):
        with pytest.raises(InvalidInputError, match="The document has no image"):
            m0.explain("q", document)
    with pytest.raises(InvalidInputError, match="The document has no image"):
        m0.explain(IMAGE, "only words")
    with pytest.raises(InvalidInputError, match="method is 'rollout'; expected one of gradient, attention"):
        m0.explain("q", IMAGE, method="rollout")
    with pytest.raises(InvalidInputError, match="steps is 0"):
        m0.explain("q", IMAGE, steps=0)


def test_nan_attribution_raises_model_error(tiny):
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    model._model.module.score[2].weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="contains NaN"):
        model.explain("q", IMAGE)


# Query and document


def test_image_used_as_query_and_document_counts_once(m0):
    with Image.open(OTHER_IMAGE) as opened:
        image = opened.convert("RGB")
    same, copied = m0.explain(image, image), m0.explain(image.copy(), image)
    np.testing.assert_allclose(same.weights, copied.weights, atol=1e-6)
    assert same.score == pytest.approx(copied.score)


def test_explain_fetches_url_once(tiny, monkeypatch):
    fetched = []
    monkeypatch.setattr(images, "fetch", lambda url, **_: fetched.append(url) or OTHER_IMAGE.read_bytes())
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32", allow_urls=True)
    model.explain("q", {"image": "https://x.example/a.png"}, method="attention")
    assert fetched == ["https://x.example/a.png"]


def test_model_loaded_in_inference_mode_can_explain(tiny, m0):
    with torch.inference_mode():
        model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert not any(value.is_inference() for value in model._model.module.parameters())
    np.testing.assert_allclose(model.explain("q", OTHER_IMAGE).weights, m0.explain("q", OTHER_IMAGE).weights, atol=1e-6)


def test_caller_autocast_does_not_change_explanation(m0):
    for method in ("gradient", "attention"):
        expected = m0.explain("q", OTHER_IMAGE, method=method)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(m0.explain("q", OTHER_IMAGE, method=method).weights, expected.weights)
