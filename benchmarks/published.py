"""The published way of calling jina-embeddings-v4 and jina-reranker-m0, to be measured against.

Written anew from what the published code does, as its model cards and descriptions say: the whole model with its
vocabulary logits for every token, all hidden states kept, the task's adapter beside the weights, inputs in their
order in batches of eight, padded to the longest. It must be as heavy as that, no worse and no better, and right:

    python benchmarks/published.py GOLDEN_DIR

compares it with recorded outputs of the original code (v4_golden.npz, m0_golden.npz) and ends with status 1 if it
is off.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

BATCH = 8
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGE_PROMPT = f"<|im_start|>user\n{IMAGE}Describe the image.<|im_end|>\n"
SCORE_TOKEN, LOGIT_BIAS = 100, 2.65
_UNUSED = ("architectures", "auto_map", "_attn_implementation", "_name_or_path", "transformers_version", "torch_dtype")


def _tokenizer(folder: Path, side: str) -> Any:  # noqa: ANN401
    stated = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=stated["pad_token"], padding_side=side
    )


def _processor(folder: Path, low: int | None = None, high: int | None = None) -> Any:  # noqa: ANN401
    stated = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    names = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std", "rescale_factor", "resample")
    size = {
        "shortest_edge": low or stated.get("min_pixels") or stated["size"]["shortest_edge"],
        "longest_edge": high or stated.get("max_pixels") or stated["size"]["longest_edge"],
    }
    return Qwen2VLImageProcessorPil(size=size, **{name: stated[name] for name in names if name in stated})


def _model(kind: Any, config: Any, folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401
    model, info = kind.from_pretrained(
        str(folder), config=config, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
    )
    missing = [key for key in info["missing_keys"] if key != "lm_head.weight"]
    if missing:
        raise RuntimeError(f"{folder} lacks {missing[:3]}")
    return model.eval()


def _image(source: Any) -> Image.Image:  # noqa: ANN401
    return (source if isinstance(source, Image.Image) else Image.open(source)).convert("RGB")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    return tensors


class _Published:
    """What both have in common: a tokenizer, an image processor, prompts with image tokens."""

    def __init__(self, folder: Path, side: str) -> None:
        self.folder = Path(folder)
        self.tokenizer = _tokenizer(self.folder, side)
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.device = "cpu"

    def to(self, device: str) -> None:
        self.model.to(device)
        self.device = device

    def inputs(self, prompts: Sequence[str], images: Sequence[Any], processor: Any, **options: Any) -> Any:  # noqa: ANN401
        pixels = {}
        if images:
            pixels = dict(processor(images=[_image(image) for image in images], return_tensors="pt"))
            counts = iter((pixels["image_grid_thw"].prod(dim=1) // processor.merge_size**2).tolist())
            prompts = [re.sub(r"<\|image_pad\|>", lambda _: "<|image_pad|>" * next(counts), text) for text in prompts]
        tokens = self.tokenizer(list(prompts), padding="longest", return_tensors="pt", **options)
        kinds = (tokens["input_ids"] == self.config["image_token_id"]).int()
        return {
            "input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"],
            **({"mm_token_type_ids": kinds} if images else {}), **pixels,
        }  # fmt: skip


class PublishedV4(_Published):
    """jina-embeddings-v4 as published; texts and images to vectors."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__(folder, "right")
        plain = {key: value for key, value in self.config.items() if key not in _UNUSED}
        self.model = _model(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(**plain), self.folder, dtype)
        weights = _weights(self.folder)
        projector = nn.Linear(
            weights["multi_vector_projector.weight"].shape[1], self.config["multi_vector_projector_dim"]
        )
        projector.load_state_dict({name: weights[f"multi_vector_projector.{name}"] for name in ("weight", "bias")})
        self.model.multi_vector_projector = projector.to(dtype)
        stated = json.loads((self.folder / "adapters" / "adapter_config.json").read_text(encoding="utf-8"))
        names = ("r", "lora_alpha", "target_modules", "exclude_modules", "lora_dropout", "use_rslora")
        lora = LoraConfig(**{name: stated[name] for name in names if stated.get(name) is not None})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for task in self.config["task_names"]:
                inject_adapter_in_model(lora, self.model, adapter_name=task)
        parameters = dict(self.model.named_parameters())
        for key, value in load_file(self.folder / "adapters" / "adapter_model.safetensors").items():
            parameters[key.removeprefix("base_model.model.")].data.copy_(value)
        self.model.eval()

    def encode_text(
        self,
        texts: Sequence[str],
        *,
        task: str = "retrieval",
        prompt_name: str = "query",
        max_length: int = 32768,
        truncate_dim: int | None = None,
        multi: bool = False,
    ) -> Any:  # noqa: ANN401
        """Vectors of texts, (n, dim) or a list of (tokens, multi_dim)."""
        found: list[Any] = []
        for at in range(0, len(texts), BATCH):
            prompts = [f"{prompt_name.capitalize()}: {text}" for text in texts[at : at + BATCH]]
            inputs = self.inputs(prompts, [], None, truncation=True, max_length=max_length)
            found += self._vectors(inputs, task, truncate_dim, multi, image=False)
        return found if multi else np.stack(found)

    def encode_image(
        self,
        images: Sequence[Any],
        *,
        task: str = "retrieval",
        truncate_dim: int | None = None,
        multi: bool = False,
        max_pixels: int | None = None,
    ) -> Any:  # noqa: ANN401
        """Vectors of images, (n, dim) or a list of (tokens, multi_dim)."""
        processor = _processor(self.folder, high=max_pixels)
        found: list[Any] = []
        for at in range(0, len(images), BATCH):
            part = images[at : at + BATCH]
            found += self._vectors(
                self.inputs([IMAGE_PROMPT] * len(part), part, processor), task, truncate_dim, multi, image=True
            )
        return found if multi else np.stack(found)

    def _vectors(self, inputs: Any, task: str, dim: int | None, multi: bool, *, image: bool) -> list[Any]:  # noqa: ANN401
        from peft.tuners.lora import LoraLayer

        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.set_adapter(task)
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        with torch.inference_mode():
            done = self.model(**inputs, output_hidden_states=True, use_cache=False)
            hidden, mask = done.hidden_states[-1], inputs["attention_mask"]
            if multi:
                rows = nn.functional.normalize(self.model.multi_vector_projector(hidden), dim=-1) * mask[..., None]
                return [row[kept.bool()].float().cpu().numpy() for row, kept in zip(rows, mask, strict=True)]
            if image:
                ids = inputs["input_ids"]
                starts = (ids == self.config["vision_start_token_id"]).int().argmax(dim=1, keepdim=True)
                ends = (ids == self.config["vision_end_token_id"]).int().argmax(dim=1, keepdim=True)
                at = torch.arange(ids.shape[1], device=ids.device)
                mask = ((at >= starts) & (at <= ends)).int()
            pooled = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            vectors = nn.functional.normalize(pooled, dim=-1)
            if dim is not None:
                vectors = nn.functional.normalize(vectors[:, :dim], dim=-1)
            return list(vectors.float().cpu().numpy())


