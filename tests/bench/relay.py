#!/usr/bin/env python3
"""A TCP relay that makes loopback as far away as a region.

    relay.py PORT MILLISECONDS

Holds every chunk for half of the round trip in each direction, and a new connection for a whole one. It does not limit
bandwidth. Prints the port that it listens on.
"""

import asyncio
import sys
import time

CHUNK_BYTES = 256 << 10
# In flight in one direction of one connection: far more than a window of TCP.
CHUNKS = 256


async def pump(reader, writer, half):
    queue = asyncio.Queue(maxsize=CHUNKS)

    async def take():
        try:
            while data := await reader.read(CHUNK_BYTES):
                await queue.put((time.monotonic() + half, data))
        except OSError:
            pass
        await queue.put((time.monotonic() + half, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, data = await queue.get()
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        taking.cancel()
        writer.close()


async def main(port, milliseconds):
    half = milliseconds / 2000
    # Connections that a client drops.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def serve(reader, writer):
        await asyncio.sleep(2 * half)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port, limit=16 * CHUNK_BYTES)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, up_writer, half), pump(up_reader, writer, half), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=16 * CHUNK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
