"""The whole of our search as mteb's: an index of the corpus, candidates, late interaction, a reranker."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mteb.types import PromptType

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
_TOGETHER = 64
"""Documents that are handed to the index at once."""
_QUERIES = 16
DEPTH = 100
"""Documents of each ranking: measures that look further down (mteb's recall at 1,000) see no more."""


class JinaRagSearch:
    """Implements mteb's `SearchProtocol` with a `DocumentIndex`.

    A corpus of texts and images is put in by `DocumentIndex.add`; one whose documents carry the ``path`` of their file
    and their ``page`` (`FolderTask`) is ingested from the files, as a user would. An index that a killed run has begun
    is gone on with.

    Attributes:
        mteb_model_meta: What mteb files results under.
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
        """Look at the models; they are loaded when they are needed.

        Args:
            folder: Where indexes are made, one for each corpus.
            model: An embedder, or what `jina_rag.load_embedder` takes.
            reranker: A reranker, or what `jina_rag.load_reranker` takes; None for none.
            storage: How indexes keep their vectors, see `DocumentIndex.open`.
            stages: In the place of the default ones.
            options: How models are loaded.
            depth: Documents of each ranking at most.
            keep: Whether indexes stay when their questions were asked.

        Raises:
            ModelNotFoundError: If there is no such model.
            InvalidInputError: If `depth` is below 1.
        """
        if depth < 1:
            raise InvalidInputError(f"depth is {depth}; it counts documents: at least 1.")
        self._root, self._storage, self._stages = Path(folder), storage, tuple(stages)
        self._depth, self._keep = depth, keep
        options = options or ModelOptions()
        self._source = model if isinstance(model, EmbedderSource) else EmbedderSource(model, options)
        if reranker is not None and not isinstance(reranker, RerankerSource):
            reranker = RerankerSource(reranker, replace(options, revision=None))  # the revision is the embedder's
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
        """Index a corpus.

        Args:
            corpus: Rows with ``id`` and ``text`` (and ``title``), ``image``, both, or ``path`` and ``page``.
            task_metadata: Of the task.
            hf_split: Of its data, which have an index each.
            hf_subset: See there.
            encode_kwargs: Without effect.
            num_proc: Without effect.
            kwargs: Without effect.

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
        """Ask the questions.

        Args:
            queries: Rows with ``id`` and ``text``, ``image`` or both.
            task_metadata: Of the task.
            hf_split: Of its data.
            hf_subset: See there.
            top_k: Documents of each ranking at most.
            encode_kwargs: Without effect.
            top_ranked: Question → documents that are ranked for it, where not all are.
            num_proc: Without effect.
            kwargs: Without effect.

        Returns:
            Question → document → score. Scores fall with the rank, by one each, so that mteb ranks as we do. A question
            without anything in it finds nothing.

        Raises:
            InvalidInputError: If nothing was indexed.
        """
        if self._index is None:
            raise InvalidInputError("There is no index to search: call index first.")
        rankings: dict[str, dict[str, float]] = {query_id: {} for query_id in queries["id"]}
        k = min(top_k, self._depth)
        modality = self._source.identity.modality
        for rows in batches(queries, _QUERIES):
            items = {row["id"]: one_input(text_of_query(row), row.get("image"), modality=modality) for row in rows}
            items = {query_id: item for query_id, item in items.items() if not is_blank(item)}
            if top_ranked is None:
                rankings |= self._ranked(self._index, items, k, None)
                continue
            for query_id, item in items.items():
                candidates = [
                    str(self._numbers[name]) for name in top_ranked.get(query_id, ()) if name in self._numbers
                ]
                if candidates:
                    rankings |= self._ranked(self._index, {query_id: item}, k, {"doc_id": candidates})
        location = self._index.location
        self._release()
        if not self._keep:
            shutil.rmtree(location)
        return rankings

    # -- parts ---------------------------------------------------------------------------------------------

    def _ranked(
        self, index: DocumentIndex, items: Mapping[str, Input], k: int, only: Mapping[str, list[str]] | None
    ) -> dict[str, dict[str, float]]:
        if not items:
            return {}
        stages = self._stages or None
        hits_of = index.search_many(list(items.values()), k=k, filter=only, stages=stages, details=False)
        rankings: dict[str, dict[str, float]] = {}
        for query_id, hits in zip(items, hits_of, strict=True):
            # Files with the same bytes follow each other, as in `jina_rag.evaluation.runner.search_all`.
            documents = [
                self._names.get((str(where), hit.page))
                for hit in hits
                for where in (hit.doc_id if hit.added else hit.path.resolve(), *(c.path.resolve() for c in hit.copies))
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
            _log.warning("%s was not indexed, and is not found: %s", failure.path, failure.reason)
        self._names = {
            (str(path), int(page)): name for path, page, name in zip(paths, corpus["page"], corpus["id"], strict=True)
        }
        self._numbers = {}

    def _add(self, index: DocumentIndex, corpus: Any, task_metadata: Any) -> None:  # noqa: ANN401
        modalities = set(task_metadata.get_modalities(PromptType.document))
        self._names = {}
        for rows in batches(corpus, _TOGETHER):
            contents: list[Input] = []
            ids = [str(len(self._names) + place) for place in range(len(rows))]
            for row, number in zip(rows, ids, strict=True):
                text = (text_of_document(row) or "") if "text" in modalities else ""
                image = row.get("image") if "image" in modalities else None
                content = {} if image is None else {"image": image}
                contents.append(content | ({"text": text} if text.strip() or image is None else {}))
                self._names[number, 1] = row["id"]
            index.add(contents, ids=ids)
        self._numbers = {name: int(number) for (number, _), name in self._names.items()}

    def _location(self, task_metadata: Any, hf_split: str, hf_subset: str) -> Path:  # noqa: ANN401
        """A folder for this corpus and this setting."""
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
