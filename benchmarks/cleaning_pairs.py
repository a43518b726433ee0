"""Generator of pairs with planted faults, and a fake embedder, for benchmarks/cleaning.py.

80 % of the pairs are good. Each of four kinds of faults has 5 % of the pairs: exact duplicates of an earlier pair
(unchanged, or in different case, white space or Unicode form), near-duplicates of an earlier pair, pairs in another
language, and pairs with an unrelated passage.
"""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from jina_rag.protocols import EmbedderDefaults
from jina_rag.types import Embeddings

NOUNS = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information back parent face
others level office door health person art war history party result change morning reason research girl guy moment air
teacher force education foot boy age policy process music market sense nation plan college interest death experience
effect use class control care field development role effort rate heart drug show leader light voice wife police mind
price report decision son view relationship town road arm difference value building action season society tax director
position player record paper space ground form event official matter center couple site project activity star table
need court oil situation cost industry figure street image phone data picture practice piece land product doctor wall
patient worker news test movie north love step engine pump valve bridge river forest harvest railway harbour contract
invoice warranty battery sensor turbine museum painting glacier vaccine muscle protein satellite orbit budget election
treaty famine castle cathedral orchestra novel poet bishop dialect comet fossil volcano
""".split()
VERBS = """
changed shaped reduced improved replaced followed reached covered opened closed measured described carried crossed
joined left built moved supported delayed affected explained protected recorded repaired tested financed doubled ended
controlled inspired damaged studied produced limited guided raised lowered
""".split()
ADJECTIVES = """
good new first last long great little own other old right big high different small large next early young important
few public bad same able local sure free national human clear recent strong possible whole foreign hot dark military
central cold rural modern expensive ancient heavy quiet narrow broad steady rapid common rare northern
""".split()
PLACES = """
Boston London Madrid Munich Oslo Nairobi Lima Toronto Zürich Kyoto Cairo Delhi Marseille Perth Antwerp Leeds Gdańsk
Porto Denver Glasgow
""".split()
SYLLABLES = "ber don field ham ing land ley lin mar mont ness ney ridge rose sel son stan ter ton vale wick win".split()
SENTENCES = (
    "The {a} {n} of {e} {v} the {n} in {p} after {y}.",
    "In {y} a {a} {n} {v} every {n} that the {n} had, although few people in {p} expected it.",
    "Most reports say that the {n} was {a}, while the {n} and the {n} were not.",
    "It took {d} months before the {n} {v} the {a} {n} again.",
    "According to {e}, the {n} should be {v} by a {a} {n} at least once a year.",
    "When the {n} of the {n} failed, {e} {v} it with a {a} {n}.",
    "Nobody knew why the {a} {n} had {v} so much of the {n} during the {n}.",
    "The cost of the {n} rose to {d} thousand dollars, more than any other {n} in {p}.",
    "There is still a {a} debate about the {n}, because the {n} {v} both the {n} and the {n}.",
    "Visitors can see the {n} from the {a} {n} near {p}, which {e} {v} in {y}.",
)
QUERIES = (
    "How did {e} change the {n} in {p}?", "What is the {a} {n} of {e}?", "Why was the {n} of {e} {v} in {y}?",
    "When was the {n} {v} by {e}?", "Which {n} did {e} use for the {a} {n}?", "who {v} the {n} at {e}",
    "{e} {n} {n} cost", "Is the {n} of {e} {a}?",
)  # fmt: skip
# Real sentences with slots for a random number {n} and a random city {p}, which make repeated sentences differ.
FOREIGN = {
    "de": ("Der Ausschuss hat den Haushalt für {n} ohne Änderung genehmigt.", "Wie oft wird der Ölfilter gewechselt?",
           "In {p} regnete es im Frühjahr mehr als sonst.", "Die Pumpe steht seit {n} Tagen still.",
           "Guten Morgen, {p}!",
           "Niemand wusste, weshalb die Brücke gesperrt war.", "Bitte senden Sie uns die Rechnung bis zum {n}. März."),
    "fr": ("Le comité a approuvé le budget de {n} sans le modifier.", "À quelle fréquence change-t-on le filtre ?",
           "Il a plu davantage que d'habitude à {p} au printemps.", "La pompe est arrêtée depuis {n} jours.",
           "Bonjour à tous les habitants de {p}.", "Personne ne savait pourquoi le pont était fermé.",
           "Veuillez nous envoyer la facture avant le {n} mars."),
    "es": ("El comité aprobó el presupuesto de {n} sin cambios.", "¿Cada cuánto se cambia el filtro de aceite?",
           "En {p} llovió más de lo normal durante la primavera.", "La bomba lleva {n} días parada.",
           "Buenos días, vecinos de {p}.", "Nadie sabía por qué el puente estaba cerrado.",
           "Envíenos la factura antes del {n} de marzo, por favor."),
    "it": ("Il comitato ha approvato il bilancio del {n} senza modifiche.",
           "Ogni quanto si cambia il filtro dell'olio?",
           "A {p} in primavera è piovuto più del solito.", "La pompa è ferma da {n} giorni.",
           "Buongiorno a tutti, {p}!",
           "Nessuno sapeva perché il ponte fosse chiuso.", "Inviateci la fattura entro il {n} marzo."),
    "nl": ("De commissie heeft de begroting van {n} goedgekeurd.", "Hoe vaak wordt het oliefilter vervangen?",
           "In {p} regende het in het voorjaar meer dan anders.", "De pomp staat al {n} dagen stil.",
           "Goedemorgen allemaal in {p}.", "Niemand wist waarom de brug was afgesloten.",
           "Stuur ons de rekening vóór {n} maart, alstublieft."),
    "pt": ("A comissão aprovou o orçamento de {n} sem alterações.", "Com que frequência se troca o filtro do óleo?",
           "Em {p} choveu mais do que o habitual na primavera.", "A bomba está parada há {n} dias.",
           "Bom dia a todos em {p}.", "Ninguém sabia por que a ponte estava fechada.",
           "Envie-nos a fatura até {n} de março, por favor."),
    "pl": ("Komisja zatwierdziła budżet na rok {n} bez zmian.", "Jak często wymienia się filtr oleju?",
           "Wiosną w mieście {p} padało więcej niż zwykle.", "Pompa stoi od {n} dni.", "Dzień dobry wszystkim, {p}!",
           "Nikt nie wiedział, dlaczego most był zamknięty.", "Prosimy o przesłanie faktury do {n} marca."),
    "sv": ("Kommittén godkände budgeten för {n} utan ändringar.", "Hur ofta ska oljefiltret bytas?",
           "I {p} regnade det mer än vanligt under våren.", "Pumpen har stått stilla i {n} dagar.",
           "God morgon allihop i {p}.", "Ingen visste varför bron var avstängd.",
           "Skicka fakturan till oss före den {n} mars."),
    "tr": ("Komite {n} bütçesini değiştirmeden onayladı.", "Yağ filtresi ne sıklıkla değiştirilmelidir?",
           "Bu bahar {p} kentine her zamankinden çok yağmur yağdı.", "Pompa {n} gündür çalışmıyor.",
           "Herkese günaydın, {p}!", "Köprünün neden kapalı olduğunu kimse bilmiyordu."),
    "id": ("Panitia menyetujui anggaran tahun {n} tanpa perubahan.", "Seberapa sering saringan oli harus diganti?",
           "Hujan di {p} lebih banyak daripada biasanya.", "Pompa itu sudah berhenti selama {n} hari.",
           "Selamat pagi semuanya di {p}.", "Tidak ada yang tahu mengapa jembatan itu ditutup."),
    "ru": ("Комитет утвердил бюджет на {n} год без изменений.", "Как часто нужно менять масляный фильтр?",
           "Весной в городе {p} дождей было больше обычного.", "Насос стоит уже {n} дней.", "Доброе утро всем!",
           "Никто не знал, почему мост закрыт."),
    "ja": ("委員会は{n}年度の予算をそのまま承認した。",
           "オイルフィルターはどのくらいの頻度で交換しますか。", "{p}では春にいつもより雨が多く降った。",
           "ポンプは{n}日前から止まっている。",
           "皆さん、おはようございます。", "橋が閉まっている理由は誰も知らなかった。"),
    "zh": ("委员会未作修改就批准了{n}年的预算。", "机油滤清器多久更换一次?",
           "今年春天{p}的雨水比往年多。", "水泵已经停了{n}天。", "大家早上好。",
           "没有人知道桥为什么封闭。"),
    "ar": ("وافقت اللجنة على ميزانية عام {n} دون تغيير.", "كم مرة يجب تغيير مرشح الزيت؟",
           "هطلت أمطار أكثر من المعتاد في الربيع.",
           "المضخة متوقفة منذ {n} يوما.", "صباح الخير للجميع.", "لم يعرف أحد سبب إغلاق الجسر."),
    "hi": ("समिति ने {n} का बजट बिना बदलाव के मंजूर किया।", "तेल का फिल्टर कितनी बार बदलना चाहिए?",
           "वसंत में यहाँ सामान्य से अधिक बारिश हुई।",
           "पंप {n} दिनों से बंद है।", "सभी को सुप्रभात।", "किसी को नहीं पता था कि पुल क्यों बंद था।"),
    "ko": ("위원회는 {n}년 예산을 그대로 승인했다.",
           "오일 필터는 얼마나 자주 교체해야 하나요?", "올봄에는 평소보다 비가 많이 내렸다.",
           "펌프가 {n}일째 멈춰 있다.", "모두 좋은 아침입니다.", "다리가 왜 막혔는지 아무도 몰랐다."),
}  # fmt: skip
KINDS = ("good", "exact", "near", "foreign", "wrong")
_RECENT_PAIRS = 4000
"""Number of good pairs, counted from the latest, from which the originals of duplicates are drawn."""


class Writer:
    """Generator of sentences about invented names. The frequency of words follows Zipf's law."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._weights = {
            words: list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
            for words in (tuple(NOUNS), tuple(VERBS), tuple(ADJECTIVES), tuple(PLACES))
        }

    def zipf(self, words: list[str]) -> str:
        return self.rng.choices(words, cum_weights=self._weights[tuple(words)])[0]

    def name(self) -> str:
        return " ".join("".join(self.rng.sample(SYLLABLES, count)).capitalize() for count in (2, 3))

    def fill(self, template: str, entity: str, slots: dict[str, str] | None = None) -> str:
        text = template
        for slot, words in (("{n}", NOUNS), ("{v}", VERBS), ("{a}", ADJECTIVES), ("{p}", PLACES)):
            while slot in text:
                text = text.replace(slot, (slots or {}).get(slot) or self.zipf(words), 1)
        text = text.replace("{e}", entity)
        return text.replace("{y}", str(self.rng.randint(1850, 2023))).replace("{d}", str(self.rng.randint(2, 99)))

    def good(self) -> tuple[str, str]:
        entity = f"{self.name()} {self.zipf(NOUNS).capitalize()}" if self.rng.random() < 0.5 else self.name()
        count = 1 if self.rng.random() < 0.1 else self.rng.randint(3, 9)  # one tenth of the passages have one sentence
        slots = {"{n}": self.zipf(NOUNS), "{p}": self.zipf(PLACES)}
        with_entity = [s for s in SENTENCES if "{e}" in s]
        passage = [self.fill(self.rng.choice(with_entity), entity, slots)]
        passage += [self.fill(self.rng.choice(SENTENCES), entity) for _ in range(count - 1)]
        return self.fill(self.rng.choice(QUERIES), entity, slots), " ".join(passage)

    def foreign(self) -> tuple[str, str, str]:
        language = self.rng.choice(sorted(FOREIGN))
        texts = [
            text.replace("{n}", str(self.rng.randint(2, 2023))).replace("{p}", self.rng.choice([*PLACES, self.name()]))
            for text in self.rng.sample(FOREIGN[language], self.rng.choice([2, 3, 4, 5]))
        ]
        return language, texts[0], " ".join(texts[1:])

    def same(self, query: str, passage: str) -> tuple[str, str, str]:
        kind = self.rng.choice(["copy", "case", "white space", "form", "wide"])
        change = {
            "copy": str, "case": self.rng.choice([str.upper, str.lower, str.title]),
            "white space": lambda t: "\n\t" + t.replace(" ", self.rng.choice(["  ", "\u00a0", " \n"])) + " ",
            "form": lambda t: unicodedata.normalize("NFD", t).replace("fi", "ﬁ"),
            "wide": lambda t: "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in t),
        }[kind]  # fmt: skip
        return kind, change(query), change(passage)

    def near(self, query: str, passage: str) -> tuple[str, str, str]:
        words = passage.split()
        kind = self.rng.choice(["words", "typos", "cut", "sentence", "punctuation", "question"])
        if kind == "words":
            for position in self.rng.sample(range(len(words)), max(1, len(words) // 30)):
                words[position] = self.zipf(NOUNS)
        elif kind == "typos":
            for position in self.rng.sample(range(len(words)), max(1, len(words) // 30)):
                letters = list(words[position])
                letters[self.rng.randrange(len(letters))] = self.rng.choice("aeiourst")
                words[position] = "".join(letters)
        elif kind == "cut":
            words = words[: len(words) - max(1, len(words) // 12)]
        elif kind == "sentence":
            sentences = passage.split(". ")
            self.rng.shuffle(sentences)
            words = ". ".join(s.rstrip(".") for s in sentences).split()
        elif kind == "punctuation":
            words = ["»" + words[0], *(w.replace(".", ";").replace(",", " –") for w in words[1:]), "«"]
            query = query.rstrip("?") + " …"
        else:
            query = self.rng.choice(["please: ", "so ", "and "]) + query
        return kind, query, " ".join(words)


def generate(pairs: int, seed: int) -> Iterator[dict]:
    """Yield labeled pairs: "kind" is the fault, "how" the variant of the fault, "of" the id of the original pair."""
    writer = Writer(seed)
    recent: deque[tuple[int, str, str]] = deque(maxlen=_RECENT_PAIRS)
    for number in range(1, pairs + 1):
        kind = writer.rng.choices(KINDS, [80, 5, 5, 5, 5])[0] if len(recent) > 10 else "good"
        how, of = "", 0
        if kind == "foreign":
            how, query, passage = writer.foreign()
        elif kind in ("exact", "near"):
            of, query, passage = writer.rng.choice(recent)
            how, query, passage = (writer.same if kind == "exact" else writer.near)(query, passage)
        else:
            query, passage = writer.good()
            if kind == "wrong":
                passage = writer.good()[1]
            else:
                recent.append((number, query, passage))
        yield {"query": query, "passage": passage, "id": number, "kind": kind, "how": how, "of": of}


_COMMON = {
    w.strip(".,?").lower() for w in (*NOUNS, *VERBS, *ADJECTIVES, *PLACES, *" ".join((*SENTENCES, *QUERIES)).split())
}


class WordStub(EmbedderDefaults):
    """A bag-of-words embedder that adds one random vector per distinct word, with a lower weight for common words."""

    name, fingerprint, dim, multi_dim, modality = "words", "words-256", 256, 256, "text"

    def __init__(self) -> None:
        self._word_vectors: dict[str, np.ndarray] = {}

    def encode_query(self, queries: list[str], **options: object) -> Embeddings:
        return Embeddings(single=np.stack([self._embed(text) for text in queries]))

    encode_document = encode_query

    def _embed(self, text: str) -> np.ndarray:
        total = np.zeros(self.dim, np.float32)
        for word in {w.strip(".,?") for w in text.lower().split()}:
            if word not in self._word_vectors:
                if len(self._word_vectors) > 5000:  # limit the cache, because the benchmark measures memory
                    self._word_vectors.clear()
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                self._word_vectors[word] = np.random.default_rng(seed).standard_normal(self.dim, dtype=np.float32)
            total += self._word_vectors[word] * (0.3 if word in _COMMON or word.isdigit() else 3)
        return total / (np.linalg.norm(total) or 1)


def write(path: Path, pairs: int, seed: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in generate(pairs, seed):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
