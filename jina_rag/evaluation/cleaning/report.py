"""What a cleaning found: how many pairs each step took out, and why, with all settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jina_rag._version import __version__


@dataclass(slots=True)
class StepReport:
    """One step of a run.

    Attributes:
        name: The step.
        settings: All that decides what it drops.
        read: Pairs that reached it.
        dropped: Reason → pairs.
        seconds: Time spent in it, without the steps before it.
        disk_bytes: State it kept on disk during the run.
    """

    name: str
    settings: Mapping[str, Any]
    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    disk_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        values = asdict(self) | {"seconds": round(self.seconds, 3)}
        return {"step": values.pop("name"), **values}


@dataclass(slots=True)
class CleaningReport:
    """A run, complete once its last pair has been given out.

    Attributes:
        steps: In the order they ran.
        unreadable: What lines without a pair had wrong → lines.
        kept: Pairs that all steps let pass.
        source: The file, or empty.
        sha256: Of the file's bytes, or empty.
    """

    steps: list[StepReport]
    unreadable: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    source: str = ""
    sha256: str = ""

    @property
    def read(self) -> int:
        """Pairs and unreadable lines of the input."""
        return (self.steps[0].read if self.steps else self.kept) + sum(self.unreadable.values())

    @property
    def dropped(self) -> int:
        """All that was read and not kept."""
        return self.read - self.kept

    def to_json(self) -> dict[str, Any]:
        """The object that ``jina-rag clean --json`` prints."""
        counts = {"version": __version__, "read": self.read, "dropped": self.dropped}
        return asdict(self) | counts | {"steps": [step.to_json() for step in self.steps]}

    def __str__(self) -> str:
        lines = [f"{self.read} read, {self.kept} kept, {self.dropped} dropped"]
        lines += [f"  unreadable, {reason} {count}" for reason, count in self.unreadable.items()]
        lines += [f"  {s.name}, {reason}: {count}" for s in self.steps for reason, count in s.dropped.items()]
        return "\n".join(lines)
