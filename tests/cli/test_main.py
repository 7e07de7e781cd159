import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from xception._version import __version__
from xception.cli import main as module
from xception.cli.main import VERBS, cli, run
from xception.errors import Diverged, UserError
from xception.training.interrupts import Interrupted

HEAVY = ("torch", "numpy", "pydantic", "matplotlib", "PIL", "rich")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from xception.cli.main import run; status = run(['--help']);"
        f"print([name for name in {HEAVY} if name in sys.modules], status, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] 0"
    for verb, summary in VERBS.items():
        assert f"{verb} " in done.stdout
        assert summary in done.stdout


def test_version(xception):
    assert xception("--version").stdout == f"xception {__version__}\n"


def test_nothing_asked_for_is_help(xception):
    assert xception().stdout == xception("--help").stdout
    assert xception().status == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(xception, verb: str):
    result = xception(verb, "--help")
    assert result.status == 0
    assert f"  xception {verb}" in result.stdout.split("Example")[1]
    assert "--json" in result.stdout or verb == "serve"  # which does not end with an answer


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_the_verb_says(verb: str):
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.name == verb
    assert command.help is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "photos"], "error: no verb is called 'trian'; did you mean 'train'?"),
        (["fly"], "error: no verb is called 'fly'; there are train, check, "),
        (["models", "--jsn"], "error: no such option '--jsn'. Did you mean '--json'?"),
        (["--verson"], "error: no such option '--verson'. Did you mean '--version'?"),
        (["predict"], "error: missing argument 'RUN'."),
        (["export", "a"], "error: missing option '--format'. Choose from: onnx, openvino, torch"),
        (["predict", "runs/a"], "error: missing argument 'IMAGE...'."),
        (["predict", "a", "b", "--top", "many"], "'many' is not a valid integer"),
        (["train", "photos", "--sampler", "fair"], "'fair' is not one of 'shuffle', 'balanced'"),
        (["evaluate", "a", "b", "--split", "tset"], "'tset' is not one of"),
    ],
)
def test_wrong_words_are_answered_in_two_lines(xception, arguments: list[str], message: str):
    result = xception(*arguments)
    assert result.status == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("see: xception")
    assert second.endswith("--help")


def raising(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("models", callback=fail)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("No such thing.\nTry that."), 2, "error: No such thing\\.\nTry that\\.\n"),
        (Diverged("The loss is no number."), 3, "error: The loss is no number\\.\n"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM\n"),
        (Interrupted(signal.SIGINT), 130, "stopped by SIGINT\n"),
        (KeyboardInterrupt(), 130, "\\s*"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: no space left on device\n"),
        (
            OSError(errno.EROFS, "Read-only file system", "/a/b"),
            2,
            "error: /a/b: read-only file system\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "c"),
            2,
            "error: c: permission denied\n",
        ),
        (OSError(errno.ENOTDIR, "Not a directory", "a"), 2, "error: a: not a directory\n"),
        (UserError("\x1b[31mred\nnext"), 2, r"error: \\x1b\[31mred\nnext\n"),
    ],
)
def test_errors_become_statuses(
    xception, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
):
    monkeypatch.setattr(module.Verbs, "get_command", lambda *_: raising(error))
    result = xception("models")
    assert result.status == status
    assert result.stdout == ""
    assert re.fullmatch(said, result.stderr)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("ours"),
        OSError(errno.EIO, "disk broke"),
        FileNotFoundError(errno.ENOENT, "whatever it was"),
    ],
)
def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception):
    monkeypatch.setattr(module.Verbs, "get_command", lambda *_: raising(error))
    with pytest.raises(type(error)):
        run(["models"])


def test_the_return_value_of_a_verb_is_the_status(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        module.Verbs, "get_command", lambda *_: click.Command("models", callback=lambda: 1)
    )
    assert run(["models"]) == 1


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sigterm_ends_with_143_and_cleans_up(tmp_path: Path):
    code = (
        "import sys, time, click, xception.cli.main as m\n"
        "def wait():\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        f"    finally: open({str(tmp_path / 'cleaned')!r}, 'w').close()\n"
        "m.Verbs.get_command = lambda *_: click.Command('models', callback=wait)\n"
        "sys.argv = ['xception', 'models']\n"
        "m.main()\n"
    )
    with start(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert (tmp_path / "cleaned").exists()


def test_a_closed_pipe_is_no_error():
    code = "import xception.cli.main as m, sys; sys.argv = ['xception', '--help']; m.main()"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert process.stderr == ""


@pytest.mark.usefixtures("unmeasured_children")
def test_any_encoding_of_stdout_will_do(tmp_path: Path):
    for name in ("日本", "\U0001f355"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "é.jpg").touch()
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "xception", "check", str(tmp_path)]
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], capture_output=True, env=environment, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert rb"\u65e5\u672c" in done.stdout
    assert json.loads(done.stdout)["counts"]["train"].keys() == {"日本", "\U0001f355"}


@pytest.mark.usefixtures("unmeasured_children")
def test_a_closed_stdout_is_no_error():
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for arguments in (["--help"], ["models", "MobileNets"], ["models", "MobileNets", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "-m", "xception", *arguments],
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "xception", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"xception {__version__}\n"
