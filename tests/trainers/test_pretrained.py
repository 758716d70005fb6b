"""A training starts from the weights that `pretrained` names, and leaves its adapter beside the checkpoints."""

import pytest
import torch
from peft import PeftModel

from nnunet_ext.errors import OptionError
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from sam_lora import SAMed
from sam_lora.adapter_folder import read_base
from sam_lora.sam_checkpoint import to_meta_layout

SMALL = ("network=samed", "network.variant=small", "network.image_size=64")
SHORT = ("epochs=1", "iterations_per_epoch=2", "val_iterations_per_epoch=1", "batch_size=2", "warmup_epochs=0")


@pytest.fixture
def weights(tmp_path):
    """SAM's small variant with weights of its own, in Meta's layout."""
    torch.manual_seed(7)
    file = tmp_path / "sam_small.pth"
    torch.save(to_meta_layout(SAMed(1, 4, variant="small", image_size=64)), file)
    return file


@pytest.fixture
def start(folders):
    """A function that brings a trainer of some settings to where its training starts."""

    def make(*settings: str) -> CustomTrainer:
        folders.configure("2d_sam", *settings)
        trainer = folders.trainer(CustomTrainer, "2d_sam")
        trainer.initialize()
        trainer._load_pretrained()
        return trainer

    return make


def test_training_starts_from_the_file(start, weights):
    trainer = start(*SMALL, f"pretrained={weights}")
    loaded = torch.load(weights, weights_only=True)["image_encoder.neck.0.weight"]
    assert torch.equal(trainer.network.image_encoder.neck[0].weight, loaded)


def test_optimiser_holds_the_updates_that_the_network_has(start, weights):
    trainer = start(*SMALL, "network.init=pissa", f"pretrained={weights}")
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in trainer.network.parameters() if p.requires_grad}


def test_random_weights_are_a_loud_warning(start, capsys):
    start(*SMALL)
    assert "WARNING: samed starts from RANDOM weights; set pretrained=FILE" in capsys.readouterr().out


def test_missing_file_is_named(start, tmp_path):
    with pytest.raises(OptionError, match=r"pretrained: .*nowhere\.pth: no such file"):
        start(*SMALL, f"pretrained={tmp_path / 'nowhere.pth'}")


def test_network_that_takes_no_weights_refuses_them(start, weights):
    with pytest.raises(OptionError, match="network enet takes no pretrained file"):
        start("network=enet", f"pretrained={weights}")


def test_adapter_lies_beside_the_checkpoint_and_peft_loads_it(folders, weights):
    folders.configure("2d_sam", *SMALL, *SHORT, f"pretrained={weights}")
    folders.train("CustomTrainer", "2d_sam")
    fold = folders.model("CustomTrainer", "2d_sam") / "fold_0"
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    network = SAMed(2, 3, variant="small", image_size=64).eval()
    network.load_state_dict(final)
    base = SAMed(2, 3, variant="small", image_size=64, tuning="decoder").eval()
    base.load_pretrained(weights)
    adapted = PeftModel.from_pretrained(base, fold / "adapter_final").eval()
    x = torch.randn(1, 2, 40, 36)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), network(x), rtol=1e-5, atol=1e-5)


def test_continued_training_does_not_need_the_file_and_still_leaves_adapters(folders, weights, monkeypatch):
    def interrupted(trainer):
        end_of_epoch(trainer)
        raise KeyboardInterrupt

    folders.configure("2d_sam", *SMALL, "epochs=2", *SHORT[1:], f"pretrained={weights}")
    end_of_epoch = CustomTrainer.on_epoch_end
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CustomTrainer, "on_epoch_end", interrupted)
        folders.train("CustomTrainer", "2d_sam")
    fold = folders.model("CustomTrainer", "2d_sam") / "fold_0"
    assert not (fold / "adapter_final").exists()
    sha256 = read_base(fold / "adapter_best")["sha256"]
    weights.unlink()
    folders.train("CustomTrainer", "2d_sam", continue_training=True)
    assert read_base(fold / "adapter_final")["sha256"] == sha256
    folders.train("CustomTrainer", "2d_sam", only_run_validation=True)


def test_deep_supervision_weighs_all_outputs_alike_where_the_network_says_so(start):
    trainer = start("network=sam2unet", "network.variant=mini", "network.image_size=64")
    assert trainer.options.deep_supervision
    assert [float(weight) for weight in trainer.loss.weight_factors] == pytest.approx([1 / 3] * 3)
