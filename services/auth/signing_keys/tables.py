from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime, LargeBinary

from services.auth.database import Base


class SigningKeyRow(Base):
    """An Ed25519 key pair. The private half is stored encrypted, the public half signed by the root key."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        CheckConstraint("octet_length(public_key) = 32", name="public_key_is_ed25519"),
        CheckConstraint("octet_length(root_signature) = 64", name="root_signature_is_ed25519"),
        CheckConstraint("not_after > not_before", name="period_is_not_empty"),
        CheckConstraint("version >= 1", name="version_is_positive"),
    )

    kid: Mapped[str] = mapped_column(Text, primary_key=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    private_key_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    root_signature: Mapped[bytes] = mapped_column(LargeBinary)
    not_before: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    not_after: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: One more with every state that was published.
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    #: False for keys older than publishing, until they are published once.
    published: Mapped[bool] = mapped_column(default=True)
