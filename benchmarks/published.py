"""Reimplementation of the published code of jina-embeddings-v4 and jina-reranker-m0, as a baseline for benchmarks.

The published code cannot be distributed with this repository. The baseline is written from the paper, the model cards
and a description of the published code, and performs the same computation:

- v4: the complete model of transformers ("stock model"), which computes vocabulary logits for every token. All hidden
  states are stored, and the last hidden state yields the vectors. peft does not merge the LoRA adapter of the task
  into the weights. Each pass computes dense vectors and multi-vectors.
- m0: the stock model with the identity in place of the vocabulary head. All hidden states are stored, and a small MLP
  computes the score.
- v4 and m0 process inputs in order, in batches of eight padded to the longest input, without sorting or caching.

The baseline differs from the published code in two points. The image processor uses Pillow (published code: torchvision
if installed), and attention uses PyTorch (published code: flash-attention on a GPU). As in the published code, v4 in
bfloat16 runs under autocast. In float32, autocast is off, as for the recorded outputs.

    python benchmarks/published.py GOLDEN_DIR

This command compares the baseline with every recorded array of the original code (v4_golden.npz, m0_golden.npz). The
exit status is 1 if an array differs.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import init_empty_weights
from peft import PeftConfig, PeftModelForFeatureExtraction, set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from torch import nn
from transformers.image_utils import load_image

Source = str | Path | Image.Image
TensorReader = Callable[[Path, str], dict[str, torch.Tensor]]
PAD = "<|image_pad|>"
IMAGE = f"<|vision_start|>{PAD}<|vision_end|>"
IMAGE_PROMPT = f"<|im_start|>user\n{IMAGE}Describe the image.<|im_end|>\n"
PREFIXES = {None: "Query", "query": "Query", "passage": "Passage"}
MAX_TOKENS = 32768
UNUSED = "architectures auto_map _attn_implementation _name_or_path transformers_version torch_dtype".split()
# Constants from the code of m0 that config.json lacks. The pixel limits override the limits of the checkpoint folder.
SCORE_TOKEN, LOGIT_BIAS, M0_PIXELS = 100, 2.65, (3136, 602112)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _tensors(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return the tensors of all shards whose names start with `prefix`. The names in the result lack the prefix."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}
    return tensors


def _new_key(key: str) -> str:
    """Return the name of a tensor in transformers 5."""
    key = re.sub(r"^visual\.", "model.visual.", key)
    return re.sub(r"^model\.(?!language_model\.|visual\.)", "model.language_model.", key)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


class _Published:
    """Base class of v4 and m0, which loads the stock model and prepares the tokens and pixels of a batch.

    `read` replaces the weight files: like `_tensors`, it returns the tensors of a folder whose names start with a
    prefix. The tensors can be on any device, and the model is then on that device.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, padding_side: str, read: TensorReader | None) -> None:
        self.folder, self.dtype, self.device = Path(folder), dtype, "cpu"
        self._read_weights, self._has_files = read or _tensors, read is None
        self.config = _json(self.folder / "config.json")
        # The Auto classes would prompt on stdin for permission to run the remote code named in auto_map.
        tokenizer_config = _json(self.folder / "tokenizer_config.json")
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(self.folder / "tokenizer.json"),
            pad_token=tokenizer_config["pad_token"],
            padding_side=padding_side,
        )

    def to(self, device: str) -> None:
        self.model.to(device)
        self.device = device

    def _stock(self, name: str, head: str, unused: str | None = None) -> Any:
        """Load the stock model, without the checkpoint keys that start with `head`."""
        numbers = {key: value for key, value in self.config.items() if key not in UNUSED}
        config = getattr(transformers, f"{name}Config")(**numbers)
        stock = getattr(transformers, f"{name}ForConditionalGeneration")
        if self._has_files:
            # transformers converts old key names for stock classes only. The decoder of a subclass would be random.
            model, info = stock.from_pretrained(
                str(self.folder), config=config, dtype=self.dtype, attn_implementation="sdpa", output_loading_info=True
            )
            missing, unexpected = info["missing_keys"], info["unexpected_keys"]
        else:
            config._attn_implementation = "sdpa"
            with init_empty_weights(include_buffers=False):
                model = stock(config)
            weights = self._read_weights(self.folder, "")
            tensors = {_new_key(key): value.to(self.dtype) for key, value in weights.items()}
            self.device = str(next(iter(tensors.values())).device)
            missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
            model.tie_weights()
            if model.lm_head.weight is model.get_input_embeddings().weight:
                missing = [key for key in missing if key != "lm_head.weight"]
            model.to(self.device)  # moves the buffers
        missing = [key for key in missing if key != unused]
        unexpected = [key for key in unexpected if not key.startswith(("lm_head.", head))]
        if missing or unexpected:
            raise RuntimeError(
                f"{self.folder}: missing keys {missing[:3]}, unexpected keys {unexpected[:3]}. Expected the keys of "
                f"{name}. Pass a complete checkpoint folder."
            )
        return model.eval()

    def _processor(self, low: int | None = None, high: int | None = None) -> Any:
        """Return the image processor of the checkpoint, optionally with other pixel limits."""
        config = _json(self.folder / "preprocessor_config.json")
        names = "patch_size merge_size temporal_patch_size resample rescale_factor image_mean image_std".split()
        size = {
            "shortest_edge": low or config.get("min_pixels") or config["size"]["shortest_edge"],
            "longest_edge": high or config.get("max_pixels") or config["size"]["longest_edge"],
        }
        numbers = {name: config[name] for name in names if name in config}
        # Images are already RGB: transformers 5 would blend alpha with white, but the published code drops alpha.
        return transformers.Qwen2VLImageProcessorPil(size=size, do_convert_rgb=False, **numbers)

    def _inputs(self, prompts: list[str], images: list[Any], processor: Any, **options: Any) -> dict[str, torch.Tensor]:
        """Return the tokens and pixels of one batch; `images` are in the order of the image tokens in the prompts."""
        pixels: dict[str, torch.Tensor] = {}
        if images:
            pixels = dict(processor(images=images, return_tensors="pt"))
            counts = pixels["image_grid_thw"].prod(dim=1) // processor.merge_size**2
            token_counts = iter(counts.tolist())
            prompts = [re.sub(re.escape(PAD), lambda _: PAD * next(token_counts, 1), prompt) for prompt in prompts]
        options |= {"padding": "longest", "return_tensors": "pt", "return_token_type_ids": False}
        tokens = dict(self.tokenizer(prompts, **options))
        if images:
            # transformers 5 assigns row and column positions only to tokens that are marked as image tokens.
            tokens["mm_token_type_ids"] = (tokens["input_ids"] == self.config["image_token_id"]).int()
            image_tokens = int(tokens["mm_token_type_ids"].sum())
            if image_tokens != counts.sum():
                raise ValueError(
                    f"The prompts have {image_tokens} image tokens; expected {counts.sum()}. Raise max_length, or "
                    f"remove {PAD} from the texts."
                )
        return tokens | pixels


