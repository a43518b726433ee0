"""Cleaning of query-passage pairs: dropped pairs of each step, reports, memory use and the `clean` command."""

from __future__ import annotations

import importlib.util
import json
import sys
import tracemalloc
import unicodedata

import numpy as np
import pytest
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st

import jina_rag.cli.clean  # noqa: F401  # registers its command
from jina_rag.cli import main
from jina_rag.errors import InvalidInputError, MissingDependencyError
from jina_rag.evaluation.cleaning import (
    Cleaning,
    Complete,
    Consistency,
    ExactDuplicates,
    Languages,
    NearDuplicates,
    clean_file,
    read_pairs,
)
from jina_rag.evaluation.cleaning.minhash import agreement, near_text, ngrams, signature
from jina_rag.evaluation.cleaning.pairs import same_text
from jina_rag.protocols import EmbedderDefaults
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Embeddings

PASSAGE = (
    "The turbine of the old harbour was replaced in 1962 by a smaller one from Leeds, which ran for thirty years "
    "without a fault and now stands in the museum beside the first pump of the town."
)
QUERY = "When was the turbine of the harbour replaced?"


@pytest.fixture(scope="module")
def cleaning_pairs():
    """The module benchmarks/cleaning_pairs.py, which generates pairs with known faults."""
    spec = importlib.util.spec_from_file_location("cleaning_pairs", ROOT / "benchmarks" / "cleaning_pairs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cleaning_pairs"] = module
    spec.loader.exec_module(module)
    return module


def jaccard(one, other, *, n):
    """The exact Jaccard similarity of the texts' n-gram sets; 1 for two empty texts."""
    first, second = set(ngrams(one, n).tolist()), set(ngrams(other, n).tolist())
    return len(first & second) / len(first | second) if first or second else 1.0


def pair(query=QUERY, passage=PASSAGE, **more):
    return {"query": query, "passage": passage, **more}


def run_steps(records, *steps):
    """Return the numbers of the records that stay, and the dropped pairs."""
    dropped = []
    numbered_records = [record | {"number": number} for number, record in enumerate(records, start=1)]
    kept_numbers = [r["number"] for r in Cleaning(steps).stream(numbered_records, on_drop=dropped.append)]
    assert sorted([*kept_numbers, *(d.number for d in dropped)]) == list(range(1, len(records) + 1))
    return kept_numbers, dropped


def write_lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


# All steps: a smaller run of benchmarks/cleaning.py


def test_steps_drop_planted_faults_and_keep_good_pairs(cleaning_pairs, tmp_path):
    records = list(cleaning_pairs.generate(1600, seed=5))
    source = write_lines(tmp_path / "pairs.jsonl", records)
    steps = [
        Complete(),
        ExactDuplicates(),
        Languages(),
        NearDuplicates(),
        Consistency(cleaning_pairs.WordStub(), sample=500),
    ]
    report = clean_file(source, tmp_path / "kept.jsonl", steps, dropped=tmp_path / "dropped.jsonl")
    dropped = {line["line"]: line for line in read_lines(tmp_path / "dropped.jsonl")}
    kept_records = read_lines(tmp_path / "kept.jsonl")
    assert [record for record in records if record["id"] not in dropped] == kept_records
    assert report.read == len(records)
    assert report.kept == len(kept_records)

    def fraction_dropped(kind, step):
        kind_records = [record for record in records if record["kind"] == kind]
        assert len(kind_records) > 60
        return sum(r["id"] in dropped and dropped[r["id"]]["step"] == step for r in kind_records) / len(kind_records)

    assert fraction_dropped("exact", "exact duplicates") >= 0.99
    assert fraction_dropped("near", "near duplicates") >= 0.95
    assert fraction_dropped("foreign", "languages") >= 0.95
    assert fraction_dropped("wrong", "consistency") >= 0.97
    good_records = [record for record in records if record["kind"] == "good"]
    assert sum(record["id"] in dropped for record in good_records) / len(good_records) <= 0.01
    duplicates = [r for r in records if r["kind"] in ("exact", "near") and r["id"] in dropped]
    assert sum(dropped[r["id"]].get("duplicate_of") == r["of"] for r in duplicates) / len(duplicates) >= 0.99


