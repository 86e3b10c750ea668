"""From settings to who may write, and whether the process may listen at its address."""

from __future__ import annotations

import ipaddress

import structlog

from centinela.errors import CentinelaError
from centinela.security.keys import ApiKeys, InvalidKeys, parse
from centinela.settings import Settings

_log = structlog.get_logger(__name__)


class ExposedWithoutKeys(CentinelaError):
    """The process would listen beyond its own machine, and anybody could write."""


def is_loopback(host: str) -> bool:
    """Whether *host* reaches this machine only. A name other than ``localhost`` counts as reachable by others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_keys(settings: Settings) -> ApiKeys:
    """The keys that *settings* name, by file or by value; where they name none, everybody may write.

    Raises:
        InvalidKeys: The list cannot be read or used; or both a file and a value are set.
    """
    if settings.api_keys_file is not None and settings.api_keys is not None:
        raise InvalidKeys("set CENTINELA_API_KEYS_FILE or CENTINELA_API_KEYS, not both")
    if settings.api_keys_file is not None:
        try:
            text = settings.api_keys_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidKeys(f"the API keys in {settings.api_keys_file} cannot be read: {error}") from error
        return ApiKeys(parse(text.splitlines()))
    if settings.api_keys is not None:
        return ApiKeys(parse(settings.api_keys.get_secret_value().split()))
    return ApiKeys(None)


def require_guarded(settings: Settings) -> None:
    """Refuse to listen beyond loopback without keys, unless ``insecure`` says that this is intended. Also checks the
    keys.

    Raises:
        ExposedWithoutKeys: It would be open to anyone who can reach the address.
        InvalidKeys: See ``api_keys``.
    """
    if api_keys(settings).required or is_loopback(settings.ops_host):
        return
    if not settings.insecure:
        raise ExposedWithoutKeys(
            f"CENTINELA_OPS_HOST={settings.ops_host} is reachable by others, and no API keys are set: set"
            " CENTINELA_API_KEYS_FILE (`centinela keys new` makes keys), or CENTINELA_INSECURE=true where something"
            " else keeps others out"
        )
    _log.warning("process.open_to_all", host=settings.ops_host, detail="CENTINELA_INSECURE is set and no API keys are")
