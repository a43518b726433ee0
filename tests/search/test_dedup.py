"""Near-identical pages fold into one; one form filled in differently never does."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from jina_rag import DocumentIndex, load_embedder
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.catalog.near_duplicates import image_match
from jina_rag.catalog.near_duplicates.page_match import MAX_DIFFERENCE, PageContent, difference
from jina_rag.compression import encode_signs
from jina_rag.config import IngestSettings, Storage
from jina_rag.indexing.point_builder import PointBuilder
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import source_file
from jina_rag.scoring import normalise
from jina_rag.search import dedup
from jina_rag.search.dedup import MIN_SIGNATURE_COSINE, Deduplicator
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import PageScreenshot, Point, TokenGrid, Word

WORDS = (
    "harbour council report annual budget water supply district bridge repair meeting decision transport winter "
    "storage market price increase quarter revenue region factory output machine contract delivery insurance claim "
    "customer training student library museum visitor growth decline temperature harvest forest timber export risk "
    "analysis measurement laboratory sensor voltage pressure turbine energy solar battery vehicle traffic safety"
).split()
NAMES = [a + " " + b for a in "Anna Boris Clara Felix Greta Hugo Irene Nils Olga Rosa".split()
         for b in "Albrecht Bianchi Dubois Fischer Horvat Keller Moreau Novak Olsen Rossi".split()]  # fmt: skip


def letter(page, random):
    page.insert_text((40, 50), random.choice(NAMES), fontsize=11)
    page.insert_text((300, 50), f"{random.randint(10, 28)}.10.{random.randint(2001, 2025)}", fontsize=11)
    for y in range(90, 90 + 16 * random.randint(6, 14), 16):
        page.insert_text((40, y), " ".join(random.choices(WORDS, k=9)), fontsize=9)


def table(page, random):
    page.insert_text((40, 50), " ".join(random.choices(WORDS, k=4)), fontsize=14)
    for row in range(random.randint(5, 9)):
        for column in range(3):
            x, y = 40 + 110 * column, 80 + 24 * row
            page.draw_rect(pymupdf.Rect(x, y, x + 110, y + 24), width=0.6)
            value = str(random.randint(10, 9999)) if row and column else random.choice(WORDS)
            page.insert_text((x + 5, y + 16), value, fontsize=10)


def values(random):
    return {
        "Name": random.choice(NAMES),
        "Number": str(random.randint(10_000, 999_999)),
        "Date": f"{random.randint(1, 28):02d}.{random.randint(1, 12):02d}.{random.randint(2010, 2025)}",
        "Amount": f"{random.randint(1, 9)},{random.randint(100, 999)}.{random.randint(10, 99)}",
        "Purpose": " ".join(random.choices(WORDS, k=2)),
        "Resident": random.random() < 0.5,
        "Business": random.random() < 0.5,
    }


@dataclass
class Group:
    """Pages that show nearly the same: the first, and the others with their similarity to it."""

    first: Point
    others: list[tuple[Point, float]] = field(default_factory=list)


def fold(points, image_folder=None):
    """The groups that a search makes of pages that come in this order."""
    deduplicator = Deduplicator(image_folder)
    groups = []
    for point in points:
        match = deduplicator.fold(point)
        if match is None:
            groups.append(Group(point))
        else:
            groups[match[0]].others.append((point, match[1]))
    return groups


def form(page, filled, *, grid=False):
    page.insert_text((40, 45), "Application for a permit of the district council", fontsize=14)
    page.insert_text(
        (40, 65), "Please fill in all fields. Incomplete forms will be returned to the sender.", fontsize=8
    )
    y = 95
    for label, value in filled.items():
        if isinstance(value, str):
            page.insert_text((40, y), label, fontsize=10)
            page.draw_line((130, y + 3), (380, y + 3), width=0.5)
            page.insert_text((250 if grid else 135, y), value, fontsize=10)
        else:
            page.draw_rect(pymupdf.Rect(40, y - 9, 50, y + 1), width=0.8)
            if value:
                page.draw_line((41, y - 8), (49, y), width=1.2)
                page.draw_line((41, y), (49, y - 8), width=1.2)
            page.insert_text((58, y), label, fontsize=10)
        y += 24
    page.insert_text((40, y + 8), "The applicant declares that all statements are true and complete.", fontsize=8)


def refilled(filled, random, how):
    """The form as somebody else fills it in."""
    other, new = dict(filled), values(random)
    texts = [key for key, value in filled.items() if isinstance(value, str)]
    if how == "all":
        return {**new, "Name": next(name for name in NAMES if name != filled["Name"])}
    if how == "tick":
        key = random.choice(["Resident", "Business"])
        other[key] = not filled[key]
    elif how == "blank":
        other[random.choice(texts)] = ""
    elif how == "digit":
        key = random.choice(["Number", "Date", "Amount"])
        at = random.choice([i for i, char in enumerate(filled[key]) if char.isdigit()])
        other[key] = filled[key][:at] + random.choice("0123456789".replace(filled[key][at], "")) + filled[key][at + 1 :]
    else:
        key = random.choice([key for key in texts if new[key] != filled[key]])
        other[key] = new[key]
    return other


def document(draw):
    pdf = pymupdf.open()
    draw(pdf.new_page(width=420, height=420))
    return pdf


def scanned(page, random, *, dpi, quality, crop):
    """The page at another resolution and JPEG quality, slightly cropped; its words lose what is cut off."""
    image = page.screenshot.image
    left, top, right, bottom = (random.uniform(0, crop) for _ in range(4))
    width, height = image.size
    image = image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))
    scale = dpi / page.screenshot.dpi
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    import io

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)

    def moved(box):
        x = [(side - left) / (1 - left - right) for side in box[::2]]
        y = [(side - top) / (1 - top - bottom) for side in box[1::2]]
        return (x[0], y[0], x[1], y[1])

    words = [Word(word.text, moved(word.box)) for word in page.words]
    inside = tuple(word for word in words if min(word.box) >= 0 and max(word.box) <= 1)
    return replace(page, screenshot=PageScreenshot(Image.open(buffer).convert("RGB"), dpi), words=inside)


@pytest.fixture(scope="module")
def lite():
    return load_embedder("lite")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("dedup")


class Pages:
    """Makes points of pages, without OCR, as an index does."""

    def __init__(self, lite, folder: Path) -> None:
        self.lite = lite
        self.folder = folder
        self.images = ImageFiles(folder / "images")
        self.number = 0

    def page(self, draw):
        self.number += 1
        file = self.folder / f"page{self.number}.pdf"
        document(draw).save(file)
        with open_document(source_file(file), IngestSettings(regions=False, isolate=False)) as opened:
            return opened.render(1)

    def points(self, pages, storage=None) -> list[Point]:
        builder = PointBuilder(self.lite, self.images, dim=384, quality=85, storage=storage, regions=False)
        made = []
        for i, (page, encoded) in enumerate(zip(pages, builder.encode(pages), strict=True)):
            sha256 = hashlib.sha256(f"{self.folder}{i}".encode()).hexdigest()
            made.append(
                builder.build([DocumentRecord(page.doc_id, page.path, sha256, 1, 1)], [(page, encoded)], {})[0][0]
            )
        return made

    def folds(self, pairs, storage=None) -> list[bool]:
        points = self.points([page for pair in pairs for page in pair], storage)
        groups = [fold(points[i : i + 2], self.images.folder) for i in range(0, len(points), 2)]
        return [len(found) == 1 for found in groups]


@pytest.fixture(scope="module")
def pages(lite, work):
    return Pages(lite, work)


@pytest.fixture(scope="module")
def same_pairs(pages):
    dice = random.Random(11)
    pairs = []
    for i in range(40):
        filled = values(dice)
        draw = [letter, table, form][i % 3]
        page = pages.page((lambda p, f=filled: form(p, f)) if draw is form else (lambda p, d=draw: d(p, dice)))
        other = scanned(
            page,
            dice,
            dpi=dice.choice([96, 110, 130, 180, 200]),
            quality=dice.choice([30, 45, 60, 75, 90]),
            crop=dice.choice([0, 0.01, 0.02, 0.03]),
        )
        pairs.append((page, other))
    return pairs


@pytest.fixture(scope="module")
def form_pairs(pages):
    dice = random.Random(12)
    pairs = []
    for i in range(40):
        filled = values(dice)
        other = refilled(filled, dice, ["all", "one", "digit", "tick", "blank"][i % 5])
        first = pages.page(lambda p, f=filled, g=i % 2: form(p, f, grid=bool(g)))
        second = pages.page(lambda p, f=other, g=i % 2: form(p, f, grid=bool(g)))
        if i % 4 == 3:
            second = scanned(second, dice, dpi=dice.choice([120, 150, 180]), quality=70, crop=dice.choice([0, 0.02]))
        pairs.append((first, second))
    return pairs


def test_at_least_38_of_40_pairs_of_the_same_page_fold(pages, same_pairs):
    assert sum(pages.folds(same_pairs)) >= 38


def test_none_of_40_pairs_of_one_form_filled_in_differently_folds(pages, form_pairs):
    assert not any(pages.folds(form_pairs))


def test_pooled_and_cut_vectors_tell_the_same(pages, same_pairs, form_pairs):
    compact = Storage.named("compact")
    assert sum(pages.folds(same_pairs[:6], compact)) >= 5
    assert not any(pages.folds(form_pairs[:10], compact))


def test_scans_read_by_ocr_fold_in_an_index(work):
    dice = random.Random(13)
    filled = values(dice)
    one = document(lambda p: form(p, filled))
    two = document(lambda p: form(p, refilled(filled, dice, "one")))
    folder = work / "scans"
    folder.mkdir()
    one.save(folder / "a.pdf")
    for name, pdf, dpi, quality in (("b", one, 110, 60), ("d", two, 150, 85)):
        pixels = pdf[0].get_pixmap(dpi=dpi)
        image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)
        image.save(folder / f"{name}.jpg", quality=quality, dpi=(dpi, dpi))
    with DocumentIndex.open(work / "index") as index:
        report = index.ingest([folder], settings=IngestSettings(regions=False))
        assert report.documents == 3
        store = index._session.resources.store
        points = store.fetch([hit.id for hit in store.scroll({schema.KIND: "page"})], vectors=False)
        points.sort(key=lambda point: point.payload[schema.DOC_ID])
        groups = fold(points, index._session.resources.images.folder)
    names = [[p.payload[schema.DOC_ID][0] for p in (g.first, *(o for o, _ in g.others))] for g in groups]
    assert names == [["a.pdf", "b.jpg"], ["d.jpg"]]
    assert all(1 - MAX_DIFFERENCE <= found <= 1 for group in groups for _, found in group.others)


# -- pixel models: patches -----------------------------------------------------------------------------------


def patched(images, image, *, seed, noise=0.0, changed=(), text="", rows=8, signs=False):
    """A point of a model that looks at pixels: one vector for each of rows x rows patches."""
    vectors = normalise(np.random.default_rng(seed).normal(size=(rows * rows, 32)))
    for patch in changed:
        vectors[patch] = normalise(np.random.default_rng(seed + 1000 + patch).normal(size=32))
    vectors = normalise(vectors + np.random.default_rng(seed + 1).normal(size=vectors.shape) * noise)
    edges = np.arange(rows) / rows
    boxes = np.array([[x, y, x + 1 / rows, y + 1 / rows] for y in edges for x in edges], dtype=np.float32)
    payload = {
        schema.IMAGE: images.put(image, 85),
        schema.TEXT: text,
        schema.GRID: schema.encode_grid(TokenGrid(boxes, "patches")),
    }
    if signs:
        payload[schema.SIGNS] = encode_signs(vectors)
    return Point(schema.point_id(f"{seed}{noise}{changed}", 1), None, vectors, None, payload)


def photo(seed, size=(300, 400)):
    """Something that looks like a picture: blots of all sizes."""
    noise = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray((noise.random((n, n)) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        )
        for n in (4, 9, 20)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("signs", [False, True])
def test_patches_of_the_same_picture_fold(work, signs):
    images = ImageFiles(work / "patches")
    image = photo(1)
    first = patched(images, image, seed=1, signs=signs)
    again = patched(images, image.resize((240, 320)), seed=1, noise=0.05, signs=signs)
    found = fold([first, again], images.folder)
    assert [len(group.others) for group in found] == [1]
    assert found[0].others[0][1] > 0.9
    other = patched(images, photo(2), seed=2, signs=signs)
    assert len(fold([first, other], images.folder)) == 2


def test_a_patch_with_something_new_in_it_keeps_pages_apart(work):
    images = ImageFiles(work / "patches")
    image = photo(3)
    stamped = image.copy()
    stamped.paste((0, 0, 0), (80, 110, 95, 125))
    first = patched(images, image, seed=3)
    second = patched(images, stamped, seed=3, noise=0.02, changed=(18,))
    assert len(fold([first, second], images.folder)) == 2
    # The pictures were decisive, not the vectors.
    assert len(fold([first, patched(images, image, seed=3, noise=0.02)], images.folder)) == 1


# -- by themselves -------------------------------------------------------------------------------------------


def bare(images, image, text="", id_="x"):
    """A point of a picture that is known by its file's name."""
    payload = {schema.IMAGE: images.put(image, 85), schema.TEXT: text}
    rows = normalise(np.random.default_rng(len(id_)).normal(size=(2, 32)))
    return Point(schema.point_id(id_, 1), None, rows, None, payload)


