"""Every bundle is trained with the loss, the optimiser and the schedule that it is told."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.engines import IterationEvents

from nnunet_ext.bundle import GradientClip, ObserveScore
from nnunet_ext.bundle.losses import LOSSES, make_loss
from nnunet_ext.data import AUGMENTATIONS
from nnunet_ext.errors import UserError


@pytest.fixture
def loss_of(bundle, tiny_phantom, workspace):
    """Return the loss of the bundle's trainer on fixed logits, and what the function makes of a name."""
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 16, 16), torch.randint(0, 5, (2, 1, 16, 16))

    def compute(**options):
        options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny, **options}
        with bundle.readable_errors():
            parser = bundle.workflow("train", **options).parser
            loss, data = parser.get_parsed_content("loss"), parser.get_parsed_content("data")
        expected = make_loss(parser["loss_name"], data.label_map, parser["loss_lambda"])(logits, label)
        return loss(logits, label).item(), expected.item()

    return compute


def test_each_loss_by_its_name(loss_of):
    values = {}
    for name in LOSSES:
        values[name], expected = loss_of(loss_name=name)
        assert values[name] == pytest.approx(expected), name
    assert len({round(value, 4) for value in values.values()}) == len(LOSSES)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "bce_dice"])
def test_lambda_weighs_the_second_term(loss_of, name):
    at_0, at_1, at_3 = (loss_of(loss_name=name, loss_lambda=value)[0] for value in (0.0, 1.0, 3.0))
    assert at_1 - at_0 > 0.01
    assert at_3 - at_0 == pytest.approx(3 * (at_1 - at_0), rel=1e-4)


def test_a_mistyped_loss_is_refused(loss_of):
    with pytest.raises(UserError, match=r"loss_name must be one of dice_ce, .*tversky.*, got 'tverski'"):
        loss_of(loss_name="tverski")


def test_optimizer_and_schedule_by_their_names(bundle, tiny_phantom, workspace):
    options = {
        **{"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny},
        **{"optimizer_name": "rmsprop", "momentum": 0.7, "learning_rate": 0.5, "weight_decay": 0.125},
        **{"schedule": "step", "warmup_iterations": 0, "max_epochs": 1, "iterations_per_epoch": 4},
    }
    parser = bundle.workflow("train", **options).parser
    optimizer, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.RMSprop
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.7, 0.125)
    assert [0.5 * schedule.lr_lambdas[0](i) for i in range(4)] == pytest.approx([0.5, 0.5, 0.05, 0.005])
    observer = next(h for h in parser.get_parsed_content("validate::handlers") if isinstance(h, ObserveScore))
    assert observer.scheduler is schedule


