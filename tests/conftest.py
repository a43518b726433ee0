"""Fixtures that several test files share."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis

# With --import-mode=importlib pytest adds nothing to the path; `import contracts` needs this folder on it.
sys.path.insert(0, str(Path(__file__).parent))

# A deadline fails on a busy machine, not on a fault.
hypothesis.settings.register_profile("shared", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("shared")
