"""Packaging: README, NOTICE and other project documents agree with the package."""

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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "NOTICE")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(name), flags=re.MULTILINE | re.DOTALL)


def package_names(requirements: list[str]) -> list[str]:
    return [re.match(r"[A-Za-z0-9._-]+", requirement).group().lower() for requirement in requirements]


REQUIREMENTS = PROJECT["dependencies"] + [
    entry
    for extra, requirements in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for entry in requirements
    if not entry.startswith("jina-rag[")
]


@pytest.mark.parametrize("package", sorted(set(package_names(REQUIREMENTS))))
def test_notice_lists_each_required_package(package):
    assert re.search(rf"^    {re.escape(package)}  +\S", read("NOTICE").lower(), flags=re.MULTILINE)


@pytest.mark.parametrize(("name", "extra"), [("locked-cpu.txt", "dev"), ("locked-cuda.txt", "all")])
def test_locked_versions_have_hashes_and_meet_the_requirements(name, extra):
    """After a change of the requirements, run `make lock`."""
    entries = re.findall(r"^([a-z0-9._-]+)==(\S+)(.*(?:\n    .*)*)", read(f"constraints/{name}"), flags=re.MULTILINE)
    versions: dict[str, list[str]] = {}
    for package, version, hashes in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", hashes), package
        versions.setdefault(package, []).append(version)

    def check(requirements: list[str]) -> None:
        for requirement in map(Requirement, requirements):
            if requirement.name == "jina-rag":
                for inner in requirement.extras:
                    check(PROJECT["optional-dependencies"][inner])
            else:
                package = canonicalize_name(requirement.name)
                assert package in versions, f"{package} is not locked"
                assert all(version in requirement.specifier for version in versions[package]), package

    check(PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra])
    assert all(
        version.split("+")[0] == read("constraints/cpu.txt").split("==")[1].strip() for version in versions["torch"]
    )


def test_notice_lists_each_third_party_file():
    documents = json.loads(read("jina_rag/samples/SOURCES.json"))["documents"]
    notice = read("NOTICE")
    for document in documents:
        assert re.search(rf"{re.escape(document['file'])} .* {re.escape(document['licence'])}$", notice, re.MULTILINE)
    for asset in (ROOT / "jina_rag" / "models" / "_assets").iterdir():
        assert asset.name in notice


def test_install_hints_name_existing_extras():
    extras = set(PROJECT["optional-dependencies"])
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "jina_rag").rglob("*.py")]
    texts += [read(name) for name in DOCUMENTS]
    for text in texts:
        for extra_names in re.findall(r"jina-rag\[([\w,-]+)\]|\"\.\[([\w,-]+)\]", text):
            assert set("".join(extra_names).split(",")) <= extras
        for extra in re.findall(r"extra=\"([\w-]+)\"", text):
            assert extra in extras


def test_documents_do_not_install_unpublished_package_from_pypi():
    for name in DOCUMENTS:
        assert not re.search(r"pip install (-U |--upgrade )?[\"']?jina[-_]rag", read(name))


def test_documents_and_templates_contain_no_local_path():
    texts = [ROOT / name for name in DOCUMENTS]
    texts += [path for path in (ROOT / "jina_rag").rglob("*") if path.suffix in {".py", ".j2", ".json", ".md"}]
    for path in texts:
        assert not re.search(r"(?<![\w.])/(home|Users|work|root)/\w", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_are_valid(name):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", read(name)):
        assert (ROOT / target).exists(), target


def test_readme_python_uses_existing_names():
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


def test_readme_model_example_runs(tiny, monkeypatch, tmp_path):
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


def test_readme_commands_and_options_exist():
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
        subcommands = getattr(command, "commands", {})
        if arguments and arguments[0] in subcommands:
            candidates = [subcommands[arguments[0]]]
        else:  # `evaluate DIR` means `evaluate measure DIR`; `evaluate --benchmark …` means `evaluate benchmark …`
            candidates = [command, *(subcommands[name] for name in ("measure", "benchmark") if name in subcommands)]
        options = {option for each in candidates for parameter in each.params for option in parameter.opts} | {"--help"}
        assert {argument for argument in arguments if argument.startswith("-")} <= options, line


def test_readme_mentions_each_command():
    from jina_rag.cli.app import app

    readme = read("README.md")
    for command in typer.main.get_command(app).commands:
        assert f"jina-rag {command}" in readme
