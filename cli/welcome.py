"""What `kisum up` ends with: where everything is, and three commands that work when pasted."""

import json
import secrets

from cli.running import RunRecord


def welcome(record: RunRecord) -> str:
    """The address, the documentation, the sign-in, and three curl lines with an account of their own."""
    auth = f"{record.address_of('auth')}/api/auth"
    name = f"ada-{secrets.token_hex(3)}"
    credentials = {"email": f"{name}@example.com", "password": f"try-{secrets.token_hex(6)}"}
    sign_up = json.dumps({**credentials, "display_name": "Ada"})
    post = "curl -sS -H 'Content-Type: application/json'"
    documents = "\n".join(
        f"                {part.address}{group}/docs" for part in record.parts for group in part.route_groups.values()
    )
    addresses = ", ".join(part.address for part in record.parts)
    return f"""Kisum is ready.

  address       {addresses}
  documentation {documents.strip()}
  sign-in       POST {auth}/token

Try it:

{post} {auth}/users -d '{sign_up}'
TOKEN=$({post} {auth}/token -d '{json.dumps(credentials)}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -sS {auth}/me -H "Authorization: Bearer $TOKEN"
"""
