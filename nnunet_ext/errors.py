"""The errors that a user can cause, told apart from defects of the code."""


class UserError(ValueError):
    """Something that the caller gave is wrong; the message says where, what is needed, what came, what to do."""


class DatasetError(UserError):
    """A data set, or one file of it, cannot be used as it is."""


class OptionError(UserError):
    """An option is unknown, or its value is not allowed."""
