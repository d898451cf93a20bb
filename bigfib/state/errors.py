"""The errors of a state log, each with its condition.

A message says what failed and why. The attributes let a command line add what to run.
"""

from pathlib import Path

from bigfib.state.store import NoRoom


class LogError(Exception):
    """The state log cannot be used as asked; the message names its file."""


class Unusable(LogError):
    """The path is not a log that this program can open."""

    def __init__(self, path: Path, reason: Exception | str) -> None:
        text = reason.strerror if isinstance(reason, OSError) else reason
        if isinstance(reason, OSError) and reason.filename not in (None, path, str(path)):
            # Such as the lock file, which another user may own.
            text = f"{reason.filename}: {text}; change its owner or remove it"
        super().__init__(f"cannot use {path} as state log: {text}")


class Locked(LogError):
    """Another process has the log open for writing.

    Attributes:
        owner_url: URL of the service that holds the lock, or ``""``.
    """

    def __init__(self, path: Path, pid: str, owner_url: str) -> None:
        super().__init__(f"state log {path} is in use by process {pid or 'unknown'}")
        self.owner_url = owner_url


class Unreadable(LogError):
    """The disk fails to read the log.

    Attributes:
        path: The log.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"state log {path} cannot be read: {error.strerror}")
        self.path = path


class Damaged(LogError):
    """Something that was once durable in the log is no longer there.

    Attributes:
        path: The log.
    """

    def __init__(self, path: Path, fault: object) -> None:
        super().__init__(f"state log {path} is damaged: {fault}")
        self.path = path


class AppendFailed(LogError, NoRoom):
    """A record could not be written: a full disk, a quota, a limit, an I/O error.

    The log is unchanged, and a later append may succeed.
    """


class CompactionFailed(LogError):
    """The log could not be compacted; it is unchanged and still in use."""
