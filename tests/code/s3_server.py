"""Run the S3 server ``nanio`` on a free port, which it prints.

It gets one thing that it lacks: the last bytes of an object (``Range: bytes=-8``, RFC 9110). Polars reads the footer of
a parquet file so, and every other server of the protocol understands it.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from nanio.app import build_app
from nanio.auth.credentials import EnvCredentialResolver
from nanio.config import Settings
from nanio.handlers import object as handlers
from nanio.storage.filesystem import FilesystemStorage

parse_range, get_object = handlers._parse_range_header, FilesystemStorage.get_object


def parse_range_or_suffix(value: str | None) -> tuple[int | None, int | None]:
    if value and value.startswith("bytes=-"):
        return int(value.removeprefix("bytes=")), None
    return parse_range(value)


async def get_object_or_its_end(
    self: Any, bucket: str, key: str, *, range_start: int | None, range_end: int | None
) -> Any:
    if range_start is not None and range_start < 0:
        range_start = max(0, self.head_object(bucket, key).size + range_start)
    return await get_object(self, bucket, key, range_start=range_start, range_end=range_end)


if __name__ == "__main__":
    handlers._parse_range_header, FilesystemStorage.get_object = parse_range_or_suffix, get_object_or_its_end
    settings = Settings(data_dir=Path(sys.argv[1]), region="us-east-1", credentials=EnvCredentialResolver())
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(build_app(settings), log_level="warning", access_log=False)).run([listening])
