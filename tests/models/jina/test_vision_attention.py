"""Vision towers (`jina_rag.models.jina.vision_attention`, `fused_layers`): equal to the stock towers, in few calls."""

from __future__ import annotations

import copy
import itertools
import logging
import sys
import types
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402  # behind the check for torch
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from jina_rag import load_embedder, load_reranker  # noqa: E402
from jina_rag.models.jina import vision_attention  # noqa: E402
from jina_rag.models.jina.fused_layers import GatedMLP, QuickGELUMLP, RMSNorm, replace_layers  # noqa: E402
from jina_rag.models.jina.vision_attention import VisionTower, varlen_kernel  # noqa: E402
from jina_rag.models.runtime.devices import Placement  # noqa: E402
from jina_rag.testing import make_page  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ONE = [(1, 24, 18)]
THREE = [(1, 24, 18), (1, 10, 28), (1, 16, 16)]
EIGHT = [(1, 24, 18), (1, 10, 28), (1, 16, 16), (1, 6, 6), (1, 4, 30), (1, 22, 14), (1, 2, 2), (1, 18, 26)]
BATCHES = {"one": ONE, "three": THREE, "eight": EIGHT, "equal": [(1, 24, 18)] * 3, "repeated": [*THREE, *THREE[::-1]]}


def stock_tower(family):
    """A random stock tower: v4 with windows of 4 x 4 tokens, as published, and full attention in the second block."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLConfig, Qwen2VLModel

    text = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 64,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "v4":
        vision = {
            "depth": 3, "hidden_size": 64, "intermediate_size": 80, "num_heads": 4, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 112,
        }  # fmt: skip
        model = Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    else:
        vision = {"depth": 2, "embed_dim": 64, "mlp_ratio": 2, "num_heads": 4, "hidden_size": 32}
        model = Qwen2VLModel(Qwen2VLConfig(**text, vision_config=vision))
    tower = model.visual.eval()
    for parameter in tower.parameters():  # norms and biases of a new model are trivial
        torch.nn.init.normal_(parameter, std=0.15) if parameter.dim() > 1 else torch.nn.init.normal_(
            parameter, 0.5, 0.3
        )
    return tower


def own_tower(stock, dtype=torch.float32):
    """The tower of the package, with copies of the weights."""
    stock = copy.deepcopy(stock)
    replace_layers(stock)
    return VisionTower(stock, Placement(CPU, dtype, 1024)).eval()


@pytest.fixture(scope="module", params=["v4", "m0"])
def stock(request):
    return stock_tower(request.param)


def inputs(grids, seed=1):
    patches = sum(time * height * width for time, height, width in grids)
    pixels = torch.randn(patches, 1176, generator=torch.Generator().manual_seed(seed))
    return pixels, torch.tensor(grids)


@torch.inference_mode()
def features_of(tower, grids, seed=1):
    output = tower(*inputs(grids, seed))
    return output if isinstance(output, torch.Tensor) else output.pooler_output


class AttentionCalls(TorchFunctionMode):
    """Counts calls of PyTorch's attention since the last `take`."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))

    def take(self):
        count, self.count = self.count, 0
        return count


def calls_per_block(tower, grids):
    """Number of attention calls of each block of a tower."""
    counts = []
    with AttentionCalls() as calls:
        handles = [block.register_forward_hook(lambda *_: counts.append(calls.take())) for block in tower.blocks]
        features_of(tower, grids)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("batch", BATCHES)
def test_features_equal_the_stock_tower(stock, batch):
    expected, features = features_of(stock, BATCHES[batch]), features_of(own_tower(stock), BATCHES[batch])
    assert features.shape == expected.shape
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))


@pytest.mark.parametrize("batch", BATCHES)
def test_at_most_four_attention_calls_a_layer(stock, batch):
    counts = calls_per_block(own_tower(stock), BATCHES[batch])
    assert len(counts) == len(stock.blocks)
    assert 1 <= min(counts)
    assert max(counts) <= 4
    stock_counts = calls_per_block(stock, BATCHES[batch])
    assert sum(counts) <= sum(stock_counts)
    if batch == "eight":
        assert max(stock_counts) >= 8


