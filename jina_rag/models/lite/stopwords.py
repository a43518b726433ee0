"""Stop words. The lite embedder drops the token vectors of stop words after encoding.

The lists apply to texts in all languages. A stop word of one language can be a content word of another language ("die",
"no", "son", single letters). The lists are short, because dropping a content word harms search more than keeping a stop
word.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_LISTS = {
    "en": "a an and are as at be been but by did do does for from had has have how if in into is it "
    "its of on or that the their them then there these they this those to was were what when "
    "where which who whom why will with would your you we our he she his her",
    "de": "das dem den der des ein eine einem einen einer eines im ist sind und oder für mit von "
    "vom zu zum zur auf aus bei wie welche welcher welches wo wurde werden wird sich nicht "
    "auch als an es",
    "fr": "au aux ce ces cette de des du dans en est et il la le les leur ou où par pour qu que qui "
    "quel quelle quels quelles sont sur un une avec se sa ses",
    "es": "al con cual cuál cuales de del el en es la las lo los para por que qué se su sus un una unos unas como cómo",
    "it": "al alla alle ai che chi con da dal dalla dei del della delle di gli il in la le lo "
    "nel nella per quale quali si sono su un una uno è",
    "pt": "ao aos as da das do dos e em é na nas os para pela pelo por que quais qual se um uma são",
    "nl": "de een en het is in met of op te van voor zijn aan bij dat door wat welke naar uit er",
    "sv da nb": "och att det som en ett på är av för med till den de om og er til af var hvad vad hva",
    "pl cs": "na do że się jest są oraz od po jak co które który która je jsou ve se za",
    "ru uk": "и в во на с со по к из за от что это как для не о а но или у є та і з до які який",
    "tr": "ve bir bu ile için de da mı hangi olan olarak",
    "el": "και το η ο τα οι του της των στο στη στην με για από που είναι σε",
    "ar fa": "في من على إلى عن ما هو هي هذا هذه التي الذي و أن كان از به در که را و این است",
    "he": "של את על עם זה זו הוא היא מה לא גם כל",
    "hi": "और का की के को में से है हैं पर यह वह क्या था ने एक",
    "id ms": "yang dan di ke dari untuk dengan ini itu pada adalah",
    "vi": "và của là các có cho trong được một những với",
    "ko": "및 이 그 저 는 은 을 를 의 에 에서 로 으로 와 과 도",
}
STOP_WORDS = frozenset(word for words in _LISTS.values() for word in words.split())
PARTICLES = frozenset(
    "の は が を に で と も へ や から まで です ます した する 的 了 是 在 和 与 及 或 之 為 为".split()
)
"""Japanese and Chinese particles. Particles are dropped token by token, because Japanese and Chinese text has no
spaces between words.
"""


@lru_cache(maxsize=20_000)
def is_stop_word(word: str) -> bool:
    """Return whether a word is a stop word, ignoring case and surrounding punctuation.

    Args:
        word: A word of any language.

    >>> is_stop_word("(The"), is_stop_word("thesis")
    (True, False)
    """
    return _bare(unicodedata.normalize("NFKC", word).casefold()) in STOP_WORDS


def is_particle(token: str) -> bool:
    """Return whether a token is a Japanese or Chinese particle.

    Args:
        token: Characters of the token.

    >>> is_particle("の"), is_particle("東")
    (True, False)
    """
    return token in PARTICLES


@lru_cache(maxsize=20_000)
def has_content(text: str) -> bool:
    """Return whether a text contains a letter, a digit or a symbol. Punctuation does not count.

    Args:
        text: Any characters.

    >>> has_content("..."), has_content("€"), has_content("7")
    (False, True, True)
    """
    return any(unicodedata.category(c)[0] in "LNMS" for c in text)


def _bare(word: str) -> str:
    start, stop = 0, len(word)
    while start < stop and not word[start].isalnum():
        start += 1
    while stop > start and not (word[stop - 1].isalnum() or unicodedata.category(word[stop - 1])[0] == "M"):
        stop -= 1  # a vowel sign at the end of a word is part of the word
    return word[start:stop]
