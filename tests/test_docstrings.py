"""Docstrings of all public names: parameters, shapes, dtypes, units, errors and sources.

``python tests/test_docstrings.py [PATH ...]`` lists each incomplete docstring under the paths.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import pytest

from jina_rag import errors

ROOT = Path(__file__).parent.parent
INTEGRATIONS = ROOT / "integrations"
PACKAGES = {
    "jina_rag": ROOT,
    "langchain_jina_rag": INTEGRATIONS / "langchain-jina-rag",
    **{
        f"llama_index.{name}": INTEGRATIONS / "llama-index-jina-rag"
        for name in (
            "embeddings.jina_rag", "postprocessor.jina_rag_rerank", "readers.jina_rag", "retrievers.jina_rag",
            "vector_stores.jina_rag",
        )
    },
}  # fmt: skip

# Modules that implement a published model, method, measure or format: each public function or class names the source,
# or the module does it once for all of them.
SOURCED = [
    "jina_rag.scoring", "jina_rag.sparse",
    "jina_rag.compression.binary_quantization", "jina_rag.compression.pooling", "jina_rag.compression.truncation",
    "jina_rag.search.calibration",
    "jina_rag.models.jina.colbert_v2", "jina_rag.models.jina.embedding_v1", "jina_rag.models.jina.embeddings_v4",
    "jina_rag.models.jina.lora", "jina_rag.models.jina.qwen_vl", "jina_rag.models.jina.reranker_m0",
    "jina_rag.models.jina.xlm_rotary", "jina_rag.models.jina.image_patches",
    "jina_rag.models.lite.e5", "jina_rag.models.lite.minilm", "jina_rag.models.lite.unigram_tokenizer",
    "jina_rag.ocr.detection", "jina_rag.ocr.recognition",
    "jina_rag.evaluation.measures", "jina_rag.evaluation.significance", "jina_rag.evaluation.trec",
    "jina_rag.evaluation.negation", "jina_rag.evaluation.reference_scores",
    "jina_rag.evaluation.cleaning.consistency", "jina_rag.evaluation.cleaning.duplicates",
    "jina_rag.evaluation.cleaning.language", "jina_rag.evaluation.cleaning.minhash",
    "jina_rag.evaluation.cleaning.near_duplicates", "jina_rag.evaluation.mteb",
]  # fmt: skip

# Their parameters are documented one by one: the names that users import.
EXPORTING_MODULES = ("jina_rag", "jina_rag.adapters", "jina_rag.compression", "jina_rag.testing", *list(PACKAGES)[1:])

ARRAY = re.compile(r"\b(Float32|NDArray|ndarray|Tensor)\b")
SHAPE = re.compile(r"\bshapes?\b|\([a-z_0-9][\w .*+/-]*,[^()]*\)|\b(zero|one|two|three)-dimensional\b|\bscalar\b", re.I)
DTYPE = re.compile(r"\b(float(16|32|64)?|bfloat16|u?int(8|16|32|64)?|bool(ean)?s?|dtype|object)\b", re.I)
UNITS = {
    r"(^|_)(ms|milliseconds)($|_)": "millisecond",
    r"(^|_)(seconds|timeout|interval|delay)($|_)": "second|minute|hour",
    r"(^|_)(bytes|nbytes|memory|mb|size_on_disk)($|_)": "byte|[KMG]i?B",
    r"(^|_)(pixels|side)($|_)": "pixel",
    r"^dpi$": "per inch|dpi",
    r"(^|_)(tokens|max_length)($|_)": "token",
    r"(^|_)(share|fraction|threshold|similarity|overlap|confidence|probability)($|_)": (
        r"\b0\b|\b1\b|fraction|%|cosine|score|token"
    ),
    r"^(box|boxes|frame)$": "fraction|pixel|point",
}
NUMBER = re.compile(r"\b(int|float|Box|tuple)\b")
SEE = re.compile(r"\b[Ss]ee (also )?`|`[\w.]+`'s|\bAs `|\bSame as `|\bImplement `")
"""A reference to a protocol method or class. It may replace descriptions of parameters, but not shapes and units."""


def is_public(path: str) -> bool:
    return not any(part.startswith("_") for part in path.split("."))


@cache
def package(name: str) -> griffe.Module:
    module = griffe.load(name, search_paths=[str(PACKAGES[name])], docstring_parser="google", try_relative_path=False)
    assert isinstance(module, griffe.Module)
    assert module.filepath.is_relative_to(PACKAGES[name])  # type: ignore[union-attr]
    return module


def members(item: Any) -> Iterator[Any]:
    for name, member in item.members.items():
        if name.startswith("_") or member.is_alias:
            continue
        yield member
        if member.is_module or member.is_class:
            yield from members(member)


def public_objects() -> list[Any]:
    objects = []
    for name in PACKAGES:
        objects.append(package(name))
        objects.extend(members(package(name)))
    return [item for item in objects if item.is_module or item.is_class or item.is_function or is_property(item)]


def is_property(item: Any) -> bool:
    return bool(item.is_attribute and "property" in item.labels)


class Docstring:
    """The sections of a docstring."""

    def __init__(self, item: Any) -> None:
        self.text = item.docstring.value if item.docstring else ""
        self.parameters: dict[str, str] = {}
        self.returns = ""
        self.errors: set[str] = set()
        for section in item.docstring.parse("google", warnings=False) if item.docstring else ():
            if section.kind.value in ("parameters", "other parameters", "attributes"):
                self.parameters |= {entry.name.lstrip("*"): entry.description for entry in section.value}
            elif section.kind.value in ("returns", "yields"):
                self.returns = " ".join(f"{entry.name} {entry.description}" for entry in section.value)
            elif section.kind.value == "raises":
                self.errors |= {str(entry.annotation).rpartition(".")[2] for entry in section.value}


@cache
def error_tree() -> dict[str, set[str]]:
    """Each error class of the package with the names of its base classes and its own."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    return {value.__name__: {base.__name__ for base in value.__mro__} for value in classes}


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def raised_errors(item: Any) -> set[str]:
    """Names of this package's errors that the body of a function raises by itself."""
    for node in ast.walk(syntax_tree(item.filepath)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == item.name:
            lines = {node.lineno, *(decorator.lineno for decorator in node.decorator_list)}
            if item.lineno in lines:
                calls = [n.exc.func for n in ast.walk(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
                return {call.id for call in calls if isinstance(call, ast.Name)} & set(error_tree())
    return set()


@cache
def exported_paths() -> frozenset[str]:
    """Paths of the objects that ``__all__`` of an exporting module names."""
    paths = set()
    for name in EXPORTING_MODULES:
        root = package(name) if name in PACKAGES else package("jina_rag")[name.removeprefix("jina_rag.")]
        for export in root.exports or ():
            member = root.members.get(str(export))
            if member is not None:
                paths.add(member.target_path if member.is_alias else member.path)
    return frozenset(paths)


def missing(item: Any) -> list[str]:
    """What the docstring of a public name lacks, one entry for each lack."""
    doc = Docstring(item)
    if not doc.text:
        return ["docstring"]
    lacks = []
    if item.is_class:
        fields = {
            name: str(member.annotation)
            for name, member in item.members.items()
            if member.is_attribute and member.annotation and not name.startswith("_") and not is_property(member)
            and "ClassVar" not in str(member.annotation)
        }  # fmt: skip
        descriptions = {
            name: doc.parameters.get(name, item.members[name].docstring.value if item.members[name].docstring else "")
            for name in fields
        }
        init = item.members.get("__init__")
        if init is not None and not init.is_alias and init.is_function:
            arguments = {p.name: str(p.annotation) for p in init.parameters if p.name != "self"}
            init_doc = Docstring(init)
            for name, annotation in arguments.items():
                if name not in fields and not name.startswith("_"):
                    fields[name] = annotation
                    descriptions[name] = doc.parameters.get(name, init_doc.parameters.get(name, ""))
    elif item.is_function:
        fields = {p.name: str(p.annotation) for p in item.parameters if p.name not in ("self", "cls")}
        descriptions = {name: doc.parameters.get(name, "") for name in fields}
    else:
        fields, descriptions = {}, {}
    exported = any(item.path == path or item.path.startswith(f"{path}.") for path in exported_paths())
    refers = bool(SEE.search(doc.text))
    for name, annotation in fields.items():
        description = descriptions[name]
        if exported and not description and not refers:
            lacks.append(f"parameter {name}")
            continue
        text = description or doc.text
        if ARRAY.search(annotation) and "Callable" not in annotation and not SHAPE.search(text):
            lacks.append(f"shape of {name}")
        if NUMBER.search(annotation) and (description or exported):
            for pattern, unit in UNITS.items():
                if re.search(pattern, name) and not re.search(unit, text, re.IGNORECASE):
                    lacks.append(f"unit of {name}")
    returns = "" if item.is_class or item.is_module else str(item.annotation if is_property(item) else item.returns)
    text = f"{doc.returns} {doc.text}"
    if ARRAY.search(returns) and "Callable" not in returns:
        if not SHAPE.search(text):
            lacks.append("shape of the result")
        if not DTYPE.search(text):
            lacks.append("dtype of the result")
    if exported and item.is_function and returns not in ("None", "", "Self", "NoReturn"):
        described = doc.returns or re.match(r"(Return|Yield|Iterate|Open|Make|Build|Create|Load|Count)\b", doc.text)
        if not described and not refers:
            lacks.append("result")
    if item.is_function:
        for error in sorted(raised_errors(item)):
            if not error_tree()[error] & doc.errors:
                lacks.append(f"error {error}")
    return lacks


def lacks_source(module: str) -> list[str]:
    name, _, rest = module.partition(".")
    item = package(name)[rest] if rest else package(name)
    if "Source:" in Docstring(item).text:
        return []
    return [
        f"{member.path}: source"
        for member in item.members.values()
        if not member.is_alias and is_public(member.name) and (member.is_function or member.is_class)
        and "Source:" not in Docstring(member).text
    ]  # fmt: skip


def incomplete(paths: list[Path]) -> list[str]:
    """One line for each incomplete docstring in the files under the paths."""
    lines = []
    for item in public_objects():
        file = Path(str(item.filepath)).resolve()
        if not any(path.resolve() in (file, *file.parents) for path in paths):
            continue
        if lacks := missing(item):
            lines.append(f"{file.relative_to(ROOT)}:{item.lineno or 1} {item.path}: {', '.join(lacks)}")
    for module in SOURCED:
        file = ROOT / module.replace(".", "/")
        if any(path.resolve() in (file, file.with_suffix(".py"), *file.parents) for path in paths):
            lines += lacks_source(module)
    return lines


def test_public_docstrings_give_parameters_shapes_units_and_errors() -> None:
    objects = public_objects()
    assert len(objects) > 1_000
    assert incomplete([ROOT]) == []


def test_a_missing_shape_unit_or_error_is_reported(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "__init__.py").write_text(
        '"""Sample."""\n'
        "def norms(vectors: Float32) -> Float32:\n"
        '    """Return the norms.\n\n    Args:\n        vectors: The vectors.\n    """\n'
        "    raise InvalidInputError('x')\n"
        "def wait(seconds: float) -> None:\n"
        '    """Wait.\n\n    Args:\n        seconds: How long.\n    """\n'
    )
    sample = griffe.load("sample", search_paths=[str(tmp_path)])
    assert missing(sample["norms"]) == [
        "shape of vectors", "shape of the result", "dtype of the result", "error InvalidInputError"
    ]  # fmt: skip
    assert missing(sample["wait"]) == ["unit of seconds"]


@pytest.mark.parametrize("module", SOURCED)
def test_published_methods_name_their_source(module: str) -> None:
    assert lacks_source(module) == []


if __name__ == "__main__":
    lines = incomplete([Path(argument) for argument in sys.argv[1:]] or [ROOT])
    sys.stdout.write("\n".join([*lines, f"{len(lines)} incomplete docstrings", ""]))
