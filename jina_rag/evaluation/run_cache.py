"""The run of an index, cached beside it: an evaluation that was stopped goes on, and nothing is searched twice.

``evaluation.jsonl`` in the folder of the index has a line for each question and way of asking. A line counts for the
same model, documents, stages, depth and version of jina_rag only. Judgements are no part of it: they may change.
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

FILE = "evaluation.jsonl"
TOGETHER = 16
"""Questions that are embedded in one batch, where their latency is of no interest."""
WARM_UP = "What is this document about?"
"""Asked first and not timed: it loads the model. None of the judged questions, which would find their pages warm."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How questions are searched.

    Attributes:
        depth: Pages for each.
        one_by_one: Each alone, after one to warm up, so that it has its latency; else in batches.
        force: Whether questions are searched again whose results are cached.
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
    """The ranking for each question, in their order; `QueryResult.measures` and `unjudged` are still to be filled.

    Args:
        index: What is searched, opened with the setting's reranker.
        setting: Gives the stages.
        queries: Questions.
        options: How.
        names: File → what judgements call its document; others are called by their file's stem.
        on_query: Called with (done, all).

    Raises:
        InvalidInputError: If a question cannot be searched, or the results cannot be cached.
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
    step = 1 if options.one_by_one else TOGETHER
    for start in range(0, len(missing), step):
        some = missing[start : start + step]
        clock = time.perf_counter()
        # Alone as users ask, with regions and snippets; both give the same pages.
        hits_of = index.search_many(some, k=options.depth, stages=stages, details=options.one_by_one)
        milliseconds = (time.perf_counter() - clock) * 1000 if options.one_by_one else 0.0
        batch = {text: _result(hits, names, milliseconds) for text, hits in zip(some, hits_of, strict=True)}
        cache.add(batch)
        results |= batch
        if on_query:
            on_query(min(done + start + len(some), len(queries)), len(queries))
    return [replace(results[query.query], query_id=query.query_id) for query in queries]


def named_pages(hits: SearchResults, names: Mapping[Path, str]) -> list[PageKey]:
    """The pages of hits as judgements name them.

    Files with the same bytes follow each other: the index has their pages once, and judgements may name either.
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
    """The file beside the index, as far as it is about one way of searching."""

    def __init__(self, index: DocumentIndex, setting: Setting, options: RunOptions, names: Mapping[Path, str]) -> None:
        self._folder, self._file = index.location, index.location / FILE
        self._one_by_one = options.one_by_one
        self._key = _key(index, setting, options, names)

    def read(self) -> dict[str, QueryResult]:
        """Question → its result, for those that were searched in this way before."""
        if not self._file.exists():
            return {}
        with explain_os_errors(f"The answers of an evaluation cannot be read at {self._file}"):
            text = self._file.read_text("utf-8", errors="replace")
        results = {}
        for line in text.split("\n"):
            # A line that a killed process left half written is searched again.
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["key"] == self._key and (entry["alone"] or not self._one_by_one):
                    results[entry["query"]] = self._from_json(entry)
        return results

    def add(self, results: Mapping[str, QueryResult]) -> None:
        """Write results at once: the process may be killed at any time."""
        lines = [json.dumps(self._to_json(query, result)) + "\n" for query, result in results.items()]
        where = f"The answers of an evaluation cannot be written at {self._file}"
        with explain_os_errors(where), self._file.open("ab+") as file:
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
    """Changes with all that an answer depends on, but for the question."""
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
