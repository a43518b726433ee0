"""Resumable benchmark runs, which skip finished tasks and report failed tasks."""

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

from jina_rag._display import displayed
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
"""Inputs per batch by modality; a killed run loses at most the current batch."""


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
    """Evaluate a model or the search pipeline on benchmarks, single tasks or a judged folder.

    Args:
        names: Names of benchmarks and tasks, see `find_tasks`.
        setting: The models and options to evaluate; None for the lite model.
        output: Folder of the results. mteb's JSON files are stored in ``results``, cached vectors in
            ``vectors.sqlite3``, rankings in ``predictions``, indexes in ``indexes``, page images in ``pages``, and a
            summary in ``summary.json``. A repeated call skips finished tasks and reuses cached vectors.
        folder: A judged folder to evaluate in addition, see `FolderTask`.
        tasks: mteb task objects to evaluate in addition.
        smoke: Evaluate only the nine small tasks of JinaVDR.
        languages: ISO 639-3 codes of the languages to which each task is restricted. None for all languages.
        cache_bytes: Size limit of the vector cache on disk, in bytes.
        progress: Called with the number of finished tasks, the number of all tasks and the name of the next task.

    Returns:
        The results of all tasks, with the error messages of failed tasks.

    Raises:
        InvalidInputError: If a name or an option is invalid.
        ModelNotFoundError: If a model does not exist.
        JinaRagError: If the data of a task are not local and the Hugging Face Hub cannot be reached.
    """
    start = time.monotonic()
    setting = setting or BenchmarkSetting()
    root = Path(output)
    with quiet(), ExitStack() as stack:
        make_folder(root, label="The folder for results")
        cache = stack.enter_context(VectorCache(root / "vectors.sqlite3", max_bytes=cache_bytes))
        models = Models(setting, root, cache)
        queue = [_copy_task(task) for task in tasks]
        if folder is not None:
            queue.append(FolderTask(Path(folder), root, content=models.content))
        if names or smoke or not queue:
            queue += find_tasks(names, smoke=smoke, languages=languages)
        run = _Run(setting, root, models, start)
        for number, task in enumerate(queue):
            if progress:
                progress(number, len(queue), task.metadata.name)
            run.evaluate(task)
            run.save()
        if progress:
            progress(len(queue), len(queue), "")
        return run.result()


