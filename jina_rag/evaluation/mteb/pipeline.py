"""An mteb search model that runs the search pipeline of jina_rag over an index of the corpus.

The pipeline consists of candidate retrieval, late interaction and an optional reranker.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mteb.types import PromptType

from jina_rag._display import displayed
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.pairs import batches
from jina_rag.evaluation.mteb.cache import key_of
from jina_rag.evaluation.mteb.contents import is_blank, one_input, text_of_document, text_of_query
from jina_rag.evaluation.mteb.loading import EmbedderSource, RerankerSource
from jina_rag.evaluation.mteb.model_meta import model_meta
from jina_rag.evaluation.mteb.settings import ModelOptions
from jina_rag.index.document_index import DocumentIndex
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.stages import Stage

_log = logging.getLogger("jina_rag")
_DOCUMENT_BATCH = 64
"""Documents per call of `DocumentIndex.add`."""
_QUERY_BATCH = 16
DEPTH = 100
"""Default length of a ranking in documents. mteb's recall at 1,000 is also computed over rankings of this length."""


class JinaRagSearch:
    """An mteb search model (`SearchProtocol`) over a `DocumentIndex`.

    The model adds a corpus of texts and images with `DocumentIndex.add`. If the rows of the corpus have the columns
    ``path`` and ``page`` (`FolderTask`), the model ingests the files with `DocumentIndex.ingest`. A run that was killed
    while indexing resumes with the existing index.

    Attributes:
        mteb_model_meta: Model name, revision and options under which mteb stores results.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | Embedder | EmbedderSource = "lite",
        *,
        reranker: str | os.PathLike[str] | Reranker | RerankerSource | None = None,
        storage: str | Storage | None = None,
        stages: Sequence[Stage] = (),
        options: ModelOptions | None = None,
        depth: int = DEPTH,
        keep: bool = False,
    ) -> None:
        """Resolve the models; weights are loaded by `index`.

        Args:
            folder: Folder of the indexes, one index per corpus.
            model: An embedder, or a model name or folder for `jina_rag.load_embedder`.
            reranker: A reranker, or a model name or folder for `jina_rag.load_reranker`; None for no reranking.
            storage: Vector storage of the indexes, see `DocumentIndex.open`; None for the default.
            stages: Search stages; empty for the default stages.
            options: Loading options of both models; None for the defaults.
            depth: Maximum documents per ranking.
            keep: Keep the index after all queries have been searched; False deletes the index.

        Raises:
            ModelNotFoundError: If a model does not exist.
            InvalidInputError: If `depth` is below 1.
        """
        if depth < 1:
            raise InvalidInputError(f"depth is {depth}; expected at least 1 document.")
        self._root, self._storage, self._stages = Path(folder), storage, tuple(stages)
        self._depth, self._keep = depth, keep
        options = options or ModelOptions()
        self._source = model if isinstance(model, EmbedderSource) else EmbedderSource(model, options)
        if reranker is not None and not isinstance(reranker, RerankerSource):
            # options.revision is a revision of the embedder, so the reranker uses the default revision.
            reranker = RerankerSource(reranker, replace(options, revision=None))
        self._reranker = reranker
        self._setting: dict[str, str | int] = {
            "storage": str(storage or "exact"),
            **({"stages": key_of(*map(repr, stages)).hex()[:8]} if stages else {}),
            **({} if reranker is None else {"reranker": f"{reranker.identity.name}@{reranker.identity.revision[:8]}"}),
            **self._source.options.changed(),
        }
        self.mteb_model_meta: Any = model_meta(
            self._source.identity,
            "late-interaction",
            modalities=["text", "image"],
            experiment={"search": "whole", **self._setting},
        )
        self._index: DocumentIndex | None = None
        self._names: dict[tuple[str, int], str] = {}
        self._numbers: Mapping[str, int] = {}

    def index(
        self,
        corpus: Any,  # noqa: ANN401  # datasets.Dataset
        *,
        task_metadata: Any,  # noqa: ANN401  # mteb.TaskMetadata
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Index a corpus for the following call of `search`.

        Args:
            corpus: A dataset with the column ``id``. The other columns are ``text`` (with an optional ``title``),
                ``image`` or both, or else ``path`` and ``page``.
            task_metadata: Metadata of the task.
            hf_split: Name of the split; each combination of split and subset has a separate index.
            hf_subset: Name of the subset.
            encode_kwargs: Ignored.
            num_proc: Ignored.
            kwargs: Ignored.

        Raises:
            IndexStateError: If the index cannot be written.
        """
        self._release()
        self._index = DocumentIndex.open(
            self._location(task_metadata, hf_split, hf_subset),
            embedder=self._source.load("retrieval"),
            reranker=None if self._reranker is None else self._reranker.load(),
            storage=self._storage,
        )
        if {"path", "page"} <= set(corpus.column_names):
            self._ingest(self._index, corpus)
        else:
            self._add(self._index, corpus, task_metadata)

    def search(
        self,
        queries: Any,  # noqa: ANN401  # datasets.Dataset
        *,
        task_metadata: Any,  # noqa: ANN401
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any] | None = None,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> dict[str, dict[str, float]]:
        """Search the indexed corpus for all queries and return the rankings.

        Args:
            queries: A dataset with the column ``id`` and the columns ``text``, ``image`` or both.
            task_metadata: Ignored.
            hf_split: Ignored.
            hf_subset: Ignored.
            top_k: Maximum documents per ranking; the model's `depth` is a second limit.
            encode_kwargs: Ignored.
            top_ranked: Query id → ids of the documents to rank, for reranking tasks; None to rank the whole corpus.
            num_proc: Ignored.
            kwargs: Ignored.

        Returns:
            Query id → document id → score. The last document scores 1 and each better rank scores 1 more, so that mteb
            preserves the order of the hits. An empty query has an empty ranking.

        Raises:
            InvalidInputError: If `index` was not called before.
        """
        if self._index is None:
            raise InvalidInputError("No corpus is indexed. Call `index` before `search`.")
        rankings: dict[str, dict[str, float]] = {query_id: {} for query_id in queries["id"]}
        k = min(top_k, self._depth)
        modality = self._source.identity.modality
        for rows in batches(queries, _QUERY_BATCH):
            items = {row["id"]: one_input(text_of_query(row), row.get("image"), modality=modality) for row in rows}
            items = {query_id: item for query_id, item in items.items() if not is_blank(item)}
            if top_ranked is None:
                rankings |= self._rank(self._index, items, k, None)
                continue
            for query_id, item in items.items():
                candidates = [
                    str(self._numbers[name]) for name in top_ranked.get(query_id, ()) if name in self._numbers
                ]
                if candidates:
                    rankings |= self._rank(self._index, {query_id: item}, k, {"doc_id": candidates})
        location = self._index.location
        self._release()
        if not self._keep:
            shutil.rmtree(location)
        return rankings

    def _rank(
        self, index: DocumentIndex, items: Mapping[str, Input], k: int, filter_: Mapping[str, list[str]] | None
    ) -> dict[str, dict[str, float]]:
        if not items:
            return {}
        stages = self._stages or None
        hit_lists = index.search_many(list(items.values()), k=k, filter=filter_, stages=stages, details=False)
        rankings: dict[str, dict[str, float]] = {}
        for query_id, hits in zip(items, hit_lists, strict=True):
            # Files with the same bytes take consecutive ranks, as in `jina_rag.evaluation.runner.search_all`.
            documents = [
                self._names.get((str(source), hit.page))
                for hit in hits
                for source in (hit.doc_id if hit.added else hit.path.resolve(), *(c.path.resolve() for c in hit.copies))
            ]
            names = list(dict.fromkeys(name for name in documents if name is not None))
            rankings[query_id] = {name: float(len(names) - rank) for rank, name in enumerate(names)}
        return rankings

    def _ingest(self, index: DocumentIndex, corpus: Any) -> None:  # noqa: ANN401
        paths = [Path(path).resolve() for path in corpus["path"]]
        report = index.ingest(list(dict.fromkeys(paths)))
        if report.interrupted:
            raise KeyboardInterrupt
        for failure in report.failed:
            _log.warning(
                "%s was not indexed, so searches cannot find the file: %s",
                displayed(failure.path),
                displayed(failure.reason),
            )
        self._names = {
            (str(path), int(page)): name for path, page, name in zip(paths, corpus["page"], corpus["id"], strict=True)
        }
        self._numbers = {}

    def _add(self, index: DocumentIndex, corpus: Any, task_metadata: Any) -> None:  # noqa: ANN401
        modalities = set(task_metadata.get_modalities(PromptType.document))
        self._names = {}
        for rows in batches(corpus, _DOCUMENT_BATCH):
            contents: list[Input] = []
            ids = [str(len(self._names) + position) for position in range(len(rows))]
            for row, number in zip(rows, ids, strict=True):
                text = (text_of_document(row) or "") if "text" in modalities else ""
                image = row.get("image") if "image" in modalities else None
                content = {} if image is None else {"image": image}
                contents.append(content | ({"text": text} if text.strip() or image is None else {}))
                self._names[number, 1] = row["id"]
            index.add(contents, ids=ids)
        self._numbers = {name: int(number) for (number, _), name in self._names.items()}

    def _location(self, task_metadata: Any, hf_split: str, hf_subset: str) -> Path:  # noqa: ANN401
        """Return the index folder for a corpus, embedder and storage."""
        revision = str(task_metadata.dataset.get("revision", ""))
        key = key_of(
            task_metadata.name,
            revision,
            hf_split,
            hf_subset,
            self._source.load("retrieval").fingerprint,
            str(self._storage or "exact"),
        )
        self._root.mkdir(parents=True, exist_ok=True)
        return self._root / key.hex()[:24]

    def _release(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
