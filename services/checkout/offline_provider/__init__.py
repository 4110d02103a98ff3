"""A payment provider without a network: the buyer says at its address that the money was paid, and it reports so.

It keeps its own rows, knows Checkout only as the address it sends signed webhooks to, and could run anywhere.
"""
