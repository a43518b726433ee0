"""Command line: ``jina-rag models`` and ``models download``."""

from __future__ import annotations


def test_models_lists_all_models(cli):
    result = cli("models", "--json")
    assert (result.code, result.err) == (0, "")
    models = {model["name"]: model for model in result.json["models"]}
    assert {"lite", "lite-en"} <= set(models)
    assert {"title", "reads", "languages", "licence", "megabytes", "installed", "role"} <= set(models["lite"])
    assert [model["name"] for model in models.values() if model["default"]] == ["lite"]
    assert not models["jinaai/jina-embeddings-v4"]["installed"]
    table = cli("models", width=80)
    assert table.code == 0
    for part in ("lite-en", "MIT", "Apache-2.0", "72 MB", "yes"):
        assert part in table.out
    assert "…" not in table.out, "no cell is truncated"
    assert max(map(len, table.out.splitlines())) <= 80


def test_download_error_names_the_reason(cli):
    # Downloads are disabled, see conftest.
    cli("models", "download", "jinaai/jina-reranker-m0").assert_usage_error("not on this machine")
    cli("models", "download", "lite").assert_usage_error("part of a Python package")
    cli("models", "download", "no id").assert_usage_error("of the form owner/model")
