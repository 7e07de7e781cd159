"""The same `Predictor` in many processes, on this machine or on a cluster, by Ray Data.

Paths go out in blocks; each worker holds the model, reads the photos of a block wherever they are
and gives their probabilities back, in the order of the paths. `RAY_ADDRESS` names a cluster.
Without it one is started on this machine, which listens on the loopback only, wants a secret that
is made for it, and ends with the last answer.
"""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from xception.data.images import ImageError
from xception.deploy import extras
from xception.deploy.engines import find_model, kind_of
from xception.deploy.runtime import Prediction, Predictor
from xception.deploy.storage import is_url, read_photo
from xception.errors import UserError

BATCHES = 8  # of a block: one is read while the one before it is computed
DEVICES = ("auto", "cpu", "cuda")


Outcome = tuple[str | Path, Prediction | ImageError]
Row = tuple[bytes, bytes | None, str | None, str | None]  # path, probabilities, reason, fault
Stream = Callable[[Iterable[str | Path], int], Iterator[Outcome]]


class Share(NamedTuple):
    """What each worker has."""

    workers: int
    cores: int
    device: str


class Worker:
    """What Ray keeps in each of its processes: a `Predictor`.

    Args:
        files: Ray's reference to the model's files by name, the one to open first.
        home: the folder that relative paths begin in.
        batch_size: photos computed at once.
        share: of the machine.
    """

    def __init__(self, files: Any, home: str, batch_size: int, share: Share):
        torch.set_num_threads(share.cores)
        self._home, self._batch_size, self._arrow = home, batch_size, extras.pyarrow()
        held: dict[str, bytes] = extras.ray().get(files)
        with TemporaryDirectory(prefix="xception-ray-") as folder:
            for name, data in held.items():
                Path(folder, name).write_bytes(data)
            model = Path(folder, next(iter(held)))
            self._predictor = Predictor(model, device=share.device, threads=share.cores)

    def __call__(self, block: Any) -> Any:
        """The answers for the paths of a block, both as tables of Arrow."""
        paths = [os.fsdecode(path) for path in block.column("path").to_pylist()]
        try:
            answers = list(self._predictor.stream(paths, self._batch_size, read=self._read))
        except UserError as error:  # without Ray's traceback to the one who asked
            return self._table([(b"", None, None, str(error))])
        return self._table([_row(str(path), answer) for path, answer in answers])

    def _read(self, path: str | Path) -> bytes:
        return read_photo(path if is_url(path) else Path(self._home, path))

    def _table(self, rows: list[Row]) -> Any:
        kinds = (self._arrow.binary(),) * 2 + (self._arrow.string(),) * 2
        names = ("path", "probabilities", "reason", "fault")
        columns = zip(zip(*rows, strict=True), kinds, strict=True)
        return self._arrow.table(
            [self._arrow.array(column, kind) for column, kind in columns], names=names
        )


def load() -> ModuleType:
    """Ray, told what it reads from the environment when it is imported.

    Raises:
        UserError: it is not installed.
    """
    # Otherwise it complains of its own way to start workers; what matters is raised.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not os.environ.get("RAY_ADDRESS"):
        # As on macOS: otherwise its servers listen on all interfaces.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return extras.ray()


@contextmanager
def workers_on_ray(
    predictor: Predictor, *, workers: int | None = None, device: str = "auto"
) -> Iterator[Stream]:
    """What answers like `Predictor.stream`, from several processes.

    All paths are found before the first photo is read; they lie in Ray's memory, not in ours. They
    must be URLs, or names that mean the same on all machines.

    Args:
        predictor: of the model; it computes nothing itself.
        workers: how many; None is one on each machine, or for each of its graphics cards.
        device: "cpu", "cuda" (one card a worker) or "auto".

    Raises:
        UserError: Ray is not installed, its cluster does not answer, or has not enough for so many
            workers. Later: the network answers with NaN or infinity.
    """
    arrow, model = extras.pyarrow(), find_model(predictor.path)
    home = os.getcwd()
    with _cluster() as ray:
        share = _share(ray, model, workers, device)
        files = ray.put(_files(model))

        def stream(paths: Iterable[str | Path], batch_size: int) -> Iterator[Outcome]:
            size = batch_size * BATCHES
            blocks = [
                ray.put(arrow.table({"path": arrow.array(map(os.fsencode, block), arrow.binary())}))
                for block in _blocks(paths, size)
            ]
            if not blocks:
                return
            answers = ray.data.from_arrow_refs(blocks).map_batches(
                Worker,
                batch_size=size,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=share.workers),
                num_cpus=share.cores,
                num_gpus=int(share.device == "cuda"),
                fn_constructor_args=(files, home, batch_size, share),
            )
            for table in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from _outcomes(table, predictor.classes)

        yield stream


def _outcomes(table: Any, classes: tuple[str, ...]) -> Iterator[Outcome]:
    for row in table.to_pylist():
        if row["fault"] is not None:
            raise UserError(row["fault"])
        path = os.fsdecode(row["path"])
        if row["reason"] is not None:
            yield path, ImageError(path, row["reason"])
        else:
            yield path, Prediction(classes, np.frombuffer(row["probabilities"], np.float32))


def _row(path: str, answer: Prediction | ImageError) -> Row:
    if isinstance(answer, ImageError):
        return os.fsencode(path), None, answer.reason, None
    return os.fsencode(path), answer.probabilities.astype(np.float32).tobytes(), None, None


def _blocks(paths: Iterable[str | Path], size: int) -> Iterator[list[str | Path]]:
    remaining = iter(paths)
    while block := list(islice(remaining, size)):
        yield block


def _files(model: Path) -> dict[str, bytes]:
    """A model's files: machines of a cluster need not see ours."""
    weights = model.with_suffix(".bin")
    beside = [weights] if kind_of(model) == "openvino" else []
    return {file.name: file.read_bytes() for file in (model, *beside)}


def _share(ray: Any, model: Path, workers: int | None, device: str) -> Share:
    """How many workers there are, and what each of them has."""
    if device not in DEVICES:
        raise UserError(f"--device {device}: Ray's workers compute on {', '.join(DEVICES)}")
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(one["CPU"]) for one in machines if one.get("CPU", 0) >= 1]
    cards = sum(int(one.get("GPU", 0)) for one in machines)
    exported = kind_of(model) != "torch"
    if device == "auto":
        device = "cuda" if cards and not exported else "cpu"
    if device == "cuda" and exported:
        raise UserError(f"{model}: exported files are computed on the CPU; use --device cpu")
    most = cards if device == "cuda" else sum(cores)
    number = workers or (cards if device == "cuda" else len(cores))
    if not 0 < number <= most:
        unit = "graphics cards" if device == "cuda" else "cores"
        raise UserError(f"--workers {number}: Ray has {most} {unit}")
    each = range(max(cores, default=1), 0, -1)
    return Share(number, next((n for n in each if sum(c // n for c in cores) >= number), 1), device)


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected."""
    ray, address = load(), os.environ.get("RAY_ADDRESS", "")
    if ray.is_initialized():  # a program that uses us is at home there
        yield ray
        return
    own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        with _signals_kept():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else own),
            )
    except (ConnectionError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"Ray at {address or 'this machine'}: {reason}") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own for SIGTERM, and leaves with another status than we do."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