class ConstantEmbedder(EmbedderDefaults):
    """An embedder that returns the same vector for every text."""

    name, fingerprint, dim, multi_dim, modality = "constant", "constant-1", 2, 2, "text"

    def encode_query(self, texts, **options):
        return Embeddings(single=np.ones((len(texts), 2), np.float32))

    encode_document = encode_query


def test_memory_is_independent_of_number_and_length_of_texts():
    def peak(count):
        records = (pair(f"Question {n} about {n * n}?", f"{n}: " + PASSAGE * 60) for n in range(count))
        steps = (Complete(), ExactDuplicates(), NearDuplicates(), Consistency(ConstantEmbedder(), sample=4, batch=2))
        cleaning = Cleaning(steps)
        tracemalloc.start()
        try:
            for _ in cleaning.stream(records):
                pass
            assert cleaning.report.read == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)
    # 100 additional pairs hold 1 MB of text.
    assert peak(120) - peak(20) < 200_000


# Incomplete pairs and exact duplicates


@pytest.mark.parametrize(
    ("query", "passage", "reason"),
    [
        (" \u200b\n", PASSAGE, "no question"),
        (QUERY, "", "no passage"),
        ("The same text", "the  SAME text ", "both sides are the same text"),
    ],
)
def test_complete_drops_pairs_with_an_empty_or_identical_side(query, passage, reason):
    kept_numbers, dropped = run_steps([pair(), pair(query, passage)], Complete())
    assert kept_numbers == [1]
    assert [d.reason for d in dropped] == [reason]


@pytest.mark.parametrize(
    "change",
    [
        str,
        str.upper,
        lambda t: "  " + t.replace(" ", "\u00a0\n") + "\t",
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: t.replace("fi", "\ufb01"),
        lambda t: "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in t),
        lambda t: "".join(chr(0x1D400 + ord(c) - ord("A")) if "A" <= c <= "Z" else c for c in t),  # bold letters
        lambda t: t.replace("a", "a\u00ad").replace("e", "\u200be"),
    ],
)
def test_exact_duplicates_ignore_case_white_space_and_unicode_form(change):
    first = pair("Où est la première fiche, in Straße 5?", "Ici, sur la fiche à côté.")
    other = pair("Something else?", "Yes.")
    duplicate = pair(change(first["query"]), change(first["passage"]))
    kept_numbers, dropped = run_steps([first, other, duplicate], ExactDuplicates())
    assert kept_numbers == [1, 2]
    assert [(d.reason, d.duplicate_of) for d in dropped] == [("exact duplicate", 1)]


def test_exact_duplicates_keep_pairs_that_differ_in_one_character():
    records = [pair("ab", "c"), pair("a", "bc"), pair("ab", "ć"), pair("ab", "c."), pair("c", "ab"), pair("ab", "d")]
    assert run_steps(records, ExactDuplicates())[0] == [1, 2, 3, 4, 5, 6]


@given(st.text())
def test_same_text_is_idempotent(text):
    assert same_text(same_text(text)) == same_text(text)


# Near-duplicates


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        (QUERY, PASSAGE.replace("smaller", "larger")),
        (QUERY.replace("?", " …"), f"»{PASSAGE}«"),
        (QUERY, PASSAGE.replace("museum", "musuem").replace("first", "frist")),
        (QUERY, PASSAGE.removesuffix(" of the town.")),
        ("so " + QUERY, PASSAGE + " So it was."),
        (QUERY.upper(), PASSAGE.replace("in 1962", "1963")),
    ],
)
def test_near_duplicate_reports_number_of_the_original_pair(query, passage):
    records = [
        pair("What is a comet?", "A body of ice and dust that goes round the sun."),
        pair(),
        pair(query, passage),
    ]
    kept_numbers, dropped = run_steps(records, NearDuplicates())
    assert kept_numbers == [1, 2]
    assert [(d.reason, d.duplicate_of) for d in dropped] == [("near duplicate", 2)]
    assert 0.8 <= dropped[0].detail["passage_similarity"] <= 1
    assert 0.7 <= dropped[0].detail["query_similarity"] <= 1


def test_near_duplicates_need_similar_query_and_passage():
    queries = ["Where does the turbine stand now?", "Who made the smaller one?", "For how long did it run?"]
    passages = ["It was in 1962, says the chronicle of the town.", "Nobody knows; the files were lost in a fire."]
    records = [pair(), *(pair(q) for q in queries), *(pair(passage=p) for p in passages)]
    assert run_steps(records, NearDuplicates())[0] == [1, 2, 3, 4, 5, 6]


