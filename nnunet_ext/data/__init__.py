"""Data sets in nnU-Net's raw layout: reading, checking, folds, slices, the built-in phantom."""
