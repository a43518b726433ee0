"""Everything that can go wrong, as a tree; each message says what, where, and what to do.

JinaRagError                    catch this to catch all of them
├── InvalidInputError           an argument, a question or a setting makes no sense (also a ValueError)
├── MissingDependencyError      a package is not installed (also an ImportError)
├── DocumentError               one file or page cannot be read; the others go on
│   ├── UnsupportedDocumentError    not a PDF and not an image
│   ├── PasswordRequiredError       encrypted, and no password that fits
│   └── LimitExceededError          more pixels, pages or bytes than the settings allow
├── ModelError                  a model cannot be used
│   ├── ModelNotFoundError          no model of that name, or its weights are not installed
│   └── CheckpointError             weights that are not what they should be (hash, keys, shapes)
└── IndexStateError             an index cannot be used as asked
    ├── IndexNotFoundError          nothing there
    ├── IndexLockedError            another process has it open
    ├── IndexMismatchError          it was built with another model or other settings
    └── IndexCorruptError           its files contradict each other
"""

from __future__ import annotations


class JinaRagError(Exception):
    """The root of all errors that jina_rag raises on purpose."""


class InvalidInputError(JinaRagError, ValueError):
    """An argument, a question or a setting makes no sense."""


class MissingDependencyError(JinaRagError, ImportError):
    """A package that the call needs is not installed; the message has the pip line."""


class DocumentError(JinaRagError):
    """A file or a page cannot be read; the message is the reason shown in reports."""


class UnsupportedDocumentError(DocumentError):
    """The content is neither a PDF nor an image of a known kind."""


class PasswordRequiredError(DocumentError):
    """The document is encrypted and none of the given passwords opens it."""


class LimitExceededError(DocumentError):
    """The document is beyond a limit of the settings (pixels, pages, bytes)."""


class ModelError(JinaRagError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no model of that name, or its weights are not on this machine."""


class CheckpointError(ModelError):
    """Weights are not what they should be: wrong hash, missing keys, wrong shapes, NaN."""


class IndexStateError(JinaRagError):
    """An index cannot be used as asked."""


class IndexNotFoundError(IndexStateError):
    """There is no index at that place."""


class IndexLockedError(IndexStateError):
    """Another process has the index open."""


class IndexMismatchError(IndexStateError):
    """The index was built with another model or with other settings."""


class IndexCorruptError(IndexStateError):
    """The files of the index contradict each other."""
