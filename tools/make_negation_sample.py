"""Write jina_rag/evaluation/negation_sample.jsonl, the sample of the negation test.

    python tools/make_negation_sample.py

Each scene is a hand-written, detailed statement and an entailment of the statement in other words. A scene produces
four triplets. The triplets differ in the ending of the statement and in the form of the negation. The output is
deterministic.
"""

from __future__ import annotations

import json
from pathlib import Path

OUT = Path(__file__).parent.parent / "jina_rag" / "evaluation" / "negation_sample.jsonl"

# A scene has three texts: the statement without an ending, the subject of the entailment, and the "-ing" phrase of the
# entailment.
SCENES = (
    ("A small girl in a red coat throws a tennis ball to her spaniel", "a child", "playing with a dog"),
    ("Two bricklayers in yellow helmets lift a beam onto the scaffold", "workers", "building something"),
    ("An old man with a white beard reads a newspaper on a bench", "a person", "sitting down"),
    ("The bakery's owner pulls a tray of rye loaves out of the oven", "a baker", "making bread"),
    ("Three teenagers kick a worn leather ball between two goalposts", "young people", "playing football"),
    ("A violinist in a black dress plays a slow sonata before a full hall", "a musician", "giving a concert"),
    ("Nurses in green gowns push a sleeping patient towards the operating room", "hospital staff", "moving a patient"),
    ("A farmer on a rusty tractor ploughs the field behind his barn", "a man", "working on the land"),
    ("Several cyclists in bright jerseys climb the pass in single file", "people", "riding bicycles"),
    ("A waiter balances four plates of soup between crowded tables", "a man", "serving food"),
    ("The chemist pours a blue liquid from one flask into another", "a scientist", "doing an experiment"),
    ("Two women in sun hats bargain over a basket of ripe tomatoes", "women", "shopping at a market"),
    ("A fisherman mends a torn net on the deck of his boat", "a man", "repairing something"),
    ("The choir's children sing a carol with lit candles in their hands", "children", "singing together"),
    ("A diver with a steel tank follows a turtle along the reef", "someone", "swimming under water"),
    ("An engineer in overalls tightens the bolts of a water pump", "a technician", "using a tool"),
    ("A grey cat is curled up on a pile of clean towels", "an animal", "sleeping"),
    ("Four students with laptops whisper around a table full of books", "students", "studying"),
    ("A woman in a blue raincoat waits at the stop with a closed umbrella", "a woman", "waiting for a bus"),
    ("The carpenter cuts an oak board with a hand saw", "a craftsman", "working with wood"),
    ("Two firemen aim a hose at the roof of a burning shed", "firemen", "putting out a fire"),
    ("A mother buttons the jacket of her impatient little son", "a parent", "helping a child to dress"),
    ("An accountant types figures from a stack of invoices into a table", "an employee", "working at a computer"),
    ("A dozen sheep cross the narrow road behind their shepherd", "animals", "crossing a road"),
    ("A painter on a ladder covers the shutters with fresh green paint", "a man", "painting a house"),
)
PLURAL = {
    "workers", "young people", "hospital staff", "people", "women", "children", "students", "firemen", "animals",
}  # fmt: skip
ENDINGS = (
    " early in the morning",
    " while it rains outside",
    " on a Sunday afternoon",
    ", watched by a few neighbours",
)


def negatives(subject: str, doing: str) -> tuple[str, str, str, str]:
    """Return the entailment with a negated verb, a negated subject, "never", and "It is not true that"."""
    verb = "are" if subject in PLURAL else "is"
    noun = subject.removeprefix("a ").removeprefix("an ")
    negated_subject = "No one" if subject == "someone" else f"No {noun}"
    return (
        f"{subject.capitalize()} {verb} not {doing}.",
        f"{negated_subject} {verb} {doing}.",
        f"{subject.capitalize()} {verb} never {doing}.",
        f"It is not true that {subject} {verb} {doing}.",
    )


def main() -> None:
    """Write the triplets as JSON lines."""
    lines = []
    for detail, subject, doing in SCENES:
        verb = "are" if subject in PLURAL else "is"
        for ending, negative in zip(ENDINGS, negatives(subject, doing), strict=True):
            triplet = {
                "anchor": f"{detail}{ending}.",
                "entailment": f"{subject.capitalize()} {verb} {doing}.",
                "negative": negative,
            }
            lines.append(json.dumps(triplet, ensure_ascii=False) + "\n")
    OUT.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} triplets in {OUT.name}")


if __name__ == "__main__":
    main()
