"""Each task of the pre-training damages patches as it says: genesis as the paper does, masked_cubes by its options."""

import numpy as np
import pytest
import torch
from monai.transforms import CopyItemsd, DeleteItemsd

from nnunet_ext.data import RandFlipsd, RandLocalShuffled, RandNonlinearIntensityd, RandPaintd

TINY = {"base_channels": 4, "image_size": [24, 24], "patch_depth": 16, "num_workers": 0, "cache_dir": "cache"}
PAPER = [
    (RandFlipsd, {"keys": ("image",), "prob": 0.4, "max_flips": 3}),
    (DeleteItemsd, {"keys": ("label",)}),
    (CopyItemsd, {"keys": ("image",), "names": ("label",)}),
    (RandLocalShuffled, {"keys": ("image",), "prob": 0.5, "num_blocks": 10_000}),
    (RandNonlinearIntensityd, {"keys": ("image",), "prob": 0.9, "invert_prob": 0.5}),
    (RandPaintd, {"keys": ("image",), "prob": 0.9, "inside_share": 0.2, "max_boxes": 5, "continue_prob": 0.95}),
]
"""Zhou et al. 2021: the chain, and what is kept of it between damage that is the network's to undo and that is not."""


@pytest.fixture
def pretraining(genesis, tiny_phantom, workspace):
    """Return the parser of a pre-training with some options."""

    def parser(**options):
        given = {**TINY, "dataset_dir": str(tiny_phantom), "output_dir": "pre", **options}
        return genesis.workflow("pretrain", **given).parser

    return parser


def blank_cubes(item: dict, side: int) -> np.ndarray:
    """Return whether each cube of the grid holds the patch's mean alone, and the original does not."""
    image, label = item["image"][0].numpy(), item["label"][0].numpy()
    blank = np.isclose(image, label.mean(), rtol=0, atol=1e-5) & ~np.isclose(label, label.mean(), rtol=0, atol=1e-5)
    grid = [size // side for size in image.shape]
    cubes = blank.reshape(grid[0], side, grid[1], side, grid[2], side)
    return cubes.mean(axis=(1, 3, 5)) > 0.9  # some voxel may have had the mean before


@pytest.mark.parametrize("part", ["train", "validate"])
@pytest.mark.parametrize("options", [{}, {"task": "genesis"}])
def test_genesis_is_the_chain_of_the_paper(pretraining, part, options):
    transforms = pretraining(**options).get_parsed_content(f"{part}::dataset").transform.flatten().transforms
    assert [type(transform) for transform in transforms] == [kind for kind, _ in PAPER]
    for transform, (_, expected) in zip(transforms, PAPER, strict=True):
        found = {name: getattr(transform, name) for name in expected}
        assert {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()} == expected


@pytest.mark.parametrize(("intensities", "expected"), [("unit", [0.0, 1.0]), ("nnunet", None)])
def test_curve_and_noise_run_over_the_range_of_the_intensities(pretraining, intensities, expected):
    """z-scores have no range of their own: each patch gives its own."""
    transforms = pretraining(intensities=intensities).get_parsed_content("train::dataset").transform.transforms
    assert [t.value_range for t in transforms if isinstance(t, RandNonlinearIntensityd | RandPaintd)] == [expected] * 2


@pytest.mark.parametrize("part", ["train", "validate"])
@pytest.mark.parametrize(("side", "share"), [(8, 0.6), (4, 0.25)])
def test_masked_cubes_blanks_its_share_of_cubes_of_its_side_and_nothing_else(pretraining, part, side, share):
    parser = pretraining(task="masked_cubes", mask_side=side, mask_share=share, batch_size=4)
    batch = next(iter(parser.get_parsed_content(f"{part}::dataloader")))
    assert len(batch["image"]) == 4
    for number in range(4):
        item = {key: batch[key][number] for key in ("image", "label")}
        cubes = blank_cubes(item, side)
        assert cubes.sum() == round(share * cubes.size)
        blank = torch.from_numpy(np.kron(cubes, np.ones([side] * 3, bool)))
        assert torch.equal(item["image"][0][~blank], item["label"][0][~blank])


def test_cubes_have_side_8_and_share_0_6_by_default(pretraining):
    batch = next(iter(pretraining(task="masked_cubes").get_parsed_content("train::dataloader")))
    cubes = blank_cubes({key: batch[key][0] for key in ("image", "label")}, 8)
    assert (cubes.size, cubes.sum()) == (18, 11)  # 2 x 3 x 3 cubes, of which round(0.6 * 18)


def test_genesis_blanks_no_cubes(pretraining):
    batch = next(iter(pretraining(task="genesis", mask_side=8, batch_size=4).get_parsed_content("train::dataloader")))
    for number in range(4):
        assert not blank_cubes({key: batch[key][number] for key in ("image", "label")}, 8).any()
