"""The service: everything that waits, stores or talks."""
