"""``python -m sdg``: the command line."""

from sdg.cli import main

main()
