"""Reference queries: sample queries on common topics, for measuring the hubness of pages.

The queries were written for this package and cover invoices, laws, surveys, instructions and images in sixteen
languages. The queries have two uses. First, the mean of the token vectors of all queries estimates the component that
all token vectors share; `models.lite.embedder` subtracts this mean. Second, the mean score of a page for the reference
queries is the hubness bias of the page (`ReferenceQueries.bias`): a long page in many languages has some similarity to
every query.
"""

from __future__ import annotations

import weakref
from typing import ClassVar

import numpy as np

from jina_rag.protocols import Embedder
from jina_rag.scoring import similarity
from jina_rag.types import Float32

QUERIES = (
    "What is the total amount?",
    "Who wrote this document?",
    "When does the contract end?",
    "How many people took part in the survey?",
    "Which country has the highest share?",
    "Where can I find the opening hours?",
    "What are the main results of the study?",
    "How do I install the device?",
    "picture of a building with trees",
    "table of costs per year",
    "diagram of the system architecture",
    "line chart of temperature over time",
    "Wie hoch ist der Anteil der Frauen?",
    "Wann wurde das Gesetz verabschiedet?",
    "Welche Teile braucht man für die Montage?",
    "Quel est le montant de la facture ?",
    "Qui est responsable du projet ?",
    "Comment remplir le formulaire ?",
    "¿Cuántos votos obtuvo el partido?",
    "¿Dónde se encuentra la empresa?",
    "Qual è la data di scadenza?",
    "Quanto custa o serviço por mês?",
    "Wat is het nummer van de klant?",
    "Какова общая стоимость?",
    "Кто подписал договор?",
    "合計金額はいくらですか",
    "会社の売上高はどのくらい増えましたか",
    "总人口是多少?",
    "如何申请签证?",
    "회원 가입은 어떻게 하나요?",
    "عدد الناخبين في المدينة",
    "متى تم توقيع الاتفاقية؟",
    "कुल राशि कितनी है?",
    "รายงานประจำปีมีกี่หน้า",
)


class ReferenceQueries:
    """The reference queries encoded by an embedder, and the hubness bias of pages.

    In high-dimensional spaces, some points ("hubs") are nearest neighbors of many other points. A page with many words,
    or in the language of the query, is more likely to have a token that matches a query token by chance. As in
    cross-domain similarity local scaling, search subtracts a fraction of the page's mean similarity to the
    reference queries. The README has the measurements, on 119 judged queries over 190 pages.

    Source: Radovanović et al., Hubs in Space (JMLR 2010); Conneau et al., Word Translation Without Parallel Data (ICLR
    2018).

    Args:
        embedder: Encoder of the reference queries.
    """

    _by_embedder: ClassVar[weakref.WeakKeyDictionary[Embedder, ReferenceQueries]] = weakref.WeakKeyDictionary()

    @classmethod
    def of(cls, embedder: Embedder) -> ReferenceQueries:
        """Return the reference queries of an embedder, encoded at the first call for this embedder object.

        Args:
            embedder: Encoder of the reference queries. An embedder that is unhashable, or that does not support weak
                references, encodes the reference queries at each call.
        """
        try:
            queries = cls._by_embedder.get(embedder)
        except TypeError:  # an embedder of the user may be unhashable or not support weak references
            return cls(embedder)
        if queries is None:
            queries = cls._by_embedder[embedder] = cls(embedder)
        return queries

    def __init__(self, embedder: Embedder) -> None:
        multi = embedder.encode_query(QUERIES, single=False).require_multi()
        self._rows: Float32 = np.concatenate(multi)
        # Dividing by the number of tokens gives each query the same weight in the mean.
        self._share = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in multi])
        self._share = (self._share / len(QUERIES)).astype(np.float32)

    def bias(self, rows: Float32) -> float:
        """Return the mean score of a page over the reference queries: MaxSim divided by the number of query tokens.

        Args:
            rows: Multi-vector of the page, shape (tokens, dim), float32.

        Returns:
            The mean score; 0 for a page without tokens.
        """
        return float((similarity(rows, self._rows).max(axis=0) * self._share).sum()) if len(rows) else 0.0
