"""The nnU-Net trainer whose network and hyper-parameters stand in the plans."""

import random
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ..atomic import atomic_path
from ..crf_option import WITHOUT, refined
from ..data.coded_cases import CodedLoading
from ..data.foreground_index import index_foreground
from ..data.patch_transforms import training_transforms
from ..data.scheduled_slices import schedule_slices
from ..data.unannotated import UnannotatedLabels, refuse_other_entry
from ..errors import OptionError
from ..initial_weights import count_writes, load_starting_weights
from ..network_choice import PLANNED, build, freeze_coarser_outputs, network_class
from ..options import OWN_SAMPLER
from ..plans import SECTION, refuse_other_options, with_section
from ..recipe import from_section
from ..training.accumulation import Accumulation, to_device
from ..training.adapter_files import recall_base, save_adapter
from ..training.bare_network import bare_network
from ..training.early_stop import early_stops, moving_average
from ..training.gradients import tame_gradients
from ..training.losses import LossSetting
from ..training.mixup import Mixup
from ..training.optimizers import OPTIMIZERS
from ..training.partial_labels import absent_outputs, find_partial
from ..training.planned_loss import build_loss
from ..training.schedules import SCHEDULES, EpochSchedule, plateau_factor

_CUDA = torch.device("cuda")


class _EarlyStop(Exception):  # noqa: N818
    """Leaves nnU-Net's loop over the epochs, whose end is fixed before it begins."""


