"""What ``--ray`` refuses, and how it is written; a cluster is started by ``make cluster`` alone."""

from __future__ import annotations

import sys

import pytest

from zsar_cli.cli.app import _with_addresses

PREDICT = ["predict", "a.mp4", "--label", "waving", "--output", "parts", "--ray", "local"]


@pytest.mark.parametrize("command", [PREDICT, ["eval", "--ray", "local"]])
def test_without_ray_the_command_says_what_to_install(
    command, zsar, monkeypatch, tmp_path, tiny_clip_dir
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = zsar(*command, "--model", tiny_clip_dir)
    assert ended.code == 2
    assert "pip install 'zsar-cli[ray]'" in ended.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--window", "4"], "--window"),
        (["--explain", "sheets"], "--explain"),
        (["--report", "page.html"], "--report"),
        (["--cache", "features"], "--cache"),
        (["--resume"], "--resume"),
    ],
)
def test_what_a_cluster_does_not_do_is_refused_before_it_is_started(
    options, named, zsar, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = zsar(*PREDICT, *options)
    assert ended.code == 2
    assert named in ended.err


def test_records_need_a_place_that_outlives_the_command(zsar) -> None:
    ended = zsar("predict", "a.mp4", "--label", "waving", "--ray")
    assert ended.code == 2
    assert "--output" in ended.err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--ray clips", "--ray auto clips"),
        ("clips --ray", "clips --ray auto"),
        ("--ray --output parts", "--ray auto --output parts"),
        ("--ray head:6379 clips", "--ray head:6379 clips"),
        ("clips --label waving", "clips --label waving"),
    ],
)
def test_the_address_may_be_left_out(typed: str, meant: str) -> None:
    assert _with_addresses(typed.split()) == meant.split()
