"""What the stack runs, and what it writes down for supervisor, the broker and its children."""

from __future__ import annotations

import configparser
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from centinela.topics import OFFSETS_RETENTION_MINUTES
from centinela_local.broker import jars
from centinela_local.broker.choice import choose_broker
from centinela_local.broker.embedded import Node, server_properties
from centinela_local.errors import StartFailed, ToolMissing
from centinela_local.paths import CHECKOUT, Paths
from centinela_local.process_list import kafka_process, service_processes, shared_environment
from centinela_local.processes.spec import Process
from centinela_local.processes.supervisor_config import render_config, render_listing
from centinela_local.readiness.checks import Answer, waits_for
from centinela_local.settings import LocalSettings

PROCESSES = ["ingest", "gateway", "stream", "drift", "trainer", "archive", "registry-watcher"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "KAFKA_BOOTSTRAP_SERVERS",
        "CENTINELA_KAFKA_BOOTSTRAP_SERVERS",
        "CENTINELA_DATA_DIR",
        "XDG_RUNTIME_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("external", "can_embed", "docker", "kind"),
    [
        (True, True, True, "external"),
        (True, False, False, "external"),
        (False, True, True, "embedded"),
        (False, False, True, "docker"),
    ],
)
def test_the_broker_is_the_named_one_else_embedded_else_dockers(
    external: bool, can_embed: bool, docker: bool, kind: str
) -> None:
    assert choose_broker(external=external, can_embed=can_embed, docker_answers=docker) == kind


def test_without_any_broker_one_message_says_what_to_install() -> None:
    with pytest.raises(ToolMissing, match=r"JDK.*Maven.*Docker.*KAFKA_BOOTSTRAP_SERVERS"):
        choose_broker(external=False, can_embed=False, docker_answers=False)


def test_every_process_listens_on_a_port_of_its_own_that_a_variable_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = service_processes(LocalSettings())
    assert [process.name for process in processes] == PROCESSES
    assert len({process.port for process in processes}) == len(processes)
    for number, process in enumerate(processes):
        monkeypatch.setenv(process.port_variable, str(21_000 + number))
    assert [process.port for process in service_processes(LocalSettings())] == [
        21_000 + n for n in range(len(processes))
    ]


def test_feast_is_one_more_process_where_it_is_asked_for() -> None:
    *others, feast = service_processes(LocalSettings(feast=True))
    assert [process.name for process in others] == PROCESSES
    assert feast.command[-2:] == ("centinela_predictor", "feast")
    assert feast.port not in {process.port for process in others}


def test_the_stack_reads_the_checkouts_features_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CENTINELA_FEATURES_FILE", raising=False)
    stack = shared_environment(LocalSettings(), Paths(tmp_path), "b:1")
    assert stack["CENTINELA_FEATURES_FILE"] == str(CHECKOUT / "features.yaml")
    monkeypatch.setenv("CENTINELA_FEATURES_FILE", "mine.yaml")
    assert "CENTINELA_FEATURES_FILE" not in shared_environment(LocalSettings(), Paths(tmp_path), "b:1")


@pytest.mark.parametrize("service", ["gateway", "predictor", "trainer"])
def test_the_checkouts_features_are_mounted_where_the_containers_read_them(service: str) -> None:
    container = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"][service]
    [mount] = [volume for volume in container["volumes"] if isinstance(volume, dict)]
    assert mount["target"] == container["environment"]["CENTINELA_FEATURES_FILE"]
    assert mount["source"] == "${CENTINELA_FEATURES_FILE:-./features.yaml}"


