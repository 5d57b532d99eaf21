"""Features of vision transformers through timm: DINOv2's class token, CLIP's image embedding."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from featgan.errors import INSTALL, UserError, first_line
from featgan.images.decode import resized
from featgan.scores.classifiers import FeatureNetwork
from featgan.weights import read_weights, weights_file

SETTING = "score.features_weights"
NETWORKS = {
    "dinov2-vit-l-14": ("vit_large_patch14_dinov2.lvd142m", 224),
    "clip-vit-l-14-336": ("vit_large_patch14_clip_quickgelu_336.openai", 336),
}
"""timm's model, and the side of its images in pixels, by the names in `score.features`."""


def load_vit(name: str, weights: str | None, device: torch.device) -> FeatureNetwork:
    """Load a vision transformer from a file, or download its weights through timm.

    Images are resized by Pillow's bicubic filter. DINOv2's features [n, 1024] are those of
    FD-DINOv2 (Stein et al. 2023), CLIP's [n, 768] those of CMMD (Jayasumana et al. 2024), of
    length 1. A file has timm's names of tensors, or those of the authors. Raises UserError if timm
    or the weights are missing, or the file is another network's.
    """
    try:
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn
    except ImportError as error:
        raise UserError(
            f"score.features: {name} needs timm: {INSTALL.format('timm')}, or choose vgg16"
        ) from error
    model, size = NETWORKS[name]
    with torch.device("meta"):
        network: Any = timm.create_model(model)
    published, suffix = network.pretrained_cfg, ""
    if weights:
        file, digest = weights_file(weights, "", SETTING)
        state, suffix = read_weights(file, SETTING), f"-{digest[:6]}"
    else:
        try:
            state = timm.models.load_state_dict_from_hf(published["hf_hub_id"])
        # the hub's client raises errors of its own, of the network and of the file system
        except Exception as error:
            raise UserError(
                f"{SETTING}: the weights of {name} cannot be downloaded ({first_line(error)}); "
                f"fetch model.safetensors of {published['hf_hub_id']} from the Hugging Face hub on "
                f"a machine with access, and set {SETTING} to its path"
            ) from error
    try:
        positions = [tensor.numel() for key, tensor in state.items() if "pos" in key]
        if network.pos_embed.numel() not in positions:  # timm would resize them
            raise ValueError("it has no positions, or those of images of another size")
        network.load_state_dict(checkpoint_filter_fn(state, network), assign=True)
    except Exception as error:  # timm tells layouts apart by names alone
        raise UserError(f"{SETTING}: {weights} is not {name}'s: {first_line(error)}") from error
    if size != network.patch_embed.img_size[0]:
        trained = network.pos_embed.detach()
        network.set_input_size(size)
        network.pos_embed = nn.Parameter(_resize_positions(trained, network.patch_embed.grid_size))
    network.to(device, torch.float32).eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        pixels = torch.from_numpy(resized(images.cpu().numpy(), size)).to(device)
        found = network(normalize(pixels / 255, [*published["mean"]], [*published["std"]]))
        return nn.functional.normalize(found) if name.startswith("clip") else found

    return FeatureNetwork(f"{name}{suffix}", features)


def _resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize position embeddings [1, 1 + n², d] to a grid as DINOv2's code does.

    It does not antialias, as timm does, and adds 0.1 to the size that scales the coordinates.
    """
    side = isqrt(positions.shape[1])
    patches = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = [(length + 0.1) / side for length in grid]
    patches = nn.functional.interpolate(patches.float(), scale_factor=scale, mode="bicubic")
    return torch.cat((positions[:, :1].float(), patches.flatten(2).mT), dim=1)
