"""The steps a request passes before it reaches a handler: token, company, access context, module, permission."""
