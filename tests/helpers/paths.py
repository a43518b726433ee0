"""Paths of the checkout and of the test data."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout."""
DATA = ROOT / "tests" / "data"
BAD = DATA / "bad"
GOLDEN = DATA / "golden"
