"""A thousand sessions over three instances: each receives exactly its own messages, in order."""

import asyncio

from websockets.legacy.client import connect

from lib import PATIENCE, Cluster, background, wait_until

SESSIONS = 1000
USERS = SESSIONS // 2
ROUNDS = 10


def test_each_receives_exactly_its_own_in_order():
    """Two sessions a user, on different instances; both talk, both hear both."""
    with Cluster(3, log_level="info") as cluster:
        def url(i):
            return cluster[(i + i // USERS) % 3].ws(f"/websocket/u{i % USERS}")

        async def open_all():
            gate = asyncio.Semaphore(50)

            async def one(i):
                async with gate:
                    return await connect(url(i), compression=None, ping_interval=None, max_queue=None)
            return await asyncio.gather(*map(one, range(SESSIONS)))

        async def talk(clients):
            async def say(i):
                for k in range(ROUNDS):
                    await clients[i].send(f"{i} {k}")
                    await asyncio.sleep(0)

            async def hear(i):
                return [await clients[i].recv() for _ in range(2 * ROUNDS)]
            heard = asyncio.gather(*map(hear, range(SESSIONS)))
            await asyncio.gather(*map(say, range(SESSIONS)))
            return await heard

        async def nothing_more(clients):
            for client in clients:
                await (await client.ping())
                assert not client.messages

        async def close_all(clients):
            await asyncio.gather(*(client.close() for client in clients))

        clients = background(open_all(), 3 * PATIENCE)
        wait_until(lambda: cluster[0].stats()["online"] == SESSIONS, "all are online")
        heard = background(talk(clients), 3 * PATIENCE)
        for i, messages in enumerate(heard):
            user = i % USERS
            for speaker in (user, user + USERS):
                mine = [message for message in messages if message.startswith(f"u{user}:{speaker} ")]
                assert mine == [f"u{user}:{speaker} {k}" for k in range(ROUNDS)]
        background(nothing_more(clients), 3 * PATIENCE)
        assert sum(one.stats()["sessions"] for one in cluster) == SESSIONS
        background(close_all(clients), 3 * PATIENCE)
        wait_until(lambda: cluster[0].stats()["online"] == 0, "all are gone")
        assert not list(cluster.redis.client.scan_iter("sb:session:*"))
        assert not list(cluster.redis.client.scan_iter("sb:user:*"))
