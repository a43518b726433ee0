"""Report of a cleaning run: number of dropped pairs by step and reason, and settings of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jina_rag._version import __version__


@dataclass(slots=True)
class StepReport:
    """Counts and settings of one step of a run.

    Attributes:
        name: Name of the step.
        settings: All settings that affect which pairs the step drops.
        read: Number of pairs that reached the step.
        dropped: Number of dropped pairs by reason.
        seconds: Time spent in the step, without the time of previous steps, in seconds.
        disk_bytes: Size of the step's temporary files at the end of the run, in bytes.
    """

    name: str
    settings: Mapping[str, Any]
    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    disk_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the step's report as a JSON object."""
        values = asdict(self) | {"seconds": round(self.seconds, 3)}
        return {"step": values.pop("name"), **values}


@dataclass(slots=True)
class CleaningReport:
    """Counts of one cleaning run, complete after the last pair of the run.

    Attributes:
        steps: Reports of the steps, in order.
        unreadable: Number of lines without a pair, by error message.
        kept: Number of pairs that passed all steps.
        source: Name of the input file; empty if the input was not a file.
        sha256: SHA-256 of the input file; empty if the input was not a file.
    """

    steps: list[StepReport]
    unreadable: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    source: str = ""
    sha256: str = ""

    @property
    def read(self) -> int:
        """Number of pairs and unreadable lines in the input."""
        return (self.steps[0].read if self.steps else self.kept) + sum(self.unreadable.values())

    @property
    def dropped(self) -> int:
        """Number of pairs and unreadable lines that were dropped."""
        return self.read - self.kept

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``jina-rag clean --json`` prints."""
        counts = {"version": __version__, "read": self.read, "dropped": self.dropped}
        return asdict(self) | counts | {"steps": [step.to_json() for step in self.steps]}

    def __str__(self) -> str:
        lines = [f"{self.read} read, {self.kept} kept, {self.dropped} dropped"]
        lines += [f"  unreadable ({reason.rstrip('.')}): {count}" for reason, count in self.unreadable.items()]
        lines += [f"  {s.name}, {reason}: {count}" for s in self.steps for reason, count in s.dropped.items()]
        return "\n".join(lines)
