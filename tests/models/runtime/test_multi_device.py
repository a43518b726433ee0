"""Models on several devices: results, order and errors as on one device; loss and end of the processes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.contracts import check_embedder
from helpers.device_models import (
    PairReranker,
    ProcessEmbedder,
    SettingsEmbedder,
    end_while_loading,
    fail_to_load,
    load_v4_on_small_device,
)

from jina_rag import load_embedder, load_reranker
from jina_rag.config import usable_cpus
from jina_rag.errors import CheckpointError, DeviceLostError, InvalidInputError, LimitExceededError, ModelError
from jina_rag.models.runtime import work_sharing
from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder, MultiDeviceReranker
from jina_rag.protocols import Embedder, ExplainingReranker, PlacedModel, Reranker
from jina_rag.protocols import PairReranker as PairRerankerProtocol
from jina_rag.testing import FakeEmbedder, make_page

TESTS = Path(__file__).parents[2]
LONG = " | " + "tea " * 600
"""Makes a text long enough for a share of its own."""


@pytest.fixture(scope="module")
def fakes():
    with MultiDeviceEmbedder([FakeEmbedder, FakeEmbedder]) as embedder:
        yield embedder


@pytest.fixture
def processes():
    with MultiDeviceEmbedder([ProcessEmbedder, ProcessEmbedder], devices=["cuda:0", "cuda:1"]) as embedder:
        yield embedder


def ids_of(embeddings):
    return [int(row[0]) for row in embeddings.single]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that was ended by its parent's end is a zombie until it is reaped.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").is_dir() else True


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition is not met"
        time.sleep(0.02)


def outcome(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception as exc:
        return type(exc), str(exc)


def assert_equal(actual, expected, tolerance=0.0):
    np.testing.assert_allclose(actual.single, expected.single, atol=tolerance, rtol=0)
    assert len(actual.multi) == len(expected.multi)
    for rows, expected_rows in zip(actual.multi, expected.multi, strict=True):
        np.testing.assert_allclose(rows, expected_rows, atol=tolerance, rtol=0)
    for grid, expected_grid in zip(actual.grids, expected.grids, strict=True):
        assert (grid is None) == (expected_grid is None)
        if grid is not None:
            np.testing.assert_array_equal(grid.boxes, expected_grid.boxes)
            assert grid.kind == expected_grid.kind
    assert actual.tokens == expected.tokens
    assert actual.truncated == expected.truncated


def test_embedder_meets_the_contract(fakes):
    check_embedder(fakes)


def test_attributes_are_those_of_one_device(fakes):
    one = FakeEmbedder()
    names = ("name", "fingerprint", "dim", "multi_dim", "modality", "hubness", "revision", "dense_weight")
    assert [getattr(fakes, name) for name in names] == [getattr(one, name) for name in names]
    assert fakes.matryoshka_dims == one.matryoshka_dims
    assert not hasattr(fakes, "tasks")
    assert not isinstance(fakes, PlacedModel)
    assert repr(fakes) == "MultiDeviceEmbedder('fake', devices=device 1, device 2)"


def test_results_arrive_in_order(fakes):
    one = FakeEmbedder()
    documents = [f"word{number} " * (1 + number * 37 % 400) for number in range(60)] + [make_page("tea and milk")]
    assert_equal(fakes.encode_document(documents), one.encode_document(documents))
    partly = fakes.encode_document(documents, multi=False, truncate_dim=16, max_length=np.int64(5))
    np.testing.assert_array_equal(
        partly.single, one.encode_document(documents, multi=False, truncate_dim=16, max_length=5).single
    )
    assert partly.multi is partly.grids is partly.tokens is None


def test_long_call_is_split_into_many_shares(fakes, monkeypatch):
    monkeypatch.setattr(work_sharing, "MAX_SHARE", 700)
    documents = [f"word{number} " * (1 + number * 37 % 400) for number in range(60)]
    assert_equal(fakes.encode_document(documents), FakeEmbedder().encode_document(documents))


def test_each_process_computes_a_share_and_short_calls_use_one(processes):
    first, second = processes.process_ids
    assert set(ids_of(processes.encode_document([LONG] * 8))) == {first, second}
    assert len(set(ids_of(processes.encode_document(["tea", "milk"])))) == 1
    assert ids_of(processes.encode_document([])) == []


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ([*[LONG] * 6, "", *[LONG] * 3, ""], {}),
        ([""], {}),
        ("tea", {}),
        ([LONG] * 3, {"max_length": 0}),
        ([LONG] * 3, {"max_length": 2.5}),
        ([LONG] * 3, {"unknown": 1}),
    ],
)
def test_errors_equal_those_of_one_device(fakes, inputs, options):
    expected = outcome(FakeEmbedder().encode_query, inputs, **options)
    assert issubclass(expected[0], ValueError | TypeError)
    assert outcome(fakes.encode_query, inputs, **options) == expected


def test_option_that_cannot_be_sent_raises(fakes):
    with pytest.raises(InvalidInputError, match=r"max_length is \[1\]; expected a number"):
        fakes.encode_query(["tea"], max_length=[1])


def test_error_contains_the_traceback_of_the_process(fakes):
    with pytest.raises(TypeError) as caught:
        fakes.encode_query(["tea"], unknown=1)
    assert "device_models" not in str(caught.value)
    assert "EncodeSettings(**options)" in str(caught.value.__cause__)


def test_failure_of_the_model_is_not_repeated(processes):
    with pytest.raises(ModelError, match=r"^The vectors are not finite in process \d+\.$"):
        processes.encode_document(["not finite" + LONG, LONG])


def test_concurrent_calls_run_at_the_same_time(processes, tmp_path):
    paths = [tmp_path / f"call{number}" for number in range(4)]
    results = []
    calls = [
        threading.Thread(target=lambda p=path: results.append(processes.encode_document([f"sleep {p}"])))
        for path in paths
    ]
    for call in calls:
        call.start()
    wait_until(lambda: all(path.exists() for path in paths))
    assert len(processes.encode_query(["a query is not behind the other calls"]).single) == 1
    for path in paths:
        path.unlink()
    for call in calls:
        call.join(60)
    # Calls go to the device with the least work.
    assert sorted(ids_of(result)[0] for result in results) == sorted([*processes.process_ids] * 2)


def test_loads_are_released_after_results_errors_and_losses(processes, tmp_path):
    """The loads decide which device gets a call, so that a call must not leave tokens behind."""
    calls = [["tea"], [LONG] * 8, ["not finite", LONG], [f"kill once {tmp_path / 'file'}{LONG}", LONG], ["kill"], []]
    for documents in calls:
        outcome(processes.encode_document, documents)
    outcome(processes.encode_document, [LONG] * 8, max_length=[1])
    outcome(processes.encode_document, [LONG] * 8, max_length=0)
    wait_until(lambda: [slot.load for slot in processes._group.slots] == [0, 0])


def test_log_records_reach_the_caller(processes, caplog):
    with caplog.at_level(logging.WARNING, "jina_rag"):
        processes.encode_document(["warn"])
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("jina_rag", "WARNING", "Truncated a text.")
    ]


def test_processes_share_the_cpus_and_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with MultiDeviceEmbedder([SettingsEmbedder, SettingsEmbedder]) as embedder:
        number = str(max(1, usable_cpus() // 2))
        assert embedder.encode_document(["tea"]).tokens == [(number, number, os.getcwd())]
        monkeypatch.chdir(tmp_path)
        assert embedder.encode_document(["tea"]).tokens[0][2] == os.getcwd()


@pytest.mark.parametrize("command", ["kill once", "fatal once"])
def test_lost_process_is_replaced_and_its_inputs_are_repeated(processes, tmp_path, caplog, command):
    before = processes.process_ids
    documents = [LONG, f"{command} {tmp_path / 'marker'}{LONG}", LONG]
    assert len(ids_of(processes.encode_document(documents))) == 3
    after = processes.process_ids
    assert len(set(before) & set(after)) == 1
    (record,) = caplog.records
    reason = "was ended by SIGKILL" if command == "kill once" else "failed: CUDA error: an illegal memory access was"
    assert f"The process of fake on cuda:{[*map(int.__ne__, before, after)].index(True)} {reason}" in record.message
    assert ids_of(processes.encode_document([LONG] * 8)) != []


def test_inputs_that_end_two_processes_raise(processes):
    with pytest.raises(ModelError) as caught:
        processes.encode_document([LONG, "kill"])
    assert str(caught.value).startswith("fake on cuda:")
    assert "two processes were lost with the same inputs; the second was ended by SIGKILL. " in str(caught.value)
    assert len(str(caught.value)) < 200
    assert len(ids_of(processes.encode_document([LONG] * 4))) == 4


def test_call_in_a_lost_process_does_not_fail_with_the_call_that_ends_it(processes, tmp_path, caplog):
    """The inputs of the two calls are repeated one after the other."""
    first, second = tmp_path / "first", tmp_path / "second"
    results = {}

    def call(name, text):
        results[name] = outcome(processes.encode_document, [text])

    calls = [threading.Thread(target=call, args=("first", f"sleep {first}"), daemon=True)]
    calls[0].start()
    wait_until(first.exists)
    # A call with more tokens in the other process, so that the third call goes to the process of the first call.
    calls.append(threading.Thread(target=call, args=("second", f"sleep {second}{LONG}"), daemon=True))
    calls[1].start()
    wait_until(second.exists)
    calls.append(threading.Thread(target=call, args=("third", "kill"), daemon=True))
    calls[2].start()
    wait_until(lambda: "SIGKILL" in caplog.text)

    def have_ended():
        for path in (first, second):
            path.unlink(missing_ok=True)
        return not any(thread.is_alive() for thread in calls)

    wait_until(have_ended, seconds=120)
    assert results["third"][0] is DeviceLostError
    assert len(results["first"].single) == len(results["second"].single) == 1


def test_process_that_ends_between_calls_is_replaced(processes):
    for pid in processes.process_ids:
        os.kill(pid, signal.SIGKILL)
    assert len(ids_of(processes.encode_document([LONG] * 4))) == 4


def test_close_ends_the_processes(processes):
    pids = processes.process_ids
    assert all(map(is_running, pids))
    processes.close()
    assert not any(map(is_running, pids))
    processes.close()
    with pytest.raises(ModelError, match=r"^fake is closed\. Load the model again\.$"):
        processes.encode_query(["tea"])


def test_close_ends_calls_that_are_running(processes, tmp_path):
    errors = []
    call = threading.Thread(
        target=lambda: errors.append(outcome(processes.encode_document, [f"sleep {tmp_path / 'file'}"]))
    )
    call.start()
    wait_until((tmp_path / "file").exists)
    processes.close()
    call.join(60)
    assert errors == [(DeviceLostError, "fake is closed. Load the model again.")]


def test_processes_end_with_the_last_reference():
    embedder = MultiDeviceEmbedder([FakeEmbedder, FakeEmbedder])
    pids = embedder.process_ids
    embedder.encode_document([LONG] * 4)
    del embedder
    gc.collect()
    wait_until(lambda: not any(map(is_running, pids)))


def run_program(code, tmp_path, **options):
    """Start a program that loads two fakes and writes the ids of the processes to a file."""
    path = tmp_path / "program.py"
    path.write_text(
        "import os, sys, time, threading\nfrom pathlib import Path\n"
        "from helpers.device_models import ProcessEmbedder\n"
        "from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder\n"
        "embedder = MultiDeviceEmbedder([ProcessEmbedder, ProcessEmbedder])\n"
        "Path('pids').write_text(' '.join(map(str, embedder.process_ids)))\n" + code
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.Popen(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", ["embedder.encode_document(['sleep busy'])", "Path('busy').touch(); time.sleep(600)"])
def test_processes_end_with_the_program(tmp_path, number, code):
    program = run_program(code, tmp_path)
    wait_until((tmp_path / "busy").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    program.send_signal(number)
    program.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_embedder_stays_usable_after_ctrl_c(tmp_path):
    code = (
        "before = set(embedder.process_ids)\n"
        "try:\n    embedder.encode_document(['sleep busy'])\n"
        "except KeyboardInterrupt:\n    assert len(embedder.encode_document(['tea ' * 600] * 8).single) == 8\n"
        "    assert len(before & set(embedder.process_ids)) == 1  # the interrupted process was replaced\n"
        "    Path('done').touch()\n"
    )
    program = run_program(code, tmp_path)
    wait_until((tmp_path / "busy").exists)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=60)[1] == ""
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")
def test_processes_end_although_a_forked_copy_holds_the_pipes(tmp_path):
    """A copy that was forked without Python's hooks, by a library for example, keeps the pipes open."""
    code = (
        "import ctypes\n"
        "if ctypes.CDLL(None).fork() == 0:\n    os.close(2)\n    time.sleep(600)\n"
        "Path('busy').touch(); time.sleep(600)"
    )
    program = run_program(code, tmp_path, start_new_session=True)
    wait_until((tmp_path / "busy").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    program.kill()
    program.wait(60)
    try:
        wait_until(lambda: not any(map(is_running, pids)))
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.stderr.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")
def test_forked_copy_uses_processes_of_its_own(tmp_path):
    code = (
        "ids = lambda: {int(row[0]) for row in embedder.encode_document(['tea ' * 600] * 8).single}\n"
        "before = ids()\n"
        "if os.fork() == 0:\n"
        "    assert not ids() & before\n"
        "    Path('forked').write_text(' '.join(map(str, embedder.process_ids)))\n"
        "    sys.exit()\n"
        "assert os.wait()[1] == 0\n"
        "assert ids() == before\n"
    )
    program = run_program(code, tmp_path)
    assert program.communicate(timeout=120)[1] == ""
    assert program.returncode == 0
    pids = [int(pid) for name in ("pids", "forked") for pid in (tmp_path / name).read_text().split()]
    assert len(set(pids)) == 4
    wait_until(lambda: not any(map(is_running, pids)))


def test_program_needs_no_guard_and_its_functions_are_refused(tmp_path):
    """The program of `run_program` has no ``if __name__ == "__main__"``."""
    code = (
        "class Local(ProcessEmbedder):\n    pass\n"
        "try:\n    MultiDeviceEmbedder([Local, Local])\n"
        "except ValueError as exc:\n    Path('error').write_text(str(exc))\n"
    )
    assert run_program(code, tmp_path).communicate(timeout=60)[1] == ""
    assert "is defined in the main program. Move the function" in (tmp_path / "error").read_text()


def test_factory_that_cannot_be_sent_raises():
    with pytest.raises(InvalidInputError, match=r"cannot be sent to a process.*Pass a function of a module"):
        MultiDeviceEmbedder([lambda: FakeEmbedder()] * 2)
    with pytest.raises(InvalidInputError, match="Got 0 factories"):
        MultiDeviceEmbedder([])
    with pytest.raises(InvalidInputError, match="Got 1 factories and 2 devices"):
        MultiDeviceEmbedder([FakeEmbedder], devices=["a", "b"])
    with pytest.raises(InvalidInputError, match="has no method encode_query"):
        MultiDeviceEmbedder([PairReranker, PairReranker])


def test_frozen_application_raises(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(InvalidInputError, match=r"require a Python interpreter.*Pass one device"):
        MultiDeviceEmbedder([FakeEmbedder, FakeEmbedder])


def test_errors_while_loading():
    with pytest.raises(CheckpointError, match=r"^second$"):
        MultiDeviceEmbedder([FakeEmbedder, partial(fail_to_load, "second"), partial(fail_to_load, "third")])
    with pytest.raises(ModelError, match=r"^The process of cuda:1 ended with status 3 while loading the model\. Free"):
        MultiDeviceEmbedder([FakeEmbedder, end_while_loading], devices=["cuda:0", "cuda:1"])
    with pytest.raises(InvalidInputError, match=r"on a and b differ \(fake-128-64, fake-64-64\)"):
        MultiDeviceEmbedder([FakeEmbedder, partial(FakeEmbedder, dim=64)], devices=["a", "b"])


def test_documents_are_scored_where_they_were_scored_before():
    with MultiDeviceReranker([PairReranker, PairReranker]) as reranker:
        assert isinstance(reranker, Reranker)
        assert isinstance(reranker, PairRerankerProtocol)
        assert isinstance(reranker, ExplainingReranker)
        documents = [f"{number} " + "tea " * 600 for number in range(9)]
        documents += [make_page(f"growth {number}", size=(300, 400)) for number in range(3)]
        first = reranker.score("tea", documents)
        assert set(first) == set(map(np.float32, reranker.process_ids))
        assert abs(int((first == first[0]).sum()) - 6) <= 1
        np.testing.assert_array_equal(reranker.score("milk", documents[::-1])[::-1], first)
        np.testing.assert_array_equal(reranker.score("milk", documents[4:5]), first[4:5])
        assert reranker.explain("tea", documents[-1]).score == first[-1]
        assert reranker.score("tea", []).shape == (0,)


@pytest.fixture(scope="module")
def v4(tiny):
    """Return jina-embeddings-v4 on one and on two devices."""
    one = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    with load_embedder(tiny["v4"], device=["cpu", "cpu"], dtype="float32") as two:
        yield one, two


def v4_documents(tmp_path):
    image = make_page("tea and milk", size=(300, 200)).screenshot.image
    image.save(tmp_path / "image.png")
    return [
        *["tea " * length for length in range(1, 300, 20)],
        *[make_page(f"growth {number}", size=(200 + 10 * number, 300)) for number in range(5)],
        image,
        tmp_path / "image.png",
        (tmp_path / "image.png").read_bytes(),
        [image, "a caption", tmp_path / "image.png"],
        {"text": "data:image/png;base64,AAAA"},
        {"image": image},
    ]


def test_v4_on_two_devices_equals_one(v4, tmp_path):
    one, two = v4
    documents = v4_documents(tmp_path)
    for method in ("encode_document", "encode_query"):
        assert_equal(getattr(two, method)(documents), getattr(one, method)(documents), 1e-6)
    assert isinstance(two, Embedder)
    assert isinstance(two, PlacedModel)
    assert (two.placement.device, two.placement.dtype) == ("cpu,cpu", "torch.float32")
    for name in ("name", "fingerprint", "dim", "multi_dim", "modality", "matryoshka_dims", "revision", "tasks"):
        assert getattr(two, name) == getattr(one, name)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (7, InvalidInputError),
        (object(), InvalidInputError),
        (np.zeros((3, 3)), InvalidInputError),
        (b"no image", InvalidInputError),
        (Path("missing.png"), InvalidInputError),
        ([], InvalidInputError),
        ([["nested"]], InvalidInputError),
        ({"text": 1}, InvalidInputError),
        ({"image": "https://example.com/a.png"}, InvalidInputError),
        ("large image", LimitExceededError),
    ],
)
def test_v4_error_for_input_7_names_input_7(v4, tmp_path, bad, kind):
    one, two = v4
    documents = v4_documents(tmp_path)
    if kind is LimitExceededError:
        bad = make_page("").screenshot.image
        bad._size = 60_000, 60_000  # as an image file whose pixels are not decoded yet
    documents[6], documents[12], documents[18] = bad, 12, 18
    expected = outcome(one.encode_document, documents)
    assert expected[0] is kind
    assert outcome(two.encode_document, documents) == expected
    if isinstance(bad, int):
        assert expected[1].startswith("Document 7 of 26 is int;")


