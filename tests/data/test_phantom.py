import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.data.phantom import PhantomCase, generate_case, write_phantom
from nnunet_ext.errors import DatasetError

SHAPE = (64, 64, 32)
SMALL = (32, 32, 16)
LABELS = {"background": 0, "esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [generate_case(seed, SHAPE) for seed in range(6)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "Dataset900_ThoraxPhantom"
    return write_phantom(folder, num_training=3, num_test=1, shape=SMALL)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def best_threshold_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the best Dice that any interval of HU reaches."""
    shifted = image.astype(int).ravel() + 1024
    inside = np.concatenate([[0], np.bincount(shifted[mask.ravel()], minlength=1600).cumsum()])
    everything = np.concatenate([[0], np.bincount(shifted, minlength=1600).cumsum()])
    ends = np.arange(0, 1600, 4)
    hit, chosen = (sums[None, ends] - sums[ends, None] for sums in (inside, everything))
    return float((2 * hit / (mask.sum() + np.maximum(chosen, 1))).max())


def test_same_seed_gives_the_same_bits_and_another_seed_others(cases):
    again = generate_case(1, SHAPE)
    assert np.array_equal(again.image_hu, cases[1].image_hu)
    assert np.array_equal(again.label, cases[1].label)
    assert np.array_equal(again.affine, cases[1].affine)
    assert not np.array_equal(cases[0].label, cases[1].label)


def test_every_organ_is_in_every_case(cases):
    for case in cases:
        assert np.unique(case.label).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(8))
def test_every_organ_is_in_the_smallest_case(seed):
    assert np.unique(generate_case(seed, SMALL).label).tolist() == [0, 1, 2, 3, 4]


def test_organs_have_the_size_of_organs(cases):
    limits_ml = {1: (15, 80), 2: (250, 900), 3: (15, 90), 4: (100, 350)}
    for case in cases:
        voxel_ml = np.prod(case.spacing_mm) / 1000
        for label, (least, most) in limits_ml.items():
            assert least < (case.label == label).sum() * voxel_ml < most


def test_values_are_hounsfield_units(cases):
    for case in cases:
        assert case.image_hu.dtype == np.int16
        assert case.label.dtype == np.uint8
        assert case.image_hu.min() >= -1024
        assert 250 < case.image_hu.max() < 1500  # bone
        assert 20 < np.median(case.image_hu[case.label == 2]) < 110
        assert np.median(case.image_hu[case.label == 3]) < -500


def test_spacing_is_anisotropic_and_differs_between_cases(cases):
    for case in cases:
        x, y, z = case.spacing_mm
        assert x == pytest.approx(y)
        assert 345 < x * SHAPE[0] < 375
        assert z > 1.05 * x
    assert len({case.spacing_mm for case in cases}) == len(cases)


def test_no_threshold_finds_an_organ(cases):
    limits = {"esophagus": 0.1, "heart": 0.45, "trachea": 0.1, "aorta": 0.6}
    for case in cases:
        for organ, limit in limits.items():
            assert best_threshold_dice(case.image_hu, case.label == LABELS[organ]) < limit, organ


def test_no_threshold_parts_esophagus_from_heart():
    """Balanced accuracy of the best cut between esophagus and heart; 0.5 is chance, 1 is parted."""
    case = generate_case(0, (128, 128, 64))
    esophagus, heart = (np.sort(case.image_hu[case.label == label]) for label in (1, 2))
    cuts = np.arange(-1024, 400)
    below = np.searchsorted(esophagus, cuts) / esophagus.size
    above = 1 - np.searchsorted(heart, cuts) / heart.size
    assert np.maximum((below + above) / 2, 1 - (below + above) / 2).max() < 0.8


def test_borders_are_mixtures_of_tissues(cases):
    """Between lung (about -850) and soft tissue (about 50) lie voxels that are neither."""
    for case in cases:
        between = (case.image_hu > -700) & (case.image_hu < -250)
        assert 0.01 < between.mean() < 0.2


def test_some_volumes_are_oblique_and_some_flipped():
    affines = [generate_case(seed, SMALL).affine for seed in range(24)]
    codes = {nib.aff2axcodes(affine) for affine in affines}
    oblique = [np.abs(affine[:3, :3]).astype(bool).sum() > 3 for affine in affines]
    assert ("L", "P", "S") in codes
    assert len(codes) >= 3
    assert 2 < sum(oblique) < 18


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_orientation_moves_voxels_in_memory_only(orientation):
    usual = generate_case(3, SMALL, orientation="LPS")
    other = generate_case(3, SMALL, orientation=orientation)
    assert nib.aff2axcodes(other.affine) == tuple(orientation)
    for organ in (1, 2, 3, 4):
        world = [
            np.sort(nib.affines.apply_affine(case.affine, np.argwhere(case.label == organ)).round(3), axis=0)
            for case in (usual, other)
        ]
        np.testing.assert_allclose(world[0], world[1], atol=2e-3)
    assert np.array_equal(np.sort(usual.image_hu.ravel()), np.sort(other.image_hu.ravel()))


@pytest.mark.parametrize("orientation", ["LPX", "LRS", "LP", "lps"])
def test_what_is_no_orientation_is_refused(orientation):
    with pytest.raises(ValueError, match="orientation must have one letter each"):
        generate_case(0, SMALL, orientation=orientation)


def test_too_small_a_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape must be at least \(32, 32, 16\) voxels, got \(16, 32, 16\)"):
        generate_case(0, (16, 32, 16))


def test_layout_is_that_of_a_raw_data_set(dataset):
    assert sorted(files(dataset)) == [
        "dataset.json",
        *(f"imagesTr/thorax_00{i}_0000.nii.gz" for i in range(3)),
        "imagesTs/thorax_003_0000.nii.gz",
        *(f"labelsTr/thorax_00{i}.nii.gz" for i in range(3)),
        "labelsTs/thorax_003.nii.gz",
        "phantom.json",
    ]
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == LABELS
    assert (content["numTraining"], content["file_ending"], content["name"]) == (3, ".nii.gz", "ThoraxPhantom")


def test_image_and_label_share_a_geometry_that_both_readers_agree_on(dataset):
    for label_path in [*dataset.glob("labelsT?/*.nii.gz")]:
        part, case = label_path.parent.name[-2:], label_path.name.removesuffix(".nii.gz")
        image_path = dataset / f"images{part}" / f"{case}_0000.nii.gz"
        image, label = sitk.ReadImage(str(image_path)), sitk.ReadImage(str(label_path))
        assert image.GetSize() == label.GetSize() == SMALL
        assert image.GetSpacing() == label.GetSpacing()
        assert image.GetOrigin() == label.GetOrigin()
        assert image.GetDirection() == label.GetDirection()
        direction = np.reshape(image.GetDirection(), (3, 3))
        np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-5)
        nifti = nib.load(image_path)
        assert (int(nifti.header["qform_code"]), int(nifti.header["sform_code"])) == (1, 1)
        corner = nifti.affine @ (*[n - 1 for n in SMALL], 1)
        far = image.TransformIndexToPhysicalPoint([n - 1 for n in SMALL])
        np.testing.assert_allclose(corner[:3], np.multiply(far, (-1, -1, 1)), atol=1e-2)


def test_files_hold_the_generated_case(dataset):
    case = generate_case((0, 3), SMALL)
    image = nib.load(dataset / "imagesTs" / "thorax_003_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), case.image_hu)
    np.testing.assert_allclose(image.affine, case.affine, atol=1e-4)


def test_two_runs_write_the_same_bytes(dataset, tmp_path):
    assert files(write_phantom(tmp_path / "other", num_training=3, num_test=1, shape=SMALL)) == files(dataset)


def test_complete_data_set_is_reused(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    write_phantom(dataset, num_training=3, num_test=1, shape=SMALL)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_incomplete_data_set_is_completed(tmp_path):
    folder = write_phantom(tmp_path / "phantom", num_training=2, num_test=0, shape=SMALL)
    before = files(folder)
    for name in ("dataset.json", "imagesTr/thorax_001_0000.nii.gz"):
        (folder / name).unlink()
    write_phantom(folder, num_training=2, num_test=0, shape=SMALL)
    assert files(folder) == before


def test_interrupted_writing_leaves_no_half_file_and_is_taken_up_again(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def write_half(path: Path, content: bytes) -> None:
        write_bytes(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    folder = tmp_path / "phantom"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            write_phantom(folder, num_training=1, num_test=0, shape=SMALL)
    assert list(files(folder)) == ["phantom.json"]
    write_phantom(folder, num_training=1, num_test=0, shape=SMALL)
    assert len(files(folder)) == 4


def test_other_parameters_are_refused(dataset):
    with pytest.raises(DatasetError, match=r"holds phantoms of the parameters .*'seed': 0.*asked for .*'seed': 1"):
        write_phantom(dataset, num_training=3, num_test=1, shape=SMALL, seed=1)


def test_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(DatasetError, match="holds something else; name another folder"):
        write_phantom(tmp_path, num_training=1, shape=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


def test_written_data_set_passes_the_data_set_check(dataset):
    from nnunet_ext.data import check_dataset

    assert check_dataset(dataset) == []
