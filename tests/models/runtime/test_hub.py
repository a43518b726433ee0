"""Downloads, from a hub on this machine that speaks the part of the real one's protocol that is used."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest

from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.models import catalogue, registry
from jina_rag.models.runtime import hub

pytest.importorskip("huggingface_hub")

OLD, NEW = "a" * 40, "b" * 40


class Hub:
    """Serves one repository in two commits and remembers what was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append(f"{request.command} {path}")
        commit = next(
            (c for name, c in (("main", NEW), ("v1", OLD), (NEW, NEW), (OLD, OLD)) if f"/{name}" in path), None
        )
        if path.startswith("/api/models/me/tiny/tree/") and commit:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self.send(request, json.dumps(entries).encode())
        elif path.startswith("/api/models/me/tiny") and commit:
            siblings = [{"rfilename": name} for name in self.files]
            body = {"id": "me/tiny", "modelId": "me/tiny", "sha": commit, "siblings": siblings, "private": False}
            self.send(request, json.dumps(body).encode())
        elif path.startswith("/me/tiny/resolve/") and commit:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            data = self.files[name]
            etag = hashlib.sha1(data).hexdigest()
            self.send(request, data, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        elif path.startswith("/api/models/me/tiny"):
            self.send(request, b"{}", {"X-Error-Code": "RevisionNotFound"}, status=404)
        else:
            self.send(request, b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)

    @staticmethod
    def send(request, data: bytes, headers: dict[str, str] | None = None, *, status: int = 200) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


@pytest.fixture
def server(tiny, tmp_path, monkeypatch):
    folder = Path(tiny["v1"])
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files |= {"modeling_evil.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "README.md": b"hello"}
    files |= {"onnx/model.safetensors": b"", "onnx/config.json": b"{}"}
    running = Hub(files)
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", running.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_a_model_is_downloaded_once_and_never_its_code(server):
    folder = hub.fetch("me/tiny", revision=None, local_files_only=False)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= names
    assert not any(name.endswith((".py", ".bin")) or name.startswith("onnx") for name in names)
    assert not any("evil" in asked or ".bin" in asked for asked in server.asked if "resolve" in asked)
    fetched = len([asked for asked in server.asked if asked.startswith("GET") and "resolve" in asked])
    assert hub.fetch("me/tiny", revision=None, local_files_only=False) == folder
    again = len([asked for asked in server.asked if asked.startswith("GET") and "resolve" in asked])
    assert again == fetched


def test_the_commit_is_recorded_and_shown(server):
    pytest.importorskip("torch")
    model = registry.load_embedder("me/tiny", device="cpu")
    assert model.name == "me/tiny"
    assert model.revision == NEW
    assert model.fingerprint.startswith(f"me/tiny@{NEW[:12]}+")
    older = registry.load_embedder("me/tiny", device="cpu", revision="v1")
    assert older.revision == OLD
    assert older.fingerprint != model.fingerprint


def test_what_was_downloaded_serves_offline(server, monkeypatch):
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        hub.fetch("me/tiny", revision=None, local_files_only=True)
    assert hub.cached("me/tiny") is None
    folder = hub.fetch("me/tiny", revision=None, local_files_only=False)
    server.asked.clear()
    assert hub.fetch("me/tiny", revision=None, local_files_only=True) == folder
    assert hub.cached("me/tiny") == folder
    assert catalogue.weights_of("me/tiny") == folder
    assert server.asked == []


def test_what_the_hub_does_not_have_ends_in_a_sentence(server):
    with pytest.raises(ModelNotFoundError, match="no revision 'nope'"):
        hub.fetch("me/tiny", revision="nope", local_files_only=False)
    with pytest.raises(ModelNotFoundError, match="no model 'me/other'"):
        hub.fetch("me/other", revision=None, local_files_only=False)


def test_a_hub_that_cannot_be_reached_ends_in_a_sentence(server):
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(ModelNotFoundError, match=r"cannot be fetched|not on this machine"):
        hub.fetch("me/tiny", revision=None, local_files_only=False)


def test_offline_is_respected():
    assert hub.offline()  # set by conftest
    with pytest.raises(ModelNotFoundError, match="models download jinaai/jina-embeddings-v4"):
        registry.load_embedder("jinaai/jina-embeddings-v4")


@pytest.mark.parametrize("name", ["lite", "no id", "a/b/c", "../x/y", "a/.."])
def test_only_hub_ids_are_downloaded(name):
    with pytest.raises(InvalidInputError):
        registry.download(name)
