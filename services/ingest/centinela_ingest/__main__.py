"""``python -m centinela_ingest``"""

from __future__ import annotations

import sys

from centinela.process.start import serve
from centinela_ingest.bootstrap import run
from centinela_ingest.settings import IngestSettings


def main() -> int:
    """Accept transactions until SIGTERM or SIGINT; the exit code."""
    return serve(IngestSettings, "ingest", run)


if __name__ == "__main__":
    sys.exit(main())
