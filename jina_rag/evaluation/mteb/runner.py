"""A run of benchmarks: what is done is skipped, what failed is listed, and a killed run is gone on with."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mteb
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from jina_rag._version import __version__
from jina_rag.errors import InvalidInputError, JinaRagError
from jina_rag.evaluation.files import make_folder, write_text
from jina_rag.evaluation.mteb.benchmarks import find_tasks
from jina_rag.evaluation.mteb.cache import DEFAULT_BYTES, VectorCache
from jina_rag.evaluation.mteb.folder_task import FolderTask
from jina_rag.evaluation.mteb.logging import quiet
from jina_rag.evaluation.mteb.models import Models
from jina_rag.evaluation.mteb.results import BenchmarkRun, TaskOutcome, reference_of
from jina_rag.evaluation.mteb.settings import BenchmarkSetting

_log = logging.getLogger("jina_rag")
_BATCH = {"text": 256, "image": 16}
"""Inputs that are read together, and lost together when a run is killed."""


def run_benchmark(
    names: Sequence[str] = (),
    setting: BenchmarkSetting | None = None,
    *,
    output: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    tasks: Sequence[Any] = (),
    smoke: bool = False,
    languages: Sequence[str] | None = None,
    cache_bytes: int = DEFAULT_BYTES,
    progress: Callable[[int, int, str], None] | None = None,
) -> BenchmarkRun:
    """Measure a setting on benchmarks, on single tasks, or on a judged folder.

    Args:
        names: Benchmarks and tasks, see `find_tasks`.
        setting: What is measured; the lite model if None.
        output: Folder of the results: mteb's JSON files under ``results``, and beside them ``vectors.sqlite3`` (what
            was embedded), ``predictions`` (rankings), ``indexes``, ``pages`` and ``summary.json``. The same call again
            skips the tasks that are done there, and embeds nothing that was embedded there.
        folder: A judged folder, measured as well; see `FolderTask`.
        tasks: Tasks of mteb of one's own, measured as well.
        smoke: Only the nine small tasks of JinaVDR.
        languages: Only the parts of tasks in these languages, as codes of three letters.
        cache_bytes: Room for vectors on disk.
        progress: Called with (tasks done, tasks in all, the next task).

    Raises:
        InvalidInputError: If a name or the setting makes no sense.
        ModelNotFoundError: If there is no such model.
        JinaRagError: If the data of a task cannot be fetched because the hub cannot be reached.
    """
    start = time.monotonic()
    setting = setting or BenchmarkSetting()
    place = Path(output)
    with quiet(), ExitStack() as stack:
        make_folder(place, what="The folder for results")
        store = stack.enter_context(VectorCache(place / "vectors.sqlite3", max_bytes=cache_bytes))
        models = Models(setting, place, store)
        queue = [_own(task) for task in tasks]
        if folder is not None:
            queue.append(FolderTask(Path(folder), place, content=models.content))
        if names or smoke or not queue:
            queue += find_tasks(names, smoke=smoke, languages=languages)
        run = _Run(setting, place, models, start)
        for number, task in enumerate(queue):
            if progress:
                progress(number, len(queue), task.metadata.name)
            run.do(task)
            run.save()
        if progress:
            progress(len(queue), len(queue), "")
        return run.so_far()


class _Run:
    """One run: the tasks one after the other."""

    def __init__(self, setting: BenchmarkSetting, place: Path, models: Models, start: float) -> None:
        self._setting, self._place, self._models, self._started = setting, place, models, start
        self._results = mteb.ResultCache(place)
        self._outcomes: list[TaskOutcome] = []
        self._failed: dict[str, str] = {}

    def do(self, task: Any) -> None:  # noqa: ANN401  # mteb.AbsTask
        """One task, or the reason why not."""
        name = task.metadata.name
        try:
            self._outcomes.append(self._outcome(task))
        except (_Unreachable, MemoryError):
            raise
        except JinaRagError as exc:
            self._failed[name] = str(exc)
            _log.warning("%s was not done: %s", name, exc)

    def _outcome(self, task: Any) -> TaskOutcome:  # noqa: ANN401
        start = time.monotonic()
        self._models.check(task)
        meta = self._models.meta(task)
        result = self._finished(task, meta)
        resumed = result is not None
        if result is None:
            self._load(task)
            result = self._result(task, meta)
        value = 100 * float(result.get_score())
        queries = self._query_count(task, resumed)
        name, measure, reference = task.metadata.name, task.metadata.main_score, None
        if set(task.hf_subsets) == set(task.metadata.hf_subsets):
            vectors, dimensions = self._models.reference_vectors(task), self._setting.options.truncate_dim
            reference = reference_of(name, meta.name, vectors, value, queries, measure, dimensions)
        outcome = TaskOutcome(
            task=name,
            measure=measure,
            value=value,
            queries=queries,
            file=self._results.get_task_result_path(name, meta),
            seconds=0.0 if resumed else time.monotonic() - start,
            resumed=resumed,
            reference=reference,
        )
        if task.data_loaded:
            task.unload_data()
        return outcome

    def _finished(self, task: Any, meta: Any) -> Any:  # noqa: ANN401
        """The result of an earlier run, if nothing is missing in it."""
        result = self._results.load_task_result(task.metadata.name, meta)
        return None if result is None or result.get_missing_evaluations(task) else result

    def _load(self, task: Any) -> None:  # noqa: ANN401
        """The data of a task, from the hub or from its cache on this machine."""
        if isinstance(task, AbsTaskAggregate) or task.data_loaded:
            return
        try:
            task.load_data()
        except JinaRagError:
            raise
        except Exception as exc:  # data sets are read by code of their own
            raise _data_error(task.metadata.name, exc) from exc

    def _result(self, task: Any, meta: Any) -> Any:  # noqa: ANN401
        if isinstance(task, AbsTaskAggregate):
            for part in task.metadata.tasks:
                part_meta = self._models.meta(part)
                if self._finished(part, part_meta) is None:
                    self._load(part)
                    self._result(part, part_meta)
                    part.unload_data()
        elif self._models.reranks:
            self._first_stage(task)
        return self._evaluate(self._models.model(task), task, self._predictions(meta))

    def _first_stage(self, task: Any) -> None:  # noqa: ANN401
        """Have the vectors rank, and the task ask for the best of those to be judged."""
        if any(split["top_ranked"] for subset in task.dataset.values() for split in subset.values()):
            return  # a reranking task, which says itself what is to be judged
        meta = self._models.encoder(task).mteb_model_meta
        folder = self._predictions(meta)
        subsets = _rankings(folder / task.prediction_file_name)
        whole = all(split in subsets.get(subset, {}) for subset in task.hf_subsets for split in task.eval_splits)
        if self._finished(task, meta) is None or not whole:
            overwrite = "only-missing" if subsets else "always"
            self._evaluate(self._models.first_stage(task), task, folder, overwrite=overwrite)
        task.convert_to_reranking(folder, top_k=self._setting.rerank_top)

    def _evaluate(self, model: Any, task: Any, predictions: Path, *, overwrite: str = "only-missing") -> Any:  # noqa: ANN401
        _rankings(predictions / task.prediction_file_name)
        images = "image" in task.metadata.modalities
        return mteb.evaluate(
            model,
            task,
            cache=self._results,
            co2_tracker=False,
            encode_kwargs={"batch_size": _BATCH["image" if images else "text"], "show_progress_bar": False},
            overwrite_strategy=overwrite,
            prediction_folder=predictions if isinstance(task, AbsTaskRetrieval) else None,
            show_progress_bar=False,
        ).task_results[0]

    def _predictions(self, meta: Any) -> Path:  # noqa: ANN401
        """Where rankings of a model lie: beside its results' own place, which mteb takes for results."""
        results = Path(self._results.get_task_result_path("x", meta)).parent
        return self._place / "predictions" / results.relative_to(self._place / "results")

    def _query_count(self, task: Any, resumed: bool) -> int | None:  # noqa: ANN401
        """Questions with an answer, or pairs; of a finished task as they were counted then."""
        file = self._place / "questions.json"
        counts: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        key = f"{task.metadata.name} {','.join(sorted(task.hf_subsets))}"
        if not resumed and task.data_loaded and task.dataset:
            counts[key] = _queries(task)
            _write(file, counts)
        return counts.get(key)

    def so_far(self) -> BenchmarkRun:
        """The run as far as it is done."""
        return BenchmarkRun(
            model=self._models.identity.name,
            revision=self._models.identity.revision,
            setting=self._setting.described(),
            outcomes=tuple(self._outcomes),
            failed=dict(self._failed),
            embedded=self._models.embedded,
            versions={"jina_rag": __version__, **{name: version(name) for name in ("mteb", "datasets", "numpy")}},
            seconds=time.monotonic() - self._started,
        )

    def save(self) -> None:
        """Write ``summary.json``."""
        _write(self._place / "summary.json", self.so_far().to_json())