def test_near_duplicates_are_compared_with_remaining_pairs_only():
    words = PASSAGE.split()
    chain = []
    for start in range(0, len(words), 2):  # each passage resembles the previous one; the last differs from the first
        chain.append(pair(passage=" ".join(["changed"] * start + words[start:])))
    kept_numbers, dropped = run_steps(chain, NearDuplicates(passage=0.8))
    assert len(kept_numbers) > 2
    assert {d.duplicate_of for d in dropped} <= set(kept_numbers)
    for one in dropped:
        first = chain[one.duplicate_of - 1]["passage"]
        assert jaccard(near_text(first), near_text(one.record["passage"]), n=5) > 0.6


def test_near_duplicate_thresholds_apply_to_query_and_passage():
    near = [pair(), pair(passage=PASSAGE.replace("smaller", "larger").replace("Leeds", "Perth"))]
    assert run_steps(near, NearDuplicates(passage=0.7))[0] == [1]
    assert run_steps(near, NearDuplicates(passage=0.99))[0] == [1, 2]
    near_queries = [pair(), pair(QUERY.replace("replaced", "repaired"))]
    assert run_steps(near_queries, NearDuplicates(query=0.5))[0] == [1]
    assert run_steps(near_queries, NearDuplicates(query=0.99))[0] == [1, 2]


def test_near_duplicates_match_the_most_similar_of_many_candidates():
    records = [pair(f"What does part {n} of the list {n * 31} weigh?") for n in range(150)]
    records += [records[70] | {"query": records[70]["query"].replace("weigh?", "weigh")}]
    _, dropped = run_steps(records, NearDuplicates(query=0.97))
    assert [(d.number, d.duplicate_of) for d in dropped] == [(151, 71)]


@given(st.integers(0, 60), st.integers(0, 3), st.integers(0, 5))
def test_signature_agreement_estimates_jaccard_similarity(cut_length, seed, rotation):
    words = PASSAGE.split()
    one, other = near_text(PASSAGE), near_text(" ".join(words[rotation:] + words[:rotation]))[cut_length:]
    exact_similarity = jaccard(one, other, n=4)
    result = agreement(*(signature(text, n=4, size=512, seed=seed) for text in (one, other)))
    assert result == pytest.approx(exact_similarity, abs=4.5 * (0.25 / 512) ** 0.5)


def test_signature_of_short_long_and_repeated_texts():
    sign = {text: signature(text, n=5, size=64, seed=0) for text in ("", "abc", "abd", "東京")}
    assert len({s.tobytes() for s in sign.values()}) == 4
    long = "".join(chr(97 + n * n % 26) + chr(97 + n % 23) for n in range(5000))
    assert agreement(signature(long, n=5, size=64, seed=0), signature(long * 2, n=5, size=64, seed=0)) > 0.95
    assert not np.array_equal(signature("abc", n=5, size=64, seed=1), sign["abc"])
    with pytest.raises(InvalidInputError, match="at least 1"):
        signature("abc", n=0, size=64, seed=0)


@pytest.mark.parametrize("setting", [{"passage": 0}, {"query": 1.1}, {"passage": float("nan")}, {"query_ngram": 0}])
def test_near_duplicates_invalid_settings_raise(setting):
    with pytest.raises(InvalidInputError):
        NearDuplicates(**setting)


# Languages

ENGLISH = [
    "The committee approved the budget for the new library last week.",
    "How often is the oil filter replaced?",
    "chicken soup recipe",
    "Madrid hotel prices",
    "Rainfall in Zürich was heavier than in Gdańsk, said the Bundesbank's report for 2019.",
    "12.5 mm",
    "E10-2093",
]
FOREIGN = {
    "de": "Der Ausschuss hat den Haushalt genehmigt.",
    "fr": "Le comité a approuvé le budget.",
    "es": "¿Cada cuánto se cambia el filtro?",
    "it": "La pompa è guasta da ieri.",
    "nl": "Hoe vaak wordt het filter vervangen?",
    "pt": "A comissão aprovou o orçamento.",
    "pl": "Dzień dobry wszystkim.",
    "tr": "Komite bütçeyi onayladı.",
    "ru": "Как часто меняют фильтр?",
    "ja": "委員会は予算を承認した。",
    "zh": "委员会批准了预算。",
    "ar": "وافقت اللجنة على الميزانية.",
    "hi": "समिति ने बजट को मंजूरी दी।",
    "ko": "위원회가 예산을 승인했다.",
}


