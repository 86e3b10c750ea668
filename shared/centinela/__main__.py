"""``python -m centinela`` is the ``centinela`` command."""

from centinela.commands.main import main

if __name__ == "__main__":
    main()
