"""Device and devices of the models that an index loads by name."""

from __future__ import annotations

import gc
import os
import pickle
import time

import pytest

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder
from jina_rag.testing import sample_pdf

SETTINGS = IngestSettings(ocr="never")


@pytest.fixture
def pdf(tmp_path):
    return sample_pdf(tmp_path / "a.pdf", ["whales sing in the ocean " * 40, "the north grew fastest " * 60, "", "tea"])


def hits_of(index):
    return [(hit.page, round(hit.score, 5)) for hit in index.search("Which region grew fastest?", k=4)]


def have_ended(pids):
    def has_ended(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    end = time.monotonic() + 60
    while time.monotonic() < end and not all(map(has_ended, pids)):
        gc.collect()
        time.sleep(0.02)
    return all(map(has_ended, pids))


def test_index_on_two_devices_equals_one_and_close_ends_the_processes(pdf, tmp_path):
    with DocumentIndex.open(tmp_path / "one", embedder="lite-en") as index:
        index.ingest(pdf, settings=SETTINGS)
        expected = hits_of(index)
    with DocumentIndex.open(tmp_path / "two", embedder="lite-en", device=["cpu", "cpu"], reranker="lite-en") as index:
        assert index.ingest(pdf, settings=SETTINGS).pages == 4
        assert isinstance(index.embedder, MultiDeviceEmbedder)
        assert index.embedder.devices == ("cpu", "cpu")
        pids = index.embedder.process_ids
        assert hits_of(index)
        assert index.info().embedder == "lite-en"
    assert have_ended(pids)
    with DocumentIndex.open(tmp_path / "two") as index:
        assert not isinstance(index.embedder, MultiDeviceEmbedder)
        assert hits_of(index) == expected


def test_recorded_model_is_loaded_on_the_devices(tmp_path):
    DocumentIndex.open(tmp_path / "kb", embedder="lite-en").close()
    with DocumentIndex.open(tmp_path / "kb", device="cpu,cpu") as index:
        assert isinstance(index.embedder, MultiDeviceEmbedder)
        # An instance without a device shares the vector store, and loads the model in this process.
        with DocumentIndex.open(tmp_path / "kb") as other:
            assert not isinstance(other.embedder, MultiDeviceEmbedder)


def test_pickle_keeps_the_devices(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder="lite-en", device=["cpu", "cpu"]) as index:
        index.add(["rain in the north"], ids=["a"])
        with pickle.loads(pickle.dumps(index)) as other:
            assert other.embedder.devices == ("cpu", "cpu")
            assert [hit.doc_id for hit in other.search("rain")] == ["a"]


@pytest.mark.parametrize("device", [[], [1], "cuda:0", ["cuda:0", "cuda:1"], "auto,cpu"])
def test_invalid_device_raises_before_the_index_is_created(tmp_path, device):
    with pytest.raises(InvalidInputError, match="device is"):
        DocumentIndex.open(tmp_path / "kb", embedder="lite-en", device=device)
    assert not (tmp_path / "kb" / "vectors").exists()
