"""``gogate health``: whether a gateway is alive, for container health checks and scripts; answers by its exit code.

It asks as any client would, over the admin listener: an image needs no curl, and one that does not answer is not
healthy, whatever its processes look like.
"""

from __future__ import annotations

import click

from gogate_py.cli.admin_options import fail
from gogate_py.cli.help import examples
from gogate_py.cli.lease import AdminClient, Refused, UnknownInstance, Unreachable


@click.command(epilog=examples("gogate health", "gogate health --ready --admin http://127.0.0.1:9090"))
@click.option("--ready", is_flag=True, help="Ask whether it takes new traffic, not only whether it lives.")
@click.option("--admin", envvar="GOGATE_ADMIN", default="http://127.0.0.1:9090", show_default=True, show_envvar=True,
              metavar="URL", help="The gateway's admin API.")  # fmt: skip
def health(ready: bool, admin: str) -> None:
    """Say whether the gateway is alive (or ready).

    Exit code 0: it is. 1: it is not, or does not answer within 3 seconds.
    """
    try:
        client = AdminClient(admin, "")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        answer = client.call("GET", "/readyz" if ready else "/healthz")
    except (Refused, UnknownInstance, Unreachable) as error:
        fail(f"{client.url}: {error}")
    click.echo(answer.get("status", "ok"))
