"""Every bundle takes any data set: several channels, regions, photographs, no test images."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.errors import DatasetError

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
}


def write_image(path, array, spacing_mm=(1.0, 1.5, 4.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 3 and array.shape[-1] == 3)
    image.SetSpacing(spacing_mm[: image.GetDimension()])
    sitk.WriteImage(image, str(path))


def write_blobs(root, *, num_channels=1, ending=".nii.gz", labels=None, rgb=False, num_cases=5):
    """Write nested boxes, brighter inside, in any number of channels; or photographs of them."""
    random = np.random.default_rng(0)
    for index in range(num_cases):
        label = np.zeros((1, 32, 32) if rgb else (6, 30, 26), np.uint8)
        row, column = random.integers(2, 8, 2)
        label[:5, row : row + 16, column : column + 14] = 1
        label[:3, row + 4 : row + 10, column + 4 : column + 10] = 2
        channels = [label * 60 + random.normal(60, 10, label.shape) for _ in range(num_channels)]
        if rgb:
            photograph = np.stack([channel[0] for channel in channels], -1).clip(0, 255).astype(np.uint8)
            write_image(root / "imagesTr" / f"blob_{index}_0000{ending}", photograph)
            write_image(root / "labelsTr" / f"blob_{index}{ending}", label[0])
            continue
        for channel, array in enumerate(channels):
            write_image(root / "imagesTr" / f"blob_{index}_{channel:04d}{ending}", array.astype(np.float32))
        write_image(root / "labelsTr" / f"blob_{index}{ending}", label)
    description = {
        "channel_names": {str(c): "RGB_to_0_1" if rgb else f"MR{c}" for c in range(num_channels)},
        "numTraining": num_cases,
        "file_ending": ending,
        **(labels or {"labels": {"background": 0, "outer": 1, "inner": 2}}),
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


CASES = {
    "two channels": {"num_channels": 2},
    "regions": {"labels": REGIONS},
    "two channels and regions": {"num_channels": 2, "labels": REGIONS},
    "photographs": {"num_channels": 3, "ending": ".png", "rgb": True},
    "uncompressed": {"ending": ".nii"},
}


SLOW = ("regions", "uncompressed")  # what the others leave over


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in CASES]
)
def test_training_evaluation_and_inference_work_on(bundle, workspace, kind):
    options = CASES[kind]
    root = write_blobs(workspace / "raw" / "Dataset951_Blobs", **options)
    ending = options.get("ending", ".nii.gz")
    run = {**bundle.tiny, "iterations_per_epoch": 2, "dataset_dir": str(root), "cache_dir": "cache"}
    bundle.run("train", **run, output_dir="run")
    bundle.run("train", "evaluate", **run, output_dir="run")
    bundle.run(
        "inference",
        workflow_type="infer",
        images_dir=str(root / "imagesTr"),
        ckpt_dir="run",
        output_dir="predictions",
        save_probabilities=True,
    )
    for index in range(5):
        reference = sitk.ReadImage(str(root / "labelsTr" / f"blob_{index}{ending}"))
        prediction = sitk.ReadImage(str(workspace / "predictions" / f"blob_{index}{ending}"))
        assert prediction.GetSize() == reference.GetSize()
        assert prediction.GetSpacing() == pytest.approx(reference.GetSpacing())
        label = sitk.GetArrayFromImage(prediction)
        assert set(np.unique(label)) <= {0, 1, 2}
        probabilities = np.load(workspace / "predictions" / f"blob_{index}.npz")["probabilities"]
        if "labels" in options:
            assert len(probabilities) == 2
            whole, core = (probabilities > 0.5).reshape(2, *label.shape)
            assert np.array_equal(label, np.select([core, whole], [2, 1], 0))
        else:
            assert np.array_equal(label, probabilities.argmax(0).reshape(label.shape))
    assert len(list((workspace / "run" / "validation").glob(f"*{ending}"))) == 1


def test_fold_all_trains_on_every_case(bundle, workspace, tiny_phantom):
    run = {**bundle.tiny, "iterations_per_epoch": 2, "dataset_dir": str(tiny_phantom), "cache_dir": "cache"}
    workflow = bundle.run("train", **run, output_dir="run", fold="all")
    data = workflow.parser.get_parsed_content("data")
    assert len(data.train_volumes) == len(data.val_volumes) == 5


def test_bad_data_set_is_refused_with_all_its_bad_files(bundle, workspace, tiny_phantom):
    root = workspace / "raw" / "Dataset952_Bad"
    shutil.copytree(tiny_phantom, root)
    for name in ("thorax_001", "thorax_003"):
        (root / "labelsTr" / f"{name}.nii.gz").write_text("no label")
    with pytest.raises(DatasetError, match="2 of 5 cases are unusable") as error:
        bundle.run("train", **bundle.tiny, dataset_dir=str(root), output_dir="run", cache_dir="cache")
    assert "thorax_001.nii.gz" in str(error.value)
    assert "thorax_003.nii.gz" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset101_OpenKBPHeadNeck"])
def test_twenty_iterations_on_real_data_lower_the_loss(bundle, workspace, shared_data, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    source = shared_data / name
    description = json.loads((source / "dataset.json").read_text())
    images = sorted((source / "imagesTr").glob("*_0000.nii.gz"))[:6]
    description["dataset"] = {
        image.name.removesuffix("_0000.nii.gz"): {
            "images": [str(image)],
            "label": str(source / "labelsTr" / image.name.replace("_0000", "")),
        }
        for image in images
    }
    root = workspace / "raw" / name
    root.mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps(description))
    # behind a random network that is frozen, the last layer alone has to learn
    faster = {"learning_rate": 0.05} if "base_checkpoint" in bundle.train else {}
    bundle.run(
        "train",
        **{
            **bundle.tiny,
            **faster,
            "image_size": [64, 64],
            "batch_size": 8,
            "iterations_per_epoch": 10,
            "max_epochs": 2,
            "warmup_iterations": 1,
        },
        dataset_dir=str(root),
        cache_dir="cache",
        output_dir="run",
    )
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    losses = [event.value for event in events.Scalars("train_loss")]
    assert losses[-1] < losses[0]
