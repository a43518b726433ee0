"""Preprocessing of images into patches for the Qwen-VL vision towers.

Images are resized with Pillow, as in the Pillow processor of transformers, so that vectors do not depend on the
installed packages. The torchvision processor would change vectors by up to 0.0028. Several threads prepare the images
of a batch. Patches leave the host as bytes, one for each color value, and are normalized on the device: copies are an
eighth of the size of float32 values for two equal frames, and the host computes no floating-point numbers.

The number of tokens of an image is computed from the image size before the image is decoded, because batches are filled
up to a number of tokens.

Source: Wang et al., Qwen2-VL (2024), section 2.1, and the image processor of transformers.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from jina_rag.config import usable_cpus
from jina_rag.errors import CheckpointError, InvalidInputError
from jina_rag.images import LoadedImage
from jina_rag.models.runtime.checkpoints import Checkpoint
from jina_rag.models.runtime.config_schemas import PREPROCESSOR
from jina_rag.models.runtime.devices import empty_in_host_memory, to_device

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_PIXELS = 3136
MAX_PIXELS = 602_112
"""Published maximum image size of jina-embeddings-v4 and jina-reranker-m0 in pixels; corresponds to 768 tokens."""
LARGEST_PIXELS = 16_777_216
"""Largest accepted `max_pixels`, 4,096 x 4,096 pixels. The models are not designed for larger images."""
_ASPECT = 200
_CHANNELS = 3
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of each color in the training images of CLIP, the defaults of the processor."""
_BICUBIC, _NEAREST = 3, 0
_SAMPLE = 64, 64
_REDUCED_SCALE = 2
"""Smallest ratio of the sides of a JPEG file that is decoded at a reduced resolution to the sides after resizing."""
UInt8: TypeAlias = npt.NDArray[np.uint8]


