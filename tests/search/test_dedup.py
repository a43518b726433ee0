"""Deduplication in search: near-duplicate pages fold into one hit; forms with different entries never fold."""

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
    """A group of near-duplicate pages: the first page, and (page, similarity to the first page) for the other pages."""

    first: Point
    others: list[tuple[Point, float]] = field(default_factory=list)


def fold(points, image_folder=None):
    """Return the groups of near-duplicates that a search forms from points in the passed order."""
    deduplicator = Deduplicator(image_folder)
    groups = []
    for point in points:
        match = deduplicator.fold(point)
        if match is None:
            groups.append(Group(point))
        else:
            groups[match[0]].others.append((point, match[1]))
    return groups


def form(page, entries, *, grid=False):
    page.insert_text((40, 45), "Application for a permit of the district council", fontsize=14)
    page.insert_text(
        (40, 65), "Please fill in all fields. Incomplete forms will be returned to the sender.", fontsize=8
    )
    y = 95
    for label, value in entries.items():
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


def refilled_form(entries, random, how):
    """Return the page of a form with other values in the fields."""
    other, new = dict(entries), values(random)
    texts = [key for key, value in entries.items() if isinstance(value, str)]
    if how == "all":
        return {**new, "Name": next(name for name in NAMES if name != entries["Name"])}
    if how == "tick":
        key = random.choice(["Resident", "Business"])
        other[key] = not entries[key]
    elif how == "blank":
        other[random.choice(texts)] = ""
    elif how == "digit":
        key = random.choice(["Number", "Date", "Amount"])
        at = random.choice([i for i, char in enumerate(entries[key]) if char.isdigit()])
        other[key] = (
            entries[key][:at] + random.choice("0123456789".replace(entries[key][at], "")) + entries[key][at + 1 :]
        )
    else:
        key = random.choice([key for key in texts if new[key] != entries[key]])
        other[key] = new[key]
    return other


def document(draw):
    pdf = pymupdf.open()
    draw(pdf.new_page(width=420, height=420))
    return pdf


def scan_of(page, random, *, dpi, quality, crop):
    """Return the page as a scan: another resolution and JPEG quality, slightly cropped, without the words cut off."""
    image = page.screenshot.image
    left, top, right, bottom = (random.uniform(0, crop) for _ in range(4))
    width, height = image.size
    image = image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))
    scale = dpi / page.screenshot.dpi
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    import io

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)

    def moved_box(box):
        x = [(side - left) / (1 - left - right) for side in box[::2]]
        y = [(side - top) / (1 - top - bottom) for side in box[1::2]]
        return (x[0], y[0], x[1], y[1])

    words = [Word(word.text, moved_box(word.box)) for word in page.words]
    words_inside = tuple(word for word in words if min(word.box) >= 0 and max(word.box) <= 1)
    return replace(page, screenshot=PageScreenshot(Image.open(buffer).convert("RGB"), dpi), words=words_inside)


@pytest.fixture(scope="module")
def lite_embedder():
    return load_embedder("lite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dedup")


class PageFactory:
    """Renders pages and builds their points as an index does, without OCR."""

    def __init__(self, lite_embedder, folder: Path) -> None:
        self.lite_embedder = lite_embedder
        self.folder = folder
        self.images = ImageFiles(folder / "images")
        self.number = 0

    def page(self, draw):
        self.number += 1
        file = self.folder / f"page{self.number}.pdf"
        document(draw).save(file)
        with open_document(source_file(file), IngestSettings(regions=False, isolate=False)) as open_pdf:
            return open_pdf.render(1)

    def points(self, factory, storage=None) -> list[Point]:
        builder = PointBuilder(self.lite_embedder, self.images, dim=384, quality=85, storage=storage, regions=False)
        points = []
        for i, (page, encoded) in enumerate(zip(factory, builder.encode(factory), strict=True)):
            sha256 = hashlib.sha256(f"{self.folder}{i}".encode()).hexdigest()
            points.append(
                builder.build([DocumentRecord(page.doc_id, page.path, sha256, 1, 1)], [(page, encoded)], {})[0][0]
            )
        return points

    def folds(self, pairs, storage=None) -> list[bool]:
        points = self.points([page for pair in pairs for page in pair], storage)
        groups = [fold(points[i : i + 2], self.images.folder) for i in range(0, len(points), 2)]
        return [len(pair_groups) == 1 for pair_groups in groups]


