"""The subcommands of ``centinela`` that belong to no single service."""
