"""Fixtures of the offline store: a Feast project in a folder of its own, and a server that speaks S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # feast takes seconds to import, and most tests here do without
    import pyarrow.fs as pafs
    from feast import FeatureStore

    from tests.code.shop import Make


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a store of its own registry and online store, and applies definitions to it."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    def make(*definitions: Any, offline: dict[str, Any] | None = None, **settings: Any) -> FeatureStore:
        config = RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
            offline_store={"type": "lockstep.polars_store.PolarsOfflineStore", **(offline or {})},
            entity_key_serialization_version=3,
            repo_path=tmp_path,
            **settings,
        )
        store = FeatureStore(config=config)
        store.apply(list(definitions))
        return store

    return make


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an S3 server that checks signatures; return its address."""
    keys = {"NANIO_ACCESS_KEY": "key", "NANIO_SECRET_KEY": "a secret of the tests"}
    words = [sys.executable, "-m", "tests.code.s3_server", str(tmp_path_factory.mktemp("s3"))]
    root = Path(__file__).parents[2]
    with subprocess.Popen(words, env={**os.environ, **keys}, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, pafs.S3FileSystem]:
    """Return an endpoint, an empty bucket (as ``s3://...``), and pyarrow's own view of the server."""
    import pyarrow.fs as pafs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the tests")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Without it the AWS SDK sends checksums as trailers of a chunked body, which nanio takes for content.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    files = pafs.S3FileSystem(endpoint_override=s3_server, allow_bucket_creation=True)
    bucket = tmp_path.name.replace("_", "-").lower()[-60:].strip("-")
    files.create_dir(bucket)
    return s3_server, f"s3://{bucket}", files
