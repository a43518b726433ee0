"""Display of untrusted text, such as file names and snippets, on terminals, in logs and in reports."""

from __future__ import annotations

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""Joiners and direction marks that are kept, because Persian, Hindi, Hebrew and Arabic text needs them."""


def displayed(text: object) -> str:
    r"""Return untrusted text on one line, with escapes for the characters that could change the display of the line.

    Control characters (terminal codes of C0 and C1), line breaks, bidirectional controls (which can make a file name
    read backwards) and undecodable bytes become backslash escapes. Readable characters are unchanged, and other white
    space becomes a space.

    Args:
        text: The text, or another object, for example a path.

    >>> displayed("invoice\u202efdp.exe")
    'invoice\\u202efdp.exe'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in _JOINERS else _escape(c) for c in shown)


def _escape(character: str) -> str:
    # A tab, a no-break space or an ideographic space becomes a space. Control characters and separators of lines are
    # white space, too, but change the display.
    if character == "\t" or (character.isspace() and character >= "\xa0" and character not in "\u2028\u2029"):
        return " "
    return character.encode("unicode_escape").decode("ascii")