class PublishedM0(_Published):
    """jina-reranker-m0 as published; one kind of input for each side of all pairs."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(folder, "left")
        plain = {key: value for key, value in self.config.items() if key not in _UNUSED}
        self.model = _model(Qwen2VLForConditionalGeneration, Qwen2VLConfig(**plain), self.folder, dtype)
        self.model.lm_head = nn.Identity()
        weights = _weights(self.folder)
        hidden = weights["score.0.weight"].shape[0]
        score = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        score.load_state_dict({key.removeprefix("score."): v for key, v in weights.items() if key.startswith("score.")})
        self.model.score = score.to(dtype)
        self.processor = _processor(self.folder, 3136, 602112)

    def compute_score(
        self,
        pairs: Sequence[Any],
        *,
        query_type: str = "text",
        doc_type: str = "text",
        max_length: int = 10240,
        max_query_length: int = 512,
        max_doc_length: int | None = None,
        raw: bool = False,
    ) -> Any:  # noqa: ANN401
        """Scores of (query, document) pairs, (n,)."""
        limit = max_doc_length or max(max_length - max_query_length, max_query_length)
        scores: list[float] = []
        for at in range(0, len(pairs), BATCH):
            prompts, images = [], []
            for query, document in pairs[at : at + BATCH]:
                images += [side for side, kind in ((document, doc_type), (query, query_type)) if kind == "image"]
                shown = IMAGE if doc_type == "image" else self._cut(document, limit)
                asked = IMAGE if query_type == "image" else query
                prompts.append(f"**Document**:\n{shown}\n**Query**:\n{asked}")
            scores += self._scores(
                self.inputs(prompts, images, self.processor, truncation=True, max_length=max_length - 1)
            )
        found = np.array(scores, dtype=np.float32)
        return found if raw else 1 / (1 + np.exp(np.float32(LOGIT_BIAS) - found))

    def _cut(self, text: str, limit: int) -> str:
        ids = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return self.tokenizer.decode(ids) if len(ids) >= limit else text

    def _scores(self, inputs: Any) -> list[float]:  # noqa: ANN401
        one = torch.ones(len(inputs["input_ids"]), 1, dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], one * SCORE_TOKEN], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], one], dim=1)
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], one.int() * 0], dim=1)
        else:
            # Without images transformers 5 would count positions over the padding, too.
            positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
            inputs["position_ids"] = positions.expand(3, *positions.shape)
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        with torch.inference_mode():
            done = self.model(**inputs, output_hidden_states=True, use_cache=False)
            raw: list[float] = self.model.score(done.hidden_states[-1][:, -1])[:, 0].float().tolist()
            return raw


def main(golden: Path) -> int:
    """Compare with recorded outputs; the exit status."""
    worst: dict[str, float] = {}

    def check(group: str, ours: Any, theirs: Any) -> None:  # noqa: ANN401
        worst[group] = max(worst.get(group, 0.0), float(np.abs(ours - theirs).max()))

    v4 = PublishedV4(golden / "jina-embeddings-v4")
    spec = json.loads((golden / "v4_golden.json").read_text(encoding="utf-8"))
    arrays = np.load(golden / "v4_golden.npz")
    images = [golden / "images" / name for name in spec["images"]]
    for task in v4.config["task_names"]:
        for side in ("query", "passage"):
            key = f"text/single/{task}/{side}"
            check("v4 text", v4.encode_text(spec["texts"], task=task, prompt_name=side), arrays[key])
        check("v4 image", v4.encode_image(images, task=task), arrays[f"image/single/{task}"])
    for i, rows in enumerate(v4.encode_image(images, multi=True)):
        check("v4 image rows", rows, arrays[f"image/multi/retrieval/{i}"])
    for i, rows in enumerate(v4.encode_text([spec["texts"][i] for i in (0, 1, 2, 6, 7, 12, 13, 17)], multi=True)):
        check("v4 text rows", rows, arrays[f"text/multi/retrieval/query/{i}"])
    m0 = PublishedM0(golden / "jina-reranker-m0")
    arrays = np.load(golden / "m0_golden.npz")
    for name, entry in json.loads((golden / "m0_golden.json").read_text(encoding="utf-8"))["entries"].items():
        if "torchvision" in name:
            continue
        query_type, doc_type = name.split("/")[0].split("_")
        sides = [
            [side if kind == "text" else golden / side for side, kind in zip(pair, (query_type, doc_type), strict=True)]
            for pair in entry["pairs"]
        ]
        lengths = {key: entry[key] for key in ("max_length", "max_query_length", "max_doc_length") if key in entry}
        options = {"query_type": query_type, "doc_type": doc_type, **lengths}
        check("m0 raw", m0.compute_score(sides, raw=True, **options), arrays[f"{name}/raw"])
        check("m0 score", m0.compute_score(sides, **options), arrays[f"{name}/score"])
    for group, difference in worst.items():
        print(f"{group}: {difference:.1e}")
    return int(any(difference > (3e-4 if group == "m0 raw" else 1e-4) for group, difference in worst.items()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
