"""A Ray cluster writes the shards that one process writes, although a node is killed in the middle."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from label_case import recipe, shards

from tutelage.cli import main


def test_a_node_killed_in_the_middle_loses_nothing_and_nothing_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    path = str(recipe(tmp_path, cache={"shard_rows": 5}))
    assert main(["label", path, "--quiet"]) == 0
    alone = shards(tmp_path / "cache")
    manifest = (tmp_path / "cache" / "manifest.json").read_text()
    (tmp_path / "cache").rename(tmp_path / "alone")
    (tmp_path / "slow").touch()  # so that there is a middle
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        status: list[int] = []
        labelling = threading.Thread(target=lambda: status.append(main(["label", path, "--quiet", "--ray", "auto"])))
        labelling.start()
        deadline = time.monotonic() + 120
        while len(shards(tmp_path / "cache")) < 5 or not (tmp_path / f"on-{node.node_id}").exists():
            assert time.monotonic() < deadline and labelling.is_alive()
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        killed_at = len(shards(tmp_path / "cache"))
        (tmp_path / "slow").unlink()
        labelling.join(timeout=180)
        assert status == [0]
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed_at < len(alone)
    assert shards(tmp_path / "cache") == alone
    assert (tmp_path / "cache" / "manifest.json").read_text() == manifest
