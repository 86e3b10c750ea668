"""``python -m centinela`` is the ``centinela`` command."""

from centinela.cli import main

main()