@pytest.fixture(scope="module")
def factory(lite_embedder, folder):
    return PageFactory(lite_embedder, folder)


@pytest.fixture(scope="module")
def same_pairs(factory):
    dice = random.Random(11)
    pairs = []
    for i in range(40):
        entries = values(dice)
        draw = [letter, table, form][i % 3]
        page = factory.page((lambda p, f=entries: form(p, f)) if draw is form else (lambda p, d=draw: d(p, dice)))
        other = scan_of(
            page,
            dice,
            dpi=dice.choice([96, 110, 130, 180, 200]),
            quality=dice.choice([30, 45, 60, 75, 90]),
            crop=dice.choice([0, 0.01, 0.02, 0.03]),
        )
        pairs.append((page, other))
    return pairs


@pytest.fixture(scope="module")
def form_pairs(factory):
    dice = random.Random(12)
    pairs = []
    for i in range(40):
        entries = values(dice)
        other = refilled_form(entries, dice, ["all", "one", "digit", "tick", "blank"][i % 5])
        first = factory.page(lambda p, f=entries, g=i % 2: form(p, f, grid=bool(g)))
        second = factory.page(lambda p, f=other, g=i % 2: form(p, f, grid=bool(g)))
        if i % 4 == 3:
            second = scan_of(second, dice, dpi=dice.choice([120, 150, 180]), quality=70, crop=dice.choice([0, 0.02]))
        pairs.append((first, second))
    return pairs


def test_rescanned_pages_fold_in_38_of_40_pairs(factory, same_pairs):
    assert sum(factory.folds(same_pairs)) >= 38


def test_forms_with_different_entries_never_fold(factory, form_pairs):
    assert not any(factory.folds(form_pairs))


def test_compact_storage_folds_the_same_pairs(factory, same_pairs, form_pairs):
    compact = Storage.named("compact")
    assert sum(factory.folds(same_pairs[:6], compact)) >= 5
    assert not any(factory.folds(form_pairs[:10], compact))


def test_ocr_scans_of_one_page_fold_in_an_index(folder):
    dice = random.Random(13)
    entries = values(dice)
    one = document(lambda p: form(p, entries))
    two = document(lambda p: form(p, refilled_form(entries, dice, "one")))
    docs = folder / "scans"
    docs.mkdir()
    one.save(docs / "a.pdf")
    for name, pdf, dpi, quality in (("b", one, 110, 60), ("d", two, 150, 85)):
        pixels = pdf[0].get_pixmap(dpi=dpi)
        image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples)
        image.save(docs / f"{name}.jpg", quality=quality, dpi=(dpi, dpi))
    with DocumentIndex.open(folder / "index") as index:
        report = index.ingest([docs], settings=IngestSettings(regions=False))
        assert report.documents == 3
        store = index._session.resources.store
        points = store.fetch([hit.id for hit in store.scroll({schema.KIND: "page"})], vectors=False)
        points.sort(key=lambda point: point.payload[schema.DOC_ID])
        groups = fold(points, index._session.resources.images.folder)
    names = [[p.payload[schema.DOC_ID][0] for p in (g.first, *(o for o, _ in g.others))] for g in groups]
    assert names == [["a.pdf", "b.jpg"], ["d.jpg"]]
    assert all(1 - MAX_DIFFERENCE <= similarity <= 1 for group in groups for _, similarity in group.others)


