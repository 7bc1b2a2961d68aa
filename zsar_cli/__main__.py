"""``python -m zsar_cli`` is the ``zsar`` command."""

import os
import sys

# ``-m`` has modules searched in the current folder first, where a stranger's ``typer.py`` may lie. What Python imported
# before this line it took from there; ``zsar`` and ``python -P -m zsar_cli`` do not.
here = os.path.realpath(sys.path[0])
if __name__ == "__main__" and os.path.realpath(os.path.dirname(os.path.dirname(__file__))) != here:
    del sys.path[0]

from zsar_cli.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
