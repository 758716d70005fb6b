import time

import numpy as np
import pytest
import torch
from monai.transforms import Compose, CopyItemsd

from nnunet_ext.data.corruptions import (
    RandFlipsd,
    RandLocalShuffled,
    RandMaskCubesd,
    RandNonlinearIntensityd,
    RandPaintd,
    bezier_curve,
)
from nnunet_ext.errors import OptionError

CORRUPTIONS = [RandLocalShuffled, RandNonlinearIntensityd, RandPaintd, RandMaskCubesd]
each_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS)
SHAPES = [(1, 16, 16, 16), (2, 24, 17, 40), (1, 64, 64, 32), (3, 16, 21)]


def random_image(shape=(1, 24, 24, 24), seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def always(corruption, **options):
    return corruption("image", prob=1.0, **options).set_random_state(seed=0)


def share_of(event, repeats: int = 2000) -> float:
    return sum(bool(event()) for _ in range(repeats)) / repeats


@each_corruption
@pytest.mark.parametrize("shape", SHAPES)
def test_damage_keeps_shape_type_range_and_the_input(corruption, shape):
    image = random_image(shape)
    before = image.clone()
    damaged = always(corruption)({"image": image})["image"]
    assert (damaged.shape, damaged.dtype) == (image.shape, image.dtype)
    assert damaged.min() >= 0
    assert damaged.max() <= 1
    assert not torch.equal(damaged, image)
    assert torch.equal(image, before)


@each_corruption
def test_arrays_stay_arrays(corruption):
    damaged = always(corruption)({"image": random_image().numpy()})["image"]
    assert isinstance(damaged, np.ndarray)
    assert damaged.dtype == np.float32


@pytest.mark.parametrize("corruption", [RandNonlinearIntensityd, RandPaintd, RandMaskCubesd])
def test_without_a_range_the_damage_stays_in_that_of_the_image(corruption):
    image = random_image() * 5 - 3
    damaged = always(corruption, value_range=None)({"image": image})["image"]
    assert damaged.min() >= image.min()
    assert damaged.max() <= image.max()


@each_corruption
def test_constant_image_stays_finite(corruption):
    image = torch.full((1, 16, 16, 16), 0.25)
    options = {} if corruption is RandLocalShuffled else {"value_range": None}
    assert torch.equal(always(corruption, **options)({"image": image})["image"], image)


@each_corruption
def test_seed_decides_the_damage(corruption):
    data = {"image": random_image()}
    first, again, other = (corruption("image", prob=1.0).set_random_state(seed=s)(data)["image"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_corruption
def test_global_random_numbers_play_no_part(corruption):
    results = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        results.append(always(corruption)({"image": random_image()})["image"])
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("corruption", "expected"), [(RandLocalShuffled, 0.5), (RandNonlinearIntensityd, 0.9), (RandPaintd, 0.9)]
)
def test_default_probability_is_that_of_the_paper(corruption, expected):
    # 2000 draws: the standard error is at most sqrt(.25 / 2000) = 0.011
    options = {"num_blocks": 500} if corruption is RandLocalShuffled else {}
    transform, image = corruption("image", **options).set_random_state(seed=3), random_image((1, 16, 16))
    assert share_of(lambda: not torch.equal(transform({"image": image})["image"], image)) == pytest.approx(
        expected, abs=0.045
    )


def test_flips_are_a_chain_of_at_most_three_draws(monkeypatch):
    """P(0, 1, 2, 3 flips) = .6, .4 x .6, .4^2 x .6, .4^3."""
    flips = RandFlipsd("image").set_random_state(seed=0)
    counts = np.zeros(4)
    flip = torch.Tensor.flip
    calls = []
    monkeypatch.setattr(torch.Tensor, "flip", lambda tensor, axis: calls.append(axis) or flip(tensor, axis))
    for _ in range(4000):
        calls.clear()
        flips({"image": torch.zeros(1, 2, 2, 2)})
        counts[len(calls)] += 1
        assert set(calls) <= {1, 2, 3}
    assert counts / 4000 == pytest.approx([0.6, 0.24, 0.096, 0.064], abs=0.04)


def test_flips_are_the_same_for_all_keys():
    flips = RandFlipsd(["image", "label"], prob=1.0, max_flips=1).set_random_state(seed=0)
    image = random_image()
    for _ in range(10):
        data = flips({"image": image, "label": image.numpy()})
        assert torch.equal(data["image"], torch.from_numpy(data["label"].copy()))
        assert not torch.equal(data["image"], image)


def test_without_the_key_nothing_is_flipped():
    data = {"label": random_image()}
    assert RandFlipsd("image", prob=1.0, allow_missing_keys=True).set_random_state(seed=0)(data) == data


def test_shuffling_moves_voxels_less_than_a_tenth_of_the_patch():
    rows, columns, slices = (torch.arange(n, dtype=torch.float32) for n in (64, 64, 32))
    image = torch.stack(torch.meshgrid(rows, columns, slices, indexing="ij"))  # each voxel holds its own place
    moved = (always(RandLocalShuffled)({"image": image})["image"] - image).abs()
    assert [int(axis.max()) for axis in moved] == [5, 5, 2]  # sides up to 64 // 10 and 32 // 10
    assert (moved.sum(0) > 0).float().mean() > 0.5


def test_shuffling_keeps_channels_together():
    image = random_image().repeat(2, 1, 1, 1)
    damaged = always(RandLocalShuffled)({"image": image})["image"]
    assert torch.equal(damaged[0], damaged[1])


def test_one_block_is_a_permutation_of_its_voxels():
    image = random_image((1, 40, 40, 40))
    for seed in range(20):
        transform = RandLocalShuffled("image", prob=1.0, num_blocks=1).set_random_state(seed=seed)
        damaged = transform({"image": image})["image"]
        assert torch.equal(damaged.flatten().sort().values, image.flatten().sort().values)


def test_order_within_a_block_is_uniform():
    """A 2D block of 1 x 2 or 2 x 1 or 2 x 2: a voxel of it stays with probability 1 / its number of voxels."""
    image = torch.arange(4.0).reshape(1, 2, 2)
    transform = RandLocalShuffled("image", prob=1.0, num_blocks=1).set_random_state(seed=0)
    # Sides 1 x 1 (1/4): unchanged; two voxels (1/2): swapped half the time; four: 1 of 24 orders is the identity.
    unchanged = 1 / 4 + 1 / 2 / 2 + 1 / 4 / 24
    assert share_of(lambda: torch.equal(transform({"image": image})["image"], image)) == pytest.approx(
        unchanged, abs=0.045
    )


def test_chunks_do_not_change_what_is_shuffled(monkeypatch):
    image = random_image((1, 64, 64, 32))
    whole = always(RandLocalShuffled)({"image": image})["image"]
    monkeypatch.setattr("nnunet_ext.data.corruptions._CHUNK", 5000)
    assert torch.equal(always(RandLocalShuffled)({"image": image})["image"], whole)


@pytest.mark.parametrize("seed", range(20))
def test_curve_rises_from_corner_to_corner(seed):
    random = np.random.RandomState(seed)
    controls = random.random_sample((2, 2)) if seed > 1 else np.array([[1.0, 1.0 - seed], [0.0, seed]])
    for values in bezier_curve(controls):
        assert (values[0], values[-1]) == pytest.approx((0, 1))
        assert (np.diff(values) >= -1e-12).all()


@pytest.mark.parametrize("invert_prob", [0.0, 0.5, 1.0])
def test_intensities_keep_or_reverse_their_order(invert_prob):
    image = torch.linspace(0, 1, 256).reshape(1, 16, 16)
    transform = always(RandNonlinearIntensityd, invert_prob=invert_prob)
    steps = [transform({"image": image})["image"].flatten().diff() for _ in range(400)]
    assert all((step >= -1e-6).all() or (step <= 1e-6).all() for step in steps)
    assert np.mean([float(step.sum()) < 0 for step in steps]) == pytest.approx(invert_prob, abs=0.09)


def test_equal_intensities_stay_equal():
    image = random_image((1, 16, 16, 16)).round(decimals=1)
    damaged = always(RandNonlinearIntensityd)({"image": image})["image"]
    assert all(len(damaged[image == value].unique()) == 1 for value in image.unique())


def painted(transform, size=(70, 70, 35)) -> torch.Tensor:
    """Return where a transform paints: the image is outside of the noise's range."""
    return transform({"image": torch.full((1, *size), 2.0)})["image"][0] != 2


def test_boxes_inside_have_sides_of_a_sixth_to_a_third():
    transform = always(RandPaintd, inside_share=1.0, max_boxes=1, continue_prob=1.0)
    for _ in range(50):
        sides = [int(axis.max() - axis.min() + 1) for axis in painted(transform).nonzero().T]
        for side, size in zip(sides, (70, 70, 35), strict=True):
            assert size // 6 <= side <= size // 3


def test_kept_box_has_sides_of_three_to_four_sevenths():
    transform = always(RandPaintd, inside_share=0.0, max_boxes=1)
    for _ in range(50):
        sides = [int(axis.max() - axis.min() + 1) for axis in (~painted(transform)).nonzero().T]
        assert 30 <= sides[0] <= 40
        assert 30 <= sides[1] <= 40
        assert 15 <= sides[2] <= 20


def test_a_fifth_of_the_paintings_are_inside():
    transform = always(RandPaintd)
    # five boxes inside cover at most 5 / 27 of the image; kept boxes leave the opposite corners painted
    assert share_of(lambda: painted(transform, (16, 16, 16)).float().mean() < 0.19, 1000) == pytest.approx(
        0.2, abs=0.07
    )


def test_number_of_boxes_follows_the_chain():
    """No box inside at all with probability .05; out-painting always keeps one."""
    inside, outside = (always(RandPaintd, inside_share=share) for share in (1.0, 0.0))
    assert share_of(lambda: not painted(inside, (16, 16, 16)).any()) == pytest.approx(0.05, abs=0.02)
    assert share_of(lambda: painted(outside, (16, 16, 16)).all(), 200) == 0


def test_noise_is_uniform_over_the_range():
    transform = always(RandPaintd, inside_share=0.0, value_range=(-2.0, 6.0))
    image = torch.full((1, 64, 64, 32), 9.0)
    noise = transform({"image": image})["image"]
    noise = noise[noise != 9]
    # mean (-2 + 6) / 2, variance 8^2 / 12
    assert float(noise.mean()) == pytest.approx(2.0, abs=0.1)
    assert float(noise.var()) == pytest.approx(64 / 12, rel=0.03)


def test_masked_cubes_are_the_given_share_of_the_grid():
    image = random_image((2, 32, 32, 32)) + 1
    blank = always(RandMaskCubesd, side=8, share=0.6, value_range=(0.0, 1.0))({"image": image})["image"] == 0.5
    cubes = blank[0].unfold(0, 8, 8).unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).float().mean(-1)
    assert set(cubes.unique().tolist()) == {0.0, 1.0}
    assert int(cubes.sum()) == round(0.6 * 64)
    assert torch.equal(blank[0], blank[1])


def test_chain_leaves_a_copy_as_the_target():
    chain = Compose([RandFlipsd("image"), CopyItemsd("image", names="target"), RandPaintd("image", prob=1.0)])
    chain.set_random_state(seed=0)
    data = chain({"image": random_image()})
    assert not torch.equal(data["image"], data["target"])
    assert torch.equal(data["target"].flatten().sort().values, random_image().flatten().sort().values)


def test_patch_of_the_paper_takes_a_fraction_of_a_second():
    chain = Compose([RandFlipsd("image"), *(corruption("image", prob=1.0) for corruption in CORRUPTIONS[:3])])
    chain.set_random_state(seed=0)
    image = random_image((1, 64, 64, 32))
    chain({"image": image})
    start = time.process_time()
    chain({"image": image})
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandPaintd("image", prob=1.5), r"prob must be a number in \[0, 1\], got 1.5"),
        (lambda: RandFlipsd("image", prob=-0.1), r"prob must be a number in \[0, 1\], got -0.1"),
        (lambda: RandPaintd("image", inside_share=2), "inside_share must be a number"),
        (lambda: RandNonlinearIntensityd("image", value_range=(1, 0)), "value_range must be two rising numbers"),
        (lambda: RandLocalShuffled("image", num_blocks=0), "num_blocks must be >= 1, got 0"),
        (lambda: RandMaskCubesd("image", side=0), "side must be >= 1 voxel, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_image_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"shape \(C, \*S\).*got \(16, 16\)"):
        always(RandPaintd)({"image": torch.zeros(16, 16)})
