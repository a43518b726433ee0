"""Planning in a separate thread, so that files are hashed while previous files are rendered and embedded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from jina_rag.indexing.planner import IndexTask, Outcome
from jina_rag.parsing.workers.cancellation import POLL_SECONDS

_QUEUE_SIZE = 1000
"""Maximum number of tasks or outcomes in a queue. The limit bounds the memory of the plan."""
_Item = TypeVar("_Item")


class PlanStream:
    """Splits the results of a planner into tasks for the rendering thread and outcomes for the writing thread.

    Attributes:
        task_count: Number of tasks that the planner has yielded so far.
        is_complete: Whether `outcomes` has yielded all outcomes of the plan.
    """

    def __init__(self, items: Iterator[IndexTask | Outcome], halt: threading.Event) -> None:
        """Create a stream. The planning thread starts when the caller enters the stream as a context manager.

        Args:
            items: Iterator returned by `Planner.plan`. The planning thread iterates over `items`.
            halt: Event that is set when the context exits. Once the event is set, `items` must end, and the callers of
                `tasks` and `outcomes` must stop waiting.
        """
        self.task_count = 0
        self.is_complete = False
        self._items = items
        self._halt = halt
        self._tasks: queue.Queue[IndexTask | None] = queue.Queue(_QUEUE_SIZE)
        self._outcomes: queue.Queue[Outcome | BaseException | None] = queue.Queue(_QUEUE_SIZE)
        self._thread = threading.Thread(target=self._run, name="jina-rag-plan", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()

    def tasks(self) -> Iterator[IndexTask]:
        """Yield the tasks in the order of the files. The iterator blocks until the next task is available."""
        while (task := self._retry(lambda: self._tasks.get(timeout=POLL_SECONDS))) is not None:
            yield task

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the available outcomes without blocking; after the end of `tasks`, all remaining outcomes.

        Raises:
            BaseException: If planning failed. The exception of the planning thread is re-raised.
        """
        while not self.is_complete:
            try:
                item = self._outcomes.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, BaseException):
                raise item
            if item is None:
                self.is_complete = True
            else:
                yield item

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                if isinstance(item, IndexTask):
                    self.task_count += 1
                    self._put(self._tasks, item)
                else:
                    self._put(self._outcomes, item)
                if self._halt.is_set():
                    return
        except BaseException as error:  # re-raised by `outcomes`
            end = error
        self._put(self._outcomes, end)
        self._put(self._tasks, None)

    def _put(self, target: queue.Queue[_Item], item: _Item) -> None:
        self._retry(lambda: target.put(item, timeout=POLL_SECONDS))

    def _retry(self, step: Callable[[], _Item]) -> _Item | None:
        """Repeat a queue operation until success, and return the result; return None if the stream is halted."""
        while not self._halt.is_set():
            try:
                return step()
            except (queue.Empty, queue.Full):
                continue
        return None
