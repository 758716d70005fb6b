"""The two ways an evaluation can go wrong: the whole run, or one case of it."""


class EvaluationError(ValueError):
    """Say that an option, a folder or dataset.json makes the whole run impossible (exit code 2)."""


class CaseError(ValueError):
    """Say that one case can't be scored; the others are (exit code 1). The message names the file."""
