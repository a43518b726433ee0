"""Run and qrels files in the formats of trec_eval and ir_measures.

    q7 Q0 annual%20report#12 1 10 jina_rag        run: query, Q0, page, rank, score, name
    q7 0 annual%20report#12 2                     qrels: query, 0, page, grade

ir_measures and trec_eval compute the measures of jina_rag with these commands:

    ir_measures qrels.trec run.trec "nDCG(gains={1:1,2:3})@5" "Success(rel=2)@5" "RR(rel=2)@10"
    trec_eval -m ndcg_cut.5 qrels-gains.trec run.trec; trec_eval -l 2 -m success.1,5 -m recip_rank qrels.trec run.trec

A page is ``DOC#NUMBER``. Characters that the formats cannot hold (white space, control characters, ``%`` and ``#``) are
percent-encoded, so that names survive a round trip.

Source: trec_eval (National Institute of Standards and Technology), formats of results and qrels files.
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
    """Return a page as one word, ``DOC#NUMBER``.

    >>> page_id(("annual report", 12))
    'annual%20report#12'

    Args:
        page: (doc, 1-based page).
    """
    return f"{escape_name(page[0])}#{page[1]}"


def parse_page_id(word: str) -> PageKey:
    """Return the (doc, 1-based page) of a word from `page_id`.

    Args:
        word: A word of the form ``DOC#NUMBER``.

    Raises:
        InvalidInputError: If the word has another form.
    """
    doc, separator, number = word.rpartition("#")
    if not separator or not number.isdecimal():
        raise InvalidInputError(f"{word!r} is not a page; expected DOC#NUMBER.")
    return unescape_name(doc), int(number)


def escape_name(name: str) -> str:
    """Return a name as one word, with unsafe characters percent-encoded.

    Args:
        name: Any text.
    """
    return _UNSAFE.sub(lambda match: quote(match.group(), safe="", errors="surrogatepass"), name)


def unescape_name(word: str) -> str:
    """Return the name that `escape_name` encoded.

    Args:
        word: A percent-encoded name.
    """
    return unquote(word, errors="surrogatepass")


def write_trec_run(path: Path, run: Run, *, name: str = "jina_rag") -> None:
    """Write a run file.

    The score decreases by 1 per rank, because trec_eval and ir_measures sort by score and ignore the rank.

    Args:
        path: Path of the file; an existing file is replaced.
        run: query_id → pages, best first; repeated pages are dropped.
        name: Name of the run, the last column.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    lines = []
    for query_id, ranking in run.items():
        pages = list(dict.fromkeys(ranking))
        lines += [
            f"{escape_name(query_id)} Q0 {page_id(page)} {rank} {len(pages) - rank + 1} {escape_name(name)}\n"
            for rank, page in enumerate(pages, start=1)
        ]
    write_text(path, "".join(lines), label="rankings")


def read_trec_run(path: Path) -> dict[str, list[PageKey]]:
    """Return query_id → pages of a run file, in the order of trec_eval.

    trec_eval sorts by descending score, breaks ties by descending page name, and ignores the rank.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or a line is invalid.
    """
    scored_pages: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for number, fields in _lines(path, 6, "QUERY Q0 PAGE RANK SCORE NAME"):
        query_id, _, word, _, score, _ = fields
        _parse_page(word, path, number)
        try:
            scored_pages[unescape_name(query_id)].append((float(score), word))
        except ValueError:
            raise InvalidInputError(f"{path}, line {number}: score is {score!r}; expected a number.") from None
    return {query_id: [parse_page_id(word) for word in trec_order(rows)] for query_id, rows in scored_pages.items()}


def trec_order(scored_pages: Iterable[tuple[float, str]]) -> list[str]:
    """Return page names in the order of trec_eval: by descending score, ties by descending UTF-8 bytes of the name.

    Args:
        scored_pages: (score, page name) pairs.
    """
    rows = sorted(scored_pages, key=lambda row: (row[0], row[1].encode("utf-8", "surrogatepass")), reverse=True)
    return [word for _, word in rows]


def write_qrels(path: Path, queries: Sequence[JudgedQuery], *, gains: bool = False) -> None:
    """Write a qrels file.

    Args:
        path: Path of the file; an existing file is replaced.
        queries: Queries; a query without judgments has no line.
        gains: Write the gain 2^grade − 1 in place of each grade, because trec_eval's nDCG reads gains.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    lines = [
        f"{escape_name(query.query_id)} 0 {page_id(page)} {2**grade - 1 if gains else grade}\n"
        for query in queries
        for page, grade in query.relevant.items()
    ]
    write_text(path, "".join(lines), label="judgments")


def read_qrels(path: Path) -> dict[str, dict[PageKey, int]]:
    """Return query_id → page → grade of a qrels file.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or a line is invalid.
    """
    qrels: dict[str, dict[PageKey, int]] = defaultdict(dict)
    for number, (query_id, _, word, grade) in _lines(path, 4, "QUERY 0 PAGE GRADE"):
        page = _parse_page(word, path, number)
        try:
            qrels[unescape_name(query_id)][page] = int(grade)
        except ValueError:
            raise InvalidInputError(f"{path}, line {number}: grade is {grade!r}; expected an integer.") from None
    return dict(qrels)


def _parse_page(word: str, path: Path, number: int) -> PageKey:
    try:
        return parse_page_id(word)
    except InvalidInputError as exc:
        raise InvalidInputError(f"{path}, line {number}: {exc}") from None


def _lines(path: Path, fields: int, form: str) -> list[tuple[int, list[str]]]:
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    for number, words in lines:
        if words and len(words) != fields:
            raise InvalidInputError(f"{path}, line {number}: expected the columns {form}.")
    return [(number, words) for number, words in lines if words]
