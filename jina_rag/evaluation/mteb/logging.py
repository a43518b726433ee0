"""mteb, datasets and the hub's client log and draw bars on stderr; a run of ours says what it does itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

_LOUD = ("mteb", "datasets", "huggingface_hub", "sentence_transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing below an error is logged by these, and no bar is drawn; behind it all is as it was."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    before = [(logger, logger.level) for logger in loggers]
    bars, hub_bars = datasets.are_progress_bars_disabled(), are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            for name in _LOUD:
                warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        if not hub_bars:
            enable_progress_bars()
