"""What recordings need beside the engine's own dependencies."""

from importlib.util import find_spec

from engine.errors import UsageError

_NEEDED = ("mcap", "rosbags")


def require_mcap() -> None:
    """Refuse what needs the MCAP libraries where they are not installed.

    Raises:
        UsageError: with the command that installs them.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"MCAP files need {' and '.join(missing)}: pip install 'unseen-engine[recording]'")
