"""Answer a table of videos with Daft: python daft_predict.py VIDEOS.parquet LABELS.txt ANSWERS.parquet."""

import sys

import daft

from zsar_cli import BatchPredictor

videos, labels, answers = sys.argv[1:]


@daft.cls
class Predict:
    """A worker's model."""

    def __init__(self, labels: str):
        self.predictor = BatchPredictor(labels, "PE-Core-B-16/meta")

    @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=200)
    def record(self, paths: daft.Series):
        """Answer a batch: a record of each video, as JSON."""
        return [row["record"] for row in self.predictor(paths.to_pylist())]


table = daft.read_parquet(videos)
table.with_column("record", Predict(labels).record(table["video"])).write_parquet(answers)
