"""Downloads from the Hugging Face hub, represented by a local server: caching, revisions, offline use and errors."""

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
    """Serves one repository in two commits and records the requests."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[str] = []
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
        self.requests.append(f"{request.command} {path}")
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
    local_hub = Hub(files)
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", local_hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", local_hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield local_hub
    local_hub.server.shutdown()
    local_hub.server.server_close()


def count_downloads(server):
    return sum(request.startswith("GET") and "resolve" in request for request in server.requests)


def test_fetch_downloads_once_and_never_code(server):
    folder = hub.fetch("me/tiny", revision=None, local_files_only=False)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= names
    assert not any(name.endswith((".py", ".bin")) or name.startswith("onnx") for name in names)
    assert not any("evil" in request or ".bin" in request for request in server.requests if "resolve" in request)
    first_count = count_downloads(server)
    assert hub.fetch("me/tiny", revision=None, local_files_only=False) == folder
    assert count_downloads(server) == first_count


def test_commit_is_recorded_in_revision_and_fingerprint(server):
    pytest.importorskip("torch")
    model = registry.load_embedder("me/tiny", device="cpu")
    assert model.name == "me/tiny"
    assert model.revision == NEW
    assert model.fingerprint.startswith(f"me/tiny@{NEW[:12]}+")
    older = registry.load_embedder("me/tiny", device="cpu", revision="v1")
    assert older.revision == OLD
    assert older.fingerprint != model.fingerprint


def test_downloaded_model_is_available_offline(server, monkeypatch):
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        hub.fetch("me/tiny", revision=None, local_files_only=True)
    assert hub.cached_folder("me/tiny") is None
    folder = hub.fetch("me/tiny", revision=None, local_files_only=False)
    server.requests.clear()
    assert hub.fetch("me/tiny", revision=None, local_files_only=True) == folder
    assert hub.cached_folder("me/tiny") == folder
    assert catalogue.weights_of("me/tiny") == folder
    assert server.requests == []


def test_unknown_model_or_revision_raises_model_not_found_error(server):
    with pytest.raises(ModelNotFoundError, match="no revision 'nope'"):
        hub.fetch("me/tiny", revision="nope", local_files_only=False)
    with pytest.raises(ModelNotFoundError, match="no model 'me/other'"):
        hub.fetch("me/other", revision=None, local_files_only=False)


def test_unreachable_hub_raises_model_not_found_error(server):
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(ModelNotFoundError, match=r"cannot be downloaded|not on this machine"):
        hub.fetch("me/tiny", revision=None, local_files_only=False)


def test_offline_environment_prevents_download():
    assert hub.offline()  # set by conftest
    with pytest.raises(ModelNotFoundError, match="models download jinaai/jina-embeddings-v4"):
        registry.load_embedder("jinaai/jina-embeddings-v4")


@pytest.mark.parametrize("name", ["lite", "no id", "a/b/c", "../x/y", "a/.."])
def test_download_refuses_names_that_are_not_hub_ids(name):
    with pytest.raises(InvalidInputError):
        registry.download(name)