class PublishedV4(_Published):
    """jina-embeddings-v4 as published: an embedder of texts and images."""

    def __init__(
        self, folder: Path, dtype: torch.dtype = torch.float32, *,
        read: TensorReader | None = None, tasks: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, dtype, "right", read)
        self.tasks = list(tasks or self.config["task_names"])
        model = self._stock("Qwen2_5_VL", "multi_vector_projector.")
        weights = self._read_weights(self.folder, "multi_vector_projector.")
        # Attach the projector first, because the adapters include weights for the projector.
        model.multi_vector_projector = nn.Linear(*reversed(weights["weight"].shape)).to(self.device, dtype)
        model.multi_vector_projector.load_state_dict(weights)
        self.model = self._with_adapters(model).eval()
        self.projector = self.model.base_model.model.multi_vector_projector

    def _with_adapters(self, model: Any) -> Any:
        """Load one adapter per task. Task names are removed from keys, because peft skips keys with a task name."""
        folder, tasks = self.folder / "adapters", self.tasks
        tensors = self._read_weights(folder, "")
        with warnings.catch_warnings():  # peft uses a deprecated attribute of transformers
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            peft_model = PeftModelForFeatureExtraction(model, PeftConfig.from_pretrained(str(folder)), tasks[0])
        for task in tasks:
            if task != tasks[0]:
                peft_model.add_adapter(task, PeftConfig.from_pretrained(str(folder)))
            adapter = {k.replace(f".{task}.weight", ".weight"): v for k, v in tensors.items() if f".{task}.weight" in k}
            result = set_peft_model_state_dict(peft_model, adapter, adapter_name=task)
            mismatched = [key for key in result.missing_keys if f".{task}." in key] + result.unexpected_keys
            if mismatched or not adapter:
                raise RuntimeError(
                    f"{folder}: the adapter {task!r} has {len(adapter)} tensors, and the keys {mismatched[:3]} do not "
                    "match the model. Pass a complete checkpoint folder of jina-embeddings-v4."
                )
        return peft_model

    def encode_text(
        self, texts: Sequence[str], *, task: str = "retrieval", prompt_name: str | None = "query",
        max_length: int = MAX_TOKENS, truncate_dim: int | None = None, multi: bool = False, batch_size: int = 8,
    ) -> Any:  # fmt: skip
        """Return the vectors of texts: shape (n, dim), or with `multi` a list of arrays of shape (tokens, multi_dim).

        As in the published code, `prompt_name` selects the prefix for every task, including text-matching.
        """
        prompts = [f"{PREFIXES[prompt_name]}: {text}" for text in texts]
        options = {"truncation": True, "max_length": min(max_length, MAX_TOKENS)}
        batches = (prompts[start : start + batch_size] for start in range(0, len(texts), batch_size))
        return self._encode((self._inputs(batch, [], None, **options) for batch in batches), task, truncate_dim, multi)

    def encode_image(
        self, images: Sequence[Source], *, task: str = "retrieval", truncate_dim: int | None = None,
        multi: bool = False, max_pixels: int | None = None, batch_size: int = 8,
    ) -> Any:  # fmt: skip
        """Return the vectors of images (paths or PIL images), with the shapes of `encode_text`."""
        processor = self._processor(high=max_pixels)
        loaded_images = [self._open(image) for image in images]  # as published, load all images first
        parts = (loaded_images[start : start + batch_size] for start in range(0, len(loaded_images), batch_size))
        batches = (self._inputs([IMAGE_PROMPT] * len(part), part, processor) for part in parts)
        return self._encode(batches, task, truncate_dim, multi)

    def _open(self, image: Source) -> Image.Image:
        # The alpha channel is dropped, and the EXIF orientation is ignored.
        return _rgb(image if isinstance(image, Image.Image) else Image.open(image))

    def _encode(self, batches: Iterator[dict[str, torch.Tensor]], task: str, dim: int | None, multi: bool) -> Any:
        if dim is not None and dim not in self.config["matryoshka_dims"]:
            raise ValueError(f"truncate_dim is {dim}; expected one of {self.config['matryoshka_dims']}.")
        self.model.set_adapter(task)
        vectors: list[np.ndarray] = []
        for inputs in batches:
            if "pixel_values" in inputs:
                # As published, padded pixels move to the device, and the padding is removed on the device.
                sizes = inputs["image_grid_thw"].prod(dim=1).tolist()
                pixels = nn.utils.rnn.pad_sequence(inputs["pixel_values"].split(sizes), batch_first=True)
                image_rows = [rows[:size] for rows, size in zip(pixels.to(self.device), sizes, strict=True)]
                inputs["pixel_values"] = torch.cat(image_rows)
            single, rows, mask = self._forward({key: value.to(self.device) for key, value in inputs.items()})
            if multi:
                vectors += [
                    row[row_mask.bool()].float().cpu().numpy() for row, row_mask in zip(rows, mask, strict=True)
                ]
            else:
                short = single if dim is None else nn.functional.normalize(single[:, :dim], dim=-1)
                vectors += list(short.float().cpu().numpy())
        return vectors if multi else np.array(vectors, dtype=np.float32)

    def _forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the dense vectors, multi-vectors and attention mask of one batch."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        autocast = torch.autocast(ids.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        with torch.no_grad(), autocast:
            hidden = self.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-1]
            pooling_mask, start = mask, ids == self.config["vision_start_token_id"]
            if start[0].any():  # as published, the first input determines the pooling of the batch
                first = start.int().argmax(dim=1, keepdim=True)
                last = (ids == self.config["vision_end_token_id"]).int().argmax(dim=1, keepdim=True)
                positions = torch.arange(ids.shape[1], device=ids.device)
                pooling_mask = ((positions >= first) & (positions <= last)).int()
            mean = (hidden * pooling_mask[..., None]).sum(dim=1) / pooling_mask.sum(dim=1, keepdim=True)
            # As published, every pass computes dense vectors and multi-vectors.
            rows = nn.functional.normalize(self.projector(hidden), dim=-1) * mask[..., None]
            return nn.functional.normalize(mean, dim=-1), rows, mask


