"""`xception serve`: a trained model behind HTTP, with a page."""

import sys
from importlib.util import find_spec
from pathlib import Path

import click
import torch

from xception.cli import options
from xception.cli.computing import device_for
from xception.cli.output import say
from xception.deploy.engines import find_model, kind_of
from xception.errors import UserError

LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@click.command("serve")
@click.argument("run", type=options.FilePath())
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes a free one.",
)
@click.option(
    "--api-key-file",
    type=options.FilePath(dir_okay=False),
    metavar="FILE",
    help="Keys that callers must have, one a line.",
)
@click.option("--allow-anonymous", is_flag=True, help="Let other machines ask without a key.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Batches computed at the same time, sharing the cores.  [default: 2 on a multicore CPU]",
)
@click.option(
    "--batch-size",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Photos computed at once, at most; the best number is measured.",
)
@click.option(
    "--max-wait-ms",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 10_000),
    metavar="MS",
    help="How long a photo waits for others to be computed with.",
)
@click.option(
    "--queue",
    default=64,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Photos accepted and not yet answered; more are refused.",
)
@click.option(
    "--max-photos",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Photos in one request.",
)
@click.option(
    "--max-body-mb",
    default=32.0,
    show_default=True,
    type=click.FloatRange(0.01, 1024),
    metavar="MB",
    help="The longest request.",
)
@click.option(
    "--max-megapixels",
    default=50.0,
    show_default=True,
    type=click.FloatRange(0.01, 67),
    metavar="MP",
    help="The largest photo.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="From the end of a request to its answer.",
)
@options.device
@options.quiet
def command(
    run: Path,
    host: str,
    port: int,
    api_key_file: Path | None,
    allow_anonymous: bool,
    workers: int | None,
    batch_size: int,
    max_wait_ms: float,
    queue: int,
    max_photos: int,
    max_body_mb: float,
    max_megapixels: float,
    timeout: float,
    device: str,
    quiet: bool,
) -> None:  # fmt: skip
    """Answer over HTTP what is in photos, and show a page to try it on.

    RUN is the folder of a training, a model file or an exported one. Only this machine can ask,
    unless --host says otherwise; then a key is needed (--api-key-file). What happens is written to
    stderr as JSON lines. SIGTERM ends the server after it has answered what it accepted.

    \b
    Examples:
      xception serve runs/shirts-1
      curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
      xception serve runs/shirts-1 --host 0.0.0.0 --api-key-file keys.txt
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"serving needs {', '.join(missing)}; install with: pip install 'xception[serve]'"
        )
    from xception.deploy.server import answers, keys, limits, logs, serving, shield

    local = shield.is_loopback(host)
    if not local and api_key_file is None and not allow_anonymous:
        raise UserError(
            f"--host {host}: others could ask without a key; give --api-key-file FILE, or "
            "--allow-anonymous if that is meant"
        )
    bounds = limits.Limits(
        body_bytes=round(max_body_mb * 2**20),
        bodies_bytes=max(256 * 2**20, 2 * round(max_body_mb * 2**20)),
        pixels=round(max_megapixels * 1e6),
        photos=max_photos,
        queue=queue,
        connections=limits.most_connections(),
        answer_seconds=timeout,
    )
    known = keys.read_keys(api_key_file) if api_key_file is not None else None
    doors = shield.Doors(known, local_only=local and known is None)
    cores = torch.get_num_threads()
    chosen = device_for(run, device)
    workers = workers or default_workers(run, chosen, cores)
    threads = max(1, cores // workers)
    work = serving.Work(
        workers=workers,
        batch_size=batch_size,
        wait_seconds=max_wait_ms / 1000,
        decoders=max(2, cores // 2),
    )
    with serving.bind(host, port) as listener:
        answerer = answers.open_answerer(
            run,
            device=chosen,
            threads=threads,
            mask_pixels=bounds.mask_pixels,
            image_pixels=bounds.image_pixels,
        )
        torch.set_num_threads(threads)
        if sys.stderr.isatty():
            say(f"{serving.address_of(listener)} (Ctrl-C ends it)", quiet=quiet)
        with logs.json_logs(quiet=quiet):
            serving.serve(answerer, listener, bounds, doors, work)


def default_workers(run: Path, device: torch.device, cores: int) -> int:
    """Two on a CPU, each with half of the cores, else one.

    Two slower workers answer as many photos as one that is twice as fast, or a few more, and a
    photo that comes behind a slow one does not wait for it (docs/serve.md has the arithmetic).
    OpenVINO computes one batch at a time however many ask.
    """
    return 2 if device.type == "cpu" and cores > 1 and kind_of(find_model(run)) != "openvino" else 1
