"""A judged folder as a retrieval task of mteb: its pages are the corpus, as pictures, as texts, or as both.

Grades go in as gains, 2 → 3 and 1 → 1: nDCG is then the one of ``jina-rag evaluate``. mteb's recall and reciprocal rank
count every page with a gain, and so pages that answer in part, which `evaluate` does not: they differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

import datasets
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskRetrieval

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedFolder, PageKey, data_hash, read_folder
from jina_rag.evaluation.files import file_hash
from jina_rag.evaluation.mteb.folder_pages import folder_pages

Content: TypeAlias = Literal["image", "text", "both"]
_CATEGORY = {"image": "t2i", "text": "t2t", "both": "t2it"}
_MODALITIES = {"image": ["text", "image"], "text": ["text"], "both": ["text", "image"]}
SPLIT = "test"


class FolderTask(AbsTaskRetrieval):  # type: ignore[misc]  # mteb is not followed by the type checker
    """A task made at run time from a judged folder, see `jina_rag.evaluation.datasets`.

    Each document of its corpus has an ``id`` (`page_id`) and carries the ``path`` of its file and its 1-based ``page``,
    so that `JinaRagSearch` ingests the files themselves. Its name ends in a hash of the data: results of a folder that
    has changed are not taken for those of the new one.

    Attributes:
        folder: The judged folder.
        metadata: mteb's.
    """

    data_loaded: bool

    def __init__(self, folder: str | Path | JudgedFolder, work: str | Path, *, content: Content = "image") -> None:
        """Read the judgements; pages are rendered when the data are loaded.

        Args:
            folder: The judged folder, or its path.
            work: Where pictures of the pages are kept. They show what the documents hold.
            content: What models are given of a page: its picture, its words (read as `ingest` does), or both.

        Raises:
            InvalidInputError: If the folder is not what it should be.
        """
        if content not in _CATEGORY:
            raise InvalidInputError(f"content is {content!r}; it is 'image', 'text' or 'both'.")
        self.folder = folder if isinstance(folder, JudgedFolder) else read_folder(Path(folder))
        self._work, self._content = Path(work), content
        self._hashes = {doc: file_hash(path) for doc, path in self.folder.documents.items()}
        revision = data_hash(self.folder)
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.folder.root.resolve().name).strip("-")
        self.metadata = TaskMetadata(
            name=f"Folder-{slug or 'judged'}-{revision[:8]}",
            description="A judged folder of documents; a unit is one page. Gains: 3 answers the question, 1 in part.",
            dataset={"path": slug or "judged", "revision": revision},
            type="DocumentUnderstanding" if content != "text" else "Retrieval",
            category=_CATEGORY[content],
            modalities=_MODALITIES[content],
            eval_splits=[SPLIT],
            eval_langs=["mul-Zyyy"],  # several, or none that is known
            main_score="ndcg_at_5",
        )
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401  # mteb's
        """Render the pages and read the questions.

        Args:
            num_proc: Without effect.
            kwargs: Without effect.

        Raises:
            InvalidInputError: If no page can be read.
        """
        if self.data_loaded:
            return
        pages = folder_pages(self.folder.documents, self._hashes, self._work / "pages", words=self._content != "image")
        columns: dict[str, tuple[list[Any], Any]] = {
            "id": ([page_id(page.key) for page in pages], datasets.Value("string")),
            "path": ([str(page.path.resolve()) for page in pages], datasets.Value("string")),
            "page": ([page.key[1] for page in pages], datasets.Value("int64")),
        }
        if self._content != "text":  # opened when they are looked at
            columns["image"] = ([str(page.image) for page in pages], datasets.Image())
        if self._content != "image":
            columns["text"] = ([page.text for page in pages], datasets.Value("string"))
        features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
        corpus = datasets.Dataset.from_dict({name: rows for name, (rows, _) in columns.items()}, features=features)
        queries = [query for query in self.folder.queries if any(query.relevant.values())]
        self.dataset: dict[str, Any] | None = {
            "default": {
                SPLIT: {
                    "corpus": corpus,
                    "queries": datasets.Dataset.from_dict(
                        {"id": [query.query_id for query in queries], "text": [query.query for query in queries]}
                    ),
                    "relevant_docs": {
                        query.query_id: {
                            page_id(key): 2**grade - 1 for key, grade in query.relevant.items() if grade > 0
                        }
                        for query in queries
                    },
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True

    def unload_data(self) -> None:
        """Forget the data. What mteb does besides is to take the metadata back to its class's, which has none."""
        self.dataset = None
        self.data_loaded = False


def page_id(key: PageKey) -> str:
    """What a page is called in a task."""
    return f"{key[0]}/{key[1]}"
