"""Published weights by name: fetched from the Hugging Face hub once, checked, kept.

The library huggingface-hub does the fetching: it continues where a transfer broke off, keeps files
in its own cache, and stays there when HF_HUB_OFFLINE is set. HF_ENDPOINT names another hub.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from xception.errors import UserError

IMAGENET: Literal["imagenet"] = "imagenet"
"""The word that stands for published weights where a model file may be named."""


class Published(NamedTuple):
    """Weights that someone trained on ImageNet (ILSVRC-2012) and gives away."""

    repo: str
    file: str
    license: str  # SPDX
    sha256: str | None = None  # of the file, where it was ever seen
    revision: str = "main"
    elsewhere: str | None = None  # the same weights, to be fetched by hand


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "xception": Published(
            "timm/legacy_xception.tf_in1k",
            "model.safetensors",
            "Apache-2.0",
            elsewhere="https://github.com/rwightman/pytorch-image-models/releases/download/"
            "v0.1-cadene/xception-43020ad28.pth",
        ),
        "inception_v3": Published("timm/inception_v3.tv_in1k", "model.safetensors", "Apache-2.0"),
        "mobilenet_v1": Published(
            "timm/mobilenetv1_100.ra4_e3600_r224_in1k", "model.safetensors", "Apache-2.0"
        ),
        "xception41": Published("timm/xception41.tf_in1k", "model.safetensors", "Apache-2.0"),
        "xception65": Published("timm/xception65.tf_in1k", "model.safetensors", "Apache-2.0"),
        "xception71": Published("timm/xception71.tf_in1k", "model.safetensors", "Apache-2.0"),
    }
)
SHA256 = re.compile(r"[0-9a-f]{64}")


class Fetched(NamedTuple):
    """A published file that lies on this machine."""

    path: Path
    sha256: str
    published: Published


def fetch(model: str) -> Fetched:
    """The published weights of a model of the zoo.

    Raises:
        UserError: there are none, they cannot be reached, or what came is not what was announced.
    """
    if model not in PUBLISHED:
        raise UserError(
            f"no weights are published for {model}; there are some for {', '.join(PUBLISHED)}"
        )
    published = PUBLISHED[model]
    path = _download(published)
    # The cache calls a file by what the hub announced: the SHA-256 of all but small texts.
    announced = published.sha256 or path.resolve().name
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if SHA256.fullmatch(announced) and sha256 != announced:
        path.resolve().unlink()  # or it would be found again
        path.unlink(missing_ok=True)
        raise UserError(
            f"{published.repo}: {published.file} has the SHA-256 {sha256[:12]}…, "
            f"not {announced[:12]}…; it was not kept"
        )
    return Fetched(path, sha256, published)


def _download(published: Published) -> Path:
    """The file in the cache, fetched if it is not there."""
    try:
        from huggingface_hub import errors, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import logging
    except ImportError as error:
        raise UserError(
            "published weights are fetched by huggingface-hub: pip install huggingface-hub"
        ) from error
    except ValueError as error:  # the library reads its settings when it is imported
        raise UserError(f"HF_ENDPOINT is no address of a hub: {error}") from error
    where = f"{published.repo}/{published.file}"
    logging.set_verbosity_error()  # it would tell of each try; what comes of them is said below
    place = (published.repo, published.file)
    unanswered = _is_unanswered(hf_hub_url(*place, revision=published.revision))
    try:
        return Path(
            hf_hub_download(*place, revision=published.revision, local_files_only=unanswered)
        )
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError) as error:
        hint = f"; {published.elsewhere} has them too" if published.elsewhere else ""
        raise UserError(f"the hub has no {where}{hint}") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{where} is not on this machine, and the hub cannot be reached "
            "(no network, or HF_HUB_OFFLINE is set); with --weights FILE a file can be named"
        ) from error
    except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"fetching {where} failed: {reason:.160}; try again") from error


def _is_unanswered(url: str) -> bool:
    """Whether there is no network, asked once: the library asks six times, 23 s long."""
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        get_hf_file_metadata(url)
    except errors.HfHubHTTPError:  # an answer, if a bad one
        return False
    except (OSError, errors.HTTPError):  # pyright: ignore[reportPrivateImportUsage]
        return True
    return False