def test_photos_without_words_are_compared_by_their_pictures(work):
    images = ImageFiles(work / "photos")
    image = photo(5)
    width, height = image.size
    points = [
        bare(images, image, id_="a"),
        bare(images, photo(6), id_="bb"),
        bare(images, image.resize((210, 280)), id_="ccc"),
        bare(images, image.crop((4, 5, width - 6, height - 3)), id_="dddd"),
        bare(images, image.crop((0, 0, width // 2, height)), id_="eeeee"),
    ]
    found = fold(points, images.folder)
    assert [[points.index(p) for p in (g.first, *(o for o, _ in g.others))] for g in found] == [[0, 2, 3], [1], [4]]
    assert all(0.8 <= score <= 1 for _, score in found[0].others)
    # Without pictures nothing can be said of them.
    assert len(fold(points, None)) == 5
    assert len(fold(points, work / "elsewhere")) == 5


def test_blank_pages_fold_and_a_blank_page_is_no_photo(work):
    images = ImageFiles(work / "photos")
    white = Image.new("RGB", (300, 400), "white")
    points = [bare(images, white, id_="a"), bare(images, white.resize((150, 200)), id_="b"), bare(images, photo(7))]
    assert [len(group.others) for group in fold(points, images.folder)] == [1, 0]
    assert len(fold([points[0], bare(images, Image.new("RGB", (300, 400), "black"))], images.folder)) == 2


def test_without_pictures_all_words_must_agree(pages):
    dice = random.Random(14)
    filled = values(dice)
    first, again = (pages.page(lambda p: form(p, filled)) for _ in range(2))
    other = pages.page(lambda p: form(p, refilled(filled, dice, "one")))
    a, b, c = pages.points([first, again, other])
    assert len(fold([a, b], None)) == 1
    assert len(fold([a, c], None)) == 2


def test_yes_and_no_are_told_apart_although_they_have_no_vectors(pages):
    def draw(answer):
        def form(page):
            for row, label in enumerate(["Owner of the vehicle", "Insurance at that time", "Repair by the council"]):
                page.insert_text((40, 60 + 20 * row), f"{label}: {answer if row == 1 else 'yes'}", fontsize=8)

        return form

    one, two, three = (pages.page(draw(answer)) for answer in ("yes", "yes", "no"))
    a, b, c = pages.points([one, two, three])
    assert len(fold([a, b], pages.images.folder)) == 1
    assert len(fold([a, c], pages.images.folder)) == 2


NAME = "Maria"


def printed(images, text, *, rows, words=True):
    """A page of small print with a vector for each of its words, which the words do not determine."""
    image = Image.new("L", (1000, 1000), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11)
    boxes = []
    for i, word in enumerate(text.split()):
        x, y = 60 + 110 * (i % 8), 60 + 40 * (i // 8)
        draw.text((x, y), word, fill=90, font=font)
        boxes.append([side / 1000 for side in draw.textbbox((x, y), word, font=font)])
    grid = schema.encode_grid(TokenGrid(np.array(boxes, dtype=np.float32), "words"))
    payload = {schema.IMAGE: images.put(image, 95), schema.TEXT: text, schema.GRID: grid}
    if words:
        payload[schema.WORDS] = grid
    return Point(schema.point_id(text, 1), None, rows, None, payload)


PRINT = " ".join([*WORDS, *WORDS, NAME, "4711"])


def print_rows(changed=None):
    rows = normalise(np.random.default_rng(3).normal(size=(len(PRINT.split()), 32)))
    if changed is not None:
        rows[PRINT.split().index(changed)] = normalise(np.random.default_rng(4).normal(size=32))
    return rows


def similar_pictures(a, b, folder):
    one, two = (image_match.load(PageContent.of_payload(point.payload, folder).image) for point in (a, b))
    return image_match.difference_map(one, two).max() <= MAX_DIFFERENCE


def test_a_name_in_small_print_is_found_where_its_vector_has_no_counterpart(work):
    images = ImageFiles(work / "print")
    first = printed(images, PRINT, rows=print_rows(), words=False)
    second = printed(images, PRINT.replace(NAME, "Marta"), rows=print_rows(NAME), words=False)
    assert similar_pictures(first, second, images.folder)
    assert len(fold([first, second], images.folder)) == 2
    # Another vector for what looks the same is a word that was misread.
    misread = printed(images, PRINT, rows=print_rows(NAME), words=False)
    assert len(fold([first, misread], images.folder)) == 1


def test_a_name_in_small_print_is_found_where_the_words_differ(work):
    images = ImageFiles(work / "print")
    first = printed(images, PRINT, rows=print_rows())
    second = printed(images, PRINT.replace(NAME, "Marta"), rows=print_rows())
    assert similar_pictures(first, second, images.folder)
    assert len(fold([first, second], images.folder)) == 2


def test_another_number_is_another_number_however_alike_all_else_is(work):
    images = ImageFiles(work / "print")
    first = printed(images, PRINT, rows=print_rows())
    second = replace(first, id="other", payload={**first.payload, schema.TEXT: PRINT.replace("4711", "4712")})
    assert len(fold([first, replace(first, id="again")], images.folder)) == 1
    assert len(fold([first, second], images.folder)) == 2


def test_pages_are_held_against_the_first_of_a_group_only(monkeypatch):
    """a is like b and b like c, but c is not like a: c stays by itself."""
    points = [Point(name, payload={schema.TEXT: name}) for name in ("one", "two", "three")]
    near = [{"one", "two"}, {"two", "three"}]
    monkeypatch.setattr(dedup, "difference", lambda a, b: 0.25 if {*a.words, *b.words} in near else None)
    groups = fold(points, None)
    assert [(group.first, group.others) for group in groups] == [(points[0], [(points[1], 0.75)]), (points[2], [])]


# -- most pages are not compared ------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch):
    """The pairs that were compared in detail."""
    pairs = []

    def counted(a, b):
        pairs.append((a, b))
        return difference(a, b)

    monkeypatch.setattr(dedup, "difference", counted)
    return pairs


def each_with_each(points, folder):
    """What `fold` finds, without any short cut."""
    groups = []
    for point in points:
        for group in groups:
            off = difference(*(PageContent.of_payload(one.payload, folder) for one in (group[0][0], point)))
            if off is not None:
                group.append((point, 1 - off))
                break
        else:
            groups.append([(point, 1.0)])
    return [(group[0][0], group[1:]) for group in groups]


@pytest.mark.parametrize("signs", [False, True])
def test_unlike_pages_are_told_apart_without_a_comparison(work, compared, signs):
    images = ImageFiles(work / "many")
    points = [patched(images, photo(seed, (90, 120)), seed=seed, signs=signs) for seed in range(40)]
    again = [patched(images, photo(seed, (90, 120)), seed=seed, noise=0.05, signs=signs) for seed in (38, 2)]
    found = fold([*points, *again], images.folder)
    assert [(found.index(group), [other for other, _ in group.others]) for group in found if group.others] == [
        (2, [again[1]]),
        (38, [again[0]]),
    ]
    assert len(compared) < 100, "each with each would be more than 800"


@pytest.mark.parametrize("storage", [None, "compact"])
def test_what_is_left_out_is_far_from_the_same_page(pages, same_pairs, storage):
    points = pages.points([page for pair in same_pairs[:12] for page in pair], storage and Storage.named(storage))
    signatures = np.stack([PageContent.of_payload(point.payload, None).signature for point in points])
    assert (signatures[::2] * signatures[1::2]).sum(axis=1).min() > MIN_SIGNATURE_COSINE + 0.1
    np.testing.assert_allclose(np.linalg.norm(signatures, axis=1), 1, rtol=1e-5)


def test_signatures_of_pages_of_few_words_are_of_their_images(work):
    images = ImageFiles(work / "signatures")
    contents = [
        PageContent.of_payload(bare(images, image).payload, images.folder)
        for image in (photo(8), photo(8).resize((210, 280)), photo(9))
    ]
    first, again, other = (content.signature for content in contents)
    assert first @ again > MIN_SIGNATURE_COSINE + 0.4
    assert first @ other < MIN_SIGNATURE_COSINE
    assert not PageContent(("few", "words")).signature.any()


def test_pages_of_all_kinds_fold_as_if_each_was_compared_with_each(work):
    images = ImageFiles(work / "kinds")
    points = []
    for seed in range(12):
        points += [
            patched(images, photo(seed % 5, (90, 120)), seed=seed % 5, noise=0.02 * seed, signs=seed % 2 == 0),
            bare(images, photo(50 + seed % 4, (90, 120)), id_=f"{'x' * (seed + 1)}"),
        ]
    points.append(replace(points[0], multi=np.zeros_like(points[0].multi), payload=points[2].payload))
    points = [replace(point, id=str(i)) for i, point in enumerate(points)]
    expected = each_with_each(points, images.folder)
    assert sum(len(others) for _, others in expected) > 8
    assert [(group.first, group.others) for group in fold(points, images.folder)] == expected


def test_pages_of_which_nothing_is_known_are_always_compared(compared):
    points = [Point(str(n), payload={schema.TEXT: f"number{n}"}) for n in range(6)]
    again = replace(points[2], id="again")
    assert [len(group.others) for group in fold([*points, again])] == [0, 0, 1, 0, 0, 0]
    assert len(compared) == 15 + 3


def test_blank_pages_of_patches_are_always_compared(work):
    images = ImageFiles(work / "few")
    white = Image.new("RGB", (300, 400), "white")
    patch = normalise(np.random.default_rng(9).normal(size=32))
    blank = []
    for seed in range(2):
        made = patched(images, white.resize((300 - 60 * seed, 400 - 80 * seed)), seed=seed)
        noise = np.random.default_rng(seed).normal(size=(64, 32)) * 0.03
        blank.append(replace(made, multi=normalise(patch + noise)))
    assert len(fold(blank, images.folder)) == 1


def test_of_no_pages_there_are_no_groups():
    assert fold([], None) == []
