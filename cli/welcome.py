"""What `kisum up` ends with: where everything is, and three commands that work when pasted; or what is not ready."""

import json
import secrets
from collections.abc import Mapping
from typing import Final

from cli.running import RunRecord

#: What both accounts begin with, and no line before them does.
ACCOUNT_BEGINS: Final = "Kisum "


def welcome(record: RunRecord) -> str:
    """The address, the documentation, the sign-in, the metrics, and three curl lines with an account of their own."""
    auth = f"{record.address_of('auth')}/api/auth"
    name = f"ada-{secrets.token_hex(3)}"
    credentials = {"email": f"{name}@example.com", "password": f"try-{secrets.token_hex(6)}"}
    sign_up = json.dumps({**credentials, "display_name": "Ada"})
    post = "curl -sS -H 'Content-Type: application/json'"
    documents = "\n".join(
        f"                {part.address}{group}/docs" for part in record.parts for group in part.route_groups.values()
    )
    addresses = ", ".join(part.address for part in record.parts)
    metrics = "\n".join(f"                {part.metrics_address}" for part in record.parts)
    return f"""Kisum is ready.

  address       {addresses}
  documentation {documents.strip()}
  sign-in       POST {auth}/token
  metrics       {metrics.strip()}

Try it:

{post} {auth}/users -d '{sign_up}'
TOKEN=$({post} {auth}/token -d '{json.dumps(credentials)}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -sS {auth}/me -H "Authorization: Bearer $TOKEN"
"""


def not_ready(problems: Mapping[str, str | None]) -> str:
    """What is not ready, and why."""
    return f"""Kisum runs, but not everything is ready:

{problem_lines(problems)}

It goes on, and what is waited for may still come: `kisum status` tells.
"""


def problem_lines(problems: Mapping[str, str | None]) -> str:
    """One line for each service that has a problem."""
    return "\n".join(f"  {service:20} {problem}" for service, problem in problems.items() if problem)
