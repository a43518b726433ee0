"""Pairs whose passage does not answer their question, by the judgement of an embedder."""

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
    """Keep a pair if its passage is among the first `n` for its question, itself and a random sample of the others.

    Ranked by the cosine of the embedder's dense vectors. The sample is drawn once, uniformly from all pairs that reach
    this step; a pair's own passage is left out of it for that pair. A tie counts against the pair.

    The paper embeds 1,000,000 pairs with all-MiniLM-L6-v2 and asks for the first two ranks. A smaller sample is a
    milder test: a wrong passage stays by chance in about n of `sample` cases, one on the same subject more often.

    State: pairs are first written to a file (their own size), then read again. Memory holds the sample's vectors,
    sample × dim × 4 bytes, and one batch.

    Attributes:
        embedder: Any; `encode_query` and `encode_document` are asked for dense vectors.
        n: Ranks that are good enough.
        sample: Passages to rank among; all of them where there are fewer.
        seed: Of the draw.
        batch: Pairs that are embedded at once.

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
                f"The rank and the batch are at least 1, the sample at least the rank: got n={self.n}, "
                f"batch={self.batch}, sample={self.sample}."
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Model, rank, sample and seed."""
        return {
            "embedder": self.embedder.name,
            "fingerprint": self.embedder.fingerprint,
            "n": self.n,
            "sample": self.sample,
            "seed": self.seed,
        }

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give the pairs that pass, once all of them have been read."""
        with (scratch / "pairs.jsonl").open("w+b") as file:
            places = self._spool(pairs, file)
            others, names = self._embed_sample(file, places)
            file.seek(0)
            for lines in batches(file, self.batch):
                yield from self._judge([_load(line) for line in lines], others, names, drop)

    def _spool(self, pairs: Iterable[Pair], file: BinaryIO) -> list[int]:
        """Write the pairs down; where those of the sample begin, in order (algorithm R, Vitter 1985)."""
        rng = random.Random(self.seed)  # noqa: S311  # a sample, not a secret
        places: list[int] = []
        for count, pair in enumerate(pairs):
            place = file.tell()
            file.write(dump({"pair": [pair.number, pair.query, pair.passage], "record": pair.record}))
            if count < self.sample:
                places.append(place)
            elif (slot := rng.randrange(count + 1)) < self.sample:
                places[slot] = place
        return sorted(places)

    def _embed_sample(self, file: BinaryIO, places: Sequence[int]) -> tuple[Float32, npt.NDArray[np.uint64]]:
        """Vectors of the sample, shape (m, dim), and what their texts are called, shape (m,)."""
        vectors: list[Float32] = []
        names: list[int] = []
        for some in batches(places, self.batch):
            passages = []
            for place in some:
                file.seek(place)
                passages.append(_load(file.readline()).passage)
            vectors.append(self._dense(self.embedder.encode_document(passages, multi=False).single))
            names += [_name(passage) for passage in passages]
        if not vectors:
            return np.zeros((0, self.embedder.dim), np.float32), np.zeros(0, np.uint64)
        return np.concatenate(vectors), np.array(names, dtype=np.uint64)

    def _judge(self, pairs: list[Pair], others: Float32, names: npt.NDArray[np.uint64], drop: OnDrop) -> Iterator[Pair]:
        try:
            queries = self._dense(self.embedder.encode_query([pair.query for pair in pairs], multi=False).single)
            passages = self._dense(self.embedder.encode_document([pair.passage for pair in pairs], multi=False).single)
        except InvalidInputError as exc:
            if len(pairs) > 1:  # one that it cannot read must not cost the others
                for pair in pairs:
                    yield from self._judge([pair], others, names, drop)
                return
            detail = {"message": str(exc)}
            drop(Dropped(pairs[0].number, self.name, "the embedder cannot read it", None, detail, pairs[0].record))
            return
        own = np.sum(queries * passages, axis=1)
        mine = np.array([_name(pair.passage) for pair in pairs], dtype=np.uint64)
        ahead = (queries @ others.T >= own[:, None]) & (names[None, :] != mine[:, None])
        for pair, rank, similarity in zip(pairs, (1 + ahead.sum(axis=1)).tolist(), own.tolist(), strict=True):
            if rank <= self.n:
                yield pair
            else:
                detail = {"rank": rank, "similarity": round(similarity, 4)}
                drop(Dropped(pair.number, self.name, "rank of the passage", None, detail, pair.record))

    def _dense(self, single: Float32 | None) -> Float32:
        if single is None:
            raise InvalidInputError(
                f"The embedder {self.embedder.name!r} gave no dense vectors, which this step compares."
            )
        return normalise(single)


def _load(line: bytes) -> Pair:
    entry = json.loads(line)
    number, query, passage = entry["pair"]
    return Pair(number, query, passage, entry["record"])


def _name(passage: str) -> int:
    return int.from_bytes(digest(passage)[:8], "little")