class _Unreachable(JinaRagError):
    """The hub does not answer: no task behind this one could be done either."""


def _data_error(task: str, exc: Exception) -> JinaRagError:
    """Why the data of a task cannot be had, in one sentence."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for error in chain for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        return _Unreachable(
            f"The data of {task} are not on this machine, and the Hugging Face hub cannot be reached: run it again "
            "with a network; what is done is kept."
        )
    message = str(exc).strip().split("\n")[0].rstrip(".")
    return InvalidInputError(f"The data of {task} cannot be loaded: {type(exc).__name__}: {message}.")


def _own(task: Any) -> Any:  # noqa: ANN401
    """A task that can be unloaded, and told what to rerank, while the caller's stays as it is."""
    own = copy.copy(task)
    if own.data_loaded and isinstance(own, AbsTaskRetrieval):
        own.dataset = {
            subset: {split: dict(data) for split, data in splits.items()} for subset, splits in own.dataset.items()
        }
    return own


def _queries(task: Any) -> int:  # noqa: ANN401
    """How many questions a search's figure is the mean of; pairs or texts of other tasks."""
    splits = [task.dataset.get(subset, task.dataset)[split] for subset in task.hf_subsets for split in task.eval_splits]
    return sum(len(split["relevant_docs"]) if isinstance(task, AbsTaskRetrieval) else len(split) for split in splits)


def _rankings(file: Path) -> dict[str, Any]:
    """What a file of rankings holds; one that a killed run left half written is removed."""
    try:
        rankings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        rankings = None
    if isinstance(rankings, dict):
        return rankings
    file.unlink()
    return {}


def _write(file: Path, value: object) -> None:
    write_text(file, json.dumps(value, ensure_ascii=False, indent=2), what="results")
