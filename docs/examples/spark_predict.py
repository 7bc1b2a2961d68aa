"""Answer a table of videos with Spark: spark-submit spark_predict.py VIDEOS.parquet LABELS.txt ANSWERS.parquet."""

import sys

import pandas as pd
from pyspark.sql import SparkSession

from zsar_cli import BatchPredictor
from zsar_cli.batch import COLUMNS

videos, labels, answers = sys.argv[1:]
predictor = BatchPredictor(labels, "PE-Core-B-16/meta")  # each executor loads the model at its first batch


def predict(batches):
    """Answer the batches of a partition: a row for each video."""
    for batch in batches:
        yield pd.DataFrame(predictor(batch["video"]), columns=COLUMNS)


numbers = ("score", "yes", "unknown")
schema = ", ".join(f"{name} {'double' if name in numbers else 'string'}" for name in COLUMNS)
spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 200).getOrCreate()
spark.read.parquet(videos).select("video").mapInPandas(predict, schema).write.parquet(answers)
