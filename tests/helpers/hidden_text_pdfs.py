"""PDFs with visible and hidden words, generated from a seed, for tests that compare the renderers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from helpers.raw_pdf import FONT, one_page, stream

COLUMNS, ROWS = 2, 9
"""Number of cells of a page. Each cell holds the words of one scene."""


@dataclass
class Scene:
    """Content of one cell of a page, in a coordinate system of 240 x 70 points.

    Attributes:
        content: Content stream.
        visible: Words that are visible.
        random: Source of random numbers.
    """

    content: str = ""
    visible: list[str] = field(default_factory=list)
    random: random.Random = field(default_factory=random.Random)

    def words(self, kind: str = "word") -> str:
        """Return two new words. They are added to `visible` if `kind` is "word"."""
        words = ["".join(self.random.choices("abcdefghkmnoprstuvxz", k=self.random.randint(4, 8))) for _ in range(2)]
        if kind == "word":
            self.visible += words
        return " ".join(words)

    def text(self, text: str, x: float = 10, y: float = 30, size: float = 12, setup: str = "") -> None:
        """Draw a line of text."""
        self.content += f"BT {setup} /F1 {size} Tf 1 0 0 1 {x:g} {y:g} Tm ({text}) Tj ET\n"

    def draw(self, operators: str) -> None:
        """Append operators."""
        self.content += operators + "\n"


def _color(scene: Scene, low: float, high: float) -> str:
    return " ".join(f"{scene.random.uniform(low, high):.3f}" for _ in range(3))


def _plain(scene: Scene) -> None:
    scene.text(scene.words(), size=scene.random.choice((6, 8, 12, 20)), setup=f"{_color(scene, 0, 0.6)} rg")


def _white(scene: Scene) -> None:
    scene.text(scene.words("hidden"), setup=f"{_color(scene, 0.97, 1)} rg")
    scene.text(scene.words(), y=50, setup="0 g")


def _same_color(scene: Scene) -> None:
    color = _color(scene, 0, 1)
    scene.draw(f"{color} rg 0 20 240 30 re f")
    scene.text(scene.words("hidden"), setup=f"{color} rg")


def _light_on_dark(scene: Scene) -> None:
    scene.draw(f"{_color(scene, 0, 0.4)} rg 0 20 240 30 re f")
    scene.text(scene.words(), setup=f"{_color(scene, 0.8, 1)} rg", size=scene.random.choice((7, 12, 18)))


def _tiny_white(scene: Scene) -> None:
    scene.text(scene.words())
    scene.text(scene.words("hidden"), x=12 + scene.random.random() * 30, y=33, size=1, setup="1 g")


def _tiny(scene: Scene) -> None:
    scene.text(scene.words("hidden"), size=scene.random.choice((0.01, 0.2, 0.5, 1)), setup="0 g")


def _invisible(scene: Scene) -> None:
    scene.text(scene.words("hidden"), setup="3 Tr")
    scene.text(scene.words(), y=50, setup="0 Tr")


def _invisible_over_words(scene: Scene) -> None:
    scene.text(scene.words())
    scene.text(scene.words("hidden"), setup="3 Tr", x=10 + scene.random.random() * 8)
    scene.draw("BT 0 Tr ET")


def _transparent(scene: Scene) -> None:
    scene.draw("q /Clear gs")
    scene.text(scene.words("hidden"))
    scene.draw("Q q /Half gs")
    scene.text(scene.words(), y=50)
    scene.draw("Q")


def _beneath_shape(scene: Scene) -> None:
    scene.text(scene.words("hidden"), setup=f"{_color(scene, 0, 1)} rg")
    scene.draw(f"{_color(scene, 0, 1)} rg 0 20 240 30 re f")


def _replaced(scene: Scene) -> None:
    scene.text(scene.words("hidden"), size=16, setup="0 g")
    scene.draw("1 g 0 20 240 30 re f")
    scene.text(scene.words(), size=scene.random.choice((10, 16)), setup="0 g")


def _blackened(scene: Scene) -> None:
    scene.text(scene.words("hidden"), size=16, setup="0 g")
    scene.draw("0 g 0 20 240 30 re f")
    scene.text(scene.words(), size=scene.random.choice((10, 16)), setup="1 g")


def _beneath_image(scene: Scene) -> None:
    scene.text(scene.words("hidden"), setup=f"{_color(scene, 0, 0.5)} rg")
    scene.draw("q 240 0 0 60 0 5 cm /Photo Do Q")


def _on_image(scene: Scene) -> None:
    scene.draw("q 240 0 0 60 0 5 cm /Photo Do Q")
    scene.text(scene.words(), size=16, setup=scene.random.choice(("1 g", "0 g", "1 0 0 rg")))


def _beneath_transparent_image(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("q 240 0 0 60 0 5 cm /Faint Do Q")


def _highlighted(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("q /Multiply gs 1 1 0 rg 5 24 200 20 re f Q")


def _veiled(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("q /Half gs 0 0.5 1 rg 5 24 200 20 re f Q")


def _clipped(scene: Scene) -> None:
    scene.draw("q 200 5 20 10 re W n")
    scene.text(scene.words("hidden"), y=40)
    scene.draw("Q q 5 20 230 30 re W n")
    scene.text(scene.words(), setup="0 g")
    scene.draw("Q")


def _layers(scene: Scene) -> None:
    scene.draw("/OC /Off BDC")
    scene.text(scene.words("hidden"))
    scene.draw("EMC /OC /On BDC")
    scene.text(scene.words(), y=50)
    scene.draw("EMC")


def _layer_over_words(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("/OC /Off BDC")
    scene.text(scene.words("hidden"), setup="1 0 0 rg", x=14)
    scene.draw("EMC")


def _form_of_layer(scene: Scene) -> None:
    scene.text(scene.words(), y=50)
    scene.draw("/OffForm Do")


def _off_page(scene: Scene) -> None:
    scene.text(scene.words("hidden"), x=-900, y=30)
    scene.text(scene.words("hidden"), x=10, y=2000)
    scene.text(scene.words())


def _shadow(scene: Scene) -> None:
    words = scene.words()
    step = scene.random.choice((0.05, 0.1, 0.2, 0.3, 0.4, 0.5))
    for number in range(scene.random.choice((2, 3))):
        scene.text(words, x=10 + step * number, y=30 - step * number, setup=f"{_color(scene, 0, 0.5)} rg")


def _bold_letters(scene: Scene) -> None:
    words, x = scene.words(), 10.0
    for letter in words.replace(" ", "")[:1] + "":
        scene.text(letter, x=x)
    scene.content = ""
    scene.visible.clear()
    for word in words.split():
        scene.visible.append(word)
        scene.text(word, x=x)
        scene.text(word, x=x + 0.3)
        x += 8.0 * len(word) + 6


def _repeated_cells(scene: Scene) -> None:
    word = scene.words().split()[0]
    scene.visible[:] = [word] * 4
    gap = scene.random.uniform(3, 8)
    scene.text(" ".join([word] * 2))
    scene.text(word, y=30 - 12 - gap)
    scene.text(word, y=30 + 12 + gap)


def _double_letters(scene: Scene) -> None:
    scene.visible += ["illl", "1111", "ooo"]
    scene.text("illl 1111 ooo", size=scene.random.choice((5, 8, 12)))


def _white_on_words(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g", size=16)
    scene.text(scene.words("hidden"), setup="1 g", x=12, size=8, y=33)


def _white_on_rule(scene: Scene) -> None:
    scene.text(scene.words("hidden"), setup="1 g")
    scene.draw("0 G 1 w 0 34 m 240 34 l S 60 10 m 60 60 l S")


def _struck(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("0 G 0.8 w 5 34 m 200 34 l S 5 27 m 200 27 l S")


def _framed(scene: Scene) -> None:
    scene.text(scene.words(), setup="0 g")
    scene.draw("0.6 g 2 15 230 45 re 4 17 226 41 re f*")


def _outlined(scene: Scene) -> None:
    scene.text(scene.words(), size=18, setup="1 g 0 G 0.6 w 2 Tr")
    scene.text(scene.words(), size=14, y=50, setup="1 0 0 RG 0.4 w 1 Tr")
    scene.draw("BT 0 Tr ET 0 g 1 w")


def _two_colors(scene: Scene) -> None:
    first, second = scene.words("hidden").split()
    scene.visible.append(first + second)
    scene.draw(f"BT /F1 12 Tf 10 30 Td 1 0 0 rg ({first}) Tj 0 0 1 rg ({second}) Tj ET")


def _half_white(scene: Scene) -> None:
    first, second = scene.words("hidden").split()
    scene.visible.append(first)
    scene.draw(f"BT /F1 12 Tf 10 30 Td 1 0 0 rg ({first}) Tj 1 g ({second}) Tj ET")


def _turned(scene: Scene) -> None:
    scene.draw(f"BT /F1 9 Tf 0 1 -1 0 30 5 Tm 0 g ({scene.words()[:5]}) Tj ET")
    scene.visible[:] = []
    scene.content = ""
    word = scene.words().split()[0]
    scene.visible[:] = [word]
    scene.draw(f"BT /F1 9 Tf 0 1 -1 0 30 5 Tm 0 g ({word}) Tj 1 g ( {scene.words('hidden')}) Tj ET")


SCENES: tuple[Callable[[Scene], None], ...] = (
    _plain, _white, _same_color, _light_on_dark, _tiny_white, _tiny, _invisible, _invisible_over_words, _transparent,
    _beneath_shape, _replaced, _blackened, _beneath_image, _on_image, _beneath_transparent_image, _highlighted, _veiled,
    _clipped, _layers, _layer_over_words, _form_of_layer, _off_page, _shadow, _bold_letters, _repeated_cells,
    _double_letters, _white_on_words, _white_on_rule, _struck, _framed, _outlined, _two_colors, _half_white, _turned,
)  # fmt: skip


def hidden_text_pdf(path: Path, seed: int) -> dict[str, list[str]]:
    """Write a PDF of one page with 18 scenes, and return the visible words of each scene by the name of the scene.

    Args:
        path: Path of the file.
        seed: Seed of the scenes, words, colors and positions.
    """
    source = random.Random(seed)
    expected: dict[str, list[str]] = {}
    content = ""
    for number, build in enumerate(source.sample(SCENES, COLUMNS * ROWS)):
        scene = Scene(random=source)
        build(scene)
        x, y = 40 + 280 * (number % COLUMNS), 30 + 82 * (number // COLUMNS)
        content += f"q 1 0 0 1 {x} {y} cm 0 g 0 G\n{scene.content}Q\n"
        expected[build.__name__.lstrip("_")] = scene.visible
    noise = bytes(source.randrange(256) for _ in range(40 * 10 * 3))
    image = "/Type/XObject/Subtype/Image/Width 40/Height 10/BitsPerComponent 8"
    form = "/Type/XObject/Subtype/Form/BBox[0 0 240 70]/OC 10 0 R/Resources<</Font<</F1 5 0 R>>>>"
    one_page(
        path,
        content,
        resources="/XObject<</Photo 12 0 R/Faint 13 0 R/OffForm 15 0 R>>/Properties<</Off 10 0 R/On 11 0 R>>"
        "/ExtGState<</Clear<</ca 0/CA 0>>/Half<</ca 0.5>>/Multiply<</BM/Multiply>>>>",
        objects={
            1: "<</Type/Catalog/Pages 2 0 R"
            "/OCProperties<</OCGs[10 0 R 11 0 R]/D<</Order[10 0 R 11 0 R]/OFF[10 0 R]>>>>>>",
            5: FONT,
            10: "<</Type/OCG/Name(Off)>>",
            11: "<</Type/OCG/Name(On)>>",
            12: stream(noise, image + "/ColorSpace/DeviceRGB"),
            13: stream(noise, image + "/ColorSpace/DeviceRGB/SMask 14 0 R"),
            14: stream(b"\x30" * 400, image + "/ColorSpace/DeviceGray"),
            15: stream("BT /F1 12 Tf 10 30 Td 1 0 0 rg (offformword) Tj ET", form),
        },
    )
    return expected
