"""Sidecars: JSON, YAML and TOML files with the metadata of a document, for example ``report.yaml`` for ``report.pdf``.

A sidecar is hostile data, as every file of a folder: its size and nesting are limited, and YAML aliases, whose
expansion can fill the memory, are rejected.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import stat
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jina_rag._extras import require
from jina_rag.indexing.metadata import clean_metadata
from jina_rag.stores.schema import MAX_METADATA_DEPTH
from jina_rag.types import Failure

SUFFIXES = (".json", ".yaml", ".yml", ".toml")
"""Suffixes of sidecars, in the order in which the files are tried."""
_MAX_BYTES = 64 * 1024
"""Maximum size of a sidecar in bytes. A larger file is not read as metadata."""
_MAX_DEPTH = MAX_METADATA_DEPTH + 8
"""Nesting depth at which parsers stop; a few levels deeper than metadata, so that the key is left out by its depth."""
_MAX_DIGITS = 310
"""Digits above which an integer is beyond the range of a float. Python itself parses 4,300 digits at most."""
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)

_YAML_SCALARS = {
    "tag:yaml.org,2002:bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": ("[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
"""YAML tag → regular expression of the text, and its possible first characters. Numbers with leading zeros are text."""
_Report = Callable[[str], None]


def sidecars_of(path: Path) -> tuple[Path, ...]:
    """Return the possible sidecar paths of a document: ``report.pdf.json`` etc., then ``report.json`` etc.

    A sidecar may have the name in another Unicode form (NFC, NFD) than the document.
    """
    forms = dict.fromkeys((path.name, *(unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))))
    documents = [path.with_name(name) for name in forms]
    names = [document.with_name(f"{document.name}{suffix}") for document in documents for suffix in SUFFIXES]
    return (*names, *(document.with_suffix(suffix) for document in documents for suffix in SUFFIXES))


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def read_sidecar(path: Path, warnings: list[Failure]) -> dict[str, Any]:
    """Return the metadata in the first valid sidecar of a document; empty if no valid sidecar exists.

    Args:
        path: The document.
        warnings: List to which a warning is appended for each invalid sidecar, and for each key that is left out.
    """
    for sidecar in sidecars_of(path):
        reasons: list[str] = []
        try:
            text = _read_small(sidecar)
            if text is not None:
                return clean_metadata(_parse(sidecar.suffix, text, reasons.append), reasons.append)
            if _nfc(sidecar.name).startswith(_nfc(path.name)) and _is_too_large(sidecar):
                reasons.append(f"Ignored as metadata of {path.name}: the file has more than {_MAX_BYTES // 1024} KiB.")
        except (OSError, ValueError, RecursionError) as error:
            reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            reasons.append(f"Ignored as metadata of {path.name}: {reason.rstrip('.')}. Correct or rename the file.")
        finally:
            warnings += [Failure(sidecar, reason) for reason in reasons]
    return {}


def _parse(suffix: str, text: str, report: _Report) -> Mapping[Any, Any]:
    """Return the object in the text of a sidecar; keys that YAML cannot read are reported and left out.

    Raises:
        ValueError: If the text is invalid or is not an object.
        RecursionError: If the text is nested too deeply.
    """
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix != ".json":
        return _load_yaml(text, report)
    content = json.loads(_without_depth(text), parse_int=_parse_integer)
    if not isinstance(content, dict):
        raise ValueError("the file is not a JSON object")
    return content


def _without_depth(text: str) -> str:
    """Return JSON text in which each object and list at `_MAX_DEPTH` levels is replaced by 0, to limit recursion."""
    parts: list[str] = []
    depth, end = 0, 0
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _MAX_DEPTH:
                parts += [text[end : token.start()], "0"]
        elif token[0] in "]}":
            if depth == _MAX_DEPTH:
                end = token.end()
            depth -= 1
    return "".join([*parts, text[end:]] if depth < _MAX_DEPTH else parts)


def _parse_integer(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _load_yaml(text: str, report: _Report) -> dict[Any, Any]:
    """Return the mapping in YAML text. A key whose value is invalid, for example an unknown tag, is reported."""
    yaml = require("yaml", package="pyyaml")
    try:
        loader = _yaml_loader()(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"{place}{_yaml_reason(error)}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("the file is not a YAML mapping")
    metadata: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        try:
            metadata[loader.construct_document(key_node)] = loader.construct_document(value_node)
        except Exception as error:  # for values that contradict their tag, PyYAML raises errors of many classes
            name, line = repr(str(key_node.value)[:80]), key_node.start_mark.line + 1
            report(f"The metadata key {name} was left out: {_yaml_reason(error)}. Correct line {line}.")
    return metadata


def _yaml_reason(error: Exception) -> str:
    parts = [getattr(error, name, None) for name in ("context", "problem")]
    reason = ", ".join(part for part in parts if part) or str(error) or type(error).__name__
    return reason.split("\n")[0].rstrip(".")


@functools.cache
def _yaml_loader() -> Any:  # noqa: ANN401  # a class of an untyped package
    """Return the loader class: scalars of YAML 1.2, no aliases, and no nodes below `_MAX_DEPTH` levels."""
    yaml = require("yaml", package="pyyaml")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined, misc]
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases are not supported", mark)
            if self.depth >= _MAX_DEPTH:
                return self.skip_node()
            self.depth += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def skip_node(self) -> Any:  # noqa: ANN401
            depth = 0
            while True:
                event = self.get_event()
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if not depth:
                    return yaml.ScalarNode("tag:yaml.org,2002:null", "", event.start_mark, event.end_mark)

    # YAML 1.1, which PyYAML follows, reads 10:30 as 630, 01234 as 668 and NO as false.
    kept = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _YAML_SCALARS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = kept
    for tag, (pattern, first) in _YAML_SCALARS.items():
        Loader.add_implicit_resolver(tag, re.compile(f"(?:{pattern})$"), list(first))
    return Loader


def _is_too_large(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > _MAX_BYTES


def _read_small(path: Path) -> str | None:
    """Return the text of a regular file of at most 64 KiB; None if the file is missing, larger or not regular.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is not UTF-8 text.
    """
    try:
        # O_NOFOLLOW rejects links, which may point outside the folder. O_NONBLOCK prevents a named pipe from blocking.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = file.read(_MAX_BYTES + 1)
    return None if len(data) > _MAX_BYTES else data.decode("utf-8-sig")
