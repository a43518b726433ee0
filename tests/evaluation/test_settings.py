"""Settings: their stages, their names, their indexes."""

from __future__ import annotations

import pytest

from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.settings import (
    Setting,
    cross_product,
    file_names,
    names_of,
    parse_stages,
    place_index,
    slug,
)
from jina_rag.index.document_index import DocumentIndex
from jina_rag.search.fusion import Rescore
from jina_rag.search.reranking import Rerank
from jina_rag.testing import FakeEmbedder, FakeReranker
from jina_rag.types import Prefetch


def test_stages_are_those_of_search_joined_by_plus():
    assert parse_stages("default") == ()
    assert parse_stages(" rescore:dense=0.3 ") == (Rescore(dense=0.3),)
    assert parse_stages("prefetch:limit=300,lexical=false+rerank:model=a+b/c,shows=page+text,limit=4") == (
        Prefetch(limit=300, lexical=False),
        Rerank(model="a+b/c", shows=("page", "text"), limit=4),
    )
    assert parse_stages("rerank+rescore") == (Rerank(), Rescore())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "are empty"),
        ("resort:dense=1", "'resort' is no stage"),
        ("rescore:dense=1+rescore:limit=1", "has the stage rescore twice"),
        ("rescore:dens=1", "no option of rescore"),
    ],
)
def test_stages_that_make_no_sense_are_refused(text, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_stages(text)


def test_a_setting_is_checked_when_it_is_made():
    with pytest.raises(InvalidInputError, match="exact, balanced, compact"):
        Setting(storage="tiny")
    with pytest.raises(InvalidInputError, match="need a reranker"):
        Setting(stages="rerank:limit=3")
    assert Setting(stages="rerank:limit=3", reranker="lite").to_json() == {
        "stages": "rerank:limit=3", "reranker": "lite",
    }  # fmt: skip
    assert Setting(stages="rerank:limit=0").stages == "rerank:limit=0"
    assert Setting(FakeEmbedder(), Storage(pool_factor=2), reranker=FakeReranker()).to_json() == {
        "embedder": "fake", "storage": "pool_factor=2", "stages": "default", "reranker": "fake",
    }  # fmt: skip


def test_every_combination_once_with_a_short_name():
    settings = cross_product(["lite", "o/big", "lite"], ["exact", "compact"], ["default", "rescore:dense=0"])
    assert len(settings) == 8
    assert names_of(settings)[:3] == ["lite, exact, default", "lite, exact, rescore:dense=0", "lite, compact, default"]
    assert names_of(settings)[-1] == "big, compact, rescore:dense=0"
    keys = [setting.index_key for setting in settings]
    assert keys == sorted(keys, key=keys.index), "those that share an index follow each other"
    assert names_of(cross_product()) == ["lite"]
    assert names_of(cross_product(["lite"], ["compact"])) == ["lite"]
    assert names_of(cross_product(["a/m", "b/m"])) == ["a/m", "b/m"]
    assert names_of(cross_product(rerankers=[None, "x/judge"])) == ["lite, no reranker", "lite, judge"]
    twice = [Setting(FakeEmbedder(dim=8)), Setting(FakeEmbedder(dim=16))]
    assert names_of(twice) == ["fake", "fake (2)"]
    assert len(cross_product(stages=["default", " Default"])) == 1


def test_names_of_files():
    assert file_names(["lite, exact", "o/big, exact"]) == ["lite-exact", "o-big-exact"]
    clash = file_names(["a, b", "a b"])
    assert len(set(clash)) == 2
    assert all(name.startswith("a-b-") for name in clash)
    assert slug("lite-exact") == "lite-exact"
    assert slug("../x") != slug("x")
    assert "/" not in slug("../x")
    assert len(slug("x" * 300)) < 64


def test_where_indexes_lie(tmp_path):
    root = str(tmp_path / "kb")
    one, other = Setting("lite"), Setting("lite", "compact")
    staged = Setting("lite", stages="rescore:dense=0")
    assert place_index(root, [one, staged]) == {("lite", "exact"): root}
    two = place_index(root, [one, other])
    assert two == {("lite", "exact"): f"{root}/lite-exact", ("lite", "compact"): f"{root}/lite-compact"}
    hub = place_index(root, [one, Setting("a/m"), Setting("b/m")])
    assert len(set(hub.values())) == 3
    # An index that several settings have made beneath is found again by one of them.
    with DocumentIndex.open(tmp_path / "kb" / "fake-exact", embedder=FakeEmbedder()):
        pass
    assert list(place_index(root, [Setting(FakeEmbedder())]).values()) == [f"{root}/fake-exact"]
    assert list(place_index(root, [one]).values()) == [f"{root}/lite-exact"], "beside the others"
    with DocumentIndex.open(tmp_path / "one", embedder=FakeEmbedder(), storage="compact"):
        pass
    with pytest.raises(InvalidInputError, match="is one index, and these settings need 2"):
        place_index(str(tmp_path / "one"), [one, other])
    with pytest.raises(InvalidInputError, match="is one index"):
        place_index("http://host:6333/kb", [one, other])
    assert place_index("http://host:6333/kb", [one]) == {("lite", "exact"): "http://host:6333/kb"}
    told = Setting().completed(tmp_path / "one")
    assert told.to_json() == {"embedder": "fake", "storage": "compact", "stages": "default"}
    assert Setting().completed(tmp_path / "nothing") == Setting()
