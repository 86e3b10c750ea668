"""``python -m centinela`` is the ``centinela`` command."""

from centinela.commands.main import main

main()
