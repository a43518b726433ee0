"""Rankings and judgements as the files that trec_eval, ir_measures and their kind read.

    q7 Q0 annual%20report#12 1 10 jina_rag        a run: question, Q0, page, rank, score, name
    q7 0 annual%20report#12 2                     judgements (qrels): question, 0, page, grade

    ir_measures qrels.trec run.trec "nDCG(gains={1:1,2:3})@5" "Success(rel=2)@5" "RR(rel=2)@10"
    trec_eval -m ndcg_cut.5 qrels-gains.trec run.trec; trec_eval -l 2 -m success.1,5 -m recip_rank qrels.trec run.trec

A page is ``DOC#NUMBER``. What these files cannot hold (white space, control characters, ``%`` and ``#``) is written as
in an address, so that names come back as they were.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, PageKey, Run
from jina_rag.evaluation.files import read_text, write_text

RUN, QRELS, GAINS = "run.trec", "qrels.trec", "qrels-gains.trec"
_UNSAFE = re.compile(r"[\s%#\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b\ufeff]")


def page_id(page: PageKey) -> str:
    """A page as one word.

    >>> page_id(("annual report", 12))
    'annual%20report#12'
    """
    return f"{escaped(page[0])}#{page[1]}"


def page_of(word: str) -> PageKey:
    """The inverse of `page_id`.

    Raises:
        InvalidInputError: If it is none.
    """
    doc, separator, number = word.rpartition("#")
    if not separator or not number.isdecimal():
        raise InvalidInputError(f"{word!r} is no page: it is written DOC#NUMBER.")
    return unescaped(doc), int(number)


def escaped(name: str) -> str:
    """A name without white space, as one word."""
    return _UNSAFE.sub(lambda match: quote(match.group(), safe="", errors="surrogatepass"), name)


def unescaped(word: str) -> str:
    """The inverse of `escaped`."""
    return unquote(word, errors="surrogatepass")


def write_trec_run(path: Path, run: Run, *, name: str = "jina_rag") -> None:
    """Write rankings. Scores fall by 1 from rank to rank, since these tools sort by score and not by rank.

    Args:
        path: Where.
        run: query_id → pages, best first; a page that occurs again is left out.
        name: Of the run.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    lines = []
    for query_id, ranking in run.items():
        pages = list(dict.fromkeys(ranking))
        lines += [
            f"{escaped(query_id)} Q0 {page_id(page)} {rank} {len(pages) - rank + 1} {escaped(name)}\n"
            for rank, page in enumerate(pages, start=1)
        ]
    write_text(path, "".join(lines), what="rankings")


def read_trec_run(path: Path) -> dict[str, list[PageKey]]:
    """Read rankings: query_id → pages in the order in which trec_eval takes them.

    That is by score, and where scores tie by the name of the page, the last first; the column of ranks is ignored.

    Raises:
        InvalidInputError: If a line is none of a run, or the file cannot be read.
    """
    scored_pages: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for number, fields in _lines(path, 6, "QUESTION Q0 PAGE RANK SCORE NAME"):
        query_id, _, word, _, score, _ = fields
        try:
            scored_pages[unescaped(query_id)].append((float(score), word))
        except ValueError:
            raise InvalidInputError(f"{path}, line {number}: the score is {score!r}, which is no number.") from None
    return {query_id: [page_of(word) for word in trec_order(rows)] for query_id, rows in scored_pages.items()}


def trec_order(scored_pages: Iterable[tuple[float, str]]) -> list[str]:
    """(score, word) → words as trec_eval ranks them: by score, then by their bytes, the last first."""
    rows = sorted(scored_pages, key=lambda row: (row[0], row[1].encode("utf-8", "surrogatepass")), reverse=True)
    return [word for _, word in rows]


def write_qrels(path: Path, queries: Sequence[JudgedQuery], *, gains: bool = False) -> None:
    """Write judgements.

    Args:
        path: Where.
        queries: Those without judgements have no line.
        gains: Whether grades are written as gains (2 → 3), as nDCG takes them from trec_eval.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    lines = [
        f"{escaped(query.query_id)} 0 {page_id(page)} {2**grade - 1 if gains else grade}\n"
        for query in queries
        for page, grade in query.relevant.items()
    ]
    write_text(path, "".join(lines), what="judgements")


def read_qrels(path: Path) -> dict[str, dict[PageKey, int]]:
    """Read judgements: query_id → page → grade.

    Raises:
        InvalidInputError: If a line is none of them, or the file cannot be read.
    """
    qrels: dict[str, dict[PageKey, int]] = defaultdict(dict)
    for number, (query_id, _, word, grade) in _lines(path, 4, "QUESTION 0 PAGE GRADE"):
        page = page_of(word)
        try:
            qrels[unescaped(query_id)][page] = int(grade)
        except ValueError:
            raise InvalidInputError(f"{path}, line {number}: the grade is {grade!r}, which is no number.") from None
    return dict(qrels)


def _lines(path: Path, fields: int, form: str) -> list[tuple[int, list[str]]]:
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    for number, words in lines:
        if words and len(words) != fields:
            raise InvalidInputError(f"{path}, line {number}: a line is {form}.")
    return [(number, words) for number, words in lines if words]
