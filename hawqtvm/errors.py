"""The two ways a stage fails, and the exit codes they become."""


class HawqtvmError(Exception):
    """A message that names the thing and the remedy; never shown with a traceback."""

    exit_code = 1


class BadInput(HawqtvmError):
    """What the user gave cannot be used: exit code 2."""

    exit_code = 2


class CheckFailed(HawqtvmError):
    """A proof or comparison failed: exit code 1."""
