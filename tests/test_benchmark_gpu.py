"""``python -m benchmarks.gpu``: every section runs, here on a CPU with tiny models."""

from __future__ import annotations

import json

from benchmarks import gpu
from zsar_cli.training import train


def test_all_sections_of_the_gpu_benchmark_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "draw_curves", lambda *_: None)
    kept = tmp_path / "gpu.json"
    options = ("--device", "cpu", "--quick", "--no-peers", "--clips", "2", "--work", str(tmp_path / "work"))
    results = gpu.main([*options, "--json", str(kept)])
    titles = [table["title"].partition(",")[0] for table in results.tables]
    assert titles == ["predict", "from decoded clips", "training", "training"]
    assert "| zsar, the whole method |" in capsys.readouterr().out
    assert len(json.loads(kept.read_text())["tables"]) == 4
