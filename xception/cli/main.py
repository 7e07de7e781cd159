"""The command `xception`: verbs that are imported when they are called, and clear errors.

Exit statuses: 0 done; 1 a fault of ours (with its traceback), or files that could not be read; 2
asked for wrongly; 3 a training's loss is no longer a number; 128 + n stopped by signal n.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn

import click

from xception._version import __version__
from xception.cli.printable import printable
from xception.errors import UserError
from xception.training.interrupts import Interrupted

# Each verb is the `command` of the module of its name beside this one.
VERBS = {
    "train": "Train on a folder of photos; measure and explain the result.",
    "check": "Say what is wrong with a folder of photos before training.",
    "evaluate": "Measure a trained model on photos.",
    "predict": "Say what is in photos.",
    "export": "Write a trained model for ONNX Runtime or OpenVINO.",
    "bench": "Measure a model in every format: time, memory, accuracy.",
    "serve": "Answer over HTTP what is in photos, and show a page to try it on.",
    "convert": "Weights of Keras, TensorFlow and PyTorch to model files and back.",
    "models": "List the models with their parameters and MACs.",
    "cost": "Say what a network costs, layer by layer, on paper and measured.",
    "study": "Repeat a comparison of the Xception paper.",
    "separate": "Exchange a network's regular convolutions for separable ones.",
    "demo": "See all of it work on the embedded photos.",
}
# The machine refuses, and only a person can change that.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# The same, where a file is named: the name or what stands there will not do.
NAMES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)
NAMES += (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.EBUSY, errno.ETXTBSY)
NAMES += (errno.ENXIO, errno.ENODEV)


class Verbs(click.Group):
    """Lists verbs without importing them: torch is loaded only by those that compute."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, the most needed first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        return import_module(f"xception.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that is meant, or the closest one in the message."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(VERBS)}"
            raise click.UsageError(f"No verb is called {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs for `--help`."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=Verbs,
    subcommand_metavar="VERB …",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`xception VERB --help` says more. Start with `xception demo`.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """From a folder of photos to a trained, measured, explained classifier."""


def main() -> NoReturn:
    """Run the command line of this process and exit with its status."""
    signal.signal(signal.SIGTERM, _terminate)
    _open_streams()
    # GNU's OpenMP lets threads that wait spin for a while and then sleep. Where others want a core
    # too, a thread that sleeps is woken late: with many turns a step was seen to take half as long
    # as with few, and a third of what it takes with the default (benchmarks/RESULTS.md). Read when
    # torch is loaded, so set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000000")
    sys.exit(run(sys.argv[1:]))


def _open_streams() -> None:
    """Make stdout and stderr take any text, whatever their encoding and even if they are closed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; what a person can mend is said on stderr.

    Returns:
        The exit status.
    """
    try:
        status: Any = cli.main(
            list(arguments) or ["--help"], prog_name="xception", standalone_mode=False
        )
        sys.stdout.flush()  # a closed pipe is noticed here, not while Python shuts down
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        # Click begins with a capital, our own messages as they need; it also sets choices in lines.
        message = error.format_message().replace("\n\t", " ")
        return _say(message[:1].lower() + message[1:], *_usage(error))
    except UserError as error:
        _say(str(error))
        return error.status
    except Interrupted as error:
        click.echo(str(error), err=True)
        return 128 + error.signum
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in REFUSALS and not (error.filename and error.errno in NAMES):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{(error.strerror or str(error)).lower()}")


def _usage(error: click.ClickException) -> list[str]:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return [f"see: {ctx.command_path} --help"] if ctx is not None else []


def _say(message: str, *more: str) -> int:
    """Print an error and return the status for what was asked for wrongly."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(printable("\n".join([message, *more])), err=True)
    return 2


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave as after an error, so that half-written files are removed."""
    sys.exit(128 + signum)
