"""Writing the results, and the configurations they were got with, between the markers of a page of the docs."""

from __future__ import annotations

from pathlib import Path

from peer_configs import Ports, Setup
from peers import Peer

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
#: Names and ports in the page; in a run they are others every time.
_EXAMPLE = Setup(
    Path("/tmp/bench"), Ports(8081, 8443, 8080, 9090), 9001, 9002, Path("/tmp/bench/cert.pem"),
    Path("/tmp/bench/key.pem"), connections=9500,
)  # fmt: skip
#: Not shown: certificates.
_HIDDEN = (".pem",)


def write(page: Path, results: str, found: list[Peer]) -> None:
    """Put the results between the markers."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page} must have one {BEGIN} and one {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{results}\n\n{configurations(found)}\n\n{END}{after}")


def configurations(found: list[Peer]) -> str:
    """What each proxy was told, with example ports."""
    parts = ["### Configurations\n\nOf one worker; ports and folders are others in every run."]
    for peer in found:
        for name, text in peer.files(_EXAMPLE).items():
            if not name.endswith(_HIDDEN):
                parts.append(f"<details><summary>{peer.name}: {name}</summary>\n\n"
                             f"```text\n{text.strip()}\n```\n\n</details>")  # fmt: skip
    return "\n\n".join(parts)
