"""Resizing of slices and labels."""

import pytest
import torch

from nnunet_ext.data.resize import resize_labels, resize_slices


def test_equal_size_changes_nothing():
    images, labels = torch.rand(2, 3, 8, 9), torch.randint(0, 5, (2, 1, 8, 9))
    assert resize_slices(images, (8, 9)) is images
    assert resize_labels(labels, (8, 9)) is labels


@pytest.mark.parametrize("size", [(4, 5), (16, 20), (4, 20)])
def test_constant_slices_stay_constant(size):
    resized = resize_slices(torch.full((1, 2, 8, 9), 3.5), size)
    assert resized.shape == (1, 2, *size)
    assert torch.allclose(resized, torch.tensor(3.5))


def test_shrinking_averages_instead_of_dropping_pixels():
    checkerboard = torch.arange(64).remainder(2).view(1, 1, 1, 64).expand(1, 1, 64, 64).float()
    assert (resize_slices(checkerboard, (16, 16))[..., 2:-2] - 0.5).abs().max() < 0.1


def test_labels_keep_their_values_and_type():
    labels = torch.randint(0, 5, (2, 1, 37, 21), dtype=torch.int32)
    resized = resize_labels(labels, (64, 16))
    assert resized.dtype == torch.int32
    assert set(resized.unique().tolist()) <= set(labels.unique().tolist())


def test_label_stays_on_its_image():
    box = torch.zeros(1, 1, 30, 50)
    box[..., 10:20, 15:40] = 1
    image = resize_slices(box, (96, 96)) > 0.5
    assert (image != resize_labels(box.byte(), (96, 96)).bool()).float().mean() < 0.01


def test_half_precision_is_kept():
    assert resize_slices(torch.rand(1, 1, 8, 8).half(), (4, 4)).dtype == torch.float16
