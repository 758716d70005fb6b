"""Heat maps over slices."""

from types import SimpleNamespace

import numpy as np
import torch
from matplotlib import image
from torch import nn

from nnunet_ext.bundle.explanations import Explanations, grad_cam
from nnunet_ext.data.label_map import LabelMap

LABELS = LabelMap(("organ",), ((1,),))


class Bright(nn.Module):
    """Foreground where the image is bright, by a layer that Grad-CAM can look at."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, x):
        bright, _ = self.features(x).split(1, dim=1)
        return torch.cat([torch.zeros_like(bright), bright], dim=1)


def square() -> torch.Tensor:
    volume = torch.zeros(1, 3, 16, 20)
    volume[:, 1, 4:8, 10:16] = 1
    return volume


def test_grad_cam_is_high_where_features_speak_for_the_region():
    x = square()[:, 1][None]
    heat = grad_cam("features")(Bright().eval(), x, x[:, 0] > 0)
    assert heat.shape == (1, 16, 20)
    assert heat[0, 4:8, 10:16].min() > heat[0, :4].max()


def test_picture_shows_the_slice_with_the_most_foreground(tmp_path):
    volume = square()
    network = Bright().eval()
    logits = torch.stack([network(volume[None, :, number])[0] for number in range(3)], dim=1)
    seen = []

    def explain(network, images, region):
        seen.append((images, region))
        return region.float()

    state = SimpleNamespace(batch={"case": ["a"]}, output={"image": volume[None], "pred": logits[None]})
    Explanations(tmp_path, network, explain, (32, 40), LABELS)(SimpleNamespace(state=state))
    (images, region), picture = seen[0], image.imread(tmp_path / "a.png")
    assert images.shape == (1, 1, 32, 40)
    assert region.sum() == 4 * 6 * 4  # four times the pixels on the canvas of twice the size
    assert picture.shape[:2] == (24 * 16, 3 * 24 * 20)  # enlarged for people
    heat = picture[::24, 24 * 40 :: 24, :3].sum(-1)
    assert heat[4:8, 10:16].mean() > np.delete(heat, slice(4, 8), axis=0).mean()
