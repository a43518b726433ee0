"""The negation test of Jina Embeddings v1: does an embedder notice that a statement is denied?

A triplet is a statement (anchor), what follows from it (entailment), and a denial of that (negative), which is worded
nearly like the entailment. With s for the cosine of two vectors,

- the easy accuracy is the share of triplets with s(anchor, entailment) > s(anchor, negative),
- the hard accuracy is the share of triplets with s(anchor, entailment) > s(entailment, negative).

These are EasyNegation and HardNegation of Günther et al., arXiv 2307.11224, section "Effectiveness of negation data",
called ``anchor_score`` and ``entailment_score`` in ``evaluate_on_negations.py`` beside the dataset
``jinaai/negation-dataset`` on the Hugging Face hub. A tie is not a success, there as here.

The data: JSONL with ``anchor``, ``entailment``, ``negative``. The published test split (500 triplets, Apache-2.0) is
written in this form by ``datasets.load_dataset("jinaai/negation-dataset", split="test").to_json(path)``. A sample of
100 triplets written by template comes with the package: `sample_triplets`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import read_lines
from jina_rag.protocols import Embedder
from jina_rag.scoring import normalise
from jina_rag.types import Float32

PUBLISHED = {"model": "jinaai/jina-embedding-l-en-v1", "easy": 0.982, "hard": 0.654}
"""Günther et al., arXiv 2307.11224, on the 500 triplets of the test split of ``jinaai/negation-dataset``."""
_KEYS = ("anchor", "entailment", "negative")
_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """A statement, what follows from it, and a denial of what follows."""

    anchor: str
    entailment: str
    negative: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of triplets with its 95 % interval.

    Attributes:
        right: Triplets with the greater similarity where it belongs.
        ties: Triplets with two equal similarities; they are not right.
        n: All triplets.
    """

    right: int
    ties: int
    n: int

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval, 95 % (Wilson, 1927)."""
        share, shrink = self.value, 1 + _Z**2 / self.n
        centre = (share + _Z**2 / (2 * self.n)) / shrink
        half = _Z / shrink * math.sqrt(share * (1 - share) / self.n + _Z**2 / (4 * self.n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, **asdict(self)}


@dataclass(frozen=True, slots=True)
class NegationResult:
    """What the test found.

    Attributes:
        easy: s(anchor, entailment) > s(anchor, negative).
        hard: s(anchor, entailment) > s(entailment, negative).
        embedder: Name of the embedder.
        fingerprint: What its vectors depend on.
        side: How the texts were embedded.
        sha256: Of the triplets, in their order.
    """

    easy: Accuracy
    hard: Accuracy
    embedder: str
    fingerprint: str
    side: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, with the published figures and what they are of."""
        values = asdict(self) | {"easy": self.easy.to_json(), "hard": self.hard.to_json()}
        values["data_sha256"] = values.pop("sha256")
        source = {"data": "jinaai/negation-dataset, test, 500 triplets", "source": "arXiv 2307.11224"}
        return {"test": "negation", **values, "published": PUBLISHED | source}

    def __str__(self) -> str:
        rows = [f"{self.embedder}, {self.easy.n} triplets (published: {PUBLISHED['model']} on its own 500)"]
        for name, accuracy in (("easy", self.easy), ("hard", self.hard)):
            low, high = accuracy.interval
            shares = f"{accuracy.value:.1%} [{low:.1%}, {high:.1%}]"
            rows.append(f"  {name} {shares}, ties {accuracy.ties} (published {PUBLISHED[name]:.1%})")
        return "\n".join(rows)


def evaluate_negation(
    embedder: Embedder, triplets: Sequence[Triplet], *, side: Literal["query", "document"] = "query", batch: int = 64
) -> NegationResult:
    """Run the test.

    Args:
        embedder: Any; it is asked for dense vectors.
        triplets: At least one.
        side: Whether all three texts are embedded as questions or as documents. Models with a prefix for each ask for
            the question's where both texts are of one kind (E5's model card; jina-embeddings-v4's task
            ``text-matching``); for Jina Embeddings v1 there is no difference.
        batch: Texts that are embedded at once.

    Raises:
        InvalidInputError: If there are no triplets, or the embedder gives no dense vectors.
    """
    if not triplets:
        raise InvalidInputError("The negation test needs at least one triplet.")
    texts = [text for triplet in triplets for text in (triplet.anchor, triplet.entailment, triplet.negative)]
    encode = embedder.encode_query if side == "query" else embedder.encode_document
    vectors: list[Float32] = []
    for start in range(0, len(texts), batch):
        single = encode(texts[start : start + batch], multi=False).single
        if single is None:
            raise InvalidInputError(f"The embedder {embedder.name!r} gave no dense vectors, which this test compares.")
        vectors.append(normalise(single))
    # In double precision: a tie then is one of the vectors, not of the sum's rounding.
    anchor, entailment, negative = (
        np.concatenate(vectors).astype(np.float64).reshape(len(triplets), 3, -1).swapaxes(0, 1)
    )
    positive = np.einsum("nd,nd->n", anchor, entailment)
    easy, hard = np.einsum("nd,nd->n", anchor, negative), np.einsum("nd,nd->n", entailment, negative)
    whole = hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return NegationResult(
        easy=Accuracy(int((positive > easy).sum()), int((positive == easy).sum()), len(triplets)),
        hard=Accuracy(int((positive > hard).sum()), int((positive == hard).sum()), len(triplets)),
        embedder=embedder.name,
        fingerprint=embedder.fingerprint,
        side=side,
        sha256=whole.hexdigest(),
    )


def read_triplets(path: Path) -> tuple[Triplet, ...]:
    """Read triplets, one ``{"anchor", "entailment", "negative"}`` a line; other keys are passed over.

    Raises:
        InvalidInputError: If the file or a line cannot be read; the message names the line.
    """
    triplets = []
    for number, entry in read_lines(path):
        texts = [text for text in map(entry.get, _KEYS) if isinstance(text, str) and text.strip()]
        if len(texts) < len(_KEYS):
            raise InvalidInputError(f'{path}, line {number}: "anchor", "entailment" and "negative" must be texts.')
        triplets.append(Triplet(*texts))
    return tuple(triplets)


def sample_triplets() -> tuple[Triplet, ...]:
    """The 100 triplets that come with the package, made by ``tools/make_negation_sample.py``.

    They are a check that a model and the test work, not a benchmark: 25 scenes in English, four negations of each.
    """
    with resources.as_file(resources.files("jina_rag.evaluation") / "negation_sample.jsonl") as path:
        return read_triplets(path)
