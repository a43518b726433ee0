"""Questions about anything: what every page is compared with, to tell what is particular to it.

Written for this package to be as general as questions are: invoices, laws, surveys,
instructions, pictures, in sixteen languages. They serve twice. Their mean token vector is what token vectors
have in common whatever is asked (`models.lite.embedder` takes it off). And a page's mean score for them tells how
easily it scores at all: a long page in many languages resembles everything a little (`PageBias`).
"""

from __future__ import annotations

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
    """The reference queries as one embedder sees them, and how much a page resembles all of them.

    In high-dimensional spaces some points are near neighbours of very many others ("hubs"; Radovanović et al., JMLR
    2010). A page with many words, or in the language of the question, has a better chance that some token resembles a
    question's token by accident. The remedy is that of cross-domain similarity local scaling (Conneau et al., ICLR
    2018): subtract a share of the page's mean similarity to questions it does not answer.

    Measured on 119 judged questions over 190 pages: see the README.
    """

    def __init__(self, embedder: Embedder) -> None:
        multi = embedder.encode_query(QUERIES, single=False).require_multi()
        self._rows: Float32 = np.concatenate(multi)
        # Each question counts alike, however many tokens it has.
        self._share = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in multi])
        self._share = (self._share / len(QUERIES)).astype(np.float32)

    def bias(self, rows: Float32) -> float:
        """The page's mean score for the general questions: MaxSim over the number of question tokens.

        Args:
            rows: The page's multi-vector, shape (tokens, dim).

        Returns:
            0 for a page without tokens.
        """
        return float((similarity(rows, self._rows).max(axis=0) * self._share).sum()) if len(rows) else 0.0
