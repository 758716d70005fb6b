"""Every defect of a data set is found and named with its file; what is only awkward is accepted."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.data import check_dataset
from nnunet_ext.errors import DatasetError


def problems_of(folder) -> list[tuple[str, str, bool]]:
    """Return (file name, message, fatal) of each problem."""
    problems = check_dataset(folder)
    assert all(str(problem.path) in str(problem) for problem in problems), "a message lacks its file"
    return [(problem.path.name, problem.message, problem.fatal) for problem in problems]


def the_problem(folder) -> tuple[str, str, bool]:
    (problem,) = problems_of(folder)
    return problem


@pytest.fixture
def clean(raw):
    """Three good cases: case_000, case_001, case_002."""
    raw.describe()
    raw.cases(3)
    return raw


@pytest.fixture
def hippocampus(raw, shared_data):
    """Two real cases, and a function that adds a file of the real bad inputs."""
    source = shared_data / "Dataset004_Hippocampus"
    shutil.copy(source / "dataset.json", raw.root)
    for image in sorted((source / "imagesTr").glob("*_0000.nii.gz"))[:2]:
        label = source / "labelsTr" / image.name.replace("_0000", "")
        for part, path in (("imagesTr", image), ("labelsTr", label)):
            (raw.root / part).mkdir(exist_ok=True)
            shutil.copyfile(path, raw.root / part / path.name)

    def add(bad: str, target: str) -> None:
        (raw.root / target).unlink(missing_ok=True)
        shutil.copyfile(shared_data / "bad_inputs" / bad, raw.root / target)

    raw.add_bad = add
    raw.first = min(path.name for path in (raw.root / "labelsTr").iterdir()).removesuffix(".nii.gz")
    return raw


def test_a_good_data_set_has_no_problem(clean):
    assert problems_of(clean.root) == []


def test_strays_are_no_problem(hippocampus):
    hippocampus.add_bad("DS_Store_beside_images", "imagesTr/.DS_Store")
    hippocampus.add_bad("DS_Store_beside_images", "labelsTr/.DS_Store")
    (hippocampus.root / "labelsTr" / f"._{hippocampus.first}.nii.gz").touch()
    assert problems_of(hippocampus.root) == []


def test_real_image_without_a_label_is_named(hippocampus):
    hippocampus.add_bad("orphan_image_hippocampus_118.nii.gz", "imagesTr/hippocampus_118_0000.nii.gz")
    file, message, fatal = the_problem(hippocampus.root)
    assert (file, fatal) == ("hippocampus_118_0000.nii.gz", True)
    assert "image without a label" in message


def test_real_label_without_an_image_is_named(hippocampus):
    hippocampus.add_bad("orphan_label_hippocampus_010.nii.gz", "labelsTr/hippocampus_010.nii.gz")
    file, message, fatal = the_problem(hippocampus.root)
    assert (file, fatal) == ("hippocampus_010.nii.gz", True)
    assert "label without an image" in message


def test_real_label_of_another_body_part_is_named_with_both_sizes(hippocampus):
    hippocampus.add_bad("orphan_label_wrong_body_hippocampus_281.nii.gz", f"labelsTr/{hippocampus.first}.nii.gz")
    file, message, _ = the_problem(hippocampus.root)
    assert file == f"{hippocampus.first}.nii.gz"
    assert "(512, 512, 94)" in message
    assert "does the label belong to this image?" in message


def test_real_float_label_with_integer_values_is_accepted(hippocampus, shared_data):
    hippocampus.add_bad("float32_label_hippocampus_243.nii.gz", "labelsTr/hippocampus_243.nii.gz")
    label = nib.load(hippocampus.root / "labelsTr" / "hippocampus_243.nii.gz")
    assert label.get_data_dtype() == np.float32
    image = nib.Nifti1Image(np.ones(label.shape, np.float32), label.affine)
    nib.save(image, hippocampus.root / "imagesTr" / "hippocampus_243_0000.nii.gz")
    assert problems_of(hippocampus.root) == []


def test_real_rgb_nifti_is_named(hippocampus):
    hippocampus.add_bad("ts_spine_report.nii.gz", f"imagesTr/{hippocampus.first}_0000.nii.gz")
    file, message, _ = the_problem(hippocampus.root)
    assert file == f"{hippocampus.first}_0000.nii.gz"
    assert "3 components (RGB" in message


def test_real_masks_of_different_grids_are_named_with_both_sizes(raw, shared_data):
    raw.describe(labels={"background": 0, "heart": 1})
    raw.case("a", label=np.zeros((1, 2, 3), np.uint8))
    for source, target in (("ts_heart", "imagesTr/a_0000"), ("ts_pulmonary_artery", "labelsTr/a")):
        shutil.copyfile(shared_data / "bad_inputs" / f"{source}.nii.gz", raw.root / f"{target}.nii.gz")
    file, message, _ = the_problem(raw.root)
    assert file == "a.nii.gz"
    assert "(233, 167, 191) and (122, 102, 112)" in message


def test_real_empty_label_is_a_warning(raw, shared_data):
    raw.describe(labels={"background": 0, "artery": 1})
    for target in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (raw.root / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(shared_data / "bad_inputs" / "ts_iliac_artery_left.nii.gz", raw.root / target)
    file, message, fatal = the_problem(raw.root)
    assert (file, fatal) == ("a.nii.gz", False)
    assert "empty" in message


def test_undeclared_label_value_is_named_with_allowed_and_found_values(clean):
    label = np.zeros((4, 12, 10), np.uint8)
    label[0, 0, :3] = 1, 2, 7
    clean.case("case_001", label=label)
    file, message, _ = the_problem(clean.root)
    assert file == "case_001.nii.gz"
    assert "must be in [0, 1, 2] (dataset.json), got {0, 1, 2, 7}; fix the file or declare {7}" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, "must be integers, got [0.5]"), (-1, "must be >= 0, got -1"), (np.nan, "nan"), (np.inf, "inf")],
)
def test_label_value_that_is_no_label_is_named(clean, value, message):
    label = np.ones((4, 12, 10), np.float32)
    label[0, 0, 0] = value
    clean.case("case_001", label=label)
    file, found, _ = the_problem(clean.root)
    assert file == "case_001.nii.gz"
    assert message in found


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_with_a_value_that_is_no_number_is_named(clean, value):
    image = np.ones((4, 12, 10), np.float32)
    image[1, 2, 3] = value
    clean.write("imagesTr/case_002_0000.nii.gz", image)
    file, message, _ = the_problem(clean.root)
    assert file == "case_002_0000.nii.gz"
    assert "NaN or infinity" in message


@pytest.mark.parametrize("part", ["imagesTr/case_000_0000.nii.gz", "labelsTr/case_000.nii.gz"])
@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "short content", "flipped byte"])
def test_damaged_file_is_named(clean, part, damage):
    path = clean.root / part
    content = path.read_bytes()
    middle = len(content) // 2
    spoilt = {
        "text": b"no image",
        "truncated": content[:middle],
        "empty": b"",
        "short content": gzip.compress(gzip.decompress(content)[:-200]),
        "flipped byte": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
    }[damage]
    path.write_bytes(spoilt)
    file, message, _ = the_problem(clean.root)
    assert file == path.name
    assert "is the file complete?" in message


def test_channels_on_different_grids_are_named(raw):
    raw.describe(channels=("DWI", "FLAIR"))
    raw.cases(2, num_channels=2)
    raw.write("imagesTr/case_001_0001.nii.gz", np.ones((4, 12, 11), np.float32))
    _, message, _ = the_problem(raw.root)
    assert "case_001_0001.nii.gz: all channels of a case must lie on one grid" in message


def test_real_channels_on_different_grids_are_named(raw, shared_data):
    raw.describe(channels=("DWI", "FLAIR"), labels={"background": 0, "lesion": 1})
    names = {"dwi": "imagesTr/a_0000", "flair": "imagesTr/a_0001", "msk": "labelsTr/a"}
    for modality, target in names.items():
        source = shared_data / "isles22_case0009" / f"sub-strokecase0009_ses-0001_{modality}.nii.gz"
        (raw.root / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, raw.root / f"{target}.nii.gz")
    _, message, _ = the_problem(raw.root)
    assert "a_0001.nii.gz: all channels of a case must lie on one grid" in message


def test_shifted_label_is_named_with_the_distance(clean):
    clean.write("labelsTr/case_000.nii.gz", np.ones((4, 12, 10), np.uint8), origin_mm=(0.0, 5.0, 0.0))
    _, message, _ = the_problem(clean.root)
    assert "corners up to 5 mm apart" in message


def test_several_frames_in_one_file_are_named(clean):
    frames = sitk.JoinSeries([sitk.Image(10, 12, 4, sitk.sitkFloat32)] * 2)
    sitk.WriteImage(frames, str(clean.root / "imagesTr" / "case_000_0000.nii.gz"))
    _, message, _ = the_problem(clean.root)
    assert "need a 2D or 3D image, got 4 axes" in message


def test_missing_channel_of_one_case_does_not_hide_the_problems_of_others(raw):
    raw.describe(channels=("T1", "T2"))
    raw.cases(3, num_channels=2)
    (raw.root / "imagesTr" / "case_000_0001.nii.gz").unlink()
    (raw.root / "labelsTr" / "case_001.nii.gz").unlink()
    raw.write("labelsTr/case_002.nii.gz", np.full((4, 12, 10), 9, np.uint8))
    assert [file for file, _, _ in problems_of(raw.root)] == ["case_000", "case_001_0000.nii.gz", "case_002.nii.gz"]


def test_problems_of_image_and_label_of_one_case_are_both_named(clean):
    (clean.root / "imagesTr" / "case_001_0000.nii.gz").write_text("no image")
    (clean.root / "labelsTr" / "case_001.nii.gz").write_text("no label")
    assert [file for file, _, _ in problems_of(clean.root)] == ["case_001_0000.nii.gz", "case_001.nii.gz"]


def test_listed_file_that_is_absent_is_named(raw):
    raw.describe(dataset={"a": {"images": ["a_image.nii.gz"], "label": "a_label.nii.gz"}})
    raw.write("a_image.nii.gz", np.ones((4, 12, 10), np.float32))
    file, message, _ = the_problem(raw.root)
    assert file == "a_label.nii.gz"
    assert "no such file" in message


def test_region_labels_are_checked_against_the_union_of_all_regions(raw):
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3]}
    raw.describe(labels=regions, regions_class_order=[1, 2])
    raw.case("a", label=np.full((2, 3, 4), 3, np.uint8))
    raw.case("b", label=np.full((2, 3, 4), 4, np.uint8))
    file, message, _ = the_problem(raw.root)
    assert file == "b.nii.gz"
    assert "declare {4}" in message


def test_folder_without_images_is_an_error(raw):
    raw.describe()
    with pytest.raises(DatasetError, match="imagesTr: no such folder"):
        check_dataset(raw.root)


def test_real_data_sets_have_no_problem(shared_data, raw):
    for name in ("Dataset004_Hippocampus", "Dataset101_OpenKBPHeadNeck"):
        source = shared_data / name
        description = json.loads((source / "dataset.json").read_text())
        images = sorted((source / "imagesTr").glob("*_0000.nii.gz"))[:5]
        listed = {
            image.name: {
                "images": [str(image)],
                "label": str(source / "labelsTr" / image.name.replace("_0000", "")),
            }
            for image in images
        }
        (raw.root / "dataset.json").write_text(json.dumps({**description, "dataset": listed}))
        assert problems_of(raw.root) == []


def test_images_to_predict_are_checked_too(clean):
    test = clean.root / "imagesTs"
    test.mkdir()
    assert problems_of(clean.root) == []
    (test / ".DS_Store").touch()
    assert problems_of(clean.root) == []
    (test / "notes.txt").touch()
    file, message, fatal = the_problem(clean.root)
    assert (file, fatal) == ("imagesTs", False)
    assert "no file named <case>_0000.nii.gz" in message
    good = next(iter((clean.root / "imagesTr").glob("*_0000.nii.gz")))
    shutil.copy(good, test / "good_0000.nii.gz")
    (test / "broken_0000.nii.gz").write_bytes(good.read_bytes()[:100])
    file, _, fatal = the_problem(clean.root)
    assert (file, fatal) == ("broken_0000.nii.gz", True)


def test_labels_beside_images_to_predict_are_checked_and_may_be_partial(clean):
    for part, suffix in (("images", "_0000"), ("labels", "")):
        source = next(iter((clean.root / f"{part}Tr").glob(f"*{suffix}.nii.gz")))
        (clean.root / f"{part}Ts").mkdir()
        shutil.copy(source, clean.root / f"{part}Ts" / f"test{suffix}.nii.gz")
    file = clean.root / "dataset.json"
    content = json.loads(file.read_text())
    name = next(name for name, value in content["labels"].items() if value == 1)
    file.write_text(json.dumps({**content, "unannotated_labels": {"test": [name], "tset": [name]}}))
    first, second = sorted(problems_of(clean.root))
    assert first[0] == "dataset.json" and "there is no case 'tset'" in first[1]
    assert second[0] == "test.nii.gz" and f"dataset.json calls {name} unannotated here" in second[1]