class PublishedM0(_Published):
    """jina-reranker-m0 as published: a reranker of (query, document) pairs with one modality per side and call."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, *, read: TensorReader | None = None) -> None:
        super().__init__(folder, dtype, "left", read)  # left padding, so that the score token is last
        self.model = self._stock("Qwen2VL", "score.", unused="lm_head.weight")
        self.model.lm_head = nn.Identity()
        weights = self._read_weights(self.folder, "score.")
        hidden = weights["0.weight"].shape[0]
        score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.model.score = score.to(self.device, dtype)
        self.model.score.load_state_dict(weights)
        self.processor = self._processor(*M0_PIXELS)

    def compute_score(
        self, pairs: Sequence[Sequence[Any]], *, query_type: str = "text", doc_type: str = "text",
        max_length: int = 10240, max_query_length: int = 512, max_doc_length: int | None = None, batch_size: int = 8,
        raw: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Return the scores from 0 to 1, or with `raw` the outputs of the MLP: shape (n,), float32.

        `max_query_length` only reduces the tokens available to the document. A query is truncated only if the whole
        prompt is too long.
        """
        default = max(max_length - max_query_length, max_query_length)
        max_doc_length = default if max_doc_length is None else max_doc_length
        if max_doc_length + max_query_length > max_length:
            raise ValueError(f"max_length is {max_length}; expected at least {max_doc_length} + {max_query_length}.")
        scores: list[float] = []
        for start in range(0, len(pairs), batch_size):
            prompts, images = [], []
            for query, document in pairs[start : start + batch_size]:
                sides = [(document, doc_type), (query, query_type)]  # the document precedes the query, also in `images`
                images += [self._open(side) for side, kind in sides if kind == "image"]
                text = IMAGE if doc_type == "image" else self._truncate(document, max_doc_length)
                prompts.append(f"**Document**:\n{text}\n**Query**:\n{IMAGE if query_type == 'image' else query}")
            inputs = self._inputs(prompts, images, self.processor, truncation=True, max_length=max_length - 1)
            scores += self._forward(inputs)
        logits = np.array(scores, dtype=np.float32)
        return logits if raw else 1 / (1 + np.exp(np.float32(LOGIT_BIAS) - logits))

    def _open(self, image: Source) -> Image.Image:
        # Unlike v4, m0 rotates image files by the EXIF orientation.
        return _rgb(image) if isinstance(image, Image.Image) else load_image(str(image))

    def _truncate(self, text: str, max_tokens: int) -> str:
        ids = self.tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        return self.tokenizer.decode(ids) if len(ids) >= max_tokens else text

    def _forward(self, inputs: dict[str, torch.Tensor]) -> list[float]:
        for name, value in (("input_ids", SCORE_TOKEN), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = nn.functional.pad(inputs[name], (0, 1), value=value)
        if "pixel_values" not in inputs:
            # As published, positions start after the left padding. transformers 5 would count the padding.
            positions = (inputs["attention_mask"].cumsum(dim=1) - 1).masked_fill(inputs["attention_mask"] == 0, 1)
            inputs["position_ids"] = positions.expand(3, -1, -1)
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        with torch.no_grad():
            hidden = self.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-1]
            return self.model.score(hidden[:, -1])[:, 0].float().tolist()


