"""Tells people of cases that need them, by webhook and e-mail."""
