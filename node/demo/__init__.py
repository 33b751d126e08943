"""The demonstration: a synthetic study, a small archive, the whole way."""
