"""Exception classes. Each message names the problem, the file or argument, and the remedy.

JinaRagError                    base class of all errors below
├── InvalidInputError           invalid argument, query or setting (also a ValueError)
├── MissingDependencyError      missing package (also an ImportError)
├── DocumentError               unreadable file or page; ingestion continues with the other files
│   ├── UnsupportedDocumentError    unsupported file format
│   ├── PasswordRequiredError       encrypted document without a matching password
│   └── LimitExceededError          more pixels, pages, bytes, time or memory than the configured limits
├── ModelError                  unusable model
│   ├── ModelNotFoundError          unknown model name or missing weights
│   └── CheckpointError             invalid weights (hash, keys, shapes)
└── IndexStateError             unusable index
    ├── IndexNotFoundError          missing index
    ├── IndexLockedError            index already open
    ├── IndexMismatchError          index built with another model or other settings
    └── IndexCorruptError           damaged or inconsistent index files
"""

from __future__ import annotations


class JinaRagError(Exception):
    """Base class of all errors that jina_rag raises on purpose."""


class InvalidInputError(JinaRagError, ValueError):
    """An argument, a query or a setting is invalid."""


class MissingDependencyError(JinaRagError, ImportError):
    """A required package is not installed. The message contains the pip command."""


class DocumentError(JinaRagError):
    """A file or page cannot be read. Reports print the message as the reason."""


class UnsupportedDocumentError(DocumentError):
    """The content of the file is not in a supported format."""


class PasswordRequiredError(DocumentError):
    """The document is encrypted, and none of the configured passwords opens the document."""


class LimitExceededError(DocumentError):
    """The document exceeds a limit of the settings (pixels, pages, bytes, time or memory)."""


class ModelError(JinaRagError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """The model name is unknown, or the weights are missing on this machine."""


class CheckpointError(ModelError):
    """The weights are invalid: wrong hash, missing keys, wrong shapes, or NaN values."""


class DeviceLostError(ModelError):
    """The process of a device ended while computing an input, or the model is closed; see `jina_rag.load_embedder`."""


class IndexStateError(JinaRagError):
    """The index does not allow the operation in its current state."""


class IndexNotFoundError(IndexStateError):
    """No index exists at the path or URL."""


class IndexLockedError(IndexStateError):
    """Another process, or another object in this process, has the index open."""


class IndexMismatchError(IndexStateError):
    """The index was built with another model or other settings."""


class IndexCorruptError(IndexStateError):
    """The files of the index are damaged or inconsistent with each other."""
