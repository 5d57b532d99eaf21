"""Vision transformers against plain matrix products, with random weights of one block."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

timm = pytest.importorskip("timm")

from featgan.errors import UserError  # noqa: E402
from featgan.scores.classifiers import FeatureNetwork  # noqa: E402
from featgan.scores.feature_networks import load_vit  # noqa: E402
from featgan.weights import State  # noqa: E402

DINO, CLIP = "dinov2-vit-l-14", "clip-vit-l-14-336"
WIDTH, HEADS = 1024, 16
SHAPES = {  # a block's tensors as timm names them, with CLIP's own names
    "norm1.weight": ("ln_1.weight", [WIDTH]),
    "norm1.bias": ("ln_1.bias", [WIDTH]),
    "attn.qkv.weight": ("attn.in_proj_weight", [3 * WIDTH, WIDTH]),
    "attn.qkv.bias": ("attn.in_proj_bias", [3 * WIDTH]),
    "attn.proj.weight": ("attn.out_proj.weight", [WIDTH, WIDTH]),
    "attn.proj.bias": ("attn.out_proj.bias", [WIDTH]),
    "norm2.weight": ("ln_2.weight", [WIDTH]),
    "norm2.bias": ("ln_2.bias", [WIDTH]),
    "mlp.fc1.weight": ("mlp.c_fc.weight", [4 * WIDTH, WIDTH]),
    "mlp.fc1.bias": ("mlp.c_fc.bias", [4 * WIDTH]),
    "mlp.fc2.weight": ("mlp.c_proj.weight", [WIDTH, 4 * WIDTH]),
    "mlp.fc2.bias": ("mlp.c_proj.bias", [WIDTH]),
}


@pytest.fixture(autouse=True)
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))


def drawn(shapes: dict[str, list[int]]) -> State:
    random = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes.items():
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.3
        found[name] = scale * torch.randn(shape, generator=random)
    return found


def dino_state() -> State:
    block = {f"blocks.0.{name}": shape for name, (_, shape) in SHAPES.items()}
    block |= {f"blocks.0.ls{n}.gamma": [WIDTH] for n in (1, 2)}
    ends = {"cls_token": [1, 1, WIDTH], "pos_embed": [1, 1 + 37**2, WIDTH], "norm.bias": [WIDTH]}
    ends |= {"norm.weight": [WIDTH], "patch_embed.proj.bias": [WIDTH], "mask_token": [1, WIDTH]}
    return drawn(ends | {"patch_embed.proj.weight": [WIDTH, 3, 14, 14]} | block)


def clip_state() -> State:
    names = {f"transformer.resblocks.0.{name}": shape for name, shape in SHAPES.values()}
    names |= {f"ln_{end}.{kind}": [WIDTH] for end in ("pre", "post") for kind in ("weight", "bias")}
    names |= {"class_embedding": [WIDTH], "positional_embedding": [1 + 24**2, WIDTH]}
    names |= {"conv1.weight": [WIDTH, 3, 14, 14], "proj": [WIDTH, 768]}
    return drawn({f"visual.{name}": shape for name, shape in names.items()})


def attention_block(x: Tensor, of: State, eps: float, activation) -> Tensor:
    """Return x [n, tokens, width] after one block; products and a softmax, as published."""
    y = layer_norm(x, [WIDTH], of["norm1.weight"], of["norm1.bias"], eps)
    y = y @ of["attn.qkv.weight"].T + of["attn.qkv.bias"]
    q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in y.chunk(3, dim=2))
    weights = (q @ k.mT / (WIDTH / HEADS) ** 0.5).softmax(dim=3)
    y = (weights @ v).transpose(1, 2).flatten(2) @ of["attn.proj.weight"].T + of["attn.proj.bias"]
    x = x + y * of.get("ls1.gamma", 1)
    y = layer_norm(x, [WIDTH], of["norm2.weight"], of["norm2.bias"], eps)
    y = activation(y @ of["mlp.fc1.weight"].T + of["mlp.fc1.bias"])
    return x + (y @ of["mlp.fc2.weight"].T + of["mlp.fc2.bias"]) * of.get("ls2.gamma", 1)


def tokens(pixels: Tensor, kernel: Tensor, first: Tensor) -> Tensor:
    patches = conv2d(pixels, kernel, stride=14).flatten(2).mT
    return torch.cat((first.expand(len(pixels), 1, -1), patches), dim=1)


def pixels_of(images: Tensor, size: int, mean: list[float], std: list[float]) -> Tensor:
    resized = [Image.fromarray(i.permute(1, 2, 0).numpy()).resize((size, size), 3) for i in images]
    rows = torch.from_numpy(np.stack(resized))
    return ((rows / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


def cubic_weights(source: int, target: int) -> Tensor:
    """Return Keys' weights [target, source], a = -0.75, at DINOv2's places."""
    matrix = torch.zeros(target, source)
    for i in range(target):
        at = (i + 0.5) * source / (target + 0.1) - 0.5
        for j in range(int(at) - 1, int(at) + 3):
            t = abs(at - j)
            near = 1.25 * t**3 - 2.25 * t**2 + 1
            weight = near if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[i, min(max(j, 0), source - 1)] += weight
    return matrix


def images(count: int, size: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), generator=random, dtype=torch.uint8)


def loaded(tmp_path: Path, name: str, state: State) -> FeatureNetwork:
    save_file(state, tmp_path / "weights.safetensors")
    return load_vit(name, str(tmp_path / "weights.safetensors"), torch.device("cpu"))


def test_dinov2_features_are_its_class_token(tmp_path: Path) -> None:
    state, some = dino_state(), images(2, 32)
    x = pixels_of(some, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    x = tokens(x, state["patch_embed.proj.weight"], state["cls_token"])
    x[:, 1:] += state["patch_embed.proj.bias"]
    weights = cubic_weights(37, 16)
    grid = state["pos_embed"][0, 1:].view(37, 37, WIDTH)
    x[:, 1:] += torch.einsum("ai,bj,ijd->abd", weights, weights, grid).flatten(0, 1)
    x[:, 0] += state["pos_embed"][0, 0]
    block = {name.removeprefix("blocks.0."): tensor for name, tensor in state.items()}
    x = attention_block(x, block, 1e-6, gelu)
    expected = layer_norm(x[:, 0], [WIDTH], state["norm.weight"], state["norm.bias"], 1e-6)

    network = loaded(tmp_path, DINO, state)
    found = network.features(some)
    assert found.shape == (2, 1024)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert network.name.startswith(f"{DINO}-")
    del state["mask_token"]  # timm's own layout
    assert torch.equal(loaded(tmp_path, DINO, state).features(some), found)


def test_clip_features_are_its_unit_embedding(tmp_path: Path) -> None:
    state, some = clip_state(), images(2, 64)
    own = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    x = tokens(pixels_of(some, 336, mean, std), own["conv1.weight"], own["class_embedding"])
    x = x + own["positional_embedding"]
    x = layer_norm(x, [WIDTH], own["ln_pre.weight"], own["ln_pre.bias"], 1e-5)
    block = {name: own[f"transformer.resblocks.0.{theirs}"] for name, (theirs, _) in SHAPES.items()}
    x = attention_block(x, block, 1e-5, lambda y: y * (1.702 * y).sigmoid())
    x = layer_norm(x[:, 0], [WIDTH], own["ln_post.weight"], own["ln_post.bias"], 1e-5) @ own["proj"]

    found = loaded(tmp_path, CLIP, state).features(some)
    assert found.shape == (2, 768)
    torch.testing.assert_close(found, x / x.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-5)


def test_weights_of_another_network_or_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"score.features_weights: \S+ is not {CLIP}'s: "):
        loaded(tmp_path, CLIP, dino_state())
    state = clip_state()
    state["visual.positional_embedding"] = torch.zeros(1 + 16**2, WIDTH)  # of 224 pixels
    with pytest.raises(UserError, match=f"is not {CLIP}'s: .* of another size"):
        loaded(tmp_path, CLIP, state)
    state = dino_state()
    del state["blocks.0.ls1.gamma"]
    with pytest.raises(UserError, match=f"is not {DINO}'s: "):
        loaded(tmp_path, DINO, state)


def test_a_failed_download_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> State:
        raise OSError(f"no route\nto {name}")

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", fail)
    with pytest.raises(UserError) as caught:
        load_vit(DINO, None, torch.device("cpu"))
    assert str(caught.value) == (
        "score.features_weights: the weights of dinov2-vit-l-14 cannot be downloaded (no route); "
        "set it to a local file, model.safetensors of timm/vit_large_patch14_dinov2.lvd142m on the "
        "HF hub"
    )


def test_timm_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=rf"^score.features: {CLIP} needs timm: pip install"):
        load_vit(CLIP, None, torch.device("cpu"))
