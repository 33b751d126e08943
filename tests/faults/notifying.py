"""`python -m tests.faults.notifying LEDGER WEBHOOK LEASE_S [crash]`: send what is due, then end.

With "crash" the process dies as by kill -9 when its receiver has taken the first notice.
"""

from __future__ import annotations

import os
import signal
import sys

from node.ledger import Ledger
from node.notify.notifier import Notifier
from node.outbox import Outbox
from node.peers import Notify


def _die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _main(ledger_url: str, webhook_url: str, lease_s: str, *more: str) -> None:
    webhook = {"url": webhook_url, "secret": "sixteen-or-more-characters"}
    ledger = Ledger(ledger_url)
    notifier = Notifier(
        Outbox(ledger.engine),
        Notify.model_validate({"webhook": webhook, "digest_s": 0.0}),
        _die if more else None,
        lease_s=float(lease_s),
    )
    notifier.route()
    while notifier.look("webhook"):
        pass
    ledger.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
