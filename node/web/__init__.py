"""Status page and API; reads the ledger, never writes state."""
