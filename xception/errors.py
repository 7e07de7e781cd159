"""Errors that tell a person what to do."""

from typing import ClassVar


class UserError(Exception):
    """What was asked for cannot be done.

    The message says in one or two lines what is wrong, where, and what would be right. The command
    prints it without a traceback and exits with `status`.
    """

    status: ClassVar[int] = 2


class Diverged(UserError):
    """The loss or the weights of a training are no longer numbers.

    Nothing was asked for wrongly, perhaps: to a study that is a result.
    """

    status = 3
