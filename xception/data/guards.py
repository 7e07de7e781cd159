"""What keeps Pillow's parsers strict, quiet and quick while `images` has a file opened by them."""

import threading
import warnings
from io import BytesIO
from typing import no_type_check

from PIL import ImageFile

#: Reads that a parser may need. A photo takes hundreds, a PNG of 256 MiB 130,000; a
#: header of a million parts takes for ever.
MAX_READS = 250_000


class Reader(BytesIO):
    """The bytes of a file, for a parser that does not read for ever."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._reads = 0

    @no_type_check  # called too often to be checked in every test
    def read(self, size: int | None = -1) -> bytes:
        """As of any file. Raises `OSError` when there have been too many."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise OSError("too many parts")
        return super().read(size)


class _Strict:
    """While any thread decodes: truncated files raise, and Pillow's warnings are not printed.

    Both are global switches of the process; they are set by the first to enter and put back by the
    last to leave. A warning of Pillow's is either about metadata that do not matter here or about
    a size that `images` judges itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._truncated = False
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._truncated = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._warnings.__exit__(None, None, None)
                ImageFile.LOAD_TRUNCATED_IMAGES = self._truncated


#: `with strict:` around everything that Pillow does with a file.
strict = _Strict()