def test_v4_task_that_is_not_loaded_raises(v4):
    one, two = v4
    expected = outcome(one.encode_document, ["tea " * 600] * 4, task="code")
    assert "task is 'code'" in expected[1]
    assert outcome(two.encode_document, ["tea " * 600] * 4, task="code") == expected


def test_v4_process_continues_with_smaller_batches_after_exhausted_memory(v4, tiny, caplog):
    one, _ = v4
    documents = [f"{number} " * 40 for number in range(60)]
    factory = partial(load_v4_on_small_device, tiny["v4"], 400)
    with MultiDeviceEmbedder([factory, factory]) as embedder:
        pids = embedder.process_ids
        assert_equal(embedder.encode_document(documents), one.encode_document(documents), 1e-6)
        assert embedder.process_ids == pids
        assert caplog.text.count("ran out of memory") == 2  # one warning from each process
        with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
            embedder.encode_document(["tea " * 500, *documents])


def test_m0_on_two_devices_equals_one(tiny, tmp_path):
    one = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    documents = v4_documents(tmp_path)
    with load_reranker(tiny["m0"], device="cpu,cpu", dtype="float32") as two:
        assert two.fingerprint == one.fingerprint
        for query in ("tea", documents[-1], [documents[20], "and text"]):
            for _ in range(2):  # the second time with remembered documents
                expected = one.score(query, documents)
                np.testing.assert_allclose(two.score(query, documents), expected, atol=1e-6, rtol=0)
        pairs = [("tea", documents[20]), (documents[20], "tea"), ("milk", documents[20])]
        np.testing.assert_allclose(two.score_pairs(pairs, raw=True), one.score_pairs(pairs, raw=True), atol=5e-6)
        np.testing.assert_allclose(
            two.explain("tea", documents[20]).weights, one.explain("tea", documents[20]).weights, atol=1e-6
        )
        documents[6], documents[12] = 7, 12
        expected = outcome(one.score, "tea", documents)
        assert expected[1].startswith("The document of pair 7 is int;")
        assert outcome(two.score, "tea", documents) == expected
        assert outcome(two.explain, "tea", "no image") == outcome(one.explain, "tea", "no image")


def test_lite_on_two_processes_equals_one():
    one = load_embedder("lite-en")
    with load_embedder("lite-en", device=["cpu", "cpu"]) as two:
        documents = [make_page("tea and milk " * 100), "rain in the north " * 200, make_page("")]
        assert_equal(two.encode_document(documents), one.encode_document(documents), 1e-6)
        assert (two.hubness, two.dense_weight, two.name) == (one.hubness, one.dense_weight, "lite-en")
    with pytest.raises(InvalidInputError, match="the lite models accept 'auto' or 'cpu'"):
        load_embedder("lite-en", device="cuda:0,cuda:1")
    with pytest.raises(InvalidInputError, match="the reranker 'lite-en' accepts 'auto' or 'cpu'"):
        load_reranker("lite-en", device="cpu,cpu")


def test_one_name_in_a_list_starts_no_process(tiny):
    assert type(load_embedder(tiny["v1"], device=["cpu"])).__name__ == "EmbeddingV1"


def test_missing_device_raises(tiny):
    with pytest.raises(InvalidInputError, match=r"The device 'cuda:9' does not exist here \(\d+ CUDA devices\)"):
        load_embedder(tiny["v1"], device=["cpu", "cuda:9"], dtype="float32")
