"""The registry's store in MLflow, over its REST API: importing the MLflow client takes 3 s of CPU and 120 MB."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.model.bundle import MAX_FILE_BYTES
from centinela.model.registry_store import ModelRun, ModelState, ModelVersion, UnknownVersion
from centinela.times import from_ms

API = "/api/2.0/mlflow"
TIMEOUT = httpx.Timeout(5.0, connect=2.0)
ATTEMPTS = 2
_NOT_NOW = frozenset({401, 403, 404, 408, 429})
"""Answers of a server that is busy, is not MLflow, or refuses access: somebody may fix it meanwhile."""

_MISSING = "RESOURCE_DOES_NOT_EXIST"


class MlflowStore:
    """``centinela.model.registry_store.Store`` on an MLflow tracking server. Thread-safe.

    Credentials come from ``MLFLOW_TRACKING_USERNAME`` and ``_PASSWORD``, or ``MLFLOW_TRACKING_TOKEN``, as MLflow's own
    client takes them.

    Args:
        uri: http or https.

    Raises:
        CentinelaError: *uri* is not a server's.
    """

    def __init__(self, uri: str) -> None:
        if not uri.startswith(("http://", "https://")):
            raise CentinelaError(f"the MLflow tracking URI {uri} is not a server: give http://host:port")
        self._uri = uri
        headers = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("MLFLOW_TRACKING_TOKEN")) else {}
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
        self._http = httpx.Client(base_url=uri.rstrip("/"), headers=headers, auth=auth, timeout=TIMEOUT)

    def state(self, model: str) -> ModelState:
        try:
            found = self._call("GET", "registered-models/get", {"name": model})["registered_model"]
        except _Missing:
            return ModelState()
        return ModelState({a["alias"]: str(a["version"]) for a in found.get("aliases", [])}, _tags(found))

    def versions(self, model: str, limit: int) -> list[ModelVersion]:
        aliases = self.state(model).aliases
        query = {"filter": f"name = {_quoted(model)}", "max_results": str(limit), "order_by": "version_number DESC"}
        found = self._call("GET", "model-versions/search", query).get("model_versions", [])
        return [self._version(v, aliases) for v in found]

    def version(self, model: str, version: str) -> ModelVersion:
        with _version_of(model, version):
            found = self._call("GET", "model-versions/get", {"name": model, "version": version})["model_version"]
        return self._version(found, self.state(model).aliases)

    def run(self, run_id: str) -> ModelRun | None:
        try:
            found = self._call("GET", "runs/get", {"run_id": run_id})["run"]
        except _Missing:
            return None
        info = found["info"]
        return ModelRun(
            run_id,
            info.get("run_name", ""),
            info.get("status", ""),
            from_ms(int(info["start_time"])),
            _tags(found["data"]),
        )

    def set_alias(self, model: str, alias: str, version: str) -> None:
        with _version_of(model, version):
            self._call("POST", "registered-models/alias", {"name": model, "alias": alias, "version": version})

    def delete_alias(self, model: str, alias: str) -> None:
        try:
            self._call("DELETE", "registered-models/alias", {"name": model, "alias": alias})
        except _Missing:
            return

    def set_tag(self, model: str, key: str, value: str, *, version: str | None = None) -> None:
        tag = {"name": model, "key": key, "value": value}
        if version is None:
            self._call("POST", "registered-models/set-tag", tag)
        else:
            with _version_of(model, version):
                self._call("POST", "model-versions/set-tag", tag | {"version": version})

    def tagged(self, model: str, key: str, value: str) -> Collection[str]:
        query = {"filter": f"name = {_quoted(model)} AND tags.{key} = {_quoted(value)}", "max_results": "1000"}
        found = self._call("GET", "model-versions/search", query).get("model_versions", [])
        return [str(v["version"]) for v in found]

    def run_of(self, model: str, version: str) -> str | None:
        with _version_of(model, version):
            found = self._call("GET", "model-versions/get", {"name": model, "version": version})["model_version"]
        return found.get("run_id") or None

    def list_artifacts(self, run_id: str, folder: str) -> Collection[str]:
        try:
            found = self._call("GET", "artifacts/list", {"run_id": run_id, "path": folder}).get("files", [])
        except _Missing:
            return []
        return [str(f["path"]).rsplit("/", 1)[-1] for f in found if not f.get("is_dir")]

    def fetch_artifact(self, run_id: str, path: str, dest: Path) -> None:
        with (
            self._answering(),
            self._http.stream("GET", "/get-artifact", params={"run_id": run_id, "path": path}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                response.read()
                self._raise_for(response)
            size = 0
            with dest.open("wb") as file:
                for chunk in response.iter_bytes():
                    if (size := size + len(chunk)) > MAX_FILE_BYTES:
                        raise CentinelaError(f"{path} of run {run_id} has more than {MAX_FILE_BYTES} bytes")
                    file.write(chunk)

    def _version(self, found: dict[str, Any], aliases: Mapping[str, str]) -> ModelVersion:
        version, run_id = str(found["version"]), found.get("run_id") or None
        return ModelVersion(
            version,
            from_ms(int(found["creation_timestamp"])),
            run_id,
            tuple(sorted(alias for alias, at in aliases.items() if at == version)),
            _tags(found),
            self._metrics(run_id),
        )

    def _metrics(self, run_id: str | None) -> dict[str, float]:
        if not run_id:
            return {}
        try:
            run = self._call("GET", "runs/get", {"run_id": run_id})["run"]
        except _Missing:
            return {}
        return {m["key"]: float(m["value"]) for m in run["data"].get("metrics", [])}

    def _call(self, method: str, path: str, arguments: dict[str, str]) -> dict[str, Any]:
        """One call, tried again once where the connection broke: all calls here may be repeated."""
        place = {"params": arguments} if method == "GET" else {"json": arguments}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._answering():
                    response = self._http.request(method, f"{API}/{path}", **place)  # type: ignore[arg-type]
                break
            except DependencyUnavailable as error:
                if attempt == ATTEMPTS or isinstance(error.__cause__, httpx.TimeoutException | httpx.ConnectError):
                    raise
        if response.status_code != httpx.codes.OK:
            self._raise_for(response)
        try:
            body = response.json()
        except ValueError as error:
            raise DependencyUnavailable(
                f"MLflow at {self._uri} does not answer in JSON", dependency="mlflow"
            ) from error
        return dict(body)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            detail = f"MLflow at {self._uri} does not answer: {type(error).__name__} {error}".rstrip()
            raise DependencyUnavailable(detail, dependency="mlflow") from error

    def _raise_for(self, response: httpx.Response) -> None:
        try:
            problem = response.json()
            code, message = problem.get("error_code", ""), problem.get("message", "")
        except (ValueError, AttributeError):
            code, message = "", response.text[:200]
        if code == _MISSING:
            raise _Missing(message)
        if response.status_code >= 500 or response.status_code in _NOT_NOW:
            raise DependencyUnavailable(
                f"MLflow at {self._uri} answers {response.status_code}: {message}", dependency="mlflow"
            )
        raise CentinelaError(f"MLflow at {self._uri} refuses with {response.status_code}: {message}")


class _Missing(CentinelaError):
    """MLflow has no such thing."""


@contextmanager
def _version_of(model: str, version: str) -> Iterator[None]:
    try:
        yield
    except _Missing as error:
        raise UnknownVersion(f"{model} has no version {version}") from error


def _tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
