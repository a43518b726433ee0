from __future__ import annotations

import pytest

from jina_rag._display import displayed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("report 2024.pdf", "report 2024.pdf"),
        ("naïve 文書 🙂 می‌خواهم", "naïve 文書 🙂 می‌خواهم"),
        ("a\tb\xa0c\u3000d", "a b c d"),
        ("line\nbreak\r", r"line\nbreak\r"),
        ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
        ("\x9b31m\x85\x7f\x00\x1c", r"\x9b31m\x85\x7f\x00\x1c"),
        ("\u202e\u2066\u061c\ufeff\u200b", r"\u202e\u2066\u061c\ufeff\u200b"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff\U000e0041", r"\udcff\U000e0041"),
    ],
)
def test_characters_that_change_the_display_are_escaped(text, shown):
    assert displayed(text) == shown
