"""Weights that are missing: what people are told depends on the size of the network."""

import pytest

from nnunet_ext.bundle import initialize
from nnunet_ext.errors import UserError


class Network:
    """As much of a network as is asked when its file is missing."""

    def __init__(self, *released_weights):
        self.released_weights = released_weights


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "large_files.yml").write_text("large_files:\n- path: models/sam_vit_b_01ec64.pth\n")
    return tmp_path


def advice(bundle, *released_weights):
    with pytest.raises(UserError) as refused:
        initialize(Network(*released_weights), "models/sam_vit_b_01ec64.pth", bundle, bundle)
    return str(refused.value)


def test_file_that_the_bundle_lists_can_be_fetched(bundle):
    text = advice(bundle, "sam_vit_b_01ec64.pth")
    assert f"fetch it: python -m monai.bundle download_large_files --bundle_path {bundle}" in text
    assert text.endswith("--pretrained none --tuning all")


def test_other_size_is_not_sent_to_the_listed_file(bundle):
    text = advice(bundle, "sam_vit_l_0b3195.pth")
    assert "this size of network starts from sam_vit_l_0b3195.pth" in text
    assert "download_large_files" not in text


def test_size_without_released_weights_is_told_so(bundle):
    text = advice(bundle)
    assert "there are no released weights for this size of network" in text
    assert "download_large_files" not in text
