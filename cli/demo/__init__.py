"""`kisum demo`: purchase, grant, revocation and outage on real parts, told step by step with what was measured."""
