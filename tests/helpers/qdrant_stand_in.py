"""Local stand-ins for a Qdrant server: the REST and gRPC calls of the store, served by the client's local mode.

The stand-ins test the requests of the store. They do not test the ranking of a real server.
"""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc


@dataclass
class RecordedRequest:
    """A request to the stand-in."""

    method: str
    path: str
    bytes: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict:
        return json.loads(self.raw or b"{}")


@dataclass
class StandIn:
    """State of a stand-in: recorded requests and planned faults."""

    url: str = ""
    version: str = "1.20.0"
    requests: list[RecordedRequest] = field(default_factory=list)
    faults: list = field(default_factory=list)
    """Faults of the next requests, in order: None for a normal response; (status, headers, body) as the response;
    "drop" closes the connection; "late" executes the request and responds with 504."""
    discard_points: bool = False
    """Whether upserts are acknowledged without storing the points."""
    indexed: set = field(default_factory=set)
    created: dict = field(default_factory=dict)
    client: QdrantClient = field(default_factory=lambda: QdrantClient(location=":memory:"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def requests_to(self, end: str) -> list[RecordedRequest]:
        """Return the requests whose path ends with `end`."""
        return [request for request in self.requests if request.path.split("?")[0].endswith(end)]


@contextmanager
def rest_stand_in():
    """Run a REST stand-in and yield its state."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("content-length", 0))
            request = RecordedRequest(
                self.command, self.path, length, dict(self.headers.items()), self.rfile.read(length)
            )
            state.requests.append(request)
            fault = state.faults.pop(0) if state.faults else None
            if fault == "drop":
                self.close_connection = True
                return
            if isinstance(fault, tuple):
                self.reply(*fault)
                return
            if length > 32 * 1024 * 1024:
                error = f"Payload error: JSON payload ({length} bytes) is larger than allowed (limit: 33554432 bytes)."
                self.reply(400, {}, {"status": {"error": error}, "time": 0.0})
                return
            try:
                with state.lock:
                    result = serve(state, self.command, self.path.split("?")[0], request)
            except ValueError as exc:
                is_missing = "not found" in str(exc)
                status = 404 if is_missing else 409 if "already exists" in str(exc) else 400
                error = "Not found: Collection `x` doesn't exist!" if is_missing else f"Wrong input: {exc}"
                self.reply(status, {}, {"status": {"error": error}, "time": 0.0})
                return
            if fault == "late":
                self.reply(504, {}, {})
            elif self.path == "/":
                self.reply(200, {}, result)
            else:
                self.reply(200, {}, {"result": result, "status": "ok", "time": 0.0})

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer

        def reply(self, status, headers, body):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        state.client.close()


def serve(state, method, path, request):
    if path == "/":
        return {"title": "qdrant", "version": state.version}
    if state.discard_points and path.endswith("/points") and method == "PUT":
        return {"operation_id": 1, "status": "completed"}
    body = request.body
    name, endpoint = re.fullmatch(r"/collections/([^/]+)(.*)", path).groups()
    client, update_result = state.client, {"operation_id": 1, "status": "completed"}
    if endpoint == "" and method == "GET":
        info = json.loads(client.get_collection(name).model_dump_json())
        keyword = {"data_type": "keyword", "points": 0}
        return info | {"payload_schema": {key: keyword for collection, key in state.indexed if collection == name}}
    if endpoint == "" and method == "PUT":
        state.created[name] = body
        config = models.CreateCollection.model_validate(body)
        return client.create_collection(
            name, vectors_config=config.vectors, sparse_vectors_config=config.sparse_vectors, metadata=config.metadata
        )
    if endpoint == "" and method == "PATCH":
        return client.update_collection(name, metadata=body["metadata"])
    if endpoint == "/index":
        state.indexed.add((name, body["field_name"]))
        return update_result
    if endpoint == "/points" and method == "PUT":
        points = models.PointsList.model_validate(body).points
        for point in points:
            if rows := point.vector.get("multi"):
                point.vector["multi"] = np.asarray(rows, "f4").astype("f2").astype("f4").tolist()
        client.upsert(name, points)
        return update_result
    if endpoint == "/points":
        request = models.PointRequest.model_validate(body)
        return to_json(client.retrieve(name, request.ids, request.with_payload, request.with_vector or False))
    if endpoint == "/points/delete":
        selection = (models.PointIdsList if "points" in body else models.FilterSelector).model_validate(body)
        client.delete(name, selection)
        return update_result
    if endpoint == "/points/batch":
        client.batch_update_points(name, models.UpdateOperations.model_validate(body).operations)
        return [update_result for _ in body["operations"]]
    if endpoint == "/points/count":
        return {"count": client.count(name, models.CountRequest.model_validate(body).filter).count}
    if endpoint == "/points/scroll":
        request = models.ScrollRequest.model_validate(body)
        records, next_offset = client.scroll(
            name, request.filter, limit=request.limit, offset=request.offset, with_payload=request.with_payload
        )
        return {"points": to_json(records), "next_page_offset": next_offset}
    assert endpoint == "/points/query/batch", path
    requests = models.QueryRequestBatch.model_validate(body).searches
    return [{"points": to_json(result.points)} for result in client.query_batch_points(name, requests)]


def to_json(items):
    return [json.loads(item.model_dump_json(exclude_none=True)) for item in items]


@contextmanager
def grpc_stand_in():
    """Run a gRPC stand-in and yield its state and port; `RecordedRequest.path` is the name of the method."""
    state = StandIn()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 32 * 1024 * 1024)])
    services = (("Qdrant", messages.QdrantServicer), ("Collections", messages.CollectionsServicer))
    for name, servicer in (*services, ("Points", messages.PointsServicer)):
        servicer_instance = type(name, (servicer,), {})()
        for method in [word for word in vars(servicer) if not word.startswith("_")]:
            setattr(servicer_instance, method, partial(serve_grpc, state, method))
        getattr(messages, f"add_{name}Servicer_to_server")(servicer_instance, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    state.url = f"http://127.0.0.1:{port}"
    try:
        yield state, port
    finally:
        server.stop(None).wait()
        state.client.close()


def serve_grpc(state, method, request, context):
    headers = {pair.key: pair.value for pair in context.invocation_metadata()}
    state.requests.append(RecordedRequest(method, method, request.ByteSize(), headers, b""))
    if state.faults:
        context.abort(*state.faults.pop(0))
    try:
        with state.lock:
            return answer_grpc(state.client, method, request, state.version)
    except ValueError as exc:
        context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: {exc}")


def answer_grpc(client, method, request, version):
    name = getattr(request, "collection_name", "")
    selection = GrpcToRest.convert_filter(request.filter) if has(request, "filter") else None
    payload = GrpcToRest.convert_with_payload_selector(request.with_payload) if has(request, "with_payload") else None
    if method == "HealthCheck":
        return messages.HealthCheckReply(title="qdrant", version=version)
    if method == "Create":
        vectors = GrpcToRest.convert_vectors_config(request.vectors_config)
        sparse = GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
        client.create_collection(name, vectors, sparse, metadata=GrpcToRest.convert_payload(request.metadata))
        return messages.CollectionOperationResponse(result=True)
    if method == "Get" and isinstance(request, messages.GetCollectionInfoRequest):
        info = RestToGrpc.convert_collection_info(client.get_collection(name))
        return messages.GetCollectionInfoResponse(result=info)
    if method == "Get":
        ids = [GrpcToRest.convert_point_id(item) for item in request.ids]
        vectors = GrpcToRest.convert_with_vectors_selector(request.with_vectors)
        result = client.retrieve(name, ids, payload, vectors)
        return messages.GetResponse(result=[RestToGrpc.convert_record(item) for item in result])
    if method == "Count":
        return messages.CountResponse(result=messages.CountResult(count=client.count(name, selection).count))
    if method == "Scroll":
        offset = GrpcToRest.convert_point_id(request.offset) if has(request, "offset") else None
        result, next_offset = client.scroll(name, selection, limit=request.limit, offset=offset, with_payload=payload)
        next_offset = None if next_offset is None else RestToGrpc.convert_extended_point_id(next_offset)
        return messages.ScrollResponse(
            result=[RestToGrpc.convert_record(item) for item in result], next_page_offset=next_offset
        )
    if method == "QueryBatch":
        results = client.query_batch_points(name, [query_from_grpc(item) for item in request.query_points])
        return messages.QueryBatchResponse(
            result=[
                messages.BatchResult(result=[RestToGrpc.convert_scored_point(item) for item in result.points])
                for result in results
            ]
        )
    update_result = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
    if method == "UpdateBatch":
        steps = [GrpcToRest.convert_points_update_operation(item) for item in request.operations]
        client.batch_update_points(name, steps)
        return messages.UpdateBatchResponse(result=[update_result for _ in steps])
    if method == "Upsert":
        client.upsert(name, [GrpcToRest.convert_point_struct(item) for item in request.points])
    elif method == "Delete":
        client.delete(name, GrpcToRest.convert_points_selector(request.points))
    else:
        assert method == "CreateFieldIndex", method
    return messages.PointsOperationResponse(result=update_result)


def query_from_grpc(request):
    return models.QueryRequest(
        query=GrpcToRest.convert_query(request.query),
        using=request.using,
        prefetch=[GrpcToRest.convert_prefetch_query(item) for item in request.prefetch] or None,
        filter=GrpcToRest.convert_filter(request.filter) if has(request, "filter") else None,
        limit=request.limit,
        with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload)
        if has(request, "with_payload")
        else None,
    )


def has(request, field):
    return field in request.DESCRIPTOR.fields_by_name and request.HasField(field)
