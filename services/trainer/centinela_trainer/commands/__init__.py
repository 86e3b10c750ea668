"""The trainer's subcommands of ``centinela``."""
