"""Errors a user can act on; each carries the exit code of the command line."""


class EngineError(Exception):
    """One line that says what is wrong, the measured value, the limit and what to do."""

    exit_code = 1


class UsageError(EngineError):
    """Options or configuration that cannot be used."""

    exit_code = 2


class SourceError(EngineError):
    """A frame source that cannot be opened or read."""

    exit_code = 3


class ModelError(EngineError):
    """A model file that is missing, corrupt or does not follow the model contract."""

    exit_code = 4


class StoreError(EngineError):
    """An output (masks, statistics, selection store) that cannot be written."""

    exit_code = 5
