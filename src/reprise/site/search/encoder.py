"""A sentence-transformers model that the user has, in a process of its own: the server never imports PyTorch.

``$REPRISE_ENCODER`` names it: a folder, or a name that sentence-transformers finds in its cache. The process reads a
line of JSON, a list of texts, and writes the length of an answer and the answer itself, a NumPy array.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import threading

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoder", "configured"]

log = logging.getLogger(__name__)
BATCH = 64


def configured() -> Encoder | None:
    """The model that ``$REPRISE_ENCODER`` names; None without one, or without sentence-transformers."""
    name = os.environ.get("REPRISE_ENCODER", "")
    if name and importlib.util.find_spec("sentence_transformers") is None:
        log.warning("REPRISE_ENCODER is set, but sentence-transformers is not installed: search does without")
        return None
    return Encoder(name) if name else None


class Encoder:
    """The model's vectors of texts, from a process that is started when the first are wanted.

    Args:
        model: a folder, or a name that sentence-transformers knows.

    Raises:
        RuntimeError: from :meth:`embed`, where the process ends without an answer.
    """

    def __init__(self, model: str) -> None:
        self.name, self._model = f"encoder:{model}", model
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Rows of length one."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(texts).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.read(int(process.stdout.readline() or b"0"))
            except (OSError, ValueError) as error:
                raise RuntimeError(f"the encoder {self._model} stopped: {error}") from error
            if not answer:
                raise RuntimeError(
                    f"the encoder {self._model} stopped with status {process.wait(10)}; see its messages"
                )
            rows: NDArray[np.float32] = np.load(io.BytesIO(answer), allow_pickle=False)
            return rows

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(10)
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "reprise.site.search.encoder", self._model]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process


def _serve(name: str) -> None:
    """Answer until the other side closes the line."""
    from sentence_transformers import SentenceTransformer

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    model = SentenceTransformer(name)
    for line in sys.stdin:
        rows = model.encode(json.loads(line), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        file = io.BytesIO()
        np.save(file, np.asarray(rows, dtype=np.float32), allow_pickle=False)
        out.write(f"{len(file.getvalue())}\n".encode() + file.getvalue())
        out.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
