"""What every answer can do in Python: be plain data, a table of pandas, and a card in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class Result:
    """An answer about one video."""

    video: str

    def to_record(self) -> dict[str, Any]:
        """Make the record of the command line."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Make plain data, as JSON has them: the record that the command writes."""
        return self.to_record()

    def to_pandas(self) -> pd.DataFrame:
        """Make a row for each label, or for each segment, as :func:`zsar_cli.to_pandas` makes it of many answers."""
        from zsar_cli.prediction.rows import to_pandas

        return to_pandas([self])

    def _repr_html_(self) -> str:
        from zsar_cli.prediction.notebook import card

        return card(self)
