"""Suppression of log lines and progress bars of mteb, datasets and the Hugging Face Hub client."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

_LIBRARIES = ("mteb", "datasets", "huggingface_hub", "sentence_transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log lines below level ERROR and progress bars of the libraries; restore the state on exit."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [(logger, logger.level) for logger in loggers]
    bars, hub_bars = datasets.are_progress_bars_disabled(), are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            for name in _LIBRARIES:
                warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        if not hub_bars:
            enable_progress_bars()
