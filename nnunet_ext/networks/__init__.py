"""Networks that upstream lacks, one a module; the file name is the key that `network=` takes.

A network module `<key>.py` holds one public class whose lower-cased name, without underscores,
is the key without underscores (`enet.py` -> `ENet`). The class

* is built as `Network(in_channels, num_classes, **options)`, every option keyword-only with a default;
* names what it can do in class attributes: `spatial_dims` (tuple of 2 and/or 3);
* keeps contract 2: `forward(x[B, C, *S]) -> logits[B, K, *S]`, float, no softmax.

Modules whose name starts with an underscore, and modules without such a class, are not networks.
"""