def test_equal_images_attend_in_one_call(stock):
    """Full attention over images of one size takes one call; windows of one size take one call for each size."""
    counts = calls_per_block(own_tower(stock), BATCHES["equal"])
    is_windowed = hasattr(stock, "fullatt_block_indexes")
    # A grid of 12 x 9 tokens has windows of 4 x 4 and of 4 x 1 tokens.
    assert counts == ([2, 1, 2] if is_windowed else [1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_of_two_equal_frames_gives_the_same_embeddings(stock, dtype):
    embed = own_tower(copy.deepcopy(stock).to(dtype), dtype).patch_embed
    frame = torch.randn(5, 3, 1, 196, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        expected = embed(frame.expand(-1, -1, 2, -1).reshape(5, -1))
        torch.testing.assert_close(embed(frame.reshape(5, -1)), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_close_to_float32(stock):
    tower = own_tower(stock)
    expected = features_of(tower, THREE)
    half = own_tower(copy.deepcopy(stock).bfloat16(), torch.bfloat16)
    half.rotary_pos_emb.inv_freq = tower.rotary_pos_emb.inv_freq  # stays float32 in a loaded model
    assert half._create_inputs(THREE).cosines.dtype == torch.float32
    pixels, grids = inputs(THREE)
    with torch.no_grad():
        features = half(pixels.bfloat16(), grids)
    assert features.dtype == torch.bfloat16
    assert torch.cosine_similarity(features.float(), expected, dim=1).min() > 0.995


def test_gradients_equal_the_stock_tower(stock):
    """The gradient of the features with respect to the pixels, as the explanation of a score needs it."""
    own = own_tower(stock)
    with torch.inference_mode():  # a pass in inference mode first: its cached tensors must allow gradients
        features_of(own, EIGHT)
    gradients = []
    for tower in (stock, own):
        pixels, grids = inputs(EIGHT)
        output = tower(pixels.requires_grad_(True), grids)
        output = output if isinstance(output, torch.Tensor) else output.pooler_output
        gradients.append(torch.autograd.grad((output * output.detach().sin()).sum(), pixels)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5 * float(gradients[0].abs().max()))


# Inputs that depend on the image sizes only


def count_layouts(monkeypatch):
    calls = []
    original = vision_attention.tower_layout
    monkeypatch.setattr(
        vision_attention, "tower_layout", lambda grids, **options: calls.append(grids) or original(grids, **options)
    )
    return calls


def test_repeated_image_sizes_reuse_the_inputs_on_the_device(stock, monkeypatch):
    layouts, tower = count_layouts(monkeypatch), own_tower(stock)
    outputs = [features_of(tower, grids, seed) for seed in (1, 2, 1) for grids in (THREE, ONE)]
    assert layouts == [tuple(THREE), tuple(ONE)]
    torch.testing.assert_close(outputs[4], outputs[0], rtol=0, atol=0)
    assert not torch.equal(outputs[2], outputs[0])


def test_number_of_inputs_on_the_device_is_bounded(stock, monkeypatch):
    layouts, tower = count_layouts(monkeypatch), own_tower(stock)
    monkeypatch.setattr(vision_attention, "_CACHED_PATCHES", 1000)
    sizes = [[(1, 2 * n, 18)] for n in range(1, 20)]
    for grids in sizes:
        features_of(tower, grids)
        kept = [sum(height * width for _, height, width in grids) for grids in tower._inputs]
        assert sum(kept) <= 1000 or len(kept) == 1
    assert len(tower._inputs) < len(sizes)
    features_of(tower, sizes[-1])  # the most recent inputs were kept, the oldest ones dropped
    assert len(layouts) == len(sizes)
    features_of(tower, sizes[0])
    assert len(layouts) == len(sizes) + 1


class HostReads(TorchDispatchMode):
    """Names of operators that read a value of a tensor into the host, so that the host waits for the device."""

    WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in self.WAITING or name.startswith("unique"):
            self.names.append(name)
        # A boolean index is converted to positions, whose number the host must know.
        if "index" in name and any(x.dtype == torch.bool for x in tree_leaves(args[1:]) if isinstance(x, torch.Tensor)):
            self.names.append("nonzero")
        return func(*args, **(kwargs or {}))


class Conversions(TorchFunctionMode):
    """Names of methods that convert a tensor to Python values, which is no operator for a tensor in host memory."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__"):
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads(monkeypatch):
    """Names of the reads of the context, without the image sizes, which are in host memory."""
    monkeypatch.setattr(vision_attention, "_sizes", lambda grids: tuple(map(tuple, grids.numpy().tolist())))
    with HostReads() as reads, Conversions() as conversions:
        names = []
        yield names
    names += reads.names + conversions.names


def test_mode_notices_a_host_read(monkeypatch):
    with host_reads(monkeypatch) as names:
        torch.ones(2).sum().item()
        torch.ones(2)[torch.tensor([True, False])]
        torch.ones(2).tolist()
    assert names == ["_local_scalar_dense", "nonzero", "item", "tolist"]


def test_v4_forward_pass_reads_nothing_from_the_device(tiny, monkeypatch):
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    pages = [make_page(f"page {n}", size=size) for n, size in enumerate([(300, 400), (500, 200), (90, 90)])]
    with host_reads(monkeypatch) as names:
        v4.encode_document([*pages, "a text", ["two parts", pages[0]]])
        v4.encode_query(["a query"])
    assert names == []


def test_m0_forward_pass_reads_nothing_from_the_device(tiny, monkeypatch):
    m0 = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    pages = [make_page(f"page {n}", size=size) for n, size in enumerate([(300, 400), (500, 200)])]
    with host_reads(monkeypatch) as names:
        m0.score("a query", [*pages, "a text"])
        m0.score("another query", [*pages, "a text"])  # the pages are cached
    assert m0.prefix_cache.use.hits
    assert names == []


@pytest.mark.parametrize("kernel", [None, "pytorch"])
def test_pass_on_a_device_without_data_reads_nothing(stock, kernel, monkeypatch):
    """On the meta device, reading a value raises an error, and so does mixing devices.

    With PyTorch's kernel for sequences of different lengths, its operator checks and returns shapes only.
    """
    if kernel is not None:
        kernel = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    monkeypatch.setattr(vision_attention, "varlen_kernel", lambda *_: kernel)
    meta = torch.device("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(2, device=meta).sum().item()
    on_meta = copy.deepcopy(stock).to(device=meta, dtype=torch.bfloat16)
    replace_layers(on_meta)
    tower = VisionTower(on_meta, Placement(meta, torch.bfloat16, 1024))
    patches = sum(height * width for _, height, width in EIGHT)
    with torch.inference_mode():
        features = tower(torch.empty(patches, 1176, dtype=torch.bfloat16, device=meta), torch.tensor(EIGHT))
    assert features.device == meta
    assert features.dtype == torch.bfloat16
    assert features.shape == (patches // 4, 32)


# Kernels for sequences of different lengths


class FakeKernel:
    """A kernel with the arguments that PyTorch 2.10 to 2.13 and flash-attn share; computed on the CPU."""

    def __init__(self, error=0.0):
        self.calls, self.error = [], error

    def __call__(self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        limits = cu_seq_q.tolist()
        assert max_q == max_k == max(stop - start for start, stop in itertools.pairwise(limits))
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        assert query.dtype == key.dtype == value.dtype
        self.calls.append(len(limits) - 1)
        parts = [
            functional.scaled_dot_product_attention(*(x[start:stop].transpose(0, 1) for x in (query, key, value)))
            for start, stop in itertools.pairwise(limits)
        ]
        return torch.cat(parts, dim=1).transpose(0, 1) + self.error


@pytest.mark.parametrize("batch", BATCHES)
def test_kernel_attends_in_one_call_a_layer(stock, batch, monkeypatch):
    kernel = FakeKernel()
    monkeypatch.setattr(vision_attention, "varlen_kernel", lambda *_: kernel)
    features, expected = features_of(own_tower(stock), BATCHES[batch]), features_of(stock, BATCHES[batch])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))
    assert len(kernel.calls) == len(stock.blocks)
    assert kernel.calls[1] == len(BATCHES[batch])  # full attention: one sequence for each image


def kernels(monkeypatch, torch_kernel, flash_kernel):
    """Replace the kernels of PyTorch and of flash-attn; None removes a kernel."""
    for module, name, kernel in (
        ("torch.nn.attention.varlen", "varlen_attn", torch_kernel),
        ("flash_attn", "flash_attn_varlen_func", flash_kernel),
    ):
        stand_in = None if kernel is None else types.SimpleNamespace(**{name: kernel})
        monkeypatch.setitem(sys.modules, module, stand_in)  # None makes the import fail


def unusable(*_):
    raise RuntimeError("USE_FLASH_ATTENTION was not enabled for build.")


def wrong_arguments(_query):
    raise AssertionError("not called")


def unsupported_width(*_):
    raise AssertionError("head width not supported")  # flash-attn checks some of its arguments by assert


GOOD, OTHER, WRONG = FakeKernel(), FakeKernel(), FakeKernel(error=1.0)


@pytest.mark.parametrize(
    ("torch_kernel", "flash_kernel", "expected"),
    [
        (GOOD, OTHER, GOOD),
        (GOOD, None, GOOD),
        (None, OTHER, OTHER),
        (unusable, OTHER, OTHER),
        (wrong_arguments, OTHER, OTHER),
        (WRONG, OTHER, OTHER),
        (unsupported_width, OTHER, OTHER),
        (None, unsupported_width, None),
        (unusable, unusable, None),
        (None, None, None),
    ],
)
def test_first_working_kernel_is_selected(torch_kernel, flash_kernel, expected, monkeypatch):
    kernels(monkeypatch, torch_kernel, flash_kernel)
    assert vision_attention._working_kernel(CPU, torch.bfloat16, 4, 16) is expected


def test_wrong_kernel_is_reported(monkeypatch, caplog):
    kernels(monkeypatch, WRONG, None)
    with caplog.at_level(logging.WARNING, "jina_rag"):
        assert vision_attention._working_kernel(CPU, torch.float16, 4, 16) is None
    assert "varlen_attn returns wrong results on cpu" in caplog.text


def test_kernel_that_cannot_be_used_is_logged(monkeypatch, caplog):
    kernels(monkeypatch, None, unsupported_width)
    with caplog.at_level(logging.DEBUG, "jina_rag"):
        assert vision_attention._working_kernel(CPU, torch.float16, 4, 16) is None
    assert "flash_attn.flash_attn_varlen_func cannot be used on cpu: head width not supported" in caplog.text


def test_kernel_out_of_memory_is_not_hidden(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    kernels(monkeypatch, full, GOOD)
    with pytest.raises(torch.OutOfMemoryError):
        vision_attention._working_kernel(CPU, torch.bfloat16, 4, 16)


@pytest.mark.parametrize(
    ("device", "dtype", "is_tried"),
    [
        ("cuda", torch.bfloat16, True),
        ("cuda:1", torch.float16, True),
        ("cuda", torch.float32, False),
        ("cpu", torch.bfloat16, False),
        ("mps", torch.float16, False),
    ],
)
def test_kernels_are_tried_on_cuda_in_half_precision(device, dtype, is_tried, monkeypatch):
    tried = []
    monkeypatch.setattr(vision_attention, "_working_kernel", lambda *arguments: tried.append(arguments) or GOOD)
    kernel = varlen_kernel(torch.device(device), dtype, 4, 80)
    assert (kernel is GOOD) is is_tried
    assert tried == ([(torch.device(device), dtype, 4, 80)] if is_tried else [])


def test_kernel_of_pytorch_takes_the_arguments_that_are_passed():
    """The signature of the installed PyTorch; the operator itself needs a GPU."""
    import inspect

    varlen = pytest.importorskip("torch.nn.attention.varlen")
    inspect.signature(varlen.varlen_attn).bind(*("query", "key", "value", "limits", "limits", 5, 5))


# Norms and feed-forward layers


def test_layers_of_both_architectures_are_replaced():
    for family, kind in (("v4", GatedMLP), ("m0", QuickGELUMLP)):
        tower = own_tower(stock_tower(family))
        assert all(isinstance(block.mlp, kind) for block in tower.blocks)
        assert all(isinstance(block.norm1, RMSNorm) == (family == "v4") for block in tower.blocks)
        assert set(tower.state_dict()) == set(stock_tower(family).state_dict())


def test_layers_of_another_activation_are_kept():
    stock = stock_tower("v4")
    stock.blocks[0].mlp.act_fn = torch.nn.GELU()
    kept = stock.blocks[0].mlp
    replace_layers(stock)
    assert stock.blocks[0].mlp is kept


@pytest.mark.parametrize("family", ["v4", "m0"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_layer_equals_the_stock_layer(family, dtype, tolerance):
    block = stock_tower(family).blocks[0].to(dtype)
    own = copy.deepcopy(block)
    replace_layers(own)
    hidden = torch.randn(7, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    for name in ("norm1", "mlp"):
        before = hidden.clone()
        gradients = []
        for layer in (getattr(block, name), getattr(own, name)):
            value = hidden.clone().requires_grad_(True)
            output = layer(value)
            gradients.append(torch.autograd.grad(output.float().square().sum(), value)[0])
            with torch.no_grad():
                outputs = [getattr(module, name)(hidden) for module in (block, own)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradients[1], gradients[0], rtol=10 * tolerance, atol=10 * tolerance)
        assert torch.equal(hidden, before)  # the in-place steps change no input
