"""What each token of a prompt stands for, as text: the words that a user gave, and nothing of the prompt's own."""

from __future__ import annotations

from collections.abc import Sequence

from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.jina.vl_prompts import Prompt, Segment, join_texts


def prompt_texts(
    segments: Sequence[Segment], prompt: Prompt, tokenizer: TextTokenizer, *, lead: str, trailing: bool
) -> tuple[str, ...]:
    """The text of each token; empty for markers, pictures and the words that every prompt has.

    Args:
        segments: What the prompt was made of.
        prompt: Its tokens; it may have been cut at its end.
        tokenizer: That made it.
        lead: The prompt's own words at its beginning, before those of the user.
        trailing: Whether its last text is its own, too.

    Returns:
        As many texts as the prompt has tokens; see `TextTokenizer.pieces_many`.
    """
    texts: list[str] = []
    images = iter(prompt.images)
    parts = join_texts(segments)
    own = len(lead)
    for number, part in enumerate(parts, start=1):
        if isinstance(part, str):
            [pieces] = tokenizer.pieces_many([part], skip=len(part) if trailing and number == len(parts) else own)
            texts += pieces
            own = 0
        else:
            texts += [""] * (1 if isinstance(part, int) else next(images).tokens)
    return tuple(texts[: len(prompt)])
