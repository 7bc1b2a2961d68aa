"""``python -m zsar_cli`` is the ``zsar`` command."""

from zsar_cli.cli.app import main

if __name__ == "__main__":
    main()
