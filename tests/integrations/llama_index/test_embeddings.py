"""`JinaLocalEmbedding` and `JinaPageEmbedding`: vectors, events, threads, and what is left when they are put away."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import threading

import numpy as np
import pytest
from helpers.llama_index_fakes import Callbacks, ThreadedEmbedder, recorded
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.schema import Document, ImageDocument, ImageNode, MediaResource, Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.jina_rag import JinaLocalEmbedding, JinaPageEmbedding
from llama_index.embeddings.jina_rag.node_inputs import IMAGE_HASH, add_input_of, cache_key_of, image_of, input_of
from llama_index.embeddings.jina_rag.vector_cache import VECTOR_CACHE, VectorCache, concatenate
from pydantic import ValidationError

import jina_rag
from jina_rag import Embeddings, InvalidInputError, save_page
from jina_rag.testing import make_page


class Sighted(ThreadedEmbedder):
    """Sees something in every picture: the same for the same bytes."""

    modality = "image"

    def encode_document(self, documents, **options):
        self.seen = list(documents)
        inputs = [f"{item['image']}" if isinstance(item, dict) and "image" in item else item for item in documents]
        return super().encode_document(inputs, **options)


@pytest.fixture
def model():
    return JinaLocalEmbedding(embedder=ThreadedEmbedder())


@pytest.fixture(autouse=True)
def _nothing_kept():
    VECTOR_CACHE.clear()
    yield
    VECTOR_CACHE.clear()
    assert VECTOR_CACHE.bytes == 0


@pytest.fixture
def page(tmp_path):
    return save_page(make_page("growth by region", doc_id="report.pdf"), tmp_path / "pages")


def page_node(path, text="growth by region", **fields):
    return ImageNode(text=text, image_path=str(path), **{"metadata": {IMAGE_HASH: path.stem}, **fields})


# -- one vector ------------------------------------------------------------------------------------------------


def test_a_question_is_embedded_as_a_question_and_a_text_as_a_document(model):
    model.get_query_embedding("sales")
    model.get_text_embedding("sales")
    kinds = [kind for kind, _ in model.embedder.history]
    assert kinds == ["query", "document"]


def test_texts_go_through_the_model_in_batches(model):
    model.embed_batch_size = 3
    vectors = model.get_text_embedding_batch([f"text {i}" for i in range(7)])
    assert [len(items) for _, items in model.embedder.history] == [3, 3, 1]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert all(isinstance(number, float) for number in vectors[0])


async def test_coroutines_give_the_same_and_encode_elsewhere(model, page):
    texts = ["one", "two", "three"]
    images = [str(page), io.BytesIO(page.read_bytes())]
    sync = (
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
    assert vectors == sync
    assert model.embedder.threads
    assert threading.get_ident() not in model.embedder.threads


def test_images_go_through_the_model_in_batches_as_images(page):
    model = JinaLocalEmbedding(embedder=Sighted(), embed_batch_size=2)
    vectors = model.get_image_embedding_batch([str(page)] * 3)
    assert [len(items) for _, items in model.embedder.history] == [2, 1]
    assert vectors[0] == vectors[2]
    assert model.embedder.seen == [{"image": page}]
    model.get_image_embedding(io.BytesIO(b"bytes of a file"))
    assert model.embedder.seen == [{"image": b"bytes of a file"}]
    model.get_image_embedding("https://example.org/page.png")
    assert model.embedder.seen == [{"image": "https://example.org/page.png"}]


@pytest.mark.parametrize("batch", [False, True])
async def test_events_and_callbacks_tell_of_images_too(page, batch):
    callbacks = Callbacks()
    model = JinaLocalEmbedding(embedder=Sighted(), callback_manager=callbacks.manager)
    image = str(page)
    with recorded() as heard:
        if batch:
            vectors = model.get_image_embedding_batch([image, image])
            assert await model.aget_image_embedding_batch([image, image]) == vectors
        else:
            vectors = [model.get_image_embedding(image)]
            assert [await model.aget_image_embedding(image)] == vectors
    ours = [event for event in heard.events if event.class_name().startswith("Embedding")]
    assert [event.class_name() for event in ours] == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * 2
    assert ours[0].model_dict == {"class_name": "JinaLocalEmbedding", "model_name": "fake", "embed_batch_size": 10}
    for end in ours[1::2]:
        assert end.embeddings == vectors
        assert end.chunks == [image] * len(vectors)
    assert [kind for kind, _ in callbacks.ended] == [CBEventType.EMBEDDING] * 2
    assert callbacks.ended[0][1][EventPayload.EMBEDDINGS] == vectors


def test_events_tell_of_texts_once(model):
    with recorded() as heard:
        model.get_text_embedding("sales")
    assert heard.names().count("EmbeddingEndEvent") == 1


def test_a_cache_that_takes_questions_for_passages_is_refused(model):
    with pytest.raises(InvalidInputError, match="embeddings_cache keeps vectors by their text alone"):
        JinaLocalEmbedding(embedder=ThreadedEmbedder(), embeddings_cache=SimpleKVStore())
    with pytest.raises(InvalidInputError, match="embeddings_cache"):
        model.embeddings_cache = SimpleKVStore()
    model.embeddings_cache = None


def test_limits_reach_a_model_that_was_loaded_by_hand():
    model = JinaLocalEmbedding(embedder=ThreadedEmbedder(), truncate_dim=16, max_length=1)
    assert len(model.get_text_embedding("sales grew")) == 16
    assert model.get_text_embedding("sales grew") == model.get_text_embedding("sales fell")
    assert len(model.get_query_embedding("sales")) == 16


def test_settings_reach_the_model_that_is_loaded(monkeypatch):
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


def test_a_loaded_model_answers_while_another_one_loads(monkeypatch):
    loading, go_on, names = threading.Event(), threading.Event(), []

    def load(name, **settings):
        if name == "slow":
            loading.set()
            assert go_on.wait(30)
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
        go_on.set()
        threads[0].join(30)


def test_what_concerns_loading_does_not_go_with_a_loaded_model():
    with pytest.raises(InvalidInputError, match="model_name applies only to loading a model; 'fake' is loaded"):
        JinaLocalEmbedding("lite", embedder=ThreadedEmbedder(), device="cuda")


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValidationError, match="max_pixel"):
        JinaLocalEmbedding(max_pixel=3)


def test_it_is_put_away_as_settings_and_comes_back_whole():
    model = JinaLocalEmbedding("lite", max_length=64, embed_batch_size=4)
    vector = model.get_text_embedding("Sales grew.")
    told = model.to_dict()
    assert "embedder" not in str(told)
    json.dumps(told)
    for again in (
        JinaLocalEmbedding.from_dict(told),
        JinaLocalEmbedding.from_json(model.to_json()),
        pickle.loads(pickle.dumps(model)),
        JinaLocalEmbedding(**{k: v for k, v in json.loads(model.model_dump_json()).items() if k != "class_name"}),
        model.model_copy(deep=True),
    ):
        assert (again.model_name, again.max_length, again.embed_batch_size) == ("lite", 64, 4)
        assert again.get_text_embedding("Sales grew.") == vector


def test_no_weights_are_pickled_and_the_model_stays_where_it_is(model):
    class Unpicklable(ThreadedEmbedder):
        def __reduce__(self):
            raise AssertionError("weights are not pickled")

    model = JinaLocalEmbedding(embedder=Unpicklable(name="lite"))
    again = pickle.loads(pickle.dumps(model))
    assert again.model_name == "lite"
    assert again._lazy_model.external is None
    assert isinstance(model.embedder, Unpicklable)


# -- pages in a pipeline ---------------------------------------------------------------------------------------


def test_pictures_are_looked_at_and_texts_are_read(page):
    step = JinaPageEmbedding(embedder=Sighted())
    nodes = [page_node(page), TextNode(text="words"), ImageNode(image_path=str(page))]
    assert step(nodes) is nodes
    seen = step.embed_model.embedder.seen
    assert isinstance(seen[0], jina_rag.Page)
    assert seen[0].text == "growth by region"
    assert seen[1] == {"text": "words"}
    assert seen[2] == {"image": page}
    assert all(len(node.embedding) == 128 for node in nodes)


def test_one_that_reads_words_gets_those_that_are_known(page, tmp_path):
    other = tmp_path / "other.jpg"
    other.write_bytes(page.read_bytes())
    assert input_of(ImageNode(text="known", image_path=str(other)), "text") == {"text": "known"}
    assert input_of(ImageNode(text="known", image_path=str(other)), "image") == {"image": other}
    assert input_of(ImageNode(image_path=str(other)), "text") == {"image": other}
    assert input_of(page_node(page), "text").words[0].text == "growth"


def test_every_way_in_which_a_node_carries_a_picture(page):
    import base64

    data = page.read_bytes()
    code = base64.b64encode(data).decode()
    by_path = [
        ImageNode(image_path=str(page)),
        ImageDocument(image_path=str(page)),
        Node(image_resource=MediaResource(path=page)),
    ]
    assert [image_of(node) for node in by_path] == [page] * 3
    assert [image_of(node) for node in (ImageNode(image=code), ImageDocument(image=code))] == [data, data]
    assert image_of(ImageNode(image_url="https://x.org/a.png")) == "https://x.org/a.png"
    assert [image_of(node) for node in (TextNode(text="a"), Document(text="a"), ImageNode(text="a"))] == [None] * 3
    assert add_input_of(ImageNode(image=code)) == {"image": data}
    with pytest.raises(InvalidInputError, match="is no base64"):
        image_of(ImageNode(image="%%%"))
    with pytest.raises(InvalidInputError, match="addresses are not followed"):
        input_of(ImageNode(image_url="https://x.org/a.png"), "image")


async def test_a_pipeline_step_works_elsewhere_and_gives_the_same(page):
    def made():
        return [page_node(page, id_="a"), TextNode(text="words", id_="b"), TextNode(text="more", id_="c")]

    step = JinaPageEmbedding(embedder=ThreadedEmbedder(), batch_size=2)
    sync = step(made())
    step.embed_model.embedder.threads.clear()
    assert await step.acall(made()) == sync
    assert [len(items) for _, items in step.embed_model.embedder.history] == [2, 1] * 2
    assert threading.get_ident() not in step.embed_model.embedder.threads


def test_a_step_tells_of_pictures(page):
    callbacks = Callbacks()
    model = JinaLocalEmbedding(embedder=Sighted(), callback_manager=callbacks.manager)
    with recorded() as heard:
        nodes = JinaPageEmbedding(embed_model=model)([page_node(page), TextNode(text="words")])
    end = heard.events[-1]
    assert heard.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"]
    assert end.chunks == [str(page), "words"]
    assert end.embeddings == [node.embedding for node in nodes] == callbacks.ended[0][1][EventPayload.EMBEDDINGS]


def test_what_was_embedded_waits_for_the_store_by_its_content(page):
    step = JinaPageEmbedding(embedder=ThreadedEmbedder())
    node, text, foreign = page_node(page), TextNode(text="words"), ImageNode(image_path=str(page))
    step([node, text, foreign])
    assert cache_key_of(foreign) is None
    assert len(VECTOR_CACHE) == 2
    same = page_node(page, metadata={IMAGE_HASH: page.stem, "year": 3})
    kept = VECTOR_CACHE.get((step.embed_model.embedder.fingerprint, cache_key_of(same)))
    assert kept.multi[0].shape == (3, 64)
    assert kept.grids[0].kind == "words"
    assert VECTOR_CACHE.get(("another model", cache_key_of(node))) is None
    assert cache_key_of(page_node(page, text="other words")) != cache_key_of(node)
    assert cache_key_of(TextNode(text="words", metadata={"a": 1})) != cache_key_of(text)


def test_nothing_waits_where_nothing_should(page):
    step = JinaPageEmbedding(embedder=ThreadedEmbedder(), keep_bytes=0)
    step([page_node(page)])
    assert len(VECTOR_CACHE) == 0


def test_the_room_for_waiting_vectors_is_bounded_and_the_oldest_go():
    def of(value):
        return Embeddings(single=np.full((1, 4), value, np.float32), multi=[np.full((2, 4), value, np.float32)])

    recent = VectorCache(max_bytes=100)  # two of 48 bytes
    for i in range(3):
        recent.put(("m", str(i)), of(i))
    assert [recent.get(("m", str(i))) is not None for i in range(3)] == [False, True, True]
    assert recent.bytes == 96
    recent.get(("m", "1"))
    recent.put(("m", "3"), of(3))  # 2 was looked at longer ago than 1
    assert [recent.get(("m", str(i))) is not None for i in (1, 2, 3)] == [True, False, True]
    recent.put(("m", "1"), of(9))
    assert len(recent) == 2
    recent.put(("m", "large"), Embeddings(single=np.zeros((1, 99), np.float32), multi=[]))
    assert recent.get(("m", "large")) is None
    assert len(recent) == 2
    recent.drop(("m", "1"))
    recent.drop(("m", "1"))
    assert recent.bytes == 48


def test_vectors_are_cut_to_what_the_index_keeps():
    one = Embeddings(single=np.array([[3, 4, 12]], np.float32) / 13, multi=[np.ones((2, 4), np.float32)])
    both = concatenate([one, one], 2)
    assert np.allclose(both.single, [[0.6, 0.8]] * 2)
    assert len(both.multi) == 2
    assert both.grids == [None, None]


def test_a_step_is_put_away_as_settings_and_comes_back_whole():
    step = JinaPageEmbedding("lite", max_length=32, batch_size=3, keep_bytes=5)
    for again in (
        JinaPageEmbedding.from_dict(step.to_dict()),
        JinaPageEmbedding.from_json(step.to_json()),
        pickle.loads(pickle.dumps(step)),
    ):
        assert (again.embed_model.model_name, again.embed_model.max_length) == ("lite", 32)
        assert (again.batch_size, again.keep_bytes) == (3, 5)
    assert step.to_dict()["embed_model"]["class_name"] == "JinaLocalEmbedding"


def test_a_whole_model_takes_no_settings_beside_it(model):
    with pytest.raises(InvalidInputError, match="embed_model is complete"):
        JinaPageEmbedding("lite", embed_model=model)


def test_many_at_once_do_not_disturb_each_other(model):
    async def all_of_them():
        return await asyncio.gather(*(model.aget_text_embedding(f"text {i}") for i in range(20)))

    assert asyncio.run(all_of_them()) == [model.get_text_embedding(f"text {i}") for i in range(20)]


def test_an_empty_name_is_refused_and_a_copy_has_its_own_model(monkeypatch):
    with pytest.raises(ValidationError, match="model_name is empty"):
        JinaLocalEmbedding("")
    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", lambda name, **options: ThreadedEmbedder(name=name))
    model = JinaLocalEmbedding("a")
    assert model.embedder.name == "a"
    assert model.model_copy(update={"model_name": "b"}).embedder.name == "b"
    assert model.embedder.name == "a"