def test_every_process_gets_the_same_servers_ports_and_absolute_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = LocalSettings(mlflow_port=5999)
    environment = shared_environment(settings, Paths.of(settings.local_dir), "127.0.0.1:9")
    assert environment["CENTINELA_KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9"
    assert environment["CENTINELA_MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5999"
    assert environment["CENTINELA_DATA_DIR"] == str(tmp_path / ".local" / "data")
    assert environment["CENTINELA_GATEWAY_PORT"] == "8001"


def test_a_data_folder_that_the_user_names_is_kept(tmp_path: Path) -> None:
    settings = LocalSettings(data_dir=tmp_path / "elsewhere")
    assert shared_environment(settings, Paths.of(settings.local_dir), "")["CENTINELA_DATA_DIR"] == str(
        tmp_path / "elsewhere"
    )


def test_supervisor_reads_back_what_was_written_even_from_an_odd_folder(tmp_path: Path) -> None:
    listing = tmp_path / "100% of it's here" / "processes.json"
    infrastructure, services = [kafka_process(LocalSettings(), ["java"])], service_processes(LocalSettings())
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(
        render_config({"infrastructure": infrastructure, "services": services}, tmp_path / "s.sock", listing)
    )

    assert parser["group:services"]["programs"] == ",".join(PROCESSES)
    assert int(parser["group:infrastructure"]["priority"]) < int(parser["group:services"]["priority"]), (
        "services stop before what they depend on"
    )
    command = shlex.split(parser["program:gateway"]["command"] % {})
    assert command == [sys.executable, "-m", "centinela_local.processes.exec_child", str(listing), "gateway"]


def test_the_listing_holds_each_process_with_its_own_environment() -> None:
    process = Process("trainer", ("python", "-m", "x"), 1, "trainer_port", environment={"B": "own"}, nice=5)
    listing = json.loads(render_listing([process], {"A": "shared", "B": "shared"}))
    assert listing == {
        "trainer": {"command": ["python", "-m", "x"], "nice": 5, "environment": {"A": "shared", "B": "own"}}
    }


@pytest.mark.parametrize(
    ("state", "answer", "model_expected", "waits"),
    [
        ("RUNNING", Answer(200, {}), True, None),
        ("STARTING", Answer(200, {}), False, "is starting"),
        ("BACKOFF", None, False, "ended soon after its start, and waits before the next"),
        ("RUNNING", None, False, "does not answer yet"),
        ("RUNNING", Answer(503, {"waiting_for": {"model": "none yet"}}), False, None),
        ("RUNNING", Answer(503, {"waiting_for": {"model": "none yet"}}), True, "waits for model (none yet)"),
        (
            "RUNNING",
            Answer(503, {"waiting_for": {"model": "none yet", "kafka": "unavailable"}}),
            False,
            "waits for kafka (unavailable)",
        ),
        ("RUNNING", Answer(404, {}), False, "answers 404"),
        ("RUNNING", Answer(503, {}), False, "answers 503"),
    ],
)
def test_ready_is_what_answers_so_or_lacks_only_the_first_model(
    state: str, answer: Answer | None, model_expected: bool, waits: str | None
) -> None:
    assert waits_for(state, answer, model_expected=model_expected) == waits


def test_the_node_keeps_one_replica_makes_no_topic_by_accident_and_listens_on_loopback_only(tmp_path: Path) -> None:
    properties = dict(line.split("=", 1) for line in server_properties(Node(tmp_path, 1, 2)).splitlines())
    assert properties["auto.create.topics.enable"] == "false"
    assert {value for key, value in properties.items() if key.endswith((".replication.factor", ".min.isr"))} == {"1"}
    listeners = [address.split("://")[1] for address in properties["listeners"].split(",")]
    assert listeners == ["127.0.0.1:1", "127.0.0.1:2"]
    assert properties["offsets.retention.minutes"] == str(OFFSETS_RETENTION_MINUTES)
    assert "message.max.bytes" not in properties, "a record past the default limit is refused, as in production"


def test_the_broker_of_compose_keeps_the_offsets_of_a_stopped_group_too() -> None:
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())

    assert compose["services"]["kafka"]["environment"]["KAFKA_OFFSETS_RETENTION_MINUTES"] == OFFSETS_RETENTION_MINUTES


def test_a_changed_pom_means_another_folder_of_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTINELA_CACHE", str(tmp_path))
    changed = tmp_path / "pom.xml"
    changed.write_bytes(jars.POM.read_bytes().replace(b"<slf4j.version>", b"<slf4j.version >"))
    assert jars.jars_dir().parent == tmp_path
    assert jars.jars_dir().name.startswith("kafka-4.")
    assert jars.jars_dir(changed) != jars.jars_dir()


def test_the_socket_lies_in_a_short_folder_of_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = Paths(tmp_path / ("d" * 120))
    assert deep.socket().parent.stat().st_mode & 0o777 == 0o700
    assert deep.socket() != Paths(tmp_path / "other").socket()

    deep.socket().parent.chmod(0o755)
    with pytest.raises(StartFailed, match="only you can enter"):
        deep.socket()
