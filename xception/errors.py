"""Errors that tell a person what to do."""


class UserError(Exception):
    """What was asked for cannot be done.

    The message says in one or two lines what is wrong, where, and what would be right. The command
    prints it without a traceback and exits with status 2.
    """
