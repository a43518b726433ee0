"""Preprocessing of images into patches for the Qwen-VL vision towers.

Images are always processed with the Pillow processor of transformers, so that vectors do not depend on the installed
packages. The torchvision processor would change vectors by up to 0.0028. The number of tokens of an image is computed
from the image size before the image is decoded, because batches are filled up to a number of tokens.

Source: Wang et al., Qwen2-VL (2024), section 2.1, and the image processor of transformers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.images import LoadedImage
from jina_rag.models.runtime.checkpoints import Checkpoint

MIN_PIXELS = 3136
MAX_PIXELS = 602_112
"""Published maximum image size of jina-embeddings-v4 and jina-reranker-m0 in pixels; corresponds to 768 tokens."""
LARGEST_PIXELS = 16_777_216
"""Largest accepted `max_pixels`, 4,096 x 4,096 pixels. The models are not designed for larger images."""
_ASPECT = 200


class ImagePatcher:
    """Scales images and splits them into patches, as configured in preprocessor_config.json of a checkpoint.

    Attributes:
        patch: Side of a patch in pixels.
        merge: Patches per side of the square that one token covers.
        min_pixels: Minimum image size in pixels; smaller images are enlarged.
        max_pixels: Default maximum image size in pixels; larger images are scaled down.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_pixels: int | None, fixed_limits: bool) -> None:
        """Read the preprocessing settings of a checkpoint.

        Args:
            checkpoint: Checkpoint with a preprocessor_config.json.
            max_pixels: Maximum image size in pixels; None for the limit that `fixed_limits` selects.
            fixed_limits: Whether to use the published limits of 3,136 and 602,112 pixels, as the published code of
                jina-reranker-m0 does, instead of the limits in preprocessor_config.json.

        Raises:
            CheckpointError: If preprocessor_config.json is invalid.
            InvalidInputError: If `max_pixels` is out of range.
        """
        settings = checkpoint.json("preprocessor_config.json", required=False)
        vision = checkpoint.config.get("vision_config") or {}
        size = settings.get("size") or {}
        try:
            self.patch = int(settings.get("patch_size") or vision.get("patch_size") or 14)
            self.merge = int(settings.get("merge_size") or vision.get("spatial_merge_size") or 2)
            temporal = int(settings.get("temporal_patch_size") or vision.get("temporal_patch_size") or 2)
            low = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
            high = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
            self.min_pixels = MIN_PIXELS if fixed_limits else int(low or MIN_PIXELS)
            self.max_pixels = MAX_PIXELS if fixed_limits else int(high or MAX_PIXELS)
            self._options: dict[str, Any] = {
                key: settings[key]
                for key in ("image_mean", "image_std", "rescale_factor", "resample")
                if settings.get(key) is not None
            }
            self._options |= {"patch_size": self.patch, "merge_size": self.merge, "temporal_patch_size": temporal}
        except (TypeError, ValueError, AttributeError) as exc:
            raise CheckpointError(
                f"{checkpoint.folder}: preprocessor_config.json is invalid ({exc}). Download the model again."
            ) from exc
        if self.patch != int(vision.get("patch_size", self.patch)):
            raise CheckpointError(
                f"{checkpoint.folder}: patch_size is {vision['patch_size']} pixels in config.json and {self.patch} in "
                "preprocessor_config.json. Download the model again."
            )
        self.max_pixels = self.limit(max_pixels)
        self._processors: dict[int, Any] = {}

    @property
    def side(self) -> int:
        """Side in pixels of the image square that one token covers."""
        return self.patch * self.merge

    def limit(self, max_pixels: int | None) -> int:
        """Return `max_pixels` after validation, or the default in pixels if `max_pixels` is None.

        Raises:
            InvalidInputError: If `max_pixels` is out of range.
        """
        if max_pixels is None:
            return self.max_pixels
        lowest = max(self.side * self.side, self.min_pixels)
        if not lowest <= max_pixels <= LARGEST_PIXELS:
            raise InvalidInputError(
                f"max_pixels is {max_pixels}; expected an integer from {lowest} to {LARGEST_PIXELS:,} "
                f"(one token covers {self.side} x {self.side} pixels)."
            )
        return max_pixels

    def tokens(self, size: tuple[int, int], max_pixels: int, name: str = "An image") -> tuple[int, int]:
        """Return the number of rows and columns of an image's token grid.

        Args:
            size: Width and height of the image in pixels.
            max_pixels: Size in pixels to which a larger image is scaled down.
            name: Name of the image, for the message.

        Raises:
            InvalidInputError: If one side is more than 200 times the other.
        """
        width, height = size
        if max(width, height) > _ASPECT * min(width, height):
            raise InvalidInputError(
                f"{name} has {width} x {height} pixels; one side may be at most {_ASPECT} times the other. Crop the "
                "image."
            )
        side = self.side
        rows, columns = round(height / side), round(width / side)
        pixels = rows * columns * side * side
        if pixels > max_pixels:
            shrink = math.sqrt(height * width / max_pixels)
            rows = max(1, math.floor(height / shrink / side))
            columns = max(1, math.floor(width / shrink / side))
        elif pixels < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = math.ceil(height * grow / side), math.ceil(width * grow / side)
        return rows, columns

    def patches(self, image: LoadedImage, max_pixels: int) -> tuple[npt.NDArray[np.float32], tuple[int, int, int]]:
        """Decode an image and split the image into patches.

        Args:
            image: Image to decode.
            max_pixels: Size in pixels to which a larger image is scaled down.

        Returns:
            Patches, shape (patches, channels x temporal x patch x patch), float32, with the `merge` x `merge` patches
            of each token in sequence; and the grid (1, height, width) in patches.

        Raises:
            InvalidInputError: If the image cannot be decoded, or one side is more than 200 times the other.
            CheckpointError: If the processor of transformers returns an unexpected grid.
        """
        output = self._processor(max_pixels).preprocess(images=[image.load()], return_tensors="np")
        patches: npt.NDArray[np.float32] = output["pixel_values"].astype(np.float32, copy=False)
        time, height, width = (int(value) for value in output["image_grid_thw"][0])
        rows, columns = self.tokens(image.size, max_pixels, image.name)
        if (height, width) != (rows * self.merge, columns * self.merge):
            raise CheckpointError(
                f"{image.name} was split into {height} x {width} patches, expected {rows * self.merge} x "
                f"{columns * self.merge}, because the installed version of transformers resizes images differently. "
                "Install an earlier version of transformers, at least 5.8."
            )
        return patches, (time, height, width)

    def _processor(self, max_pixels: int) -> Any:  # noqa: ANN401  # transformers' processor
        if max_pixels not in self._processors:
            from transformers import Qwen2VLImageProcessorPil

            size = {"shortest_edge": self.min_pixels, "longest_edge": max_pixels}
            self._processors[max_pixels] = Qwen2VLImageProcessorPil(size=size, do_convert_rgb=False, **self._options)
        return self._processors[max_pixels]
