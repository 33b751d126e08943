"""`neuroseg install-service`: the node as a service of systemd, on a machine without containers."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

UNIT: Final = Path("/etc/systemd/system/neuroseg.service")
_PRIVILEGED_PORTS: Final = 1024
_TEMPLATE: Final = """\
# Written by `neuroseg install-service`; the settings stand in {config}.
[Unit]
Description=NeuroSeg Node (research use only)
Wants=network-online.target
After=network-online.target

[Service]
User={user}
WorkingDirectory={folder}
ExecStart={python} -m node serve --config {config}
Restart=always
RestartSec=5
KillMode=mixed
TimeoutStopSec=45
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ReadWritePaths={spool}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"""


def unit(config: Path, user: str) -> str:
    """Return the text of the unit for a settings file.

    Raises
    ------
    ConfigError
        The settings cannot be used: better now than when the machine starts.
    """
    from node import settings

    known = settings.load(config)
    ports = (known.receive.port, known.web.port)
    values = {
        "config": config.absolute(),
        "folder": Path.cwd(),
        "python": sys.executable,
        "spool": known.spool.path.absolute(),
    }
    return _TEMPLATE.format(
        **{name: str(path).replace("%", "%%") for name, path in values.items()},
        user=user,
        capabilities="CAP_NET_BIND_SERVICE" if min(ports) < _PRIVILEGED_PORTS else "",
    )


@click.command("install-service")
@click.option(
    "--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--user", default="neuroseg", show_default=True, help="Whom the node runs as.")
@click.option("--print", "only_print", is_flag=True, help="Show the unit and change nothing.")
def install_service(config: Path, user: str, *, only_print: bool) -> None:
    """Write a unit of systemd that keeps the node running from the machine's start on.

    Relative paths of the settings count from the folder that this is run in.
    """
    text = unit(config, user)
    if only_print:
        click.echo(text, nl=False)
        return
    if os.geteuid() != 0 or not UNIT.parent.is_dir():
        click.echo("That needs root on a machine with systemd; --print shows the unit.", err=True)
        sys.exit(1)
    UNIT.write_text(text, encoding="utf-8")
    click.echo(f"{UNIT} is written. Next, where they are not there yet: the user and the spool;\n")
    click.echo(f"  useradd --system --shell /usr/sbin/nologin {user}")
    spool = text.partition("ReadWritePaths=")[2].partition("\n")[0]
    click.echo(f"  install -d -o {user} -m 0750 {spool}")
    click.echo("  systemctl daemon-reload && systemctl enable --now neuroseg")
