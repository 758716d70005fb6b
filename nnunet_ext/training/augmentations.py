"""The sets of random transforms that `augmentation=` takes, and what each is for."""

NNUNET = "nnunet"
"""nnU-Net's own transforms."""

AUGMENTATIONS: dict[str, str] = {
    "none": "nothing",
    "basic": "rotation, scale, shift, noise, brightness",
    "affine": "rotation, scale, shear, shift",
    "elastic": "elastic deformation",
    "crop": "a random part, at least 0.7 of each side, stretched to the whole",
    "zoom": "zoom by 0.8 to 1.3",
    NNUNET: "nnU-Net's own, with rotation by any angle and mirroring",
}
"""Sets by name, with one line of help; `nnunet_ext.data.augmentation` has their transforms."""