@pytest.mark.parametrize("text", ENGLISH)
def test_languages_keep_short_english_and_foreign_names(text):
    assert run_steps([pair(query=text)], Languages(("en",)))[0] == [1]
    assert run_steps([pair(passage=text)], Languages(("en",)))[0] == [1]


@pytest.mark.parametrize("language", FOREIGN)
def test_languages_drop_pairs_with_either_side_foreign(language):
    records = [pair(passage=FOREIGN[language]), pair(query=FOREIGN[language])]
    kept_numbers, dropped = run_steps(records, Languages(("en",)))
    assert kept_numbers == []
    assert [(d.reason, d.detail["side"]) for d in dropped] == [("language", "passage"), ("language", "query")]
    assert {d.detail["language"] for d in dropped} == {language}
    assert run_steps(records, Languages(("en", language)))[0] == [1, 2]


def test_languages_identify_a_short_side_with_the_other_side():
    # The query alone is identified as Spanish.
    assert run_steps([pair("pump torque value", PASSAGE)], Languages(("en",)))[0] == [1]
    assert run_steps([pair("pump torque value", PASSAGE)], Languages(("en",), least=1))[0] == []
    # "Gift" and "Rat" are words of both German and English.
    records = [pair("Gift Rat", PASSAGE), pair("Gift Rat", "Der Ausschuss hat den Haushalt ohne Änderung genehmigt.")]
    assert run_steps(records, Languages(("en",)))[0] == [1]
    assert run_steps(records, Languages(("de",)))[0] == [2]


def test_languages_odds_decide_ambiguous_texts():
    ambiguous_pair = pair("De pomp is kapot, God morgon")
    assert run_steps([ambiguous_pair], Languages(("en",), odds=1.0))[0] == []
    assert run_steps([ambiguous_pair], Languages(("en",), odds=1e30))[0] == [1]


def test_languages_invalid_settings_or_missing_package_raise(monkeypatch):
    with pytest.raises(InvalidInputError, match="non-empty list"):
        Languages("en")
    with pytest.raises(InvalidInputError, match="at least 1"):
        Languages(odds=0.5)
    with pytest.raises(InvalidInputError, match="Unsupported language 'english'"):
        run_steps([pair()], Languages(("english",)))
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(MissingDependencyError, match=r"jina-rag\[eval\]"):
        run_steps([pair()], Languages())


# Consistency


class TableEmbedder(EmbedderDefaults):
    """An embedder that reads its vectors from a table."""

    name, fingerprint, dim, multi_dim, modality = "table", "table-1", 3, 3, "text"

    def __init__(self, vectors, single=True):
        self.vectors, self.single = vectors, single

    def encode_query(self, texts, *, multi=True, **options):
        assert not multi
        if any(text not in self.vectors for text in texts):
            raise InvalidInputError("A text is not in the table.")
        return Embeddings(single=np.array([self.vectors[t] for t in texts], np.float32) if self.single else None)

    encode_document = encode_query


TABLE = {
    "q1": (2, 0, 0), "p1": (3, 0, 0),  # p1 ranks first
    "q2": (0, 1, 0), "p2": (0, 1, 1),  # p2 ranks first
    "q3": (0, 2, 0), "p3": (1, 0.01, 0.1),  # ranking: p2, p3
    "q4": (1, 1, 0), "p4": (-1, -1, 5),  # ranking: p1, p3, p2, p4
}  # fmt: skip


