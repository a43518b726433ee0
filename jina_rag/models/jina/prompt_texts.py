"""Text of each token of a prompt; tokens of the prompt template have empty texts."""

from __future__ import annotations

from collections.abc import Sequence

from jina_rag.models.jina.text_tokens import TextTokenizer
from jina_rag.models.jina.vl_prompts import Prompt, Segment, join_texts


def prompt_texts(
    segments: Sequence[Segment], prompt: Prompt, tokenizer: TextTokenizer, *, lead: str, trailing: bool
) -> tuple[str, ...]:
    """Return the text of each token; empty for special tokens, image tokens and words of the prompt template.

    Args:
        segments: Segments of the prompt.
        prompt: Tokens of the prompt, possibly truncated at the end.
        tokenizer: Tokenizer of the prompt.
        lead: Words of the prompt template before the caller's text.
        trailing: Whether the last text segment also belongs to the prompt template.

    Returns:
        One text for each token of the prompt; see `TextTokenizer.pieces_many`.
    """
    texts: list[str] = []
    images = iter(prompt.images)
    parts = join_texts(segments)
    lead_length = len(lead)
    for number, part in enumerate(parts, start=1):
        if isinstance(part, str):
            [pieces] = tokenizer.pieces_many(
                [part], skip=len(part) if trailing and number == len(parts) else lead_length
            )
            texts += pieces
            lead_length = 0
        else:
            texts += [""] * (1 if isinstance(part, int) else next(images).tokens)
    return tuple(texts[: len(prompt)])
