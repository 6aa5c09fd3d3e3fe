"""Waiting for what brokers know of their storage."""

from .waiting import wait_until


def wait_down(cluster):
    for broker in cluster:
        wait_until(lambda: not broker.stats()["storage"]["up"], "the outage is known")


def wait_up(cluster):
    for broker in cluster:
        wait_until(lambda: broker.stats()["storage"]["up"], "the storage is back")
        broker.ready()
