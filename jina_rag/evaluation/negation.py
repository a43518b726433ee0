"""The negation test of Jina Embeddings v1: does an embedder separate a statement from its negation?

A triplet is a statement (anchor), a statement that follows from the anchor (entailment), and a negation of the
entailment in nearly the same words (negative). With s for the cosine similarity,

- the easy accuracy is the share of triplets with s(anchor, entailment) > s(anchor, negative),
- the hard accuracy is the share of triplets with s(anchor, entailment) > s(entailment, negative).

The paper calls the two accuracies EasyNegation and HardNegation. The script ``evaluate_on_negations.py`` of the dataset
``jinaai/negation-dataset`` on the Hugging Face Hub calls the accuracies ``anchor_score`` and ``entailment_score``. A
tie counts as wrong, as in the script.

Data format: JSON Lines with the keys ``anchor``, ``entailment`` and ``negative``. Export the published test split
(500 triplets, Apache-2.0) with ``datasets.load_dataset("jinaai/negation-dataset", split="test").to_json(path)``.
`sample_triplets` returns a sample of 100 triplets that were generated from templates.

Source: Günther et al., Jina Embeddings (arXiv 2307.11224), section "Effectiveness of negation data".
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
"""Accuracies on the test split of ``jinaai/negation-dataset`` (500 triplets), from Günther et al., arXiv 2307.11224."""
_KEYS = ("anchor", "entailment", "negative")
_Z = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """A statement, an entailed statement, and a negation of the entailed statement.

    Attributes:
        anchor: The statement.
        entailment: A statement that follows from the anchor.
        negative: A negation of the entailment.
    """

    anchor: str
    entailment: str
    negative: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of correct triplets, with a 95 % interval.

    Attributes:
        right: Number of correct triplets, in which s(anchor, entailment) is the greater of the two similarities.
        ties: Number of triplets with two equal similarities; a tie counts as wrong.
        n: Number of triplets.
    """

    right: int
    ties: int
    n: int

    @property
    def value(self) -> float:
        """Share of correct triplets, from 0 to 1."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of Wilson's 95 % score interval of the share (Wilson, 1927), from 0 to 1."""
        share, denominator = self.value, 1 + _Z**2 / self.n
        centre = (share + _Z**2 / (2 * self.n)) / denominator
        half_width = _Z / denominator * math.sqrt(share * (1 - share) / self.n + _Z**2 / (4 * self.n**2))
        return max(0.0, centre - half_width), min(1.0, centre + half_width)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the share and the interval of the share as a JSON object."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, **asdict(self)}


@dataclass(frozen=True, slots=True)
class NegationResult:
    """Easy and hard accuracy of one embedder.

    Attributes:
        easy: Accuracy of s(anchor, entailment) > s(anchor, negative).
        hard: Accuracy of s(anchor, entailment) > s(entailment, negative).
        embedder: Name of the embedder.
        fingerprint: Fingerprint of the embedder; equal fingerprints mean equal vectors.
        side: Side of the embedder that encoded the texts: ``"query"`` or ``"document"``.
        sha256: SHA-256 of the triplets in order, in hexadecimal digits.
    """

    easy: Accuracy
    hard: Accuracy
    embedder: str
    fingerprint: str
    side: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object, including the published accuracies with their model, data and source."""
        values = asdict(self) | {"easy": self.easy.to_json(), "hard": self.hard.to_json()}
        values["data_sha256"] = values.pop("sha256")
        source = {"data": "jinaai/negation-dataset, test, 500 triplets", "source": "arXiv 2307.11224"}
        return {"test": "negation", **values, "published": PUBLISHED | source}

    def __str__(self) -> str:
        rows = [f"{self.embedder}, {self.easy.n} triplets (published: {PUBLISHED['model']}, 500 other triplets)"]
        for name, accuracy in (("easy", self.easy), ("hard", self.hard)):
            low, high = accuracy.interval
            shares = f"{accuracy.value:.1%} [{low:.1%}, {high:.1%}]"
            rows.append(f"  {name} {shares}, ties {accuracy.ties} (published {PUBLISHED[name]:.1%})")
        return "\n".join(rows)


def evaluate_negation(
    embedder: Embedder, triplets: Sequence[Triplet], *, side: Literal["query", "document"] = "query", batch: int = 64
) -> NegationResult:
    """Measure the easy and the hard accuracy of an embedder.

    Args:
        embedder: An embedder with dense vectors.
        triplets: At least one triplet.
        side: Side that encodes all three texts: ``"query"`` or ``"document"``. For models with
            one prefix per side, the query prefix is recommended for symmetric tasks (model card of E5; task
            ``text-matching`` of jina-embeddings-v4). For Jina Embeddings v1, the result does not depend on the side.
        batch: Texts per call of the embedder.

    Raises:
        InvalidInputError: If `triplets` is empty, or the embedder returns no dense vectors.
    """
    if not triplets:
        raise InvalidInputError("triplets is empty. Pass at least one triplet.")
    texts = [text for triplet in triplets for text in (triplet.anchor, triplet.entailment, triplet.negative)]
    encode = embedder.encode_query if side == "query" else embedder.encode_document
    vectors: list[Float32] = []
    for start in range(0, len(texts), batch):
        single = encode(texts[start : start + batch], multi=False).single
        if single is None:
            raise InvalidInputError(
                f"The embedder {embedder.name!r} returned no dense vectors. Pass an embedder with dense vectors."
            )
        vectors.append(normalise(single))
    # Double precision, so that ties come from equal similarities and not from rounding of the sums.
    anchor, entailment, negative = (
        np.concatenate(vectors).astype(np.float64).reshape(len(triplets), 3, -1).swapaxes(0, 1)
    )
    positive = np.einsum("nd,nd->n", anchor, entailment)
    easy, hard = np.einsum("nd,nd->n", anchor, negative), np.einsum("nd,nd->n", entailment, negative)
    digest = hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return NegationResult(
        easy=Accuracy(int((positive > easy).sum()), int((positive == easy).sum()), len(triplets)),
        hard=Accuracy(int((positive > hard).sum()), int((positive == hard).sum()), len(triplets)),
        embedder=embedder.name,
        fingerprint=embedder.fingerprint,
        side=side,
        sha256=digest.hexdigest(),
    )


def read_triplets(path: Path) -> tuple[Triplet, ...]:
    """Return the triplets of a JSON Lines file; keys that are not attributes of `Triplet` are ignored.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file or a line cannot be read; the message gives the line number.
    """
    triplets = []
    for number, entry in read_lines(path):
        texts = [text for text in map(entry.get, _KEYS) if isinstance(text, str) and text.strip()]
        if len(texts) < len(_KEYS):
            raise InvalidInputError(
                f'{path}, line {number}: "anchor", "entailment" and "negative" must be non-empty strings.'
            )
        triplets.append(Triplet(*texts))
    return tuple(triplets)


def sample_triplets() -> tuple[Triplet, ...]:
    """Return the 100 sample triplets of the package, generated by ``tools/make_negation_sample.py``.

    The sample has 25 English scenes with four negations each. The sample is not a benchmark: use the sample only to
    check that a model and the negation test work.
    """
    with resources.as_file(resources.files("jina_rag.evaluation") / "negation_sample.jsonl") as path:
        return read_triplets(path)
