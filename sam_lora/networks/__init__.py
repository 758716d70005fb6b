"""SAM-family networks, one a module; the file name is the key that `network=` takes.

They follow the rules of `nnunet_ext.networks`, which finds them here.
"""
