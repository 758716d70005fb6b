"""The parts of the report that `python -m evaluation.report` writes."""
