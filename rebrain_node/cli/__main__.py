"""`python -m rebrain_node.cli`: the same program, found without the installed script."""

from rebrain_node.cli import app

app()
