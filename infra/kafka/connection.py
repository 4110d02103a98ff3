"""Where Kafka is and who one is there, in the words of each client library."""

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class KafkaConnection:
    """A principal's way to the brokers. `topic_prefix` stands before every topic and group of this installation."""

    #: host:port, several separated by commas.
    bootstrap_servers: str
    username: str
    password: str = field(repr=False)
    topic_prefix: str = ""
    #: SASL_SSL verifies the brokers' certificate and host name against the system's authorities.
    security_protocol: Literal["SASL_PLAINTEXT", "SASL_SSL"] = "SASL_PLAINTEXT"
    mechanism: Literal["SCRAM-SHA-512"] = "SCRAM-SHA-512"

    def aiokafka(self) -> dict[str, Any]:
        """Keyword arguments of any aiokafka client."""
        return {
            # FastStream takes a string for the name of one.
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "security_protocol": self.security_protocol,
            "ssl_context": ssl.create_default_context() if self.security_protocol == "SASL_SSL" else None,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }

    def confluent(self) -> dict[str, Any]:
        """Configuration of any confluent-kafka client."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }
