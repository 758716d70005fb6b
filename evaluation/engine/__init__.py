"""The compiled part of the metrics: counts, bounding boxes, bit masks, surfaces and distances of label maps."""
