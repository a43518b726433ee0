"""A judged folder as an mteb retrieval task whose corpus is the folder's pages, as images, texts or both.

The task converts grades to gains (grade 2 to gain 3, grade 1 to gain 1), so mteb and ``jina-rag evaluate`` compute the
same nDCG. Recall and reciprocal rank differ, because mteb counts every page with a gain as relevant, but
``jina-rag evaluate`` counts only pages of grade 2 as relevant.
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
    """An mteb task for a judged folder (see `jina_rag.evaluation.datasets`).

    Each row of the corpus is one page with the columns ``id`` (see `page_id`), ``path`` (path of the document) and
    ``page`` (1-based page number). `JinaRagSearch` ingests the documents at the paths. The task's name ends with a hash
    of the data, so results of a changed folder are stored under another name.

    Attributes:
        folder: The judged folder.
        metadata: The task's mteb metadata.
        data_loaded: True after `load_data`.
    """

    data_loaded: bool

    def __init__(self, folder: str | Path | JudgedFolder, work: str | Path, *, content: Content = "image") -> None:
        """Read the relevance judgments; `load_data` renders the pages.

        Args:
            folder: The judged folder, or its path.
            work: Folder for the page images, which are as confidential as the documents.
            content: Page content that the model reads: ``"image"``, ``"text"`` or ``"both"``. The text is extracted as
                in `DocumentIndex.ingest`.

        Raises:
            InvalidInputError: If `content` is invalid, or the folder is not a valid judged folder.
        """
        if content not in _CATEGORY:
            raise InvalidInputError(f"content is {content!r}; expected one of image, text, both.")
        self.folder = folder if isinstance(folder, JudgedFolder) else read_folder(Path(folder))
        self._work, self._content = Path(work), content
        self._hashes = {doc: file_hash(path) for doc, path in self.folder.documents.items()}
        revision = data_hash(self.folder)
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.folder.root.resolve().name).strip("-")
        self.metadata = TaskMetadata(
            name=f"Folder-{slug or 'judged'}-{revision[:8]}",
            description="A judged folder of documents, one page per corpus row. Gains: 3 relevant, 1 partly relevant.",
            dataset={"path": slug or "judged", "revision": revision},
            type="DocumentUnderstanding" if content != "text" else "Retrieval",
            category=_CATEGORY[content],
            modalities=_MODALITIES[content],
            eval_splits=[SPLIT],
            eval_langs=["mul-Zyyy"],  # multiple or unknown languages
            main_score="ndcg_at_5",
        )
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401  # mteb's
        """Render the pages and build the dataset of corpus, queries and relevance judgments.

        Args:
            num_proc: Ignored.
            kwargs: Ignored.

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
        if self._content != "text":  # images are decoded on access
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
        """Release the data and keep the task's metadata, which mteb's implementation would reset."""
        self.dataset = None
        self.data_loaded = False


def page_id(key: PageKey) -> str:
    """Return the id of a page in the corpus, ``document/page``."""
    return f"{key[0]}/{key[1]}"
