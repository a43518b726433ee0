"""Consistency filter, which drops a pair if an embedder ranks the passage low for the query."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.duplicates import digest
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair, batches, dump
from jina_rag.protocols import Embedder
from jina_rag.scoring import normalise
from jina_rag.types import Float32


@dataclass(frozen=True)
class Consistency:
    """A step that keeps a pair if the passage ranks among the first `n` passages for the query.

    The step ranks the passage of a pair against a random sample of passages by the cosine similarity of dense vectors.
    The sample is drawn once, uniformly from all pairs that reach the step. A sampled passage with the same text as the
    passage of the pair is ignored. A sampled passage with an equal similarity ranks before the passage of the pair.

    The cited paper embeds 1,000,000 pairs with all-MiniLM-L6-v2 and requires rank 1 or 2. A smaller sample is a weaker
    test: a pair with an unrelated passage stays by chance with a probability of about `n` / `sample`, and a pair with a
    passage on the same subject more often.

    State: the step writes the texts and the record of each pair to a temporary file, and then reads this file. The file
    is at most about twice as large as the input. Memory holds the vectors of the sampled passages (`sample` × dim × 4
    bytes) and one batch of pairs.

    Attributes:
        embedder: Any embedder whose `encode_query` and `encode_document` return dense vectors.
        n: Maximum rank of the passage, counted from 1, for a pair to stay.
        sample: Number of sampled passages. If the input has fewer pairs, all passages are used.
        seed: Seed of the random sample.
        batch: Number of pairs per call of the embedder.

    Raises:
        InvalidInputError: If `n` or `batch` is below 1, or `sample` is below `n`.

    Source: Günther et al., arXiv 2307.11224, consistency filtering; after Dai et al., Promptagator (ICLR 2023).
    """

    name: ClassVar[str] = "consistency"
    embedder: Embedder
    n: int = 2
    sample: int = 10_000
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        if min(self.n, self.batch) < 1 or self.sample < self.n:
            raise InvalidInputError(
                f"Invalid settings n={self.n}, batch={self.batch}, sample={self.sample}; expected n (--rank) and batch "
                "to be at least 1, and sample (--sample) at least n."
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the step: name and fingerprint of the embedder, maximum rank, sample size and seed."""
        return {
            "embedder": self.embedder.name,
            "fingerprint": self.embedder.fingerprint,
            "n": self.n,
            "sample": self.sample,
            "seed": self.seed,
        }

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the consistent pairs in input order, after all input pairs have been read.

        Args:
            pairs: Input pairs, which the step reads once.
            drop: Called with each pair that the step drops.
            scratch: An empty folder for the step's temporary file.

        Raises:
            InvalidInputError: If the embedder returns no dense vectors.
        """
        with (scratch / "pairs.jsonl").open("w+b") as file:
            offsets = self._spool(pairs, file)
            sample, hashes = self._embed_sample(file, offsets)
            file.seek(0)
            for lines in batches(file, self.batch):
                yield from self._rank([_parse_pair(line) for line in lines], sample, hashes, drop)

    def _spool(self, pairs: Iterable[Pair], file: BinaryIO) -> list[int]:
        """Write the pairs to `file` and return the byte offsets of the sampled pairs in ascending order.

        Source: Vitter, 1985 (reservoir sampling, algorithm R).
        """
        rng = random.Random(self.seed)  # noqa: S311  # a sample, not a secret
        offsets: list[int] = []
        for count, pair in enumerate(pairs):
            offset = file.tell()
            file.write(dump({"pair": [pair.number, pair.query, pair.passage], "record": pair.record}))
            if count < self.sample:
                offsets.append(offset)
            elif (slot := rng.randrange(count + 1)) < self.sample:
                offsets[slot] = offset
        return sorted(offsets)

    def _embed_sample(self, file: BinaryIO, offsets: Sequence[int]) -> tuple[Float32, npt.NDArray[np.uint64]]:
        """Return the vectors, shape (m, dim), float32, and text hashes, shape (m,), uint64, of the sampled passages."""
        vectors: list[Float32] = []
        hashes: list[int] = []
        for batch_offsets in batches(offsets, self.batch):
            passages = []
            for offset in batch_offsets:
                file.seek(offset)
                passages.append(_parse_pair(file.readline()).passage)
            vectors.append(self._dense(self.embedder.encode_document(passages, multi=False).single))
            hashes += [_text_hash(passage) for passage in passages]
        if not vectors:
            return np.zeros((0, self.embedder.dim), np.float32), np.zeros(0, np.uint64)
        return np.concatenate(vectors), np.array(hashes, dtype=np.uint64)

    def _rank(self, pairs: list[Pair], sample: Float32, hashes: npt.NDArray[np.uint64], drop: OnDrop) -> Iterator[Pair]:
        try:
            queries = self._dense(self.embedder.encode_query([pair.query for pair in pairs], multi=False).single)
            passages = self._dense(self.embedder.encode_document([pair.passage for pair in pairs], multi=False).single)
        except InvalidInputError as exc:
            if len(pairs) > 1:  # retry each pair alone, to drop only the pairs that the embedder rejects
                for pair in pairs:
                    yield from self._rank([pair], sample, hashes, drop)
                return
            detail = {"message": str(exc)}
            drop(Dropped(pairs[0].number, self.name, "the embedder cannot read it", None, detail, pairs[0].record))
            return
        own_scores = np.sum(queries * passages, axis=1)
        own_hashes = np.array([_text_hash(pair.passage) for pair in pairs], dtype=np.uint64)
        is_ahead = (queries @ sample.T >= own_scores[:, None]) & (hashes[None, :] != own_hashes[:, None])
        for pair, rank, similarity in zip(pairs, (1 + is_ahead.sum(axis=1)).tolist(), own_scores.tolist(), strict=True):
            if rank <= self.n:
                yield pair
            else:
                detail = {"rank": rank, "similarity": round(similarity, 4)}
                drop(Dropped(pair.number, self.name, "rank of the passage", None, detail, pair.record))

    def _dense(self, single: Float32 | None) -> Float32:
        if single is None:
            raise InvalidInputError(
                f"The embedder {self.embedder.name!r} returned no dense vectors. Pass an embedder with dense vectors, "
                'for example "lite" (--embedder lite).'
            )
        return normalise(single)


def _parse_pair(line: bytes) -> Pair:
    entry = json.loads(line)
    number, query, passage = entry["pair"]
    return Pair(number, query, passage, entry["record"])


def _text_hash(passage: str) -> int:
    return int.from_bytes(digest(passage)[:8], "little")