def patch_point(images, image, *, seed, noise=0.0, changed_patches=(), text="", rows=8, signs=False):
    """Return a point of an image embedder, with one vector for each of rows x rows patches."""
    vectors = normalise(np.random.default_rng(seed).normal(size=(rows * rows, 32)))
    for patch in changed_patches:
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
    return Point(schema.point_id(f"{seed}{noise}{changed_patches}", 1), None, vectors, None, payload)


def photo(seed, size=(300, 400)):
    """Return an image that resembles a photo: random blots of several sizes."""
    noise = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray((noise.random((n, n)) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        )
        for n in (4, 9, 20)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("signs", [False, True])
def test_resized_image_folds_by_patch_vectors(folder, signs):
    images = ImageFiles(folder / "patches")
    image = photo(1)
    first = patch_point(images, image, seed=1, signs=signs)
    near_duplicate = patch_point(images, image.resize((240, 320)), seed=1, noise=0.05, signs=signs)
    groups = fold([first, near_duplicate], images.folder)
    assert [len(group.others) for group in groups] == [1]
    assert groups[0].others[0][1] > 0.9
    other = patch_point(images, photo(2), seed=2, signs=signs)
    assert len(fold([first, other], images.folder)) == 2


def test_stamp_in_one_patch_prevents_folding(folder):
    images = ImageFiles(folder / "patches")
    image = photo(3)
    stamped_image = image.copy()
    stamped_image.paste((0, 0, 0), (80, 110, 95, 125))
    first = patch_point(images, image, seed=3)
    second = patch_point(images, stamped_image, seed=3, noise=0.02, changed_patches=(18,))
    assert len(fold([first, second], images.folder)) == 2
    # Control: two copies of one image with equal noise fold.
    assert len(fold([first, patch_point(images, image, seed=3, noise=0.02)], images.folder)) == 1


def image_point(images, image, text="", id_="x"):
    """Return a point of an image without words, embedded by its file name."""
    payload = {schema.IMAGE: images.put(image, 85), schema.TEXT: text}
    rows = normalise(np.random.default_rng(len(id_)).normal(size=(2, 32)))
    return Point(schema.point_id(id_, 1), None, rows, None, payload)


def test_photos_without_words_fold_by_image(folder):
    images = ImageFiles(folder / "photos")
    image = photo(5)
    width, height = image.size
    points = [
        image_point(images, image, id_="a"),
        image_point(images, photo(6), id_="bb"),
        image_point(images, image.resize((210, 280)), id_="ccc"),
        image_point(images, image.crop((4, 5, width - 6, height - 3)), id_="dddd"),
        image_point(images, image.crop((0, 0, width // 2, height)), id_="eeeee"),
    ]
    groups = fold(points, images.folder)
    assert [[points.index(p) for p in (g.first, *(o for o, _ in g.others))] for g in groups] == [[0, 2, 3], [1], [4]]
    assert all(0.8 <= score <= 1 for _, score in groups[0].others)
    # Without image files, pages without words never fold.
    assert len(fold(points, None)) == 5
    assert len(fold(points, folder / "elsewhere")) == 5


def test_blank_pages_fold_only_with_blank_pages_of_the_same_color(folder):
    images = ImageFiles(folder / "photos")
    white = Image.new("RGB", (300, 400), "white")
    points = [
        image_point(images, white, id_="a"),
        image_point(images, white.resize((150, 200)), id_="b"),
        image_point(images, photo(7)),
    ]
    assert [len(group.others) for group in fold(points, images.folder)] == [1, 0]
    assert len(fold([points[0], image_point(images, Image.new("RGB", (300, 400), "black"))], images.folder)) == 2


def test_pages_without_image_files_fold_only_if_all_words_match(factory):
    dice = random.Random(14)
    entries = values(dice)
    first, near_duplicate = (factory.page(lambda p: form(p, entries)) for _ in range(2))
    other = factory.page(lambda p: form(p, refilled_form(entries, dice, "one")))
    a, b, c = factory.points([first, near_duplicate, other])
    assert len(fold([a, b], None)) == 1
    assert len(fold([a, c], None)) == 2


def test_stopword_difference_prevents_folding(factory):
    def draw(answer):
        def form(page):
            for row, label in enumerate(["Owner of the vehicle", "Insurance at that time", "Repair by the council"]):
                page.insert_text((40, 60 + 20 * row), f"{label}: {answer if row == 1 else 'yes'}", fontsize=8)

        return form

    one, two, three = (factory.page(draw(answer)) for answer in ("yes", "yes", "no"))
    a, b, c = factory.points([one, two, three])
    assert len(fold([a, b], factory.images.folder)) == 1
    assert len(fold([a, c], factory.images.folder)) == 2


PRINT_NAME = "Maria"


def small_print_point(images, text, *, rows, words=True):
    """Return a point of a page in small print, with one vector per word, independent of the word."""
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


PRINT = " ".join([*WORDS, *WORDS, PRINT_NAME, "4711"])


def print_rows(changed_word=None):
    rows = normalise(np.random.default_rng(3).normal(size=(len(PRINT.split()), 32)))
    if changed_word is not None:
        rows[PRINT.split().index(changed_word)] = normalise(np.random.default_rng(4).normal(size=32))
    return rows


def images_match(a, b, folder):
    one, two = (image_match.load(PageContent.of_payload(point.payload, folder).image) for point in (a, b))
    return image_match.difference_map(one, two).max() <= MAX_DIFFERENCE


def test_changed_name_in_small_print_is_detected_by_its_vector(folder):
    images = ImageFiles(folder / "print")
    first = small_print_point(images, PRINT, rows=print_rows(), words=False)
    second = small_print_point(images, PRINT.replace(PRINT_NAME, "Marta"), rows=print_rows(PRINT_NAME), words=False)
    assert images_match(first, second, images.folder)
    assert len(fold([first, second], images.folder)) == 2
    # Equal pixels and different vectors mean that OCR misread a word.
    misread = small_print_point(images, PRINT, rows=print_rows(PRINT_NAME), words=False)
    assert len(fold([first, misread], images.folder)) == 1


def test_changed_name_in_small_print_is_detected_by_its_word(folder):
    images = ImageFiles(folder / "print")
    first = small_print_point(images, PRINT, rows=print_rows())
    second = small_print_point(images, PRINT.replace(PRINT_NAME, "Marta"), rows=print_rows())
    assert images_match(first, second, images.folder)
    assert len(fold([first, second], images.folder)) == 2


def test_changed_number_prevents_folding(folder):
    images = ImageFiles(folder / "print")
    first = small_print_point(images, PRINT, rows=print_rows())
    second = replace(first, id="other", payload={**first.payload, schema.TEXT: PRINT.replace("4711", "4712")})
    assert len(fold([first, replace(first, id="again")], images.folder)) == 1
    assert len(fold([first, second], images.folder)) == 2


def test_pages_are_compared_with_the_first_of_a_group_only(monkeypatch):
    """Page two resembles pages one and three, but page three does not resemble page one, the first of the group."""
    points = [Point(name, payload={schema.TEXT: name}) for name in ("one", "two", "three")]
    near = [{"one", "two"}, {"two", "three"}]
    monkeypatch.setattr(dedup, "difference", lambda a, b: 0.25 if {*a.words, *b.words} in near else None)
    groups = fold(points, None)
    assert [(group.first, group.others) for group in groups] == [(points[0], [(points[1], 0.75)]), (points[2], [])]


@pytest.fixture
def compared_pairs(monkeypatch):
    """Return a list to which each full comparison of two pages appends the pair of pages."""
    pairs = []

    def count_and_compare(a, b):
        pairs.append((a, b))
        return difference(a, b)

    monkeypatch.setattr(dedup, "difference", count_and_compare)
    return pairs


def fold_exhaustively(points, folder):
    """Return the groups of `fold` without signatures: each page is compared with the first page of every group."""
    groups = []
    for point in points:
        for group in groups:
            distance = difference(*(PageContent.of_payload(member.payload, folder) for member in (group[0][0], point)))
            if distance is not None:
                group.append((point, 1 - distance))
                break
        else:
            groups.append([(point, 1.0)])
    return [(group[0][0], group[1:]) for group in groups]


@pytest.mark.parametrize("signs", [False, True])
def test_signatures_skip_most_detailed_comparisons(folder, compared_pairs, signs):
    images = ImageFiles(folder / "many")
    points = [patch_point(images, photo(seed, (90, 120)), seed=seed, signs=signs) for seed in range(40)]
    near_duplicates = [
        patch_point(images, photo(seed, (90, 120)), seed=seed, noise=0.05, signs=signs) for seed in (38, 2)
    ]
    groups = fold([*points, *near_duplicates], images.folder)
    assert [(groups.index(group), [other for other, _ in group.others]) for group in groups if group.others] == [
        (2, [near_duplicates[1]]),
        (38, [near_duplicates[0]]),
    ]
    assert len(compared_pairs) < 100, "an exhaustive comparison needs more than 800"


@pytest.mark.parametrize("storage", [None, "compact"])
def test_signatures_of_the_same_page_are_far_above_the_threshold(factory, same_pairs, storage):
    points = factory.points([page for pair in same_pairs[:12] for page in pair], storage and Storage.named(storage))
    signatures = np.stack([PageContent.of_payload(point.payload, None).signature for point in points])
    assert (signatures[::2] * signatures[1::2]).sum(axis=1).min() > MIN_SIGNATURE_COSINE + 0.1
    np.testing.assert_allclose(np.linalg.norm(signatures, axis=1), 1, rtol=1e-5)


def test_signature_of_a_page_with_few_words_comes_from_its_image(folder):
    images = ImageFiles(folder / "signatures")
    contents = [
        PageContent.of_payload(image_point(images, image).payload, images.folder)
        for image in (photo(8), photo(8).resize((210, 280)), photo(9))
    ]
    first, near_duplicate, other = (content.signature for content in contents)
    assert first @ near_duplicate > MIN_SIGNATURE_COSINE + 0.4
    assert first @ other < MIN_SIGNATURE_COSINE
    assert not PageContent(("few", "words")).signature.any()


def test_fold_equals_exhaustive_comparison_for_mixed_pages(folder):
    images = ImageFiles(folder / "kinds")
    points = []
    for seed in range(12):
        points += [
            patch_point(images, photo(seed % 5, (90, 120)), seed=seed % 5, noise=0.02 * seed, signs=seed % 2 == 0),
            image_point(images, photo(50 + seed % 4, (90, 120)), id_=f"{'x' * (seed + 1)}"),
        ]
    points.append(replace(points[0], multi=np.zeros_like(points[0].multi), payload=points[2].payload))
    points = [replace(point, id=str(i)) for i, point in enumerate(points)]
    expected = fold_exhaustively(points, images.folder)
    assert sum(len(others) for _, others in expected) > 8
    assert [(group.first, group.others) for group in fold(points, images.folder)] == expected


def test_pages_without_signature_are_always_compared(compared_pairs):
    points = [Point(str(n), payload={schema.TEXT: f"number{n}"}) for n in range(6)]
    near_duplicate = replace(points[2], id="again")
    assert [len(group.others) for group in fold([*points, near_duplicate])] == [0, 0, 1, 0, 0, 0]
    assert len(compared_pairs) == 15 + 3


def test_blank_pages_with_patch_vectors_fold(folder):
    images = ImageFiles(folder / "few")
    white = Image.new("RGB", (300, 400), "white")
    patch = normalise(np.random.default_rng(9).normal(size=32))
    blank = []
    for seed in range(2):
        point = patch_point(images, white.resize((300 - 60 * seed, 400 - 80 * seed)), seed=seed)
        noise = np.random.default_rng(seed).normal(size=(64, 32)) * 0.03
        blank.append(replace(point, multi=normalise(patch + noise)))
    assert len(fold(blank, images.folder)) == 1


def test_fold_of_no_pages_returns_no_groups():
    assert fold([], None) == []