class CustomTrainer(nnUNetTrainer):
    """Train the network of the plans' `nnunet_ext` section, as `python -m nnunet_ext configure` writes it.

    A configuration without a section gets the defaults. A named trainer is a subclass with a `preset`: options that
    replace the defaults, but not what a configuration says. Either way the plans that are saved beside the weights
    carry the complete section, because prediction knows nothing else.

    Args:
        plans: Content of the plans file.
        configuration: Name of the configuration.
        fold: Number of the fold, or "all".
        dataset_json: Content of `dataset.json`.
        device: Where to train.

    Raises:
        OptionError: If an option is unknown or not allowed, or contradicts the preset.
    """

    preset: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = _CUDA
    ) -> None:
        super().__init__(with_section(plans, configuration, self.preset), configuration, fold, dataset_json, device)
        self.continued = False  # `--c` says it too, where there is nothing to continue
        self.options = _options_of(self.configuration_manager)
        self.initial_lr = self.options.learning_rate
        self.weight_decay = self.options.weight_decay
        self.oversample_foreground_percent = self.options.oversample_foreground
        self.num_iterations_per_epoch = self.options.iterations_per_epoch
        self.num_val_iterations_per_epoch = self.options.val_iterations_per_epoch
        self.num_epochs = self.options.epochs
        self.enable_deep_supervision = self.options.deep_supervision
        self.save_every = self.options.save_every
        self._unannotated = UnannotatedLabels.from_dataset_json(dataset_json, Path("dataset.json"))
        self._coded = CodedLoading(self._unannotated)
        self._accumulation = Accumulation(self.options.accumulation_steps, self.num_iterations_per_epoch)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network from the plans alone, for training and for prediction.

        Args:
            plans_manager: The plans.
            configuration_manager: The configuration, with or without a section.
            num_input_channels: Channels of the input.
            num_output_channels: Channels of the logits.
            enable_deep_supervision: Whether the network shall return its coarser outputs too.
        """
        options = _options_of(configuration_manager)
        if options.network == PLANNED:
            network = nnUNetTrainer.build_network_architecture(
                plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
            )
        else:
            network = build(
                options.network,
                num_input_channels,
                num_output_channels,
                len(configuration_manager.patch_size),
                options.network_options,
                deep_supervision=enable_deep_supervision and options.deep_supervision,
                low_resolution=options.loss_resolution == "low",
            )
        last_layers = getattr(network_class(options.network), "last_layers", ())
        spacing_mm = configuration_manager.spacing
        return refined(network, options.crf, options.crf_options, spacing_mm, last_layers, options.network)

    def initialize(self) -> None:
        """Build network, optimiser and loss; print the options."""
        self._refuse_other_regions()
        if not self.was_initialized and self.options.seed is not None:
            random.seed(self.options.seed)
            np.random.seed(self.options.seed)
            torch.manual_seed(self.options.seed)
        super().initialize()
        options = self.options
        self._writes = count_writes(bare_network(self.network))
        self._mixup = Mixup(self.network, options.mixup, options.mixup_alpha, options.seed or 0, self.local_rank)
        settings = {**self.options.section(), "batch_size": self.batch_size}
        self.print_to_log_file("Options:", ", ".join(f"{name}={value}" for name, value in settings.items()))

    def _refuse_other_regions(self) -> None:
        """Refuse a network that is to treat classes as regions, or regions as classes."""
        regions = self.label_manager.has_regions
        for prefix, options in (("network", self.options.network_options), ("crf", self.options.crf_options)):
            if options.get("regions", regions) != regions:
                kind = "regions" if regions else "classes"
                raise OptionError(
                    f"the labels of this data set are {kind}; set {prefix}.regions={str(regions).lower()}"
                )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        """Return the optimiser of all trainable parameters, and the schedule of its learning rate."""
        options = self.options
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = OPTIMIZERS[options.optimizer].build(
            parameters, options.learning_rate, options.weight_decay, options.momentum
        )
        if options.network == PLANNED and not self.enable_deep_supervision:
            freeze_coarser_outputs(self.network)  # now: checkpoints hold all parameters of the optimiser
        # nnU-Net's train_step clips at 12 (after unscaling) and then steps: ours goes in between.
        drops = self.grad_scaler is None  # a scaler skips such steps itself
        optimizer.register_step_pre_hook(lambda *_: tame_gradients(parameters, options.gradient_clip, drops))
        schedule = SCHEDULES[options.schedule].factor
        plateau = self._plateau if options.schedule == "plateau" else None
        return optimizer, EpochSchedule(optimizer, schedule, options.epochs, options.warmup_epochs, plateau)

    def _plateau(self) -> float:
        return plateau_factor(self._scores(), self.options.plateau_patience)

    def _scores(self) -> list[float]:
        """Return what tells whether the training stands still: the moving average of the Dice, by epoch."""
        return list(moving_average(self.logger.get_value("mean_fg_dice", step=None)))

    def _build_loss(self) -> nn.Module:
        setting = LossSetting(
            has_regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            ddp=self.is_ddp,
            weight=self.options.loss_lambda,
        )
        scales = self._get_deep_supervision_scales()
        return build_loss(
            self.options, setting, self._unannotated, None if scales is None else len(scales), self._do_i_compile()
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        own = getattr(network_class(self.options.network), "deep_supervision_scales", None)
        return own if own and self.enable_deep_supervision else super()._get_deep_supervision_scales()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the network's coarser outputs on or off, if it was trained with any."""
        if not self.enable_deep_supervision:
            return
        network = self._base_network()
        (network.decoder if self.options.network == PLANNED else network).deep_supervision = enabled

    def _do_i_compile(self) -> bool:
        # compiled code would be made anew for each weight and each point of the mixture
        return self.options.mixup != "manifold" and super()._do_i_compile()

    def _base_network(self) -> Any:
        """Return the bare network before the CRF, where the option `crf` puts one behind it."""
        network = bare_network(self.network)
        return network if self.options.crf == WITHOUT else network.base

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:  # noqa: N802
        """Return nnU-Net's augmentation settings, without mirroring if the training has none."""
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.options.mirrors:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def get_training_transforms(self, patch_size: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the random transforms of the options; nnU-Net's own arguments, some by position."""
        own = super().get_training_transforms(patch_size, *args, **kwargs)
        scales = args[1] if len(args) > 1 else kwargs["deep_supervision_scales"]
        known = {key: kwargs.get(key) for key in ("foreground_labels", "regions", "ignore_label")}
        last = super().get_validation_transforms(scales, is_cascaded=kwargs.get("is_cascaded", False), **known)
        chosen = training_transforms(
            self.options, tuple(patch_size), own, last, batch_size=self.batch_size, first_epoch=self.current_epoch
        )
        return self._coded.transforms("training", chosen)

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """Return nnU-Net's own, which tell the case's unannotated labels too."""
        return self._coded.transforms("validation", super().get_validation_transforms(*args, **kwargs))

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Return nnU-Net's data sets; the one for training in the order of the sampler, if the options name one."""
        whole, validation = super().get_tr_and_val_datasets()
        refuse_other_entry(self.dataset_json, self.plans_manager.dataset_name)
        if summary := self._unannotated.summary([*whole.identifiers, *validation.identifiers]):
            self.print_to_log_file(summary)
        training, validation = self._coded.cases("training", whole), self._coded.cases("validation", validation)
        if self.options.sampler == OWN_SAMPLER:
            return training, validation
        slices = schedule_slices(
            training,
            index_foreground(
                whole,
                Path(f"{self.preprocessed_dataset_folder}_foreground_slices.json"),
                self.label_manager.ignore_label,
            ),
            self.options,
            batch_size=self.batch_size,
            first_epoch=self.current_epoch,
            rank=self.local_rank,
            num_ranks=torch.distributed.get_world_size() if self.is_ddp else 1,
            global_batch_size=self.configuration_manager.batch_size,
        )
        return slices, validation

    def on_train_start(self) -> None:
        """Prepare the training as nnU-Net does; refuse to mix models of different options in one folder."""
        self._refuse_other_options(of_other_folds=not self.continued)
        if not self.was_initialized:
            self.initialize()
        if not self.continued:
            self._load_pretrained()
        elif self.options.pretrained is not None:
            recall_base(bare_network(self.network), self.output_folder)
        super().on_train_start()

    def run_training(self) -> None:
        """Train as nnU-Net does, up to the last epoch or until validation has stood still for too long."""
        try:
            super().run_training()
        except _EarlyStop:
            self.print_to_log_file(f"Stopped early: no better Dice for {self.options.early_stop_patience} epochs")
            self.on_train_end()

    def on_epoch_start(self) -> None:
        """Begin an epoch, unless the training has stopped early; the log alone decides, also after `--c`."""
        if early_stops(self._scores(), self.options.early_stop_patience):
            raise _EarlyStop
        super().on_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Begin the training part of an epoch."""
        super().on_train_epoch_start()
        self._accumulation.restart()
        self._mixup.set_epoch(self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        """Train on a batch; the optimiser steps once for `accumulation_steps` of them, and after the epoch's last."""
        if self.options.accumulation_steps == 1 and self.options.mixup == "none":
            return super().train_step(batch)
        images, target = (to_device(batch[key], self.device) for key in ("data", "target"))
        self._accumulation.begin(self.optimizer)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss = self._mixup.loss(self.loss, self.network(self._mixup.begin(images)), target)
        self._accumulation.finish(loss, self.optimizer, self.grad_scaler)
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict) -> dict:
        """Score a batch; labels that nobody has annotated in a case are background in both maps of it."""
        if not self._unannotated:
            return super().validation_step(batch)
        target, absent = find_partial(self.loss).split_all(batch["target"])
        with absent_outputs(self.network, absent.to(self.device), self.label_manager.has_regions):
            return super().validation_step({**batch, "target": target})

    def _load_pretrained(self) -> None:
        """Load the weights to start from; never when a training goes on, nor for prediction."""
        network = bare_network(self.network)
        loaded = count_writes(network) > self._writes
        load_starting_weights(network, self.options, self.print_to_log_file, loaded=loaded)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load a checkpoint, after a check that it was trained with these options."""
        self._refuse_other_options(of_other_folds=False)
        super().load_checkpoint(filename_or_checkpoint)
        self.continued = True

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint so that a killed run leaves the previous one, not half of a new one."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_path(filename) as temporary:
            super().save_checkpoint(str(temporary))
        save_adapter(bare_network(self.network), filename)

    def _refuse_other_options(self, of_other_folds: bool) -> None:
        """Refuse options that differ from those beside the weights: prediction would use them for all folds."""
        if self.output_folder_base is not None:
            refuse_other_options(
                self.output_folder_base, self.configuration_name, self.options, self.fold if of_other_folds else None
            )


def _options_of(configuration_manager: ConfigurationManager) -> Any:
    section = configuration_manager.configuration.get(SECTION, {})
    return from_section(section, configuration_manager.patch_size, configuration_manager.spacing)
