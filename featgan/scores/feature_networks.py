"""Features of other networks: VGG16's fc2, and through timm DINOv2's and CLIP's."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from featgan.errors import INSTALL, UserError, first_line
from featgan.features import network as counted
from featgan.features.counter import STATISTICS
from featgan.features.settings import FeatureSettings
from featgan.images.decode import resized
from featgan.scores.classifiers import FeatureNetwork, resize_like_tensorflow1
from featgan.weights import read_weights, weights_file

SETTING = "score.features_weights"
NETWORKS = {
    "dinov2-vit-l-14": ("vit_large_patch14_dinov2.lvd142m", 224),
    "clip-vit-l-14-336": ("vit_large_patch14_clip_quickgelu_336.openai", 336),
}
"""timm's model, and the side of its images in pixels, by the names in `score.features`."""


def load(name: str, weights: str | None, device: torch.device) -> FeatureNetwork:
    """Load the network of `score.features`, whose `weights` are a file or its published ones."""
    return load_vgg16(weights, device) if name == "vgg16" else load_vit(name, weights, device)


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
        raise UserError(f"score.features: {name} needs timm: {INSTALL.format('timm')}") from error
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
                f"{SETTING}: the weights of {name} cannot be downloaded ({first_line(error)}); set "
                f"it to a local file, model.safetensors of {published['hf_hub_id']} on the HF hub"
            ) from error
    try:
        # timm would resize those of another size
        if network.pos_embed.numel() not in [state[key].numel() for key in state if "pos" in key]:
            raise ValueError("it has no positions, or those of images of another size")
        network.load_state_dict(checkpoint_filter_fn(state, network), assign=True)
    except Exception as error:  # timm tells layouts apart by names alone
        of = weights or published["hf_hub_id"]
        raise UserError(f"{SETTING}: {of} is not {name}'s: {first_line(error)}") from error
    if size != network.patch_embed.img_size[0]:
        positions, side = network.pos_embed.detach().float(), network.patch_embed.grid_size[0]
        network.set_input_size(size)
        # DINOv2's code does not antialias, as timm does, and adds 0.1 to the size
        scale = (network.patch_embed.grid_size[0] + 0.1) / side
        grid = positions[:, 1:].mT.unflatten(2, (side, side))
        grid = nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        network.pos_embed = nn.Parameter(torch.cat((positions[:, :1], grid.flatten(2).mT), dim=1))
    network.to(device, torch.float32).eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        pixels = torch.from_numpy(resized(images.cpu().numpy(), size)).to(device)
        found = network(normalize(pixels / 255, [*published["mean"]], [*published["std"]]))
        return nn.functional.normalize(found) if name.startswith("clip") else found

    return FeatureNetwork(f"{name}{suffix}", features)


def load_vgg16(weights: str | None, device: torch.device) -> FeatureNetwork:
    """Load VGG16 up to its second fully connected layer, from a file or torchvision's copy.

    As in torch-fidelity, images are resized as TensorFlow 1 did, and features [n, 4096] are taken
    after ReLU. Raises UserError if the weights cannot be read.
    """
    settings = FeatureSettings(layer="classifier.4", weights=weights or "imagenet")
    state = counted.load(settings, SETTING)
    vgg16 = counted.build(settings, state).to(device)
    statistics = [*map(list, STATISTICS["torchvision"])]

    def features(images: Tensor) -> Tensor:
        pixels = resize_like_tensorflow1(images.float(), settings.input_size)
        return vgg16(normalize(pixels, *statistics))

    suffix = f"-{counted.identity(settings)[:6]}" if weights else ""
    return FeatureNetwork(f"vgg16-fc2{suffix}", features)
