"""Cores and memory that a process may use: its affinity, the quotas of its cgroups, torchrun's other processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zsar_cli import resources
from zsar_cli.cli.threads import SPINS, limit_threads, set_up_threads
from zsar_cli.model.backbone import Backbone
from zsar_cli.resources import available_cores, available_memory, default_workers, useful_threads
from zsar_cli.video.keeper import fair_share_mb


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch):
    """Write what the kernel says; 64 cores, no torchrun."""
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(resources, "affinity", lambda: 64)
    for name in ("MASTER_ADDR", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_name(file.name.replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")).write_text(text)

    return write


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu_max": "max 100000\n"}, 64),
        ("0::/", {"cpu_max": "400000 100000\n"}, 4),  # a container sees its own cgroup as the root
        (
            "0::/a/b",
            {"a__cpu_max": "250000 100000", "a__b__cpu_max": "max 100000"},
            2,
        ),  # the outer one's limit
        ("0::/a/b", {"a__cpu_max": "1600000 100000", "a__b__cpu_max": "50000 100000"}, 1),  # never none
        ("0::/../not/to/be/seen", {"cpu_max": "300000 100000"}, 3),
        (
            "4:cpu,cpuacct:/j\n0::/",
            {"cpu,cpuacct__j__cpu_cfs_quota_us": "600000", "cpu,cpuacct__j__cpu_cfs_period_us": "100000"},
            6,
        ),
        ("1:cpu:/", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 64),
        ("1:cpuset:/\n", {"cpu__cpu_cfs_quota_us": "100000", "cpu__cpu_cfs_period_us": "100000"}, 64),
        ("0::/", {"cpu_max": "garbage"}, 64),
        ("not what is expected\n\n:::", {}, 64),
    ],
)
def test_cores_are_those_of_the_quota(cgroups, own, files, cores):
    cgroups(own, **files)
    assert available_cores() == cores


def test_affinity_and_the_processes_of_torchrun_count_too(cgroups, monkeypatch):
    cgroups("0::/", cpu_max="800000 100000")
    monkeypatch.setattr(resources, "affinity", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_cores() == 6  # left over from elsewhere: no torchrun here
    monkeypatch.setenv("MASTER_ADDR", "here")
    assert available_cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "many")
    assert available_cores() == 6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's affinity")
def test_taskset_is_respected():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_where_the_kernel_says_nothing_the_machine_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "OWN_CGROUPS", tmp_path / "nothing")
    monkeypatch.setattr(os, "sched_getaffinity", None, raising=False)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
    assert available_memory() > 0


@pytest.mark.parametrize(
    ("cores", "workers", "beside_a_gpu"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (8, 4, 6), (64, 8, 62)]
)
def test_decoding_takes_half_of_the_cores_and_almost_all_beside_a_gpu(
    cores, workers, beside_a_gpu, monkeypatch
):
    monkeypatch.setattr("zsar_cli.resources.available_cores", lambda: cores)
    assert default_workers() == default_workers("cpu") == workers
    assert default_workers("cuda") == default_workers("cuda:3") == default_workers("mps") == beside_a_gpu


def test_a_containers_memory_is_what_workers_share(cgroups, monkeypatch):
    cgroups("0::/", memory_max=str(4 * 2**30))
    assert available_memory() == 4 * 2**30
    assert fair_share_mb(1) == 2048
    assert fair_share_mb(8) == 1024
    cgroups("0::/", memory_max="max")
    assert available_memory() > 0


def test_the_command_stays_within_its_cores_and_its_threads_sleep(monkeypatch):
    def settings(**given: str) -> dict[str, str]:
        for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        set_up_threads()
        return {
            name: value
            for name, value in os.environ.items()
            if name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
        }

    sleeping = {"GOMP_SPINCOUNT": SPINS, "KMP_BLOCKTIME": "0"}
    monkeypatch.setattr("zsar_cli.cli.threads.affinity", lambda: 64)
    monkeypatch.setattr("zsar_cli.cli.threads.available_cores", lambda: 4)
    assert settings() == {"OMP_NUM_THREADS": "4", **sleeping}
    assert settings(OMP_NUM_THREADS="7", GOMP_SPINCOUNT="9") == {
        "OMP_NUM_THREADS": "7",
        "GOMP_SPINCOUNT": "9",
    }
    monkeypatch.setattr("zsar_cli.cli.threads.available_cores", lambda: 64)
    assert settings() == sleeping  # torch knows how many of them are whole cores


@pytest.mark.parametrize(("flops", "threads"), [(0, 1), (5e6, 1), (2.2e9, 8), (35e9, 16)])
def test_a_small_tower_has_one_thread_and_a_large_one_all_cores(flops, threads, monkeypatch):
    monkeypatch.setattr("zsar_cli.resources.available_cores", lambda: 16)
    assert useful_threads(flops) == threads


def test_threads_are_fewer_for_a_small_tower_and_never_more(monkeypatch):
    import torch

    monkeypatch.setattr("zsar_cli.resources.available_cores", lambda: 16)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 1, "layers": 1}
    backbone = Backbone.from_config({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text})
    before, used = torch.get_num_threads(), []
    try:
        for asked, flops in ((3, 0.0), (3, 1e12)):
            torch.set_num_threads(asked)
            monkeypatch.setattr(
                "zsar_cli.cli.threads.useful_threads", lambda own, flops=flops: useful_threads(own + flops)
            )
            limit_threads(backbone)
            used.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert used == [1, 3]
