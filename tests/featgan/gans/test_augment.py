"""DiffAugment: what each change does, to which pixels, and that a gradient comes through."""

import pytest
import torch

from featgan.gans.augment import augment

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["color", "translation", "cutout"]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=64, side=32):
    return torch.rand((count, 3, side, side), generator=random(9)) * 2 - 1


def test_without_kinds_nothing_changes_and_nothing_is_drawn():
    images, generator = pictures(2), random()
    before = generator.get_state()
    assert augment(images, [], generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_follows_the_generator_and_varies_by_image(kind):
    images = pictures(1).expand(16, -1, -1, -1)
    changed = augment(images, [kind], random(1))
    torch.manual_seed(5)
    assert torch.equal(augment(images, [kind], random(1)), changed)
    assert not torch.equal(augment(images, [kind], random(2)), changed)
    assert len({image.numpy().tobytes() for image in changed}) > 10


def test_a_translated_image_is_moved_with_grey_edges():
    images = pictures(200, side=16)
    seen = set()
    for image, moved in zip(images, augment(images, ["translation"], random()), strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        places = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(padded[:, 2 - down : 18 - down, 2 - right : 18 - right], moved)
        ]
        assert len(places) == 1
        seen |= {*places}
    assert len(seen) == 25  # every shift of up to an eighth, both ways


def test_cutout_makes_a_square_of_half_the_side_grey():
    images = pictures(300) + 3  # no pixel is grey by itself
    changed = augment(images, ["cutout"], random())
    grey = (changed == 0).all(dim=1)
    assert torch.equal(changed[~grey.unsqueeze(1).expand_as(images)],
                       images[~grey.unsqueeze(1).expand_as(images)])  # fmt: skip
    heights, widths = grey.any(dim=2).sum(dim=1), grey.any(dim=1).sum(dim=1)
    assert torch.equal(grey.sum(dim=(1, 2)), heights * widths)  # rectangles
    assert (heights.max(), widths.max()) == (16, 16)
    assert (heights.min(), widths.min()) == (8, 8)  # centred on the border
    assert (heights == 16).float().mean().item() == pytest.approx(17 / 33, abs=0.1)


def test_colors_move_in_the_papers_bounds():
    """Saturation and contrast do not change a grey image, so only brightness remains."""
    shift = augment(torch.zeros(2000, 3, 2, 2), ["color"], random())[:, 0, 0, 0]
    assert -0.5 <= shift.min() < -0.49
    assert 0.49 < shift.max() <= 0.5
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0] = 0.3  # red everywhere: no contrast between places
    changed = augment(image.expand(2000, -1, -1, -1), ["color"], random())
    spread = (changed[:, 0] - changed[:, 1]).mean(dim=(1, 2)) / 0.3  # saturation × contrast
    assert spread.min() < 0.02
    assert 2.5 < spread.max() <= 3.0
    image = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)  # grey: contrast alone
    changed = augment(image.expand(2000, -1, -1, -1), ["color"], random())
    contrast = (changed[:, 0, 0, 1] - changed[:, 0, 0, 0]) / 2
    assert 0.5 <= contrast.min() < 0.51
    assert 1.49 < contrast.max() <= 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_goes_through_the_changes(kind):
    images = pictures(3, side=8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, [kind], random()), (images,))
