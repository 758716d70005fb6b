"""Preprocessing is fixed on training cases and equals nnU-Net's plan for them."""

import json

import numpy as np
import pytest
import torch

from nnunet_ext.data import Preprocessing, cache_volumes, fit_preprocessing, open_dataset
from nnunet_ext.data.normalization import ChannelScheme
from nnunet_ext.errors import DatasetError, OptionError


def fitted(folder, cache_dir, **options) -> Preprocessing:
    dataset = open_dataset(folder)
    volumes = cache_volumes(dataset, list(dataset.training_cases().values()), cache_dir, progress=False)
    return fit_preprocessing(dataset, volumes, **options)


@pytest.fixture(scope="module")
def fingerprint(tiny_phantom) -> dict[str, float]:
    """nnU-Net's statistics of the phantom's labelled voxels, as its planner computes them."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    draws = []
    for case in open_dataset(tiny_phantom).training_cases().values():
        images = [str(path) for path in case.images]
        analysis = DatasetFingerprintExtractor.analyze_case(images, str(case.label), SimpleITKIO, 10_000)
        draws.append(analysis[2][0])
    intensities = np.concatenate(draws)
    return {
        "mean": float(intensities.mean()),
        "std": float(intensities.std()),
        "percentile_00_5": float(np.percentile(intensities, 0.5)),
        "percentile_99_5": float(np.percentile(intensities, 99.5)),
    }


def test_ct_statistics_match_nnunet_within_sampling_error(tiny_phantom, fingerprint, tmp_path):
    (channel,) = fitted(tiny_phantom, tmp_path).channels
    assert channel.name == "CTNormalization"
    assert channel.foreground is not None
    # 50,000 draws each: the error of the means' difference is std * sqrt(2 / 50,000), 0.6 % of std
    tolerance = 0.02 * fingerprint["std"]
    assert channel.foreground.mean == pytest.approx(fingerprint["mean"], abs=tolerance)
    assert channel.foreground.std == pytest.approx(fingerprint["std"], abs=tolerance)
    assert channel.foreground.percentile_00_5 == pytest.approx(fingerprint["percentile_00_5"], abs=4 * tolerance)
    assert channel.foreground.percentile_99_5 == pytest.approx(fingerprint["percentile_99_5"], abs=4 * tolerance)


def test_preprocessing_is_the_same_each_time(tiny_phantom, tmp_path):
    assert fitted(tiny_phantom, tmp_path / "a") == fitted(tiny_phantom, tmp_path / "b")


def test_preprocessing_survives_json(tiny_phantom, tmp_path):
    preprocessing = fitted(tiny_phantom, tmp_path)
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


def test_validation_cases_take_no_part(raw, tmp_path):
    raw.describe(channels=("CT",))
    raw.case("a")
    raw.case("b", image=np.full((4, 12, 10), 999, np.int16))
    dataset = open_dataset(raw.root)
    a, b = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path, progress=False)
    foreground_a = fit_preprocessing(dataset, [a]).channels[0].foreground
    foreground_b = fit_preprocessing(dataset, [b]).channels[0].foreground
    assert foreground_a.percentile_99_5 < 100
    assert foreground_b.mean == 999


def test_cases_count_alike_whatever_their_size(raw, tmp_path):
    raw.describe(channels=("CT",), labels={"background": 0, "organ": 1})
    for name, size, value in (("small", 2, 0), ("large", 40, 100)):
        shape = (2, size, size)
        raw.case(name, image=np.full(shape, value, np.int16), label=np.ones(shape, np.uint8))
    assert fitted(raw.root, tmp_path).channels[0].foreground.mean == pytest.approx(50)


def test_ct_with_empty_labels_only_is_an_error(raw, tmp_path):
    raw.describe(channels=("CT",))
    raw.case("a", label=np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(DatasetError, match="every label is empty"):
        fitted(raw.root, tmp_path)


def test_mostly_black_images_are_measured_on_nonzero_voxels(raw, tmp_path):
    raw.describe()
    for name in "abc":
        image = np.zeros((4, 12, 10), np.float32)
        image[:, :6] = 100  # cropping leaves half, less than 75 %
        raw.case(name, image=image)
    assert fitted(raw.root, tmp_path).channels == (ChannelScheme("ZScoreNormalization", use_mask=True),)


def test_full_images_are_measured_on_all_voxels(raw, tmp_path):
    raw.describe()
    raw.cases(3)
    assert fitted(raw.root, tmp_path).channels == (ChannelScheme("ZScoreNormalization", use_mask=False),)


SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # x to posterior, y to superior, z to left


@pytest.mark.parametrize(
    ("spacing_xyz_mm", "direction", "axis"),
    [
        ((1.0, 1.0, 3.0), np.eye(3).ravel(), 0),
        ((1.0, 1.0, 1.0), np.eye(3).ravel(), 0),  # equal: axial
        ((3.0, 1.0, 1.0), np.eye(3).ravel(), 2),
        ((1.0, 3.0, 1.0), np.eye(3).ravel(), 1),
        ((0.5, 0.5, 4.0), SAGITTAL, 2),  # thick sagittal slices
    ],
)
def test_slices_are_taken_along_the_thickest_axis(raw, tmp_path, spacing_xyz_mm, direction, axis):
    raw.describe()
    raw.case("a", spacing_mm=spacing_xyz_mm, direction=tuple(direction))
    assert fitted(raw.root, tmp_path).slice_axis == axis


LONG = (12, 10)


@pytest.mark.parametrize(
    ("shape_zyx", "spacing_xyz_mm", "direction", "axis"),
    [
        (LONG, (2.0, 2.0), np.eye(2).ravel(), 0),  # a 2D file, whose z spacing is taken for 1 mm
        (LONG, (0.5, 0.5), np.eye(2).ravel(), 0),
        ((1, *LONG), (1.4, 1.4, 1.0), np.eye(3).ravel(), 0),
        ((12, 1, 10), (1.4, 1.0, 1.4), np.eye(3).ravel(), 1),
        ((1, *LONG), (1.4, 1.4, 1.0), SAGITTAL, 2),
        ((1, 12, 1), (1.4, 1.4, 1.0), np.eye(3).ravel(), 0),  # a line: the first axis of one voxel
        ((2, *LONG), (1.4, 1.4, 1.0), np.eye(3).ravel(), 1),  # two slices are a volume, cut across its thickest axis
    ],
)
def test_an_image_of_one_slice_is_never_cut_into_rows(raw, tmp_path, shape_zyx, spacing_xyz_mm, direction, axis):
    raw.describe()
    raw.case("a", label=np.ones(shape_zyx, np.uint8), spacing_mm=spacing_xyz_mm, direction=tuple(direction))
    assert fitted(raw.root, tmp_path).slice_axis == axis


@pytest.mark.parametrize(("flat", "axis"), [(3, 0), (2, 1)])
def test_most_cases_decide_whether_images_are_of_one_slice(raw, tmp_path, flat, axis):
    raw.describe()
    for number in range(5):
        raw.case(str(number), label=np.ones((1 if number < flat else 6, *LONG), np.uint8), spacing_mm=(1.4, 1.4, 1.0))
    assert fitted(raw.root, tmp_path).slice_axis == axis


def test_slice_axis_can_be_chosen_and_a_bad_one_is_refused(raw, tmp_path):
    raw.describe()
    raw.case("a")
    assert fitted(raw.root, tmp_path, slice_axis=1).slice_axis == 1
    with pytest.raises(OptionError, match=r"slice_axis: need 0 .* got 'axial'"):
        fitted(raw.root, tmp_path, slice_axis="axial")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_first_is_undone_by_slices_back(axis):
    preprocessing = Preprocessing((), axis)
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    first = preprocessing.slices_first(array)
    assert first.shape[1] == array.shape[1 + axis]
    assert np.array_equal(preprocessing.slices_back(first), array)


def test_wrong_number_of_channels_is_refused():
    preprocessing = Preprocessing((ChannelScheme("NoNormalization"),) * 2, 0)
    with pytest.raises(DatasetError, match="need 2 channels as in training, got 1"):
        preprocessing.normalize(np.zeros((1, 2, 3, 4)))


def test_each_channel_is_normalised_by_its_own_scheme():
    preprocessing = Preprocessing((ChannelScheme("NoNormalization"), ChannelScheme("RGBTo01Normalization")), 0)
    image = np.full((2, 1, 2, 2), 255, np.uint8)
    result = preprocessing.normalize(image)
    assert result.dtype == torch.float32
    assert result[:, 0, 0, 0].tolist() == [255, 1]
