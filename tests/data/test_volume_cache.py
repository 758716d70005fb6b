"""Each file is decoded once, and a cache that was interrupted or is out of date is not trusted."""

import os
import pickle

import numpy as np
import pytest

from nnunet_ext.data import cache_volumes, open_dataset, volume_cache
from nnunet_ext.errors import DatasetError


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the image files that are decoded, in the order of decoding."""
    decoded: list[str] = []
    original = volume_cache.read_channels

    def counted(paths):
        decoded.extend(path.name for path in paths)
        return original(paths)

    monkeypatch.setattr(volume_cache, "read_channels", counted)
    return decoded


@pytest.fixture
def cached(raw, tmp_path):
    """Three cases, and a function that caches them."""
    raw.describe()
    raw.cases(3)

    def cache():
        dataset = open_dataset(raw.root)
        return cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache", progress=False)

    return cache


def test_each_file_is_decoded_once(cached, reads):
    cached()
    assert sorted(reads) == ["case_000_0000.nii.gz", "case_001_0000.nii.gz", "case_002_0000.nii.gz"]
    cached()
    assert len(reads) == 3


def test_cases_come_in_the_order_asked_for(raw, cached, tmp_path):
    dataset = open_dataset(raw.root)
    turned = list(dataset.training_cases().values())[::-1]
    volumes = cache_volumes(dataset, turned, tmp_path / "cache", progress=False)
    assert [volume.case for volume in volumes] == ["case_002", "case_001", "case_000"]


def test_processes_of_one_run_begin_with_different_cases_and_agree(cached, reads, monkeypatch):
    monkeypatch.setattr(volume_cache, "MAX_THREADS", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    volumes = cached()
    assert reads == ["case_001_0000.nii.gz", "case_002_0000.nii.gz", "case_000_0000.nii.gz"]
    assert [volume.case for volume in volumes] == ["case_000", "case_001", "case_002"]


@pytest.mark.parametrize("part", ["imagesTr/case_001_0000.nii.gz", "labelsTr/case_001.nii.gz"])
def test_a_changed_file_is_decoded_again(raw, cached, reads, part):
    cached()
    array = np.full((4, 12, 10), 2, np.uint8)
    raw.write(part, array)
    os.utime(raw.root / part, ns=(1, 1))
    volume = cached()[1]
    assert reads[3:] == ["case_001_0000.nii.gz"]
    assert (volume.image[0] if part.startswith("images") else volume.label).max() == 2


def test_a_file_of_equal_size_and_another_time_is_decoded_again(raw, cached, reads):
    cached()
    os.utime(raw.root / "imagesTr" / "case_002_0000.nii.gz", ns=(1, 1))
    cached()
    assert reads[3:] == ["case_002_0000.nii.gz"]


def test_changed_labels_in_dataset_json_are_checked_again(raw, cached):
    cached()
    raw.describe(labels={"background": 0, "left": 1})
    with pytest.raises(DatasetError, match=r"3 of 3 cases are unusable"):
        cached()


def test_a_write_that_was_killed_half_way_is_done_again(cached, reads, monkeypatch):
    def killed(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(volume_cache, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            cached()
    reads.clear()
    assert len(cached()) == 3
    assert len(reads) == 3


def test_half_written_arrays_are_replaced(cached, tmp_path):
    expected = np.array(cached()[0].image)
    folder = cached()[0].folder
    (folder / "index.json").unlink()
    (folder / "image.npy").write_bytes(b"half")
    assert np.array_equal(cached()[0].image, expected)


def test_all_unusable_cases_are_listed(raw, cached):
    (raw.root / "imagesTr" / "case_000_0000.nii.gz").write_text("no image")
    raw.write("labelsTr/case_001.nii.gz", np.full((4, 12, 10), 9, np.uint8))
    raw.write("labelsTr/case_002.nii.gz", np.ones((4, 12, 11), np.uint8))
    with pytest.raises(DatasetError, match="3 of 3 cases are unusable") as error:
        cached()
    for file in ("case_000_0000.nii.gz", "case_001.nii.gz", "case_002.nii.gz"):
        assert file in str(error.value)


def test_absent_file_of_a_list_is_named(raw, tmp_path):
    raw.describe(dataset={"a": {"images": ["gone.nii.gz"], "label": "gone_too.nii.gz"}})
    dataset = open_dataset(raw.root)
    with pytest.raises(DatasetError, match=r"gone\.nii\.gz: no such file"):
        cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache", progress=False)


def test_what_is_known_without_arrays_matches_them(cached):
    for volume in cached():
        assert volume.shape == volume.label.shape
        assert volume.image.shape == (1, *volume.shape)
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            assert volume.foreground_slices(axis).tolist() == np.flatnonzero(volume.label.any(axis=others)).tolist()
        assert volume.statistics[0]["all"].mean == pytest.approx(np.array(volume.image).mean(), abs=0.1)


def test_volumes_are_stored_in_canonical_order_with_their_spacing(raw, cached):
    array = np.random.default_rng(0).normal(size=(4, 12, 10)).astype(np.float32)
    turned = (-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)  # x to right, y to inferior, z to posterior
    raw.write("imagesTr/case_000_0000.nii.gz", array, spacing_mm=(1.0, 2.0, 3.0), direction=turned)
    raw.write("labelsTr/case_000.nii.gz", (array > 0).astype(np.uint8), spacing_mm=(1.0, 2.0, 3.0), direction=turned)
    volume = cached()[0]
    expected = array.transpose(1, 0, 2)[::-1, :, ::-1]  # superior = -y, posterior = z, left = -x
    assert np.array_equal(volume.image[0], expected)
    assert np.array_equal(volume.label, expected > 0)
    assert volume.spacing_mm == pytest.approx((2, 3, 1))


def test_label_stays_on_its_image_after_reordering(raw, cached):
    for name, direction in (("case_000", (0, 1, 0, 0, 0, 1, 1, 0, 0)), ("case_001", (0, 0, -1, 1, 0, 0, 0, -1, 0))):
        array = np.random.default_rng(0).integers(0, 3, (4, 12, 10)).astype(np.uint8)
        raw.case(name, image=array, label=array, direction=direction)
    for volume in cached()[:2]:
        assert np.array_equal(volume.image[0], volume.label)


def test_open_volumes_travel_to_workers_without_their_arrays(cached):
    volume = cached()[0]
    expected = np.array(volume.image)
    pickled = pickle.dumps(volume)
    assert len(pickled) < expected.nbytes
    assert np.array_equal(pickle.loads(pickled).image, expected)


def test_foreground_draws_come_from_labelled_voxels_only(raw, cached):
    label = np.zeros((4, 12, 10), np.uint8)
    label[1, 2:5, 3] = 1
    image = np.where(label > 0, 500, -500).astype(np.int16)
    raw.case("case_000", image=image, label=label)
    assert np.unique(cached()[0].foreground_intensities).tolist() == [500]
