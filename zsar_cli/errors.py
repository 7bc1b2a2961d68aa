"""The errors that users meet: each is one or two sentences that say what is wrong and what to do."""

from __future__ import annotations


class ZsarError(Exception):
    """Something the user can mend. ``str(error)`` is what they read; a traceback is never needed."""


class UsageError(ZsarError):
    """A wrong option, configuration, label list, template file or model: the run cannot start (exit code 2)."""


class VideoError(ZsarError):
    """One video cannot be used; the run goes on and the video's record carries the error (exit code 1).

    ``kind`` is a stable word for programs: ``not_found``, ``permission``, ``not_a_file``, ``no_video``,
    ``encrypted``, ``unreadable``, ``timeout``, ``crashed`` or ``memory``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return (VideoError, (self.kind, self.message))
