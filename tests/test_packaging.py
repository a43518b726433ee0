"""What the papers say agrees with what is packaged."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import tomllib

import pytest
import typer
from helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAPERS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "NOTICE")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(name), flags=re.MULTILINE | re.DOTALL)


def names(requirements: list[str]) -> list[str]:
    return [re.match(r"[A-Za-z0-9._-]+", requirement).group().lower() for requirement in requirements]


ASKED = PROJECT["dependencies"] + [
    entry
    for extra, listed in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for entry in listed
    if not entry.startswith("jina-rag[")
]


@pytest.mark.parametrize("package", sorted(set(names(ASKED))))
def test_notice_names_every_package_we_ask_for(package):
    assert re.search(rf"^    {re.escape(package)}  +\S", read("NOTICE").lower(), flags=re.MULTILINE)


def test_notice_names_every_shipped_file_that_is_not_ours():
    shipped = json.loads(read("jina_rag/samples/SOURCES.json"))["documents"]
    notice = read("NOTICE")
    for document in shipped:
        assert re.search(rf"{re.escape(document['file'])} .* {re.escape(document['licence'])}$", notice, re.MULTILINE)
    for asset in (ROOT / "jina_rag" / "models" / "_assets").iterdir():
        assert asset.name in notice


def test_advice_to_install_names_extras_that_exist():
    extras = set(PROJECT["optional-dependencies"])
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "jina_rag").rglob("*.py")]
    texts += [read(name) for name in PAPERS]
    for text in texts:
        for named in re.findall(r"jina-rag\[([\w,-]+)\]|\"\.\[([\w,-]+)\]", text):
            assert set("".join(named).split(",")) <= extras
        for extra in re.findall(r"extra=\"([\w-]+)\"", text):
            assert extra in extras


def test_nobody_is_told_to_install_from_pypi_what_is_not_there():
    for name in PAPERS:
        assert not re.search(r"pip install (-U |--upgrade )?[\"']?jina[-_]rag", read(name))


def test_papers_and_templates_hold_no_path_of_a_developer():
    texts = [ROOT / name for name in PAPERS]
    texts += [path for path in (ROOT / "jina_rag").rglob("*") if path.suffix in {".py", ".j2", ".json", ".md"}]
    for path in texts:
        assert not re.search(r"(?<![\w.])/(home|Users|work|root)/\w", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", PAPERS)
def test_links_between_the_papers_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", read(name)):
        assert (ROOT / target).exists(), target


def test_the_python_in_the_readme_uses_names_that_exist():
    import jina_rag

    sources = blocks("README.md", "python")
    assert len(sources) == 4
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert module is jina_rag or "core" in node.module or "jina_rag" in node.module
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "index":
                assert hasattr(jina_rag.DocumentIndex, node.attr)
        assert len([line for line in source.splitlines() if line.strip()]) <= 12


def test_the_python_in_the_readme_about_models_runs(tiny, monkeypatch, tmp_path):
    """With the tiny checkpoints in the place of the real ones."""
    pytest.importorskip("torch")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 80), "white").save("page.png")
    source = (
        blocks("README.md", "python")[1].replace(', device="cuda"', "").replace("truncate_dim=512", "truncate_dim=32")
    )
    for name, family in (("embeddings-v4", "v4"), ("reranker-m0", "m0")):
        assert f"jinaai/jina-{name}" in source
        source = source.replace(f"jinaai/jina-{name}", tiny[family])
    exec(source, {})


def test_the_commands_in_the_readme_exist_with_their_options():
    from jina_rag.cli.app import app

    commands = typer.main.get_command(app).commands
    lines = [line for block in blocks("README.md", "bash") for line in block.splitlines()]
    lines += re.findall(r"`(jina-rag [^`]+)`", read("README.md"))
    lines = [line for line in lines if line.startswith("jina-rag ")]
    assert len(lines) >= 10
    for line in lines:
        _, name, *arguments = shlex.split(line)
        if name.startswith("-"):
            continue
        command = commands[name]
        inner = getattr(command, "commands", {})
        if arguments and arguments[0] in inner:
            meant = [inner[arguments[0]]]
        else:  # `evaluate DIR` is `evaluate measure DIR`, `evaluate --benchmark …` is `evaluate benchmark …`
            meant = [command, *(inner[name] for name in ("measure", "benchmark") if name in inner)]
        options = {option for one in meant for parameter in one.params for option in parameter.opts} | {"--help"}
        assert {argument for argument in arguments if argument.startswith("-")} <= options, line


def test_every_command_is_in_the_readme():
    from jina_rag.cli.app import app

    readme = read("README.md")
    for command in typer.main.get_command(app).commands:
        assert f"jina-rag {command}" in readme
