"""Small models with random weights, and a file server that can misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from napari_medsam.model.local import MedSAM, build_model
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.tinyvit import TinyViT


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that make every term count, batch statistics included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0.0, 0.2, generator=generator)
    return module.eval()


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, torch.Tensor]:
    """A whole LiteMedSAM checkpoint with random weights."""
    encoder, decoder = randomise(TinyViT()), randomise(SamDecoder(256))
    state = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    return state | decoder.state_dict()


@pytest.fixture(scope="session")
def lite() -> MedSAM:
    """The built-in model in the torch backend."""
    return build_model("lite-medsam", device="cpu", backend="torch")


class FileServer:
    """Serves bytes by path and counts requests. A path in `cut` breaks off half-way."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                body = outer.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                sent = (body or b"")[: len(body or b"") // 2] if self.path in outer.cut else body or b""
                self.wfile.write(sent)
                self.close_connection = True

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    yield running
    running.close()


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object, str], Path]:
    """Write an object as torch.save does."""

    def write(content: object, name: str) -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write
