"""The files that prove an expense: receipts, invoices, photographs of them."""
