"""Questions about anything: what every page is compared with, to tell what is particular to it.

Written for this package to be as general as questions are: invoices, laws, surveys,
instructions, pictures, in sixteen languages. They serve twice. Their mean token vector is what token vectors
have in common whatever is asked (`models.lite` takes it off). And a page's mean score for them tells how easily
it scores at all: a long page in many languages resembles everything a little (`retrieval.hubness`).
"""

from __future__ import annotations

QUESTIONS = (
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
