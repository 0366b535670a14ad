"""Many connections from one process: crowd.py PORT SILENT HONEST CERT KEY CA.

The silent ones say nothing and stay. The honest ones come all at once, shake hands, and wait for Dask's greeting. Each
step waits for a line, and ends with one that says what was done.
"""

from __future__ import annotations

import asyncio
import ssl
import sys


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    sys.stdin.readline()


async def main() -> None:
    port, silent, honest = map(int, sys.argv[1:4])
    certificate, key, ca = sys.argv[4:]
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    context.load_cert_chain(certificate, key)
    say("ready")
    kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(silent)]
    say(f"silent {len(kept)}")

    async def come_in() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
        kept.append((reader, writer))
        return bool(await reader.read(8))

    arrived = await asyncio.gather(*(come_in() for _ in range(honest)), return_exceptions=True)
    failed = {repr(each) for each in arrived if each is not True}
    say(" ".join([f"in {sum(each is True for each in arrived)}", *failed]))


asyncio.run(main())