class _Run:
    """The state of a benchmark run."""

    def __init__(self, setting: BenchmarkSetting, output: Path, models: Models, start: float) -> None:
        self._setting, self._output, self._models, self._start = setting, output, models, start
        self._results = mteb.ResultCache(output)
        self._outcomes: list[TaskOutcome] = []
        self._failed: dict[str, str] = {}

    def evaluate(self, task: Any) -> None:  # noqa: ANN401  # mteb.AbsTask
        """Evaluate one task, and record the result or the error message."""
        name = task.metadata.name
        try:
            self._outcomes.append(self._outcome(task))
        except (_HubUnreachableError, MemoryError):
            raise
        except JinaRagError as exc:
            self._failed[name] = str(exc)
            _log.warning("Task %s failed: %s", displayed(name), displayed(exc))

    def _outcome(self, task: Any) -> TaskOutcome:  # noqa: ANN401
        start = time.monotonic()
        self._models.check(task)
        meta = self._models.meta(task)
        result = self._finished_result(task, meta)
        resumed = result is not None
        if result is None:
            self._load(task)
            result = self._compute_result(task, meta)
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

    def _finished_result(self, task: Any, meta: Any) -> Any:  # noqa: ANN401
        """Return the complete result of an earlier run; None without a complete result."""
        result = self._results.load_task_result(task.metadata.name, meta)
        return None if result is None or result.get_missing_evaluations(task) else result

    def _load(self, task: Any) -> None:  # noqa: ANN401
        """Load a task's data from the Hugging Face Hub or its local cache."""
        if isinstance(task, AbsTaskAggregate) or task.data_loaded:
            return
        try:
            task.load_data()
        except JinaRagError:
            raise
        except Exception as exc:  # loading code differs per dataset and may raise any error
            raise _data_error(task.metadata.name, exc) from exc

    def _compute_result(self, task: Any, meta: Any) -> Any:  # noqa: ANN401
        if isinstance(task, AbsTaskAggregate):
            for part in task.metadata.tasks:
                part_meta = self._models.meta(part)
                if self._finished_result(part, part_meta) is None:
                    self._load(part)
                    self._compute_result(part, part_meta)
                    part.unload_data()
        elif self._models.reranks:
            self._run_first_stage(task)
        return self._evaluate(self._models.model(task), task, self._predictions(meta))

    def _run_first_stage(self, task: Any) -> None:  # noqa: ANN401
        """Rank the corpus with the vectors, and convert the task to a reranking task of the top documents."""
        if any(split["top_ranked"] for subset in task.dataset.values() for split in subset.values()):
            return  # a reranking task already lists the candidates
        meta = self._models.encoder(task).mteb_model_meta
        folder = self._predictions(meta)
        subsets = _read_rankings(folder / task.prediction_file_name)
        complete = all(split in subsets.get(subset, {}) for subset in task.hf_subsets for split in task.eval_splits)
        if self._finished_result(task, meta) is None or not complete:
            overwrite = "only-missing" if subsets else "always"
            self._evaluate(self._models.first_stage(task), task, folder, overwrite=overwrite)
        task.convert_to_reranking(folder, top_k=self._setting.rerank_top)

    def _evaluate(self, model: Any, task: Any, predictions: Path, *, overwrite: str = "only-missing") -> Any:  # noqa: ANN401
        _read_rankings(predictions / task.prediction_file_name)  # deletes an incomplete file
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
        """Return the folder of a model's rankings, outside ``results``, because mteb reads all files in ``results``."""
        results = Path(self._results.get_task_result_path("x", meta)).parent
        return self._output / "predictions" / results.relative_to(self._output / "results")

    def _query_count(self, task: Any, resumed: bool) -> int | None:  # noqa: ANN401
        """Return the number of judged queries or pairs; for a resumed task, the stored number, if any."""
        file = self._output / "questions.json"
        counts: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        key = f"{task.metadata.name} {','.join(sorted(task.hf_subsets))}"
        if not resumed and task.data_loaded and task.dataset:
            counts[key] = _count_queries(task)
            _write(file, counts)
        return counts.get(key)

    def result(self) -> BenchmarkRun:
        """Return the results of the tasks evaluated so far."""
        return BenchmarkRun(
            model=self._models.identity.name,
            revision=self._models.identity.revision,
            setting=self._setting.described(),
            outcomes=tuple(self._outcomes),
            failed=dict(self._failed),
            embedded=self._models.embedded,
            versions={"jina_rag": __version__, **{name: version(name) for name in ("mteb", "datasets", "numpy")}},
            seconds=time.monotonic() - self._start,
        )

    def save(self) -> None:
        """Write ``summary.json``."""
        _write(self._output / "summary.json", self.result().to_json())


class _HubUnreachableError(JinaRagError):
    """Raised if the Hugging Face Hub cannot be reached. The run stops, because the remaining tasks would also fail."""


def _data_error(task: str, exc: Exception) -> JinaRagError:
    """Return the error for a task whose data cannot be loaded because of `exc`."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for error in chain for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}:
        return _HubUnreachableError(
            f"The data of {task} are not on this machine, and the Hugging Face Hub cannot be reached. Connect to the "
            "network and repeat the run; finished tasks are skipped."
        )
    message = str(exc).strip().split("\n")[0].rstrip(".")
    return InvalidInputError(f"The data of {task} cannot be loaded: {type(exc).__name__}: {message}. Repeat the run.")


def _copy_task(task: Any) -> Any:  # noqa: ANN401
    """Return a copy of a task whose data can be unloaded or changed without an effect on the caller's task."""
    clone = copy.copy(task)
    if clone.data_loaded and isinstance(clone, AbsTaskRetrieval):
        clone.dataset = {
            subset: {split: dict(data) for split, data in splits.items()} for subset, splits in clone.dataset.items()
        }
    return clone


def _count_queries(task: Any) -> int:  # noqa: ANN401
    """Return the number of judged queries of a retrieval task, or of pairs or texts of another task."""
    splits = [task.dataset.get(subset, task.dataset)[split] for subset in task.hf_subsets for split in task.eval_splits]
    return sum(len(split["relevant_docs"]) if isinstance(task, AbsTaskRetrieval) else len(split) for split in splits)


def _read_rankings(file: Path) -> dict[str, Any]:
    """Return the rankings of a file; delete a file that a killed run left incomplete."""
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
    write_text(file, json.dumps(value, ensure_ascii=False, indent=2), label="results")
