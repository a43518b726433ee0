"""Program that ingests a folder with a slow fake embedder, to be killed by a test. Arguments: folder, index."""

import sys
import time

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.indexing import ingest
from jina_rag.testing import FakeEmbedder


class SlowEmbedder(FakeEmbedder):
    """Fake embedder that sleeps 10 ms per document, so that the process can be killed during ingestion."""

    def encode_document(self, documents, **options):
        time.sleep(0.01 * len(documents))
        return super().encode_document(documents, **options)


if __name__ == "__main__":
    ingest.CHECKPOINT_SECONDS = 0.1
    ingest.BATCH_PAGES = 3
    with DocumentIndex.open(sys.argv[2], embedder=SlowEmbedder()) as index:
        report = index.ingest(sys.argv[1], settings=IngestSettings(ocr="never", dpi=40))
    sys.exit(len(report.failed))
