"""What a site says of its series, and of where studies go: rules in the settings."""

from __future__ import annotations

import ipaddress
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from converters.sequence_rules import Condition, Rule
from converters.volume import Role
from node.peers import AeTitle, Branch

SENDER: Final = "sender"
"""What a route calls the destination that has the AE title which the study came from."""


class SeriesCondition(Branch):
    """What one attribute of a series must be; see `converters.sequence_rules.Condition`."""

    matches: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    is_present: bool | None = None


class SeriesRule(Branch):
    """A series whose attributes are as asked serves `role`, or none: ``other``."""

    name: str = Field(min_length=1, max_length=64)
    role: Role = Field(pattern=r"^[a-z][a-z0-9_]{0,15}$")
    where: dict[str, SeriesCondition]

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        self.as_rule()
        return self

    def as_rule(self) -> Rule:
        """Return the rule as `converters` applies it; raises ``ValueError`` for an impossible one.

        Whether a role is one of the model's is checked where the model is known.
        """
        where = {keyword: Condition(**dict(one)) for keyword, one in self.where.items()}
        return Rule(name=self.name, role=None if self.role == "other" else self.role, where=where)


class Route(Branch):
    """Where a study goes whose sender and attributes are as asked; what is not asked holds.

    Without `destinations` results go to all, with none to nobody; without `reference` the result
    lies on the grid that the model names; without `models` all of them work on the study.
    """

    name: str = Field(min_length=1, max_length=64)
    called_ae_titles: tuple[AeTitle, ...] = ()
    calling_ae_titles: tuple[AeTitle, ...] = ()
    calling_addresses: tuple[str, ...] = ()
    where: dict[str, SeriesCondition] = Field(default_factory=dict)
    destinations: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    reference: Role = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,15})?$")

    @field_validator("calling_addresses")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for one in addresses:
            ipaddress.ip_network(one, strict=False)
        return addresses

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        self.as_rule()
        return self

    def as_rule(self) -> Rule | None:
        """Return what it asks of attributes, None where it asks nothing."""
        where = {keyword: Condition(**dict(one)) for keyword, one in self.where.items()}
        return Rule(name=self.name, role=None, where=where) if where else None
