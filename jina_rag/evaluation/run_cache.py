"""Cached query results of an index, so that an interrupted evaluation resumes without repeating searches.

The file ``evaluation.jsonl`` in the folder of the index has one line per query and search configuration. A cached
result is used only if model, storage, documents, stages, reranker, depth and version of jina_rag are unchanged. The
file holds no judgments, so cached results remain valid if judgments change.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from jina_rag._version import __version__
from jina_rag.evaluation.datasets import JudgedQuery, PageKey
from jina_rag.evaluation.files import explain_os_errors
from jina_rag.evaluation.results import QueryResult
from jina_rag.evaluation.serialization import query_result
from jina_rag.evaluation.settings import Setting, parse_stages
from jina_rag.index.document_index import DocumentIndex
from jina_rag.search.results import SearchResults

CACHE_FILE = "evaluation.jsonl"
BATCH_SIZE = 16
"""Queries per batch when latency is not measured."""
WARM_UP = "What is this document about?"
"""Untimed query that loads the model. A judged query is not used, because its timed search
would then be faster."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Search options of an evaluation run.

    Attributes:
        depth: Number of pages per query.
        one_by_one: Run and time each query separately, after a warm-up query. If False, queries run in batches.
        force: Run every query, including queries with a cached result.
    """

    depth: int
    one_by_one: bool = True
    force: bool = False


def run_queries(
    index: DocumentIndex,
    setting: Setting,
    queries: Sequence[JudgedQuery],
    options: RunOptions,
    *,
    names: Mapping[Path, str],
    on_query: Callable[[int, int], None] | None = None,
) -> list[QueryResult]:
    """Return the result of each query, in order, with empty `QueryResult.measures` and `QueryResult.unjudged`.

    Args:
        index: The index, opened with the reranker of the setting.
        setting: The setting, which defines the stages.
        queries: Queries to run.
        options: Options of the run: depth, timing and use of the cache.
        names: File → name of the document in the judgments. Files without an entry get the stem of the file name.
        on_query: Called with (queries done, total queries).

    Raises:
        InvalidInputError: If a query cannot be searched, or the cache cannot be read or written.
    """
    cache = _RunCache(index, setting, options, names)
    results = {} if options.force else cache.read()
    missing = list(dict.fromkeys(query.query for query in queries if query.query not in results))
    stages = list(parse_stages(setting.stages))
    done = sum(query.query in results for query in queries)
    if on_query:
        on_query(done, len(queries))
    if missing and options.one_by_one:
        index.search(WARM_UP, k=options.depth, stages=stages)
    batch_size = 1 if options.one_by_one else BATCH_SIZE
    for start in range(0, len(missing), batch_size):
        texts = missing[start : start + batch_size]
        started = time.perf_counter()
        # Timed searches compute regions and snippets, as in normal use; neither changes the ranking.
        hit_lists = index.search_many(texts, k=options.depth, stages=stages, details=options.one_by_one)
        milliseconds = (time.perf_counter() - started) * 1000 if options.one_by_one else 0.0
        batch = {text: _result(hits, names, milliseconds) for text, hits in zip(texts, hit_lists, strict=True)}
        cache.add(batch)
        results |= batch
        if on_query:
            on_query(min(done + start + len(texts), len(queries)), len(queries))
    return [replace(results[query.query], query_id=query.query_id) for query in queries]


def judged_page_keys(hits: SearchResults, names: Mapping[Path, str]) -> list[PageKey]:
    """Return the (doc, page) keys of hits, with the document names of the judgments.

    The index stores the pages of identical files once. The result lists a page of identical files once per file, in
    consecutive ranks, because judgments may refer to any of the files.

    Args:
        hits: Hits of one query.
        names: File → name of the document in the judgments. Files without an entry get the stem of the file name.
    """
    return [page for page, _, _ in _pages(hits, names)]


def _pages(hits: SearchResults, names: Mapping[Path, str]) -> Iterator[tuple[PageKey, float, Path | None]]:
    for hit in hits:
        for doc_id, path in [(hit.doc_id, hit.path), *((copy.doc_id, copy.path) for copy in hit.copies)]:
            yield (names.get(path.resolve(), PurePosixPath(doc_id).stem), hit.page), hit.score, hit.image_path


def _result(hits: SearchResults, names: Mapping[Path, str], milliseconds: float) -> QueryResult:
    pages = list(_pages(hits, names))
    return QueryResult(
        query_id="",
        ranking=tuple(page for page, _, _ in pages),
        milliseconds=round(milliseconds, 3),
        scores=tuple(round(float(score), 6) for _, score, _ in pages),
        images=tuple(image for _, _, image in pages),
        notes=hits.notes,
    )


class _RunCache:
    """The cached results of one search configuration, in the cache file of an index."""

    def __init__(self, index: DocumentIndex, setting: Setting, options: RunOptions, names: Mapping[Path, str]) -> None:
        self._folder, self._file = index.location, index.location / CACHE_FILE
        self._one_by_one = options.one_by_one
        self._key = _key(index, setting, options, names)

    def read(self) -> dict[str, QueryResult]:
        """Return query text → cached result."""
        if not self._file.exists():
            return {}
        with explain_os_errors(f"The cached results in {self._file} cannot be read"):
            text = self._file.read_text("utf-8", errors="replace")
        results = {}
        for line in text.split("\n"):
            # A killed process can leave an incomplete line. The line is skipped, and the query runs again.
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["key"] == self._key and (entry["alone"] or not self._one_by_one):
                    results[entry["query"]] = self._from_json(entry)
        return results

    def add(self, results: Mapping[str, QueryResult]) -> None:
        """Append results to the file immediately, because the process may be killed at any time."""
        lines = [json.dumps(self._to_json(query, result)) + "\n" for query, result in results.items()]
        message = f"The results cannot be cached in {self._file}"
        with explain_os_errors(message), self._file.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    lines.insert(0, "\n")
            file.write("".join(lines).encode("ascii"))

    def _to_json(self, query: str, result: QueryResult) -> dict[str, Any]:
        images = [self._relative(image) for image in result.images]
        return {"key": self._key, "alone": self._one_by_one, "query": query, **asdict(result), "images": images}

    def _relative(self, image: Path | None) -> str | None:
        if image is None:
            return None
        return str(image.relative_to(self._folder) if image.is_relative_to(self._folder) else image)

    def _from_json(self, entry: dict[str, Any]) -> QueryResult:
        result = query_result({name: value for name, value in entry.items() if name not in ("key", "alone", "query")})
        images = tuple(None if image is None else self._folder / image for image in result.images)
        return replace(result, images=images, milliseconds=result.milliseconds if self._one_by_one else 0.0)


def _key(index: DocumentIndex, setting: Setting, options: RunOptions, names: Mapping[Path, str]) -> str:
    """Return a hash of everything that a result depends on, except the query."""
    index_info = index.info()
    parts = {
        "version": __version__,
        "fingerprint": index_info.fingerprint,
        "storage": index_info.storage,
        "stages": [str(stage) for stage in parse_stages(setting.stages)],
        "reranker": setting.to_json().get("reranker", ""),
        "depth": options.depth,
        "documents": sorted(
            (names.get(record.path.resolve(), ""), record.doc_id, record.sha256, record.pages, record.regions)
            for record in index.documents()
        ),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
