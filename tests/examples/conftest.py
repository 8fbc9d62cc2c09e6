"""The files of `examples/`, loaded unchanged, and served on real sockets."""

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import uvicorn

from tests.support.sources import ROOT

Serve = Callable[[Any], str]


def example(path: str) -> ModuleType:
    """Import a module of `examples/` by its path."""
    name = f"examples.{path.removesuffix('.py').replace('/', '.')}"
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app)` → its URL on this machine. Stopped at the end of the test, including its lifespan."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the server has ended"
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    yield start
    for server, thread in reversed(running):
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
