"""Normalisation is nnU-Net's, except that outliers are clipped."""

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization import default_normalization_schemes as theirs
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

from nnunet_ext.data.normalization import (
    ChannelScheme,
    Statistics,
    crop_ratio,
    measure,
    measure_image,
    normalize,
    scheme_name,
)


def normalized(image: np.ndarray, name: str = "ZScoreNormalization", **options) -> np.ndarray:
    return normalize(image, ChannelScheme(name, **options), measure_image(image))


@pytest.fixture
def image() -> np.ndarray:
    """A volume without outliers."""
    return np.random.default_rng(0).uniform(50, 150, (8, 20, 20)).astype(np.float32)


@pytest.mark.parametrize("name", ["CT", "ct", "T1", "MRI", "noNorm", "zscore", "rescale_to_0_1", "RGB_to_0_1", "R"])
def test_scheme_of_a_channel_name_matches_nnunet(name):
    assert scheme_name(name) == get_normalization_scheme(name).__name__


def test_ct_matches_nnunet(image):
    properties = {"mean": 90.0, "std": 20.0, "percentile_00_5": 60.0, "percentile_99_5": 140.0}
    expected = theirs.CTNormalization(False, properties).run(image.copy())
    ours = normalized(image, "CTNormalization", foreground=Statistics(**properties))
    assert np.allclose(ours, expected, atol=1e-6)


def test_z_score_is_close_to_nnunet_without_outliers(image):
    expected = theirs.ZScoreNormalization(False, {}).run(image.copy())
    ours = normalized(image)
    inside = (image > np.percentile(image, 1)) & (image < np.percentile(image, 99))
    assert np.abs(ours - expected)[inside].max() < 0.02


def test_z_score_has_mean_0_and_deviation_1(image):
    assert normalized(image).mean() == pytest.approx(0, abs=1e-4)
    assert normalized(image).std() == pytest.approx(1, abs=1e-3)


def test_one_hot_voxel_does_not_flatten_the_image(image):
    hot = image.copy()
    hot[0, 0, 0] = 1.7e6  # the largest of a real hippocampus MRI
    others = np.ones(image.shape, bool)
    others[0, 0, 0] = False
    assert np.abs(normalized(hot) - normalized(image))[others].max() < 0.01
    flattened = theirs.ZScoreNormalization(False, {}).run(hot.copy())
    assert flattened[others].std() < 0.01  # why we differ


def test_masked_z_score_is_close_to_nnunet_in_the_mask_and_0_outside(image):
    image[:, :10] = 0
    expected = theirs.ZScoreNormalization(True, {}).run(image.copy(), np.where(image != 0, 0, -1))
    ours = normalized(image, use_mask=True)
    inside = (image > np.percentile(image[image != 0], 1)) & (image < np.percentile(image[image != 0], 99))
    assert np.abs(ours - expected)[inside].max() < 0.02
    assert (ours[:, :10] == 0).all()


def test_no_normalization_matches_nnunet(image):
    assert np.array_equal(normalized(image, "NoNormalization"), image)


def test_rgb_matches_nnunet():
    photograph = np.random.default_rng(0).integers(0, 256, (1, 9, 9)).astype(np.uint8)
    expected = theirs.RGBTo01Normalization(False, {}).run(photograph.copy())
    assert np.allclose(normalized(photograph, "RGBTo01Normalization"), expected)


def test_rescale_is_close_to_nnunet_without_outliers_and_stays_in_0_1(image):
    expected = theirs.RescaleTo01Normalization(False, {}).run(image.copy())
    ours = normalized(image, "RescaleTo01Normalization")
    assert np.abs(ours - expected).max() < 0.02
    assert (ours.min(), ours.max()) == (0, 1)


@pytest.mark.parametrize("name", ["ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"])
@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize("value", [0, 7, -1000])
def test_constant_image_gives_no_nan(name, use_mask, value):
    image = np.full((3, 4, 5), value, np.int16)
    assert np.isfinite(normalized(image, name, use_mask=use_mask)).all()


def test_constant_foreground_gives_no_nan():
    foreground = measure(np.full(10, 40.0), clipped=False)
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.isfinite(normalized(image, "CTNormalization", foreground=foreground)).all()


def test_a_part_is_normalised_like_the_whole(image):
    scheme, statistics = ChannelScheme("ZScoreNormalization"), measure_image(image)
    assert np.array_equal(normalize(image[3], scheme, statistics), normalize(image, scheme, statistics)[3])


def test_measuring_uses_double_precision():
    values = np.full(3_000_000, 16_777_217.0)  # 2**24 + 1 does not exist in float32
    assert measure(values).mean == 16_777_217.0


def test_integer_images_do_not_overflow():
    image = np.array([-1024, 3071, 30000, -30000] * 50, np.int16)
    assert measure_image(image)["all"].mean == pytest.approx(np.clip(image, -30000, 30000).mean())


def test_crop_ratio_is_the_share_of_the_box_around_nonzero_voxels():
    image = np.zeros((2, 10, 10, 10))
    image[0, 2:4, 0:5, 9] = 1
    image[1, 3:5, 4, 8] = 1  # the box of both: 3 x 5 x 2 of 1000 voxels
    assert crop_ratio(image) == pytest.approx(30 / 1000)
    assert crop_ratio(np.zeros((1, 2, 2, 2))) == 1


def test_scheme_survives_json():
    for scheme in (ChannelScheme("X", True), ChannelScheme("CT", False, Statistics(1.0, 2.0, 3.0, 4.0))):
        assert ChannelScheme.from_json(scheme.to_json()) == scheme
