"""JinaLocalEmbeddings: vectors as Python floats, image forms, model loading, serialization and async use."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import threading
import time

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from helpers.langchain_fakes import ThreadedEmbedder, no_network
from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps, loads
from langchain_jina_rag import JinaLocalEmbeddings, JinaPageRetriever
from PIL import Image
from pydantic import BaseModel, ValidationError

from jina_rag import InvalidInputError, load_embedder
from jina_rag.testing import FakeEmbedder, make_page


@pytest.fixture(autouse=True)
def block_network():
    with no_network():
        yield


@pytest.fixture(scope="module")
def lite_embedder():
    return load_embedder("lite")


def test_vectors_equal_model_output_as_python_floats(lite_embedder):
    embeddings = JinaLocalEmbeddings()
    texts = ["Growth by region", "A list of authors"]
    vectors = embeddings.embed_documents(texts)
    assert isinstance(embeddings, BaseModel)
    assert isinstance(embeddings, Embeddings)
    assert all(type(number) is float for vector in vectors for number in vector)
    np.testing.assert_allclose(vectors, lite_embedder.encode_document(texts, multi=False).single, atol=1e-6)
    query = embeddings.embed_query("Which region grew?")
    np.testing.assert_allclose(query, lite_embedder.encode_query(["Which region grew?"]).single[0], atol=1e-6)
    assert np.dot(vectors, query).argmax() == 0
    assert embeddings.embed_documents([]) == []


def test_queries_and_documents_use_separate_encoders():
    embedder = FakeEmbedder()
    embeddings = JinaLocalEmbeddings(model=embedder)
    embeddings.embed_query("a")
    embeddings.embed_documents(["b", "c"])
    assert embedder.history == [("query", ("a",)), ("document", ("b", "c"))]


def test_embed_images_accepts_every_image_form(lite_embedder, tmp_path):
    text_image = make_page("growth by region", size=(60, 60)).screenshot.image
    image = Image.new("RGB", (500, 120), "white")
    image.paste(text_image, (0, 0))
    file = tmp_path / "chart.png"
    image.save(file)
    data = file.read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    embeddings = JinaLocalEmbeddings(model=lite_embedder)
    vectors = embeddings.embed_images([str(file), file, data, image, uri])
    assert np.shape(vectors) == (5, lite_embedder.dim)
    np.testing.assert_allclose(vectors, [vectors[0]] * 5)
    assert all(type(number) is float for number in vectors[0])


def test_image_text_matches_query(lite_embedder, tmp_path):
    from PIL import ImageDraw, ImageFont

    images = []
    for text in ("whales sing in the sea", "tax report of the year"):
        image = Image.new("RGB", (700, 90), "white")
        ImageDraw.Draw(image).text((10, 10), text, fill="black", font=ImageFont.load_default(48))
        images.append(image)
    embeddings = JinaLocalEmbeddings(model=lite_embedder)
    scores = np.dot(embeddings.embed_images(images), embeddings.embed_query("Which animals sing?"))
    assert scores.argmax() == 0


def test_invalid_images_raise_invalid_input_error(tmp_path):
    embeddings = JinaLocalEmbeddings(model=FakeEmbedder())
    with pytest.raises(InvalidInputError, match="images is a str; expected a list of images"):
        embeddings.embed_images("chart.png")
    with pytest.raises(InvalidInputError, match=r"URLs are not downloaded.*allow_urls=True"):
        JinaLocalEmbeddings(model=load_embedder("lite")).embed_images(["https://example.org/chart.png"])
    with pytest.raises(InvalidInputError, match="cannot be read"):
        JinaLocalEmbeddings(model=load_embedder("lite")).embed_images([tmp_path / "missing.png"])


def test_model_is_loaded_once_at_first_use(monkeypatch):
    load_calls = []

    def load(name, **options):
        load_calls.append((name, options))
        time.sleep(0.05)
        return FakeEmbedder()

    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", load)
    embeddings = JinaLocalEmbeddings(
        model="jinaai/jina-embeddings-v4",
        device="cuda",
        dtype="bfloat16",
        task="code",
        truncate_dim=64,
        max_pixels=1000,
        max_length=99,
        revision="main",
        local_files_only=True,
    )
    assert not load_calls
    threads = [threading.Thread(target=embeddings.embed_query, args=("whales",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load_calls == [
        (
            "jinaai/jina-embeddings-v4",
            {
                "device": "cuda",
                "dtype": "bfloat16",
                "task": "code",
                "truncate_dim": 64,
                "max_pixels": 1000,
                "max_length": 99,
                "revision": "main",
                "local_files_only": True,
                "allow_urls": False,
            },
        )
    ]
    assert len(embeddings.embed_query("whales")) == 64


def test_call_limits_apply_to_passed_model():
    embeddings = JinaLocalEmbeddings(model=FakeEmbedder(), truncate_dim=16, max_length=1)
    assert len(embeddings.embed_query("whales sing")) == 16
    assert embeddings.embed_query("whales sing") == embeddings.embed_query("whales")


def test_dump_repr_and_pickle_exclude_model():
    embedder = FakeEmbedder(name="lite")
    embedder.weights = np.zeros(50_000)
    embeddings = JinaLocalEmbeddings(model=embedder, max_length=8)
    embeddings.embed_query("whales")
    for text in (repr(embeddings), str(embeddings), embeddings.model_dump_json(), dumps(embeddings)):
        assert "FakeEmbedder" not in text
    assert repr(embeddings) == "JinaLocalEmbeddings(max_length=8)"
    assert embeddings.model_dump()["model"] == "lite"
    pickled = pickle.dumps(embeddings)
    assert len(pickled) < 1000
    assert b"Fake" not in pickled
    restored = pickle.loads(pickled)
    assert restored.model_dump() == embeddings.model_dump()
    assert restored.embedder is not embedder  # reloaded by name


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_serialization_round_trips():
    embeddings = JinaLocalEmbeddings(model="lite", max_length=64)
    assert JinaLocalEmbeddings(**embeddings.model_dump()) == embeddings
    assert JinaLocalEmbeddings.model_validate_json(embeddings.model_dump_json()) == embeddings
    assert pickle.loads(pickle.dumps(embeddings)) == embeddings
    assert JinaLocalEmbeddings.model_json_schema()["properties"]["max_length"]
    restored = loads(dumps(embeddings), valid_namespaces=["langchain_jina_rag"], allowed_objects=[JinaLocalEmbeddings])
    assert restored == embeddings
    assert JinaLocalEmbeddings(model="lite") != JinaLocalEmbeddings(model="lite-en")


def test_copies_share_model():
    embedder = FakeEmbedder()
    embeddings = JinaLocalEmbeddings(model=embedder)
    assert copy.deepcopy(embeddings).embedder is embedder
    assert embeddings.model_copy(update={"truncate_dim": 4}).embedder is embedder


def test_invalid_fields_raise_validation_error():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        JinaLocalEmbeddings(modle="lite")
    with pytest.raises(ValidationError, match="expected a model name, a folder or an embedder"):
        JinaLocalEmbeddings(model=3)
    with pytest.raises(ValidationError, match="device cannot be set for 'fake', which is already loaded"):
        JinaLocalEmbeddings(model=FakeEmbedder(), device="cuda")


async def test_async_methods_encode_in_threads():
    embedder = ThreadedEmbedder()
    embeddings = JinaLocalEmbeddings(model=embedder)
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "PNG")
    vector = await embeddings.aembed_query("whales")
    vectors = await embeddings.aembed_documents(["whales", "sing"])
    images = await embeddings.aembed_images([image.getvalue()])
    assert len(embedder.threads) >= 1
    assert threading.get_ident() not in embedder.threads
    assert vector == embeddings.embed_query("whales")
    assert vectors == embeddings.embed_documents(["whales", "sing"])
    assert images == embeddings.embed_images([image.getvalue()])


def test_passed_model_fingerprint_is_not_computed():
    class SlowFingerprintEmbedder(FakeEmbedder):
        @property
        def fingerprint(self):
            raise AssertionError("the fingerprint hashes gigabytes")

    assert JinaLocalEmbeddings(model=SlowFingerprintEmbedder()).model == "fake"
    assert JinaPageRetriever(index="kb", embedder=SlowFingerprintEmbedder()).embedder.model == "fake"
