"""What `compare_methods.py` trains."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What is trained, and how.

    Args:
        bundle: The bundle; for an nnU-Net trainer, the one whose docs keep the results.
        trainer: nnU-Net trainer; none: the bundle itself is run.
        options: Options of the bundle, or of `configure`.
    """

    bundle: str
    trainer: str | None = None
    options: tuple[str, ...] = ()


# weights of SAM and SAM2 are not to be had everywhere: their networks start from random ones, and train whole
_SCRATCH = ("--tuning", "all", "--pretrained", "none", "--learning_rate", "0.001")
_CANVAS = ("--image_size", "[128,128]")
_NNUNET_SCRATCH = ("network.tuning=all", "network.image_size=128", "learning_rate=0.001", "batch_size=8")
METHODS = {
    "bundle-enet": Method("enet"),
    "nnunet-enet": Method("enet", "nnUNetTrainerENet", ("network=enet", "batch_size=8")),
    "nnunet-stock-2d": Method("enet", "CustomTrainer", ("network=planned", "batch_size=8")),
    "bundle-samed-small": Method("samed", options=("--variant", "small", *_CANVAS, *_SCRATCH)),
    "nnunet-samed-small": Method(
        "samed",
        "nnUNetTrainerSAMed",
        ("network=samed", "network.variant=small", *_NNUNET_SCRATCH),
    ),
    "bundle-sam2unet-tiny": Method("sam2unet", options=("--variant", "tiny", *_CANVAS, *_SCRATCH)),
    "nnunet-sam2unet-tiny": Method(
        "sam2unet",
        "nnUNetTrainerSAM2UNet",
        ("network=sam2unet", "network.variant=tiny", *_NNUNET_SCRATCH),
    ),
}
