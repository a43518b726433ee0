"""Planning in a thread of its own, ahead of what renders and embeds: files are hashed while others are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from jina_rag.indexing.planner import IndexTask, Outcome
from jina_rag.parsing.workers.cancellation import POLL_SECONDS

_AHEAD = 1000
"""Files that are planned ahead of the work: few enough to keep memory flat."""
_Item = TypeVar("_Item")


class PlanStream:
    """What a planner says, split: tasks for the thread that reads documents, outcomes for the one that writes.

    Attributes:
        task_count: Tasks so far.
        is_complete: Whether all outcomes were taken.
    """

    def __init__(self, items: Iterator[IndexTask | Outcome], halt: threading.Event) -> None:
        """Make a stream; `with` starts its thread.

        Args:
            items: From `Planner.plan`. Iterated in the stream's thread.
            halt: Set at the end, which must end `items` and everything that waits for the stream.
        """
        self.task_count = 0
        self.is_complete = False
        self._items = items
        self._halt = halt
        self._tasks: queue.Queue[IndexTask | None] = queue.Queue(_AHEAD)
        self._outcomes: queue.Queue[Outcome | BaseException | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._run, name="jina-rag-plan", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()

    def tasks(self) -> Iterator[IndexTask]:
        """The tasks, in the order of the walk; waits for the next one."""
        while (task := self._retry(lambda: self._tasks.get(timeout=POLL_SECONDS))) is not None:
            yield task

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes that are there; waits for none. All of them are there once the tasks have come to their end.

        Raises:
            BaseException: What ended the planning.
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
        except BaseException as error:  # raised where the outcomes are taken
            end = error
        self._put(self._outcomes, end)
        self._put(self._tasks, None)

    def _put(self, target: queue.Queue[_Item], item: _Item) -> None:
        self._retry(lambda: target.put(item, timeout=POLL_SECONDS))

    def _retry(self, step: Callable[[], _Item]) -> _Item | None:
        """The step's result as soon as it can be done; None once the stream is halted."""
        while not self._halt.is_set():
            try:
                return step()
            except (queue.Empty, queue.Full):
                continue
        return None
