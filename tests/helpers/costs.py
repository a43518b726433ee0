"""What a change of an index costs: waits for the disk, and calls of the store."""

from __future__ import annotations

from collections import Counter

from jina_rag import DocumentIndex


def costs(index: DocumentIndex, monkeypatch, action) -> Counter[str]:
    """How often the manifest commits and the store is called while something is done."""
    counts: Counter[str] = Counter()
    resources = index._session.resources

    def count_commits(statement: str) -> None:
        counts["commits"] += statement == "COMMIT"

    with monkeypatch.context() as patch:
        for name in ("delete", "flush", "update_payload"):
            method = getattr(type(resources.store), name)

            def counted(store, *args, name=name, method=method):
                counts[name] += 1
                return method(store, *args)

            patch.setattr(type(resources.store), name, counted)
        resources.manifest._db.set_trace_callback(count_commits)
        action()
        resources.manifest._db.set_trace_callback(None)
    return counts