class ImagePatcher:
    """Scales images and splits them into patches, as configured in preprocessor_config.json of a checkpoint.

    Attributes:
        patch: Side of a patch in pixels.
        merge: Patches per side of the square that one token covers.
        frames: Number of equal frames into which the vision tower's input repeats an image.
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
        settings = checkpoint.json("preprocessor_config.json", PREPROCESSOR, required=False)
        vision = checkpoint.config.get("vision_config") or {}
        size = settings.get("size") or {}
        try:
            self.patch = int(settings.get("patch_size") or vision.get("patch_size") or 14)
            self.merge = int(settings.get("merge_size") or vision.get("spatial_merge_size") or 2)
            self.frames = int(settings.get("temporal_patch_size") or vision.get("temporal_patch_size") or 2)
            low = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
            high = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
            self.min_pixels = MIN_PIXELS if fixed_limits else int(low or MIN_PIXELS)
            self.max_pixels = MAX_PIXELS if fixed_limits else int(high or MAX_PIXELS)
            self._resample = int(_first(settings.get("resample"), _BICUBIC))
            scale = float(_first(settings.get("rescale_factor"), 1 / 255))
            mean, std = (
                np.broadcast_to(np.array(_first(settings.get(key), default), np.float64), _CHANNELS)
                for key, default in (("image_mean", _MEAN), ("image_std", _STD))
            )
            self._scale, self._offset = scale / std, -mean / std
        except (TypeError, ValueError, AttributeError) as exc:
            raise CheckpointError(
                f"{checkpoint.folder}: preprocessor_config.json is invalid ({exc}). Download the model again."
            ) from exc
        for name, key, value in (
            ("patch_size", "patch_size", self.patch),
            ("merge_size", "spatial_merge_size", self.merge),
            ("temporal_patch_size", "temporal_patch_size", self.frames),
        ):
            if vision.get(key) not in (None, value):
                raise CheckpointError(
                    f"{checkpoint.folder}: {key} is {vision[key]} in config.json, and {name} is {value} in "
                    "preprocessor_config.json. Download the model again."
                )
        if self.min_pixels > self.max_pixels:
            raise CheckpointError(
                f"{checkpoint.folder / 'preprocessor_config.json'}: min_pixels is greater than max_pixels. "
                "Download the model again."
            )
        self.max_pixels = self.limit(max_pixels)
        self._normalizers: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

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

    def patches_of(
        self, images: Sequence[tuple[LoadedImage, int]], device: torch.device
    ) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
        """Decode images and split them into patches, several images at a time.

        Args:
            images: Images, each with the size in pixels to which a larger image is scaled down; at least one.
            device: Device that the patches will be copied to.

        Returns:
            Patches of all images, shape (patches, channels x patch x patch), uint8, in host memory that can be copied
            to `device` asynchronously, with the `merge` x `merge` patches of each token in sequence; and the grid (1,
            height, width) of each image in patches.

        Raises:
            InvalidInputError: If an image cannot be decoded, or one side is more than 200 times the other.
        """
        grids = []
        for image, max_pixels in images:
            rows, columns = self.tokens(image.size, max_pixels, image.name)
            grids.append((1, rows * self.merge, columns * self.merge))
        counts = [height * width for _, height, width in grids]
        patches = empty_in_host_memory((sum(counts), _CHANNELS * self.patch**2), torch.uint8, device)
        parts = np.split(patches.numpy(), np.cumsum(counts)[:-1])
        if len(images) == 1:
            self.fill_patches(*images[0], parts[0])
        else:
            limits = (max_pixels for _, max_pixels in images)
            list(_threads().map(self.fill_patches, (image for image, _ in images), limits, parts))
        return patches, grids

    def fill_patches(self, image: LoadedImage, max_pixels: int, out: UInt8) -> None:
        """Decode an image and write its patches.

        A JPEG file is decoded at 1/2, 1/4 or 1/8 of its resolution if that scale divides both sides and the sides are
        then still at least twice as long as after resizing, for example a photo of 12 megapixels. The vectors then
        differ from the vectors of the decoded pixels. Maxima measured with the tiny v4 checkpoint on synthetic images
        of 12 to 48 megapixels: photos 0.007 in a component of the dense vector (cosine similarity at least 0.9998),
        pages of text 0.0034 (0.99995), noise 0.014 (0.999) and patterns of lines of 1 pixel 0.061 (0.989). JPEG
        compression of quality 90 changes the vectors of the same images by up to 0.011, 0.0031, 0.014 and 0.055.

        Args:
            image: Image to decode.
            max_pixels: Size in pixels to which a larger image is scaled down.
            out: Array for the patches, shape (patches, channels x patch x patch), uint8, contiguous.

        Raises:
            InvalidInputError: If the image cannot be decoded, or one side is more than 200 times the other.
        """
        rows, columns = self.tokens(image.size, max_pixels, image.name)
        width, height = columns * self.side, rows * self.side
        pixels = image.load(min_size=(_REDUCED_SCALE * width, _REDUCED_SCALE * height))
        gray = _gray(pixels)
        if pixels.size != (width, height):
            pixels = (gray or pixels).resize((width, height), resample=self._resample)
        merge, patch = self.merge, self.patch
        split = np.asarray(pixels).reshape(rows, merge, patch, columns, merge, patch, -1)  # one channel serves for all
        # Axes: row and column of the token, row and column of the patch in the token, channel, row and column of the
        # pixel in the patch.
        out.reshape(rows, columns, merge, merge, _CHANNELS, patch, patch)[...] = split.transpose(0, 3, 1, 4, 6, 2, 5)

    def pixel_values(
        self, patches: torch.Tensor, device: torch.device, dtype: torch.dtype, *, repeat: bool = True
    ) -> torch.Tensor:
        """Return the input of the vision tower on a device, without waiting for the device.

        Args:
            patches: Patches from `patches_of`, shape (patches, channels x patch x patch), uint8; or values that this
                method returned, for example with gradients, which are only moved and converted.
            device: Device of the vision tower.
            dtype: Dtype of the result; the values are normalized in float32.
            repeat: Whether to repeat the values for each frame. The frames of an image are equal.

        Returns:
            Normalized values, shape (patches, channels x frames x patch x patch), with one frame if not `repeat`.
        """
        patches = to_device(patches, device)
        if patches.dtype != torch.uint8:
            return patches.to(dtype)
        if device not in self._normalizers:
            self._normalizers[device] = self._normalizer(device)
        scale, offset = self._normalizers[device]
        values = patches.to(torch.float32).mul_(scale).add_(offset).to(dtype)
        if not repeat:
            return values
        frames = values.view(len(values), _CHANNELS, 1, -1).expand(-1, -1, self.frames, -1)
        return frames.reshape(len(values), -1)

    def _normalizer(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and offset of each value of a patch, shape (channels x patch x patch,), float32."""
        with torch.inference_mode(False):  # tensors of inference mode would be unusable in other modes
            scale, offset = (
                np.repeat(value, self.patch**2).astype(np.float32) for value in (self._scale, self._offset)
            )
            return to_device(scale, device), to_device(offset, device)


def _gray(image: Image) -> Image | None:
    """Return the only channel of an RGB image without color; None for an image with color.

    Pillow resizes each channel separately, so one channel gives the same values in a third of the time.
    """
    from PIL.ImageChops import difference

    # Few pixels show the color of most photos; then the whole image need not be compared.
    for part in (image.resize(_SAMPLE, resample=_NEAREST), image):
        channel = part.getchannel(0)
        if any(difference(channel, part.getchannel(other)).getbbox() for other in (1, 2)):
            return None
    return channel


def _first(value: object, default: object) -> Any:  # noqa: ANN401  # content of a JSON file
    return default if value is None else value


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads that prepare images, one for each CPU that the process may use. All models share them."""
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="jina-rag-images")


if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, so tasks of the executor of its parent would never run.
    os.register_at_fork(after_in_child=_threads.cache_clear)
