"""The model registry: which version is champion, how that changes, and how its bundle gets here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from uuid import uuid4

from centinela.clock import Clock, SystemClock
from centinela.errors import CentinelaError, DependencyUnavailable, ModelRejected, PromotionConflict
from centinela.model.bundle import FILES, MANIFEST, SIGNATURE, verify, write_metadata
from centinela.model.promotions import HISTORY_TAG, Promotion, before, decode_history, encode_history
from centinela.model.registry_store import ModelRun, ModelState, ModelVersion, Store, UnknownVersion
from centinela.model.signing import trusted_keys
from centinela.settings import Settings

CHAMPION, CHALLENGER = "champion", "challenger"
NO_CHAMPION = "none"
"""Expected champion of a promotion that must be the first."""

BUNDLE_FOLDER = "bundle"
STAGE_TAG = "stage"
STAGES: Mapping[str, str] = {CHAMPION: "Production", CHALLENGER: "Staging"}
RETIRED = "Archived"


class Registry:
    """The registered model ``settings.model_name``. Thread-safe.

    Compare-and-set is as good as MLflow allows: the alias is read and then set, so of two promotions within the same
    milliseconds the later one wins, and each reader sees one alias all the same.

    Args:
        settings: Where MLflow is and the model's name.
        store: Where it is kept, instead of MLflow.
    """

    def __init__(self, settings: Settings, *, store: Store | None = None, clock: Clock | None = None) -> None:
        if store is None:
            from centinela.model.mlflow_store import MlflowStore

            store = MlflowStore(settings.mlflow_tracking_uri)
        self.model_name = settings.model_name
        self._trusted = trusted_keys(settings)
        self._store = store
        self._clock = clock or SystemClock()

    def aliases(self) -> Mapping[str, str]:
        """Alias to version, in one call."""
        return self._store.state(self.model_name).aliases

    def version_of(self, alias: str) -> str | None:
        """The version that *alias* points to, or None."""
        return self.aliases().get(alias)

    def versions(self, limit: int = 50) -> list[ModelVersion]:
        """The newest versions, newest first."""
        return self._store.versions(self.model_name, limit)

    def version(self, version: str) -> ModelVersion:
        """One version.

        Raises:
            UnknownVersion: No such version.
        """
        return self._store.version(self.model_name, version)

    def run(self, run_id: str) -> ModelRun | None:
        """The run *run_id*; None where it no longer exists."""
        return self._store.run(run_id)

    def history(self) -> tuple[Promotion, ...]:
        """The promotions and rollbacks that went through here, oldest first; the newest forty or so."""
        return decode_history(self._store.state(self.model_name).tags.get(HISTORY_TAG))

    def set_alias(self, alias: str, version: str) -> None:
        """Point *alias* to *version*; ``champion`` by :meth:`promote`.

        Raises:
            UnknownVersion: No such version.
        """
        if alias == CHAMPION:
            self.promote(version, reason="alias set")
            return
        self._store.set_alias(self.model_name, alias, version)
        self.restage()

    def restage(self) -> None:
        """Tag the versions as the old stages would have them: ``Production`` is the champion, ``Staging`` the
        challenger, and ``Archived`` whatever else carries one of these, also after an alias was set in MLflow itself.
        """
        aliases = self.aliases()
        stages = {aliases[alias]: STAGES[alias] for alias in (CHALLENGER, CHAMPION) if alias in aliases}
        tagged = {
            version: stage
            for stage in STAGES.values()
            for version in self._store.tagged(self.model_name, STAGE_TAG, stage)
        }
        for version in {**tagged, **stages}:
            stage = stages.get(version, RETIRED)
            if tagged.get(version) != stage:
                self._store.set_tag(self.model_name, STAGE_TAG, stage, version=version)

    def promote(self, version: str, expect: str | None = None, *, reason: str = "") -> str | None:
        """Make *version* the champion. If it was the challenger, there is no challenger afterwards.

        Args:
            expect: The champion that there must be now (``none``: none at all); None promotes in any case.
            reason: Kept in the history.

        Returns:
            The previous champion.

        Raises:
            PromotionConflict: The champion is not the expected one; nothing was changed.
            UnknownVersion: No such version.
        """
        state = self._store.state(self.model_name)
        current = state.aliases.get(CHAMPION)
        if expect is not None and (current or NO_CHAMPION) != expect:
            raise PromotionConflict(f"the champion of {self.model_name} is {current or NO_CHAMPION}, not {expect}")
        self._move(state, "promote", version, reason)
        return current

    def rollback(self, expect: str | None = None, *, reason: str = "") -> str:
        """Make the previous champion the champion again; its version. Repeated, it goes back further.

        Raises:
            PromotionConflict: There is no earlier champion, or the champion is not the expected one.
            UnknownVersion: The earlier champion was deleted.
        """
        state = self._store.state(self.model_name)
        current = state.aliases.get(CHAMPION)
        if expect is not None and (current or NO_CHAMPION) != expect:
            raise PromotionConflict(f"the champion of {self.model_name} is {current or NO_CHAMPION}, not {expect}")
        target = before(decode_history(state.tags.get(HISTORY_TAG)), current) if current else None
        if target is None:
            raise PromotionConflict(f"{self.model_name} has no earlier champion to return to")
        self._move(state, "rollback", target, reason)
        return target

    def download(self, version: str, dest: Path) -> Path:
        """Put the bundle of *version* into the new folder *dest*, digests checked, with ``metadata.json``; returns
        *dest*.

        Raises:
            ModelRejected: ``missing_version``, ``not_downloadable``, or what ``bundle.read_verified`` raises.
            DependencyUnavailable: The registry does not answer.
            FileExistsError: *dest* exists.
        """
        if dest.exists():
            raise FileExistsError(f"{dest} exists")
        try:
            return self._download(version, dest)
        except (DependencyUnavailable, ModelRejected):
            raise
        except UnknownVersion as error:
            raise ModelRejected(f"missing_version: {error}") from error
        except CentinelaError as error:
            raise ModelRejected(f"not_downloadable: {error}") from error

    def _download(self, version: str, dest: Path) -> Path:
        run_id = self._store.run_of(self.model_name, version)
        if run_id is None:
            raise ModelRejected(f"missing_version: version {version} has no run, so no bundle")
        part = dest.with_name(f".{dest.name}.{uuid4().hex[:8]}")
        part.mkdir(parents=True)
        try:
            for name in sorted(
                set(self._store.list_artifacts(run_id, BUNDLE_FOLDER)) & (FILES | {MANIFEST, SIGNATURE})
            ):
                self._store.fetch_artifact(run_id, f"{BUNDLE_FOLDER}/{name}", part / name)
            write_metadata(part, verify(part, self._trusted), version)
            part.rename(dest)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return dest

    def _move(self, state: ModelState, kind: Literal["promote", "rollback"], version: str, reason: str) -> None:
        current = state.aliases.get(CHAMPION)
        self._store.set_alias(self.model_name, CHAMPION, version)
        if current != version:
            entry = Promotion(kind=kind, version=version, previous=current, at=self._clock.now(), reason=reason)
            history = [*decode_history(state.tags.get(HISTORY_TAG)), entry]
            self._store.set_tag(self.model_name, HISTORY_TAG, encode_history(history))
        if state.aliases.get(CHALLENGER) == version:
            self._store.delete_alias(self.model_name, CHALLENGER)
        self.restage()
