"""Tables on a page of hundreds of rules and thousands of words are searched in seconds."""

from __future__ import annotations

import time

import numpy as np

from jina_rag.parsing.layout.tables import ruled_tables
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.types import Word


def test_hundreds_of_rules_and_thousands_of_words_take_seconds():
    rules = np.array([[x, y, x + 50, y + 1] for y in range(20) for x in range(0, 900, 60)], dtype=np.float32)
    words = [
        Word(f"w{n}", (x / 40, n / 400, (x + 0.4) / 40, (n + 0.5) / 400)) for n in range(400) for x in range(0, 40, 2)
    ]
    lines = text_lines(words, 900.0, 900.0)
    start = time.process_time()
    ruled_tables(rules, (), lines)
    assert time.process_time() - start < 5
