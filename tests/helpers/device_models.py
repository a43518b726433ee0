"""Models that the tests of several devices load in processes: fakes that name their process, sleep, fail or end it."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import numpy as np

from jina_rag.errors import CheckpointError, ModelError
from jina_rag.testing import FakeEmbedder, FakeReranker
from jina_rag.types import Attribution, Embeddings


class ProcessEmbedder(FakeEmbedder):
    """A fake whose dense vectors are the number of the process, and which executes commands in texts.

    ``kill`` ends the process, ``kill once PATH`` ends it if the file does not exist yet, ``fatal once PATH`` raises an
    error of CUDA in this case, ``sleep PATH`` creates the file and waits for its deletion, ``warn`` logs a warning, and
    ``not finite`` fails like damaged weights. The command ends at `` | ``, and the rest of the text makes it long.
    """

    def _encode(self, inputs, settings):
        for text in (item for item in inputs if isinstance(item, str)):
            command, _, path = text.split(" | ")[0].rpartition(" ")
            if text.startswith("kill once") and not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            elif text.split(" | ")[0] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif command == "sleep":
                Path(path).touch()
                while Path(path).exists():
                    time.sleep(0.01)
            elif text.startswith("warn"):
                logging.getLogger("jina_rag").warning("Truncated a text.")
            elif text.startswith("fatal once") and not Path(path).exists():
                Path(path).touch()
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            elif text.startswith("not finite"):
                raise ModelError(f"The vectors are not finite in process {os.getpid()}.")
        return Embeddings(np.full((len(inputs), self.dim), os.getpid(), np.float32))


class PairReranker(FakeReranker):
    """A fake whose scores are the number of the process."""

    def score_pairs(self, pairs, *, raw=False):
        return np.full(len(pairs), os.getpid(), np.float32)

    def explain(self, query, document):
        return Attribution(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32), os.getpid())


class SettingsEmbedder(FakeEmbedder):
    """A fake that returns the settings and the working directory of its process as token texts."""

    def _encode(self, inputs, settings):
        texts = (os.environ["JINA_RAG_CPUS"], os.environ["OMP_NUM_THREADS"], os.getcwd())
        return Embeddings(tokens=[texts for _ in inputs])


def fail_to_load(message):
    raise CheckpointError(message)


def end_while_loading():
    os._exit(3)


def load_v4_on_small_device(folder, tokens):
    """Load jina-embeddings-v4 on a device that runs out of memory for batches of more than `tokens` tokens."""
    import torch

    from jina_rag import load_embedder

    embedder = load_embedder(folder, device="cpu", dtype="float32")
    hidden = embedder._model.hidden

    def limited(batch, *args, **kwargs):
        if batch.ids.size > tokens if isinstance(batch.ids, np.ndarray) else batch.ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(batch, *args, **kwargs)

    embedder._model.hidden = limited
    return embedder
