"""Supervisor's configuration and the process list, as text."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from centinela_local.processes.spec import Process

INFRASTRUCTURE, SERVICES = "infrastructure", "services"

_PROGRAM = """
[program:{name}]
command={command}
autostart=false
autorestart=true
startsecs=1
startretries=10
stopsignal=TERM
stopwaitsecs={stop_wait_s}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(here)s/../log/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=3
"""

_HEAD = """[unix_http_server]
file={socket}
chmod=0700

[supervisord]
pidfile=%(here)s/supervisord.pid
logfile=%(here)s/../log/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
loglevel=info
nodaemon=false
silent=true

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


def render_config(groups: Mapping[str, Sequence[Process]], socket: Path, listing: Path) -> str:
    """supervisord.conf: groups stop in reverse order, the processes of a group at once.

    Args:
        groups: Processes by group, what others depend on first.
        listing: The file that ``centinela_local.processes.exec_child`` reads.
    """
    parts = [_HEAD.format(socket=_literal(str(socket)))]
    for priority, (group, processes) in enumerate(groups.items()):
        parts.append(
            f"\n[group:{group}]\nprograms={','.join(process.name for process in processes)}\npriority={priority}\n"
        )
        for process in processes:
            command = [sys.executable, "-m", "centinela_local.processes.exec_child", str(listing), process.name]
            parts.append(
                _PROGRAM.format(
                    name=process.name, command=_literal(shlex.join(command)), stop_wait_s=process.stop_wait_s
                )
            )
    return "".join(parts)


def render_listing(processes: Iterable[Process], environment: Mapping[str, str]) -> str:
    """The process list as JSON: name to command, environment (*environment* and the process's own) and niceness."""
    return json.dumps(
        {
            process.name: {
                "command": process.command,
                "nice": process.nice,
                "environment": {**environment, **process.environment},
            }
            for process in processes
        },
        indent=1,
    )


def _literal(value: str) -> str:
    return value.replace("%", "%%")
