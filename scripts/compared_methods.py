"""What `compare_methods.py` trains."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What is trained, and how.

    Args:
        title: What the table calls it; the same for the bundle and the trainer of one method.
        bundle: The bundle; for an nnU-Net trainer, the one whose docs keep the results.
        trainer: nnU-Net trainer; none: the bundle itself is run.
        options: Options of the bundle, or of `configure`; `{base}` stands for the model of `base`.
        configuration: nnU-Net's configuration.
        base: Method of the same runner whose model this one refines: it is trained first, for half of the minutes.
        trial_iterations: Iterations of the trial that measures CPU seconds per iteration.
    """

    title: str
    bundle: str
    trainer: str | None = None
    options: tuple[str, ...] = ()
    configuration: str = "2d"
    base: str | None = None
    trial_iterations: int = 20


DATASETS = {"Dataset004_Hippocampus": "hippocampus", "Dataset101_OpenKBPHeadNeck": "OpenKBP"}
"""Data sets of the table, and their names there."""
# weights of SAM and SAM2 are not to be had everywhere: their networks start from random ones, and train whole
_SCRATCH = ("--tuning", "all", "--pretrained", "none", "--learning_rate", "0.001")
_CANVAS = ("--image_size", "[128,128]")
_NNUNET_SCRATCH = ("network.tuning=all", "network.image_size=128", "learning_rate=0.001", "batch_size=8")
_SMALL_GENESIS = ("--base_channels", "8", "--patch_depth", "32")
METHODS = {
    "nnunet-stock-2d": Method("nnU-Net, 2d", "enet", "CustomTrainer", ("network=planned", "batch_size=8")),
    "nnunet-stock-3d": Method(
        "nnU-Net, 3d_fullres", "enet", "CustomTrainer", ("network=planned",), "3d_fullres", trial_iterations=3
    ),
    "nnunet-adaptive-2d": Method(
        "nnU-Net, 2d, adaptive sampler",
        "enet",
        "nnUNetTrainerAdaptiveSampler",
        ("network=planned", "sampler=adaptive", "batch_size=8"),
    ),
    "bundle-enet": Method("ENet", "enet", options=_CANVAS),
    "nnunet-enet": Method("ENet", "enet", "nnUNetTrainerENet", ("network=enet", "batch_size=8")),
    "bundle-enet-adaptive": Method("ENet, adaptive sampler", "enet", options=("--sampler", "adaptive", *_CANVAS)),
    "nnunet-enet-adaptive": Method(
        "ENet, adaptive sampler", "enet", "CustomTrainer", ("network=enet", "sampler=adaptive", "batch_size=8")
    ),
    "bundle-crf": Method(
        "ENet, then CRF and last layer",
        "crf",
        options=("--mode", "last", "--base_checkpoint", "{base}"),
        base="bundle-enet",
    ),
    "nnunet-crf": Method(
        "ENet, then CRF and last layer",
        "crf",
        "CustomTrainer",
        ("network=enet", "crf=last", "init=nnunet:{base}", "batch_size=8"),
        base="nnunet-enet",
    ),
    "bundle-samed-small": Method(
        "SAMed small, from scratch", "samed", options=("--variant", "small", *_CANVAS, *_SCRATCH)
    ),
    "nnunet-samed-small": Method(
        "SAMed small, from scratch",
        "samed",
        "nnUNetTrainerSAMed",
        ("network=samed", "network.variant=small", *_NNUNET_SCRATCH),
    ),
    "bundle-sam2unet-tiny": Method(
        "SAM2-UNet tiny, from scratch", "sam2unet", options=("--variant", "tiny", *_CANVAS, *_SCRATCH)
    ),
    "nnunet-sam2unet-tiny": Method(
        "SAM2-UNet tiny, from scratch",
        "sam2unet",
        "nnUNetTrainerSAM2UNet",
        ("network=sam2unet", "network.variant=tiny", *_NNUNET_SCRATCH),
    ),
    "bundle-genesis-8": Method(
        "Models Genesis U-Net, 8 channels, from scratch",
        "models_genesis",
        options=(*_SMALL_GENESIS, "--image_size", "[48,48]", "--pretrained", "none"),
    ),
    "nnunet-genesis-8": Method(
        "Models Genesis U-Net, 8 channels, from scratch",
        "models_genesis",
        "nnUNetTrainerModelsGenesis",
        ("network=genesisunet3d", "network.base_channels=8", "patch_size=32,48,48", "batch_size=2"),
        "3d_fullres",
    ),
}