@pytest.mark.parametrize(("n", "kept_numbers"), [(1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_consistency_keeps_pairs_whose_passage_ranks_within_n(n, kept_numbers, batch):
    records = [pair(f"q{i}", f"p{i}") for i in (1, 2, 3, 4)]
    result, dropped = run_steps(records, Consistency(TableEmbedder(TABLE), n=n, sample=10, batch=batch))
    assert result == kept_numbers
    ranks = {3: 2, 4: 4}
    assert {d.number: d.detail["rank"] for d in dropped} == {i: r for i, r in ranks.items() if i not in kept_numbers}
    assert {d.reason for d in dropped} <= {"rank of the passage"}


def test_consistency_ties_count_except_with_the_same_passage():
    table = {"q": (1, 0, 0), "p": (1, 0, 0), "twin": (1, 0, 0), "other q": (0, 1, 0)}
    same_passage = [pair("q", "p"), pair("other q", "P ")]
    table["P "] = table["p"]
    assert run_steps(same_passage, Consistency(TableEmbedder(table), n=1, sample=5))[0] == [1, 2]
    tied_pairs = [pair("q", "p"), pair("other q", "twin")]
    kept_numbers, dropped = run_steps(tied_pairs, Consistency(TableEmbedder(table), n=1, sample=5))
    assert kept_numbers == []
    assert [d.detail["rank"] for d in dropped] == [2, 2]


def test_consistency_sample_is_uniform_and_deterministic_by_seed():
    rng = np.random.default_rng(0)
    names = [f"{side}{n}" for n in range(300) for side in "qp"]
    table = dict(zip(names, rng.standard_normal((600, 3)), strict=True))
    records = [pair(f"q{n}", f"p{n}") for n in range(300)]

    def consistent(**options):
        return run_steps(records, Consistency(TableEmbedder(table), **options))[0]

    numbers = consistent(sample=20, n=2, seed=1)
    assert numbers == consistent(sample=20, n=2, seed=1, batch=7)
    assert numbers != consistent(sample=20, n=2, seed=2)
    # An unrelated passage ranks among the first 2 of 21 in about 2 of 21 cases.
    assert 0.03 < len(numbers) / 300 < 0.25
    # A larger sample drops more pairs.
    assert len(consistent(sample=300, n=2)) < len(numbers)

    calls = []
    embedder = TableEmbedder(table)
    encode = embedder.encode_document
    embedder.encode_document = lambda texts, **options: (calls.append(list(texts)), encode(texts, **options))[1]
    run_steps(records, Consistency(embedder, sample=100, n=2, batch=100))
    sample_numbers = [int(name[1:]) for name in calls[0]]
    assert len(sample_numbers) == 100
    assert sum(number >= 150 for number in sample_numbers) == pytest.approx(50, abs=15)


def test_consistency_drops_only_the_pair_that_cannot_be_embedded():
    records = [pair("q1", "p1"), pair("q-unknown", "p2"), pair("q2", "p2")]
    kept_numbers, dropped = run_steps(records, Consistency(TableEmbedder(TABLE), n=1, sample=10))
    assert kept_numbers == [1, 3]
    assert [(d.number, d.reason, d.detail["message"]) for d in dropped] == [
        (2, "the embedder cannot read it", "A text is not in the table.")
    ]


def test_consistency_invalid_settings_or_embedder_raise():
    with pytest.raises(InvalidInputError, match="n=3, batch=64, sample=2"):
        Consistency(TableEmbedder(TABLE), n=3, sample=2)
    with pytest.raises(InvalidInputError, match="no dense vectors"):
        run_steps([pair("q1", "p1")], Consistency(TableEmbedder(TABLE, single=False)))
    assert run_steps([], Consistency(TableEmbedder(TABLE)))[0] == []


def test_consistency_accepts_any_embedder():
    records = [
        pair("Which turbine did the harbour have?"),
        pair("What is a comet made of?", "A comet is made of ice."),
        pair("What is a comet made of?", "The budget of the town was approved."),
    ]
    assert run_steps(records, Consistency(FakeEmbedder(), n=1))[0] == [1, 2]


# The pipeline


def test_report_lists_steps_in_order_with_settings_and_counts(tmp_path):
    records = [pair(more=[1]), pair("", "x"), pair(QUERY.upper()), pair(passage=FOREIGN["de"]), pair("so " + QUERY)]
    source = write_lines(tmp_path / "pairs.jsonl", records)
    with source.open("a", encoding="utf-8") as file:
        file.write('\n{"query": "only"}\nnot json\n[1]\n')
    steps = [Complete(), ExactDuplicates(), Languages(), NearDuplicates(seed=4), Consistency(FakeEmbedder(), seed=9)]
    report = clean_file(source, tmp_path / "out.jsonl", steps, dropped=tmp_path / "dropped.jsonl")
    result = report.to_json()
    assert [s["step"] for s in result["steps"]] == [
        "complete", "exact duplicates", "languages", "near duplicates", "consistency",
    ]  # fmt: skip
    assert [s["read"] for s in result["steps"]] == [5, 4, 3, 2, 1]
    assert [sum(s["dropped"].values()) for s in result["steps"]] == [1, 1, 1, 1, 0]
    assert result["steps"][3]["settings"]["seed"] == 4
    assert result["steps"][4]["settings"] == {
        "embedder": "fake", "fingerprint": "fake-128-64", "n": 2, "sample": 10_000, "seed": 9,
    }  # fmt: skip
    assert result["steps"][1]["disk_bytes"] > 0
    assert (result["read"], result["kept"], result["dropped"], sum(result["unreadable"].values())) == (8, 1, 7, 3)
    assert len(result["sha256"]) == 64
    assert read_lines(tmp_path / "out.jsonl") == [records[0]]
    lines = read_lines(tmp_path / "dropped.jsonl")
    assert sorted(line["line"] for line in lines) == [2, 3, 4, 5, 7, 8, 9]
    assert next(line for line in lines if line["line"] == 5)["duplicate_of"] == 1
    assert next(line for line in lines if line["line"] == 2)["pair"] == records[1]
    assert "8 read, 1 kept, 7 dropped" in str(report)
    assert "near duplicates, near duplicate: 1" in str(report)
    assert "  unreadable (not JSON): 1\n" in str(report)
    assert result["unreadable"]["not JSON."] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dropped.jsonl", "out.jsonl", "pairs.jsonl"]


def test_cleaning_default_steps_are_reusable():
    records = [pair(), pair(), pair("so " + QUERY)]
    cleaning = Cleaning()
    for _ in range(2):
        assert list(cleaning.stream(records)) == [pair()]
        assert cleaning.report.kept == 1
    assert list(Cleaning([]).stream(records)) == records


def test_stream_closed_early_deletes_temporary_files(tmp_path):
    cleaning = Cleaning()
    flow = cleaning.stream((pair(f"question {n}", f"answer {n}") for n in range(10)), scratch=tmp_path)
    next(flow)
    assert list(tmp_path.iterdir())
    flow.close()
    assert list(tmp_path.iterdir()) == []


def test_step_seconds_exclude_other_steps(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("jina_rag.evaluation.cleaning.pipeline.time.perf_counter", lambda: clock[0])

    class SlowStep:
        settings = {}

        def __init__(self, name, seconds):
            self.name, self.seconds = name, seconds

        def run(self, pairs, drop, scratch):
            for one in pairs:
                clock[0] += self.seconds
                yield one

    cleaning = Cleaning([SlowStep("a", 10), SlowStep("b", 1), SlowStep("c", 100)])
    list(cleaning.stream([pair(), pair()]))
    assert [step.seconds for step in cleaning.report.steps] == [20, 2, 200]


def test_steps_are_closed_before_their_folder_is_deleted(tmp_path):
    folder_existed, generators = [], []

    class ClosableStep:
        name, settings = "step", {}

        def run(self, pairs, drop, scratch):
            def flow():
                try:
                    yield from pairs
                finally:
                    folder_existed.append(scratch.is_dir())

            generators.append(flow())
            return generators[-1]

    flow = Cleaning([ClosableStep(), ClosableStep()]).stream([pair(), pair()], scratch=tmp_path)
    next(flow)
    flow.close()
    assert folder_existed == [True, True]


def test_failed_run_keeps_the_previous_output(tmp_path):
    source = write_lines(tmp_path / "pairs.jsonl", [pair()])
    output = tmp_path / "out.jsonl"
    output.write_text("old", encoding="utf-8")
    with pytest.raises(InvalidInputError):
        clean_file(
            source, output, [Consistency(TableEmbedder(TABLE, single=False))], dropped=tmp_path / "dropped.jsonl"
        )
    assert output.read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl"]


def test_clean_file_writes_records_unchanged(tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_bytes(
        b'\xef\xbb\xbf{"question": "Wie?", "answer": "So \\ud83d.", "n": 1.5}\r\n'
        + '{"question": "為何?", "answer": "\u2028因為。", "deep": {"a": [null]}}'.encode()
    )
    report = clean_file(source, tmp_path / "out.jsonl", query_key="question", passage_key="answer")
    kept_records = read_lines(tmp_path / "out.jsonl")
    assert kept_records == [
        {"question": "Wie?", "answer": "So \ud83d.", "n": 1.5},
        {"question": "為何?", "answer": "\u2028因為。", "deep": {"a": [None]}},
    ]
    assert report.kept == 2


def test_clean_file_invalid_input_raises(tmp_path):
    source = write_lines(tmp_path / "pairs.jsonl", [pair()])
    out = tmp_path / "out.jsonl"
    with pytest.raises(InvalidInputError, match=r'line 1: "question" is missing'):
        clean_file(source, out, query_key="question")
    with pytest.raises(InvalidInputError, match="paths must differ"):
        clean_file(source, source)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        clean_file(tmp_path / "none.jsonl", out)
    with pytest.raises(InvalidInputError, match="cannot be written"):
        clean_file(source, tmp_path / "none" / "out.jsonl", scratch=tmp_path)
    with pytest.raises(InvalidInputError, match=r'Pair 2: "passage" is missing or not a string'):
        list(Cleaning().stream([pair(), {"query": "x", "passage": 5}]))
    with source.open("ab") as file:
        file.write(b"\xff\n")
    with pytest.raises(InvalidInputError, match="line 2: not UTF-8"):
        list(read_pairs(source))


# The command


@pytest.fixture
def cli(monkeypatch, capsys):
    monkeypatch.delenv("JINA_RAG_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "140")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["jina-rag", "clean", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as system_exit:
            main()
        output = capsys.readouterr()
        return system_exit.value.code or 0, output.out, output.err

    return run


def test_command_writes_output_report_and_dropped_pairs(cli, tmp_path):
    records = [pair(), pair(QUERY.lower()), pair("so " + QUERY), pair(passage=FOREIGN["fr"]), pair("Why?", "So.")]
    source = write_lines(tmp_path / "pairs.jsonl", records)
    out, report, dropped = tmp_path / "out.jsonl", tmp_path / "report.json", tmp_path / "dropped.jsonl"
    code, stdout, _ = cli(
        source, "-o", out, "--report", report, "--dropped", dropped, "--language", "en", "--seed", 3, "--json"
    )
    assert code == 0
    result = json.loads(stdout)
    assert result == json.loads(report.read_text(encoding="utf-8"))
    assert (result["read"], result["kept"]) == (5, 2)
    assert read_lines(out) == [records[0], records[4]]
    assert len(dropped.read_text(encoding="utf-8").splitlines()) == 3
    assert result["steps"][-1]["settings"]["seed"] == 3

    code, stdout, stderr = cli(source, "-o", out, "--no-near")
    assert (code, stdout) == (0, "")
    assert "5 read, 4 kept, 1 dropped" in stderr
    assert "exact duplicates, exact duplicate: 1" in stderr


def test_command_with_embedder_reports_unreadable_lines(cli, tmp_path):
    records = [
        pair("What is a comet made of?", "A comet is made of ice and dust."),
        pair("Who approved the budget?", "The committee approved the budget."),
        pair("How is bread made?", "The turbine stands in the museum of the harbour."),
        pair("Where is the turbine?", "The turbine is in the museum."),
    ]
    source = write_lines(tmp_path / "pairs.jsonl", records)
    with source.open("a", encoding="utf-8") as file:
        file.write("{}\n")
    out = tmp_path / "out.jsonl"
    code, stdout, _ = cli(source, "--output", out, "--embedder", "lite", "--rank", 1, "--sample", 100, "--json")
    assert code == 1
    result = json.loads(stdout)
    assert result["steps"][-1]["settings"]["embedder"] == "lite"
    assert result["steps"][-1]["dropped"] == {"rank of the passage": 1}
    assert result["unreadable"] == {'"query" is missing or not a string.': 1}
    assert read_lines(out) == [records[0], records[1], records[3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--near", "2"], "passage (--near) is 2.0; expected a number above 0"),
        (["--language", "xx"], "Unsupported language 'xx'"),
        (["--query-key", "q"], '"q" is missing'),
        (["--report", "none/report.json"], "folder 'none' does not exist"),
        (["--scratch", "none"], "folder 'none' does not exist"),
    ],
)
def test_command_invalid_options_exit_with_status_2(cli, tmp_path, options, message):
    source = write_lines(tmp_path / "pairs.jsonl", [pair()])
    code, stdout, stderr = cli(source, "-o", tmp_path / "out.jsonl", *options)
    assert (code, stdout) == (2, "")
    assert message in " ".join(stderr.split())
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_command_help_has_an_example(cli):
    code, stdout, _ = cli("--help")
    assert code == 0
    assert "jina-rag clean pairs.jsonl --output clean.jsonl" in stdout
