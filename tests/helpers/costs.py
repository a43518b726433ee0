"""Counts of commits and store calls of an operation on an index."""

from __future__ import annotations

from collections import Counter

from jina_rag import DocumentIndex


def count_costs(index: DocumentIndex, monkeypatch, action) -> Counter[str]:
    """Return the number of manifest commits and store calls while `action` runs."""
    counts: Counter[str] = Counter()
    resources = index._session.resources

    def count_commits(statement: str) -> None:
        counts["commits"] += statement == "COMMIT"

    with monkeypatch.context() as patch:
        for name in ("delete", "flush", "update_payload"):
            method = getattr(type(resources.store), name)

            def count_call(store, *args, name=name, method=method):
                counts[name] += 1
                return method(store, *args)

            patch.setattr(type(resources.store), name, count_call)
        resources.manifest._db.set_trace_callback(count_commits)
        action()
        resources.manifest._db.set_trace_callback(None)
    return counts
