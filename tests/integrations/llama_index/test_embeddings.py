"""`JinaLocalEmbedding` and `JinaPageEmbedding`: vectors, events, async use, vector cache and serialization."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import threading

import numpy as np
import pytest
from helpers.llama_index_fakes import Callbacks, ThreadedEmbedder, record_events
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.schema import Document, ImageDocument, ImageNode, MediaResource, Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.jina_rag import JinaLocalEmbedding, JinaPageEmbedding
from llama_index.embeddings.jina_rag.node_inputs import IMAGE_HASH, cache_key, index_input, model_input, node_image
from llama_index.embeddings.jina_rag.vector_cache import VECTOR_CACHE, VectorCache, concatenate
from pydantic import ValidationError

import jina_rag
from jina_rag import Embeddings, InvalidInputError, save_page
from jina_rag.testing import make_page


class VisionEmbedder(ThreadedEmbedder):
    """Vision embedder that returns equal vectors for equal image bytes."""

    modality = "image"

    def encode_document(self, documents, **options):
        self.last_documents = list(documents)
        inputs = [f"{item['image']}" if isinstance(item, dict) and "image" in item else item for item in documents]
        return super().encode_document(inputs, **options)


@pytest.fixture
def model():
    return JinaLocalEmbedding(embedder=ThreadedEmbedder())


@pytest.fixture(autouse=True)
def empty_vector_cache():
    VECTOR_CACHE.clear()
    yield
    VECTOR_CACHE.clear()
    assert VECTOR_CACHE.bytes == 0


@pytest.fixture
def page(tmp_path):
    return save_page(make_page("growth by region", doc_id="report.pdf"), tmp_path / "pages")


def page_node(path, text="growth by region", **fields):
    return ImageNode(text=text, image_path=str(path), **{"metadata": {IMAGE_HASH: path.stem}, **fields})


def test_query_and_text_use_separate_encoders(model):
    model.get_query_embedding("sales")
    model.get_text_embedding("sales")
    kinds = [kind for kind, _ in model.embedder.history]
    assert kinds == ["query", "document"]


def test_texts_are_encoded_in_batches(model):
    model.embed_batch_size = 3
    vectors = model.get_text_embedding_batch([f"text {i}" for i in range(7)])
    assert [len(items) for _, items in model.embedder.history] == [3, 3, 1]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert all(isinstance(number, float) for number in vectors[0])


async def test_async_methods_equal_sync_and_encode_in_threads(model, page):
    texts = ["one", "two", "three"]
    images = [str(page), io.BytesIO(page.read_bytes())]
    expected = (
        model.get_query_embedding("one"),
        model.get_text_embedding("one"),
        model.get_text_embedding_batch(texts),
        model.get_image_embedding(images[0]),
        model.get_image_embedding_batch(images),
    )
    model.embedder.threads.clear()
    vectors = (
        await model.aget_query_embedding("one"),
        await model.aget_text_embedding("one"),
        await model.aget_text_embedding_batch(texts),
        await model.aget_image_embedding(images[0]),
        await model.aget_image_embedding_batch(images),
    )
    assert vectors == expected
    assert model.embedder.threads
    assert threading.get_ident() not in model.embedder.threads


def test_images_are_encoded_in_batches(page):
    model = JinaLocalEmbedding(embedder=VisionEmbedder(), embed_batch_size=2)
    vectors = model.get_image_embedding_batch([str(page)] * 3)
    assert [len(items) for _, items in model.embedder.history] == [2, 1]
    assert vectors[0] == vectors[2]
    assert model.embedder.last_documents == [{"image": page}]
    model.get_image_embedding(io.BytesIO(b"bytes of a file"))
    assert model.embedder.last_documents == [{"image": b"bytes of a file"}]
    model.get_image_embedding("https://example.org/page.png")
    assert model.embedder.last_documents == [{"image": "https://example.org/page.png"}]


@pytest.mark.parametrize("batch", [False, True])
async def test_image_embedding_dispatches_events_and_callbacks(page, batch):
    callbacks = Callbacks()
    model = JinaLocalEmbedding(embedder=VisionEmbedder(), callback_manager=callbacks.manager)
    image = str(page)
    with record_events() as event_recorder:
        if batch:
            vectors = model.get_image_embedding_batch([image, image])
            assert await model.aget_image_embedding_batch([image, image]) == vectors
        else:
            vectors = [model.get_image_embedding(image)]
            assert [await model.aget_image_embedding(image)] == vectors
    embedding_events = [event for event in event_recorder.events if event.class_name().startswith("Embedding")]
    assert [event.class_name() for event in embedding_events] == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * 2
    assert embedding_events[0].model_dict == {
        "class_name": "JinaLocalEmbedding",
        "model_name": "fake",
        "embed_batch_size": 10,
    }
    for end in embedding_events[1::2]:
        assert end.embeddings == vectors
        assert end.chunks == [image] * len(vectors)
    assert [kind for kind, _ in callbacks.ended] == [CBEventType.EMBEDDING] * 2
    assert callbacks.ended[0][1][EventPayload.EMBEDDINGS] == vectors


def test_text_embedding_dispatches_one_event(model):
    with record_events() as event_recorder:
        model.get_text_embedding("sales")
    assert event_recorder.names().count("EmbeddingEndEvent") == 1


def test_embeddings_cache_raises_invalid_input_error(model):
    with pytest.raises(InvalidInputError, match="embeddings_cache is keyed by text"):
        JinaLocalEmbedding(embedder=ThreadedEmbedder(), embeddings_cache=SimpleKVStore())
    with pytest.raises(InvalidInputError, match="embeddings_cache"):
        model.embeddings_cache = SimpleKVStore()
    model.embeddings_cache = None


def test_call_limits_apply_to_passed_model():
    model = JinaLocalEmbedding(embedder=ThreadedEmbedder(), truncate_dim=16, max_length=1)
    assert len(model.get_text_embedding("sales grew")) == 16
    assert model.get_text_embedding("sales grew") == model.get_text_embedding("sales fell")
    assert len(model.get_query_embedding("sales")) == 16


def test_settings_are_passed_to_load_embedder(monkeypatch):
    arguments = {}

    def load(name, **settings):
        arguments.update(settings, name=name)
        return ThreadedEmbedder()

    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", load)
    settings = {
        "device": "cuda:1",
        "dtype": "bfloat16",
        "task": "code",
        "truncate_dim": 32,
        "max_pixels": 1000,
        "max_length": 99,
        "revision": "abc",
        "local_files_only": True,
    }
    model = JinaLocalEmbedding("jinaai/jina-embeddings-v4", **settings)
    assert not arguments
    model.get_text_embedding("a")
    model.get_text_embedding("b")
    assert arguments == {**settings, "name": "jinaai/jina-embeddings-v4"}


def test_loaded_model_is_available_while_another_loads(monkeypatch):
    loading, proceed, names = threading.Event(), threading.Event(), []

    def load(name, **settings):
        if name == "slow":
            loading.set()
            assert proceed.wait(30)
        return ThreadedEmbedder(name=name)

    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", load)
    loaded, slow = JinaLocalEmbedding("loaded"), JinaLocalEmbedding("slow")
    assert loaded.embedder.name == "loaded"
    threads = [
        threading.Thread(target=lambda: slow.embedder),
        threading.Thread(target=lambda: names.append(loaded.embedder)),
    ]
    threads[0].start()
    try:
        assert loading.wait(30)
        threads[1].start()
        threads[1].join(10)
        assert names == [loaded.embedder]
    finally:
        proceed.set()
        threads[0].join(30)


def test_passed_model_rejects_loading_options():
    with pytest.raises(InvalidInputError, match="model_name cannot be set for 'fake', which is already loaded"):
        JinaLocalEmbedding("lite", embedder=ThreadedEmbedder(), device="cuda")


def test_unknown_setting_raises_validation_error():
    with pytest.raises(ValidationError, match="max_pixel"):
        JinaLocalEmbedding(max_pixel=3)


def test_embedding_serialization_round_trips():
    model = JinaLocalEmbedding("lite", max_length=64, embed_batch_size=4)
    vector = model.get_text_embedding("Sales grew.")
    settings_dict = model.to_dict()
    assert "embedder" not in str(settings_dict)
    json.dumps(settings_dict)
    for restored in (
        JinaLocalEmbedding.from_dict(settings_dict),
        JinaLocalEmbedding.from_json(model.to_json()),
        pickle.loads(pickle.dumps(model)),
        JinaLocalEmbedding(**{k: v for k, v in json.loads(model.model_dump_json()).items() if k != "class_name"}),
        model.model_copy(deep=True),
    ):
        assert (restored.model_name, restored.max_length, restored.embed_batch_size) == ("lite", 64, 4)
        assert restored.get_text_embedding("Sales grew.") == vector


def test_pickle_excludes_weights(model):
    class Unpicklable(ThreadedEmbedder):
        def __reduce__(self):
            raise AssertionError("weights must not be pickled")

    model = JinaLocalEmbedding(embedder=Unpicklable(name="lite"))
    restored = pickle.loads(pickle.dumps(model))
    assert restored.model_name == "lite"
    assert restored._lazy_model.external is None
    assert isinstance(model.embedder, Unpicklable)


def test_vision_model_reads_images_and_texts(page):
    step = JinaPageEmbedding(embedder=VisionEmbedder())
    nodes = [page_node(page), TextNode(text="words"), ImageNode(image_path=str(page))]
    assert step(nodes) is nodes
    documents = step.embed_model.embedder.last_documents
    assert isinstance(documents[0], jina_rag.Page)
    assert documents[0].text == "growth by region"
    assert documents[1] == {"text": "words"}
    assert documents[2] == {"image": page}
    assert all(len(node.embedding) == 128 for node in nodes)


def test_text_model_gets_stored_text(page, tmp_path):
    image_file = tmp_path / "other.jpg"
    image_file.write_bytes(page.read_bytes())
    assert model_input(ImageNode(text="known", image_path=str(image_file)), "text") == {"text": "known"}
    assert model_input(ImageNode(text="known", image_path=str(image_file)), "image") == {"image": image_file}
    assert model_input(ImageNode(image_path=str(image_file)), "text") == {"image": image_file}
    assert model_input(page_node(page), "text").words[0].text == "growth"


def test_node_image_supports_every_form(page):
    import base64

    data = page.read_bytes()
    base64_text = base64.b64encode(data).decode()
    by_path = [
        ImageNode(image_path=str(page)),
        ImageDocument(image_path=str(page)),
        Node(image_resource=MediaResource(path=page)),
    ]
    assert [node_image(node) for node in by_path] == [page] * 3
    assert [node_image(node) for node in (ImageNode(image=base64_text), ImageDocument(image=base64_text))] == [
        data,
        data,
    ]
    assert node_image(ImageNode(image_url="https://x.org/a.png")) == "https://x.org/a.png"
    assert [node_image(node) for node in (TextNode(text="a"), Document(text="a"), ImageNode(text="a"))] == [None] * 3
    assert index_input(ImageNode(image=base64_text)) == {"image": data}
    with pytest.raises(InvalidInputError, match="is not valid base64"):
        node_image(ImageNode(image="%%%"))
    with pytest.raises(InvalidInputError, match="URLs are not fetched"):
        model_input(ImageNode(image_url="https://x.org/a.png"), "image")


async def test_acall_equals_call_and_encodes_in_thread(page):
    def make_nodes():
        return [page_node(page, id_="a"), TextNode(text="words", id_="b"), TextNode(text="more", id_="c")]

    step = JinaPageEmbedding(embedder=ThreadedEmbedder(), batch_size=2)
    expected = step(make_nodes())
    step.embed_model.embedder.threads.clear()
    assert await step.acall(make_nodes()) == expected
    assert [len(items) for _, items in step.embed_model.embedder.history] == [2, 1] * 2
    assert threading.get_ident() not in step.embed_model.embedder.threads


def test_page_embedding_dispatches_events(page):
    callbacks = Callbacks()
    model = JinaLocalEmbedding(embedder=VisionEmbedder(), callback_manager=callbacks.manager)
    with record_events() as event_recorder:
        nodes = JinaPageEmbedding(embed_model=model)([page_node(page), TextNode(text="words")])
    end = event_recorder.events[-1]
    assert event_recorder.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"]
    assert end.chunks == [str(page), "words"]
    assert end.embeddings == [node.embedding for node in nodes] == callbacks.ended[0][1][EventPayload.EMBEDDINGS]


def test_page_embedding_caches_vectors_by_content(page):
    step = JinaPageEmbedding(embedder=ThreadedEmbedder())
    node, text, unsaved_image = page_node(page), TextNode(text="words"), ImageNode(image_path=str(page))
    step([node, text, unsaved_image])
    assert cache_key(unsaved_image) is None
    assert len(VECTOR_CACHE) == 2
    same_content = page_node(page, metadata={IMAGE_HASH: page.stem, "year": 3})
    cached_embeddings = VECTOR_CACHE.get((step.embed_model.embedder.fingerprint, cache_key(same_content)))
    assert cached_embeddings.multi[0].shape == (3, 64)
    assert cached_embeddings.grids[0].kind == "words"
    assert VECTOR_CACHE.get(("another model", cache_key(node))) is None
    assert cache_key(page_node(page, text="other words")) != cache_key(node)
    assert cache_key(TextNode(text="words", metadata={"a": 1})) != cache_key(text)


def test_keep_bytes_zero_caches_nothing(page):
    step = JinaPageEmbedding(embedder=ThreadedEmbedder(), keep_bytes=0)
    step([page_node(page)])
    assert len(VECTOR_CACHE) == 0


def test_vector_cache_evicts_least_recently_used():
    def constant_embeddings(value):
        return Embeddings(single=np.full((1, 4), value, np.float32), multi=[np.full((2, 4), value, np.float32)])

    cache = VectorCache(max_bytes=100)  # room for two entries of 48 bytes
    for i in range(3):
        cache.put(("m", str(i)), constant_embeddings(i))
    assert [cache.get(("m", str(i))) is not None for i in range(3)] == [False, True, True]
    assert cache.bytes == 96
    cache.get(("m", "1"))
    cache.put(("m", "3"), constant_embeddings(3))  # evicts entry 2, the least recently used entry
    assert [cache.get(("m", str(i))) is not None for i in (1, 2, 3)] == [True, False, True]
    cache.put(("m", "1"), constant_embeddings(9))
    assert len(cache) == 2
    cache.put(("m", "large"), Embeddings(single=np.zeros((1, 99), np.float32), multi=[]))
    assert cache.get(("m", "large")) is None
    assert len(cache) == 2
    cache.drop(("m", "1"))
    cache.drop(("m", "1"))
    assert cache.bytes == 48


def test_concatenate_truncates_and_normalizes():
    embeddings = Embeddings(single=np.array([[3, 4, 12]], np.float32) / 13, multi=[np.ones((2, 4), np.float32)])
    concatenated = concatenate([embeddings, embeddings], 2)
    assert np.allclose(concatenated.single, [[0.6, 0.8]] * 2)
    assert len(concatenated.multi) == 2
    assert concatenated.grids == [None, None]


def test_page_embedding_serialization_round_trips():
    step = JinaPageEmbedding("lite", max_length=32, batch_size=3, keep_bytes=5)
    for restored in (
        JinaPageEmbedding.from_dict(step.to_dict()),
        JinaPageEmbedding.from_json(step.to_json()),
        pickle.loads(pickle.dumps(step)),
    ):
        assert (restored.embed_model.model_name, restored.embed_model.max_length) == ("lite", 32)
        assert (restored.batch_size, restored.keep_bytes) == (3, 5)
    assert step.to_dict()["embed_model"]["class_name"] == "JinaLocalEmbedding"


def test_embed_model_rejects_other_settings(model):
    with pytest.raises(InvalidInputError, match="embed_model cannot be combined"):
        JinaPageEmbedding("lite", embed_model=model)


def test_concurrent_async_calls_equal_sync(model):
    async def gather_embeddings():
        return await asyncio.gather(*(model.aget_text_embedding(f"text {i}") for i in range(20)))

    assert asyncio.run(gather_embeddings()) == [model.get_text_embedding(f"text {i}") for i in range(20)]


def test_empty_name_raises_and_copy_loads_its_model(monkeypatch):
    with pytest.raises(ValidationError, match="model_name is empty"):
        JinaLocalEmbedding("")
    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", lambda name, **options: ThreadedEmbedder(name=name))
    model = JinaLocalEmbedding("a")
    assert model.embedder.name == "a"
    assert model.model_copy(update={"model_name": "b"}).embedder.name == "b"
    assert model.embedder.name == "a"