def _recorded_inputs(spec: dict[str, Any], description: str) -> list[str]:
    """Return the inputs that a description names, e.g. `texts[0, 2]`, `images[:4]` or `[long_text, texts[0]]`."""
    inputs: list[str] = []
    for name, indices in re.findall(r"(texts|long_text|images)(?:\[([^\]]*)\])?", description):
        source = spec[name]
        if indices:
            source = source[: int(indices[1:])] if indices[0] == ":" else [source[int(i)] for i in indices.split(",")]
        inputs += [source] if isinstance(source, str) else source
    return inputs


def _v4_outputs(golden: Path, spec: dict[str, Any], entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name of each recorded array, and the output of the baseline."""
    model = PublishedV4(golden / "jina-embeddings-v4")
    for name, entry in entries.items():
        kind, form, task, *more = name.split("/")
        numbers = re.findall(r"(dim|max_length|max_pixels)(\d+)", name)
        options: dict[str, Any] = {key.replace("dim", "truncate_dim"): int(number) for key, number in numbers}
        options |= {"task": task, "multi": form == "multi", "batch_size": entry.get("batch_size", 8)}
        inputs = _recorded_inputs(spec, entry["inputs"])
        if kind == "image":
            yield name, model.encode_image([golden / "images" / image for image in inputs], **options)
            continue
        # Entries named passage_with_task_property were recorded with the query prefix, so reproduce that prefix.
        prompt = {"default_prompt": None, "passage_with_task_property": "query"}.get(more[0], more[0])
        yield name, model.encode_text(inputs, prompt_name=prompt, **options)


def _m0_outputs(golden: Path, _: dict[str, Any], entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    model = PublishedM0(golden / "jina-reranker-m0")
    for name, entry in entries.items():
        kinds = name.split("/")[0].split("_")
        options = {key: value for key, value in entry.items() if key.startswith("max_") or key == "batch_size"}
        options |= {"query_type": kinds[0], "doc_type": kinds[1]}
        root = {"image": lambda path: golden / path, "text": str}
        pairs = [[root[kind](side) for side, kind in zip(pair, kinds, strict=True)] for pair in entry["pairs"]]
        for form in ("score", "raw"):
            yield f"{name}/{form}", model.compute_score(pairs, raw=form == "raw", **options)


def main(golden: Path) -> int:
    """Compare the baseline with all recorded outputs and return the exit status."""
    differences = 0
    for family, outputs in (("v4", _v4_outputs), ("m0", _m0_outputs)):
        spec, arrays = _json(golden / f"{family}_golden.json"), np.load(golden / f"{family}_golden.npz")
        entries = {name: entry for name, entry in spec["entries"].items() if "torchvision" not in name}
        missing = {name for name in arrays if "torchvision" not in name}
        for name, output in outputs(golden, spec, entries):
            parts = (
                {f"{name}/{i}": rows for i, rows in enumerate(output)} if isinstance(output, list) else {name: output}
            )
            same = all(array.shape == arrays[key].shape for key, array in parts.items())
            error = np.max([np.abs(array - arrays[key]).max() for key, array in parts.items()]) if same else np.inf
            is_close = error <= (3e-4 if name.endswith("/raw") else 1e-4)  # False if the error is NaN
            print(f"{family} {name}: {error:.1e}{'' if is_close else '  DIFFERS'}")
            differences += not is_close
            missing -= parts.keys()
        if missing:
            print(f"{family}: recorded arrays that were not compared: {sorted(missing)}")
            differences += 1
    return int(differences > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
