"""Settings of an evaluation: parsing of stages, names, file names, and index locations."""

from __future__ import annotations

import pytest

from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.settings import (
    Setting,
    cross_product,
    file_names,
    index_locations,
    parse_stages,
    setting_names,
    slug,
)
from jina_rag.index.document_index import DocumentIndex
from jina_rag.search.fusion import Rescore
from jina_rag.search.reranking import Rerank
from jina_rag.testing import FakeEmbedder, FakeReranker
from jina_rag.types import Prefetch


def test_parse_stages_splits_at_plus():
    assert parse_stages("default") == ()
    assert parse_stages(" rescore:dense=0.3 ") == (Rescore(dense=0.3),)
    assert parse_stages("prefetch:limit=300,lexical=false+rerank:model=a+b/c,shows=page+text,limit=4") == (
        Prefetch(limit=300, lexical=False),
        Rerank(model="a+b/c", shows=("page", "text"), limit=4),
    )
    assert parse_stages("rerank+rescore") == (Rerank(), Rescore())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("resort:dense=1", "'resort'"),
        ("rescore:dense=1+rescore:limit=1", "has the stage rescore twice"),
        ("rescore:dens=1", "Unknown rescore option"),
    ],
)
def test_invalid_stages_raise_invalid_input(text, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_stages(text)


def test_setting_validates_its_values():
    with pytest.raises(InvalidInputError, match="exact, balanced, compact"):
        Setting(storage="tiny")
    with pytest.raises(InvalidInputError, match="require a reranker"):
        Setting(stages="rerank:limit=3")
    assert Setting(stages="rerank:limit=3", reranker="lite").to_json() == {
        "stages": "rerank:limit=3", "reranker": "lite",
    }  # fmt: skip
    assert Setting(stages="rerank:limit=0").stages == "rerank:limit=0"
    assert Setting(FakeEmbedder(), Storage(pool_factor=2), reranker=FakeReranker()).to_json() == {
        "embedder": "fake", "storage": "pool_factor=2", "stages": "default", "reranker": "fake",
    }  # fmt: skip


def test_cross_product_is_distinct_with_short_names():
    settings = cross_product(["lite", "o/big", "lite"], ["exact", "compact"], ["default", "rescore:dense=0"])
    assert len(settings) == 8
    assert setting_names(settings)[:3] == [
        "lite, exact, default",
        "lite, exact, rescore:dense=0",
        "lite, compact, default",
    ]
    assert setting_names(settings)[-1] == "big, compact, rescore:dense=0"
    keys = [setting.index_key for setting in settings]
    assert keys == sorted(keys, key=keys.index), "settings that share an index are adjacent"
    assert setting_names(cross_product()) == ["lite"]
    assert setting_names(cross_product(["lite"], ["compact"])) == ["lite"]
    assert setting_names(cross_product(["a/m", "b/m"])) == ["a/m", "b/m"]
    assert setting_names(cross_product(rerankers=[None, "x/judge"])) == ["lite, no reranker", "lite, judge"]
    same_name = [Setting(FakeEmbedder(dim=8)), Setting(FakeEmbedder(dim=16))]
    assert setting_names(same_name) == ["fake", "fake (2)"]
    assert len(cross_product(stages=["default", " Default"])) == 1


def test_file_names_are_unique_and_safe():
    assert file_names(["lite, exact", "o/big, exact"]) == ["lite-exact", "o-big-exact"]
    unique_names = file_names(["a, b", "a b"])
    assert len(set(unique_names)) == 2
    assert all(name.startswith("a-b-") for name in unique_names)
    assert slug("lite-exact") == "lite-exact"
    assert slug("../x") != slug("x")
    assert "/" not in slug("../x")
    assert len(slug("x" * 300)) < 64


def test_index_locations(tmp_path):
    root = str(tmp_path / "kb")
    one, other = Setting("lite"), Setting("lite", "compact")
    staged_setting = Setting("lite", stages="rescore:dense=0")
    assert index_locations(root, [one, staged_setting]) == {("lite", "exact"): root}
    two_locations = index_locations(root, [one, other])
    assert two_locations == {("lite", "exact"): f"{root}/lite-exact", ("lite", "compact"): f"{root}/lite-compact"}
    hub_locations = index_locations(root, [one, Setting("a/m"), Setting("b/m")])
    assert len(set(hub_locations.values())) == 3
    # A single setting reuses the index that an evaluation of several settings created in a subfolder.
    with DocumentIndex.open(tmp_path / "kb" / "fake-exact", embedder=FakeEmbedder()):
        pass
    assert list(index_locations(root, [Setting(FakeEmbedder())]).values()) == [f"{root}/fake-exact"]
    assert list(index_locations(root, [one]).values()) == [f"{root}/lite-exact"], "next to existing indexes"
    with DocumentIndex.open(tmp_path / "one", embedder=FakeEmbedder(), storage="compact"):
        pass
    with pytest.raises(InvalidInputError, match="is a single index, but the settings need 2"):
        index_locations(str(tmp_path / "one"), [one, other])
    with pytest.raises(InvalidInputError, match="is a single index"):
        index_locations("http://host:6333/kb", [one, other])
    assert index_locations("http://host:6333/kb", [one]) == {("lite", "exact"): "http://host:6333/kb"}
    complete_setting = Setting().completed(tmp_path / "one")
    assert complete_setting.to_json() == {"embedder": "fake", "storage": "compact", "stages": "default"}
    assert Setting().completed(tmp_path / "nothing") == Setting()