def test_warmup_and_patience_of_a_plateau(bundle, tiny_phantom, workspace):
    options = {
        **{"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny, "iterations_per_epoch": 50},
        **{"schedule": "plateau", "warmup_iterations": 4, "plateau_patience": 2},
    }
    factor = bundle.workflow("train", **options).parser.get_parsed_content("lr_scheduler").lr_lambdas[0]
    assert [factor(i) for i in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    found = []
    for _ in range(3):  # the first is the best, two more without gain lower it
        factor.scores = [*factor.scores, 0.5]
        found.append(factor(5))
    assert found == pytest.approx([1, 1, 0.2])


def test_clipping_accumulation_and_early_stopping_by_their_options(bundle, tiny_phantom, workspace):
    options = {
        **{"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny},
        **{"gradient_clip": 0.25, "accumulation_steps": 3, "early_stop_patience": 7},
    }
    parser = bundle.workflow("train", **options).parser
    clip = next(h for h in parser.get_parsed_content("train::handlers") if isinstance(h, GradientClip))
    assert clip.max_norm == 0.25
    assert parser.get_parsed_content("train::trainer").accumulation_steps == 3
    assert parser.get_parsed_content("early_stop").patience == 7
    assert parser.get_parsed_content("early_stop") in parser.get_parsed_content("validate::handlers")


def test_augmentation_by_its_name_from_its_epoch_on(bundle, tiny_phantom, workspace):
    options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny}

    def images(epoch: int, **changes) -> list[torch.Tensor]:
        dataset = bundle.workflow("train", **options, **changes).parser.get_parsed_content("train::dataset")
        dataset.set_epoch(epoch)
        return [dataset[item]["image"] for item in range(4)]

    plain = torch.stack(images(1, augmentation="none"))
    found = {name: torch.stack(images(2, augmentation=name)) for name in AUGMENTATIONS}
    assert torch.equal(found["none"], plain)
    assert len({value.numpy().tobytes() for value in found.values()}) == len(AUGMENTATIONS)
    assert torch.equal(torch.stack(images(1, augmentation="zoom", augment_from_epoch=2)), plain)
    assert torch.equal(torch.stack(images(2, augmentation="zoom", augment_from_epoch=2)), found["zoom"])


@pytest.mark.parametrize("kind", ["none", "input", "manifold"])
def test_mixup_of_images_maps_and_losses(bundle, tiny_phantom, workspace, kind):
    """What the network sees, and the loss that the trainer reports, are those of the batch's one draw."""
    options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", "output_dir": "run", **bundle.tiny}
    changes = {"mixup": kind, "mixup_alpha": 1.0, "learning_rate": 1e-9}
    workflow = bundle.workflow("train", **{**options, "batch_size": 3, **changes})
    trainer = workflow.parser.get_parsed_content("train::trainer")
    mixup, plain = (workflow.parser.get_parsed_content(name) for name in ("train::mixup", "loss"))
    seen, checked = [], []
    trainer.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def check(engine):
        batch, mix = engine.state.output, mixup.mix
        if mix is None:
            share, order, images = 1.0, slice(None), batch["image"]
        else:
            share, order = mix.weight, mix.order
            images = mix.of(batch["image"]) if mix.point == "input" else batch["image"]
        assert torch.equal(seen[-1], images)
        of_both = (
            share * plain(batch["pred"], batch["label"]),
            (1 - share) * plain(batch["pred"], batch["label"][order]),
        )
        assert batch["loss"].item() == pytest.approx(sum(of_both).item(), rel=1e-5)
        checked.append(None if mix is None else mix.point)

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, check)
    with bundle.readable_errors():
        workflow.run()
    assert len(checked) == bundle.tiny["iterations_per_epoch"]
    if kind == "manifold":
        assert len(set(checked)) > 1
        assert set(checked) <= set(mixup.points)
    else:
        assert set(checked) == {None if kind == "none" else "input"}


def test_shares_come_from_the_beta_distribution_of_the_option(bundle, tiny_phantom, workspace):
    options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny, "mixup": "input", "seed": 5}
    trainer = bundle.workflow("train", **options, mixup_alpha=1.5).parser.get_parsed_content("train::trainer")
    mixup = trainer.inferer.mixup
    assert trainer.loss_function.mixup is mixup
    assert mixup.alpha == 1.5
    mixup.begin(torch.zeros(2, 1, 8, 8))
    assert mixup.mix.weight == np.random.default_rng((5, 0)).beta(1.5, 1.5)


def test_a_mistyped_mixup_is_refused(bundle, tiny_phantom, workspace):
    options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny, "mixup": "inputs"}
    with pytest.raises(UserError, match="mixup must be one of none, input, manifold"), bundle.readable_errors():
        bundle.workflow("train", **options).parser.get_parsed_content("train::trainer")


def test_labels_that_nobody_annotated_are_left_out_of_the_loss(bundle, tiny_phantom, workspace):
    folder = Path(shutil.copytree(tiny_phantom, workspace / tiny_phantom.name))
    content = json.loads((folder / "dataset.json").read_text())
    name = next(label for label in content["labels"] if label != "background")
    cases = [path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").glob("*.nii.gz")]
    content["unannotated_labels"] = {case: [name] for case in cases}
    for path in (folder / "labelsTr").glob("*.nii.gz"):
        image = nib.load(path)
        label = np.array(image.dataobj)
        label[label == content["labels"][name]] = 0
        nib.save(nib.Nifti1Image(label, image.affine, image.header), path)
    (folder / "dataset.json").write_text(json.dumps(content))
    options = {"dataset_dir": str(folder), "cache_dir": "cache", "output_dir": "run", **bundle.tiny}
    workflow = bundle.workflow("train", **{**options, "iterations_per_epoch": 3, "learning_rate": 1e-9})
    trainer, data = (workflow.parser.get_parsed_content(key) for key in ("train::trainer", "data"))
    names = workflow.parser["loss_name"], data.label_map, workflow.parser["loss_lambda"]
    expected, plain = make_loss(*names, data.dataset.unannotated), make_loss(*names)
    others = []

    def check(engine):
        batch = engine.state.output
        assert (batch["label"][:, 1] == 1).all()
        outputs = batch["pred"] if isinstance(batch["pred"], list) else [batch["pred"]]
        assert batch["loss"].item() == pytest.approx(
            sum(expected(one, batch["label"]).item() for one in outputs), rel=1e-5
        )
        others.append(batch["loss"].item() - sum(plain(one, batch["label"][:, :1]).item() for one in outputs))

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, check)
    with bundle.readable_errors():
        workflow.run()
    assert len(others) == 3
    assert max(map(abs, others)) > 1e-3
