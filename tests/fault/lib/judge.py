"""The verdict over one attack: what of all that must be true wasn't, as sentences."""

from .ledger import percentile

BUSY_MS = 500.0       # a control this late says that nothing else means much: it is told beside the failures
FLOOR_MS = 25.0       # below it no p99 is late: a machine that is shared makes as much by itself
TIMES = 2.0           # a p99 may be so many times the quiet one
STRETCH_MAX = 8.0     # more patience no machine gets
LEGS = {"request": 2, "api": 2}  # a request goes there and back, a call of the API begins with a connection
SAMPLES = 30          # of fewer no p99 is spoken of
REDIS_WAIT = 0.5      # seconds that Redis may be blocked
REDIS_GROWTH = 256 << 20
LINES_AT_ONCE = 12    # log lines of one kind within a minute, beside one for each name that attackers used
LOG_RATE = 256 << 10  # bytes a second of log


def p99_of(report):
    """stream → p99 in ms."""
    return {name: percentile(stream["latencies"], 0.99) for name, stream in report["streams"].items()
            if len(stream["latencies"]) >= SAMPLES}


class Baseline:
    """The quiet percentiles of each stream, measured again and again. The best of the last three times counts: what an attack left
    behind must not make the next one look better, and what the machine does meanwhile the control tells."""

    def __init__(self):
        self.reports = []

    def add(self, report):
        self.reports = (self.reports + [report])[-3:]

    def _least(self, stream, part):
        return min((percentile(report["streams"][stream]["latencies"], part) for report in self.reports), default=0.0)

    def p99(self, stream):
        return self._least(stream, 0.99)

    def p50(self, stream):
        return self._least(stream, 0.5)


def late(report, baseline, stretch):
    """(sentences, worst stream, its p99, its limit)."""
    p99 = p99_of(report)
    machine = p99.get("control", 0.0)
    said, worst, stretch = [], ("", 0.0, 0.0), min(stretch, STRETCH_MAX)
    for name, value in p99.items():
        if name == "control":
            continue
        # A server that had to wait for a processor is no slower than its code; and where even an echo without a broker is slower
        # than before, the machine is, and not the broker.
        limit = max(max(FLOOR_MS, TIMES * baseline.p99(name)) * stretch, TIMES * machine * LEGS.get(name, 1))
        if value > worst[1]:
            worst = (name, value, limit)
        if value > limit:
            said.append(f"{name}: p99 {value:.0f} ms, quiet {baseline.p99(name):.0f} ms, limit {limit:.0f} ms")
    return said, worst


def ledgers(report):
    said = []
    for name, stream in report["streams"].items():
        wrong = [f"{stream[what]} {what}" for what in ("lost", "doubled", "wrong") if stream[what]]
        if wrong and name != "control":
            said.append(f"{name}: of {stream['sent']} messages {', '.join(wrong)}" + "".join(f"; {note}" for note in stream["notes"][:1]))
    if report["disconnected"]:
        said.append(f"{len(report['disconnected'])} bystanders disconnected: {report['disconnected'][0]}")
    return said


def bounds(world, seen, names, machine):
    """machine: the control's p99 in ms."""
    said = []
    for broker in world.brokers:
        held, allowed = seen["peak"].get(f"{broker.name} all", 0), world.allowance(broker)
        if held > allowed:
            said.append(f"{broker.name}: {held >> 20} MiB ({seen['peak'][f'{broker.name} user'] >> 20} user, "
                        f"{seen['peak'][f'{broker.name} kernel'] >> 20} kernel), allowed {allowed >> 20}")
        for kind, lines in seen["logs"][broker.name].items():
            allowed_lines = (LINES_AT_ONCE + names) * max(1, seen["seconds"] / 60)
            if kind.split()[0] in ("warn", "error", "other") and lines > allowed_lines:
                said.append(f"{broker.name}: {lines} log lines in {seen['seconds']:.0f} s: {kind}")
        rate = seen["log_bytes"][broker.name] / seen["seconds"]
        if rate > LOG_RATE:
            said.append(f"{broker.name}: {rate / 1024:.0f} KiB/s of log")
    if seen["redis_wait"] > max(REDIS_WAIT * (2 if world.sanitized else 1), TIMES * machine / 1000) * seen["stretch"]:
        said.append(f"Redis blocked for {seen['redis_wait'] * 1000:.0f} ms")
    if seen["redis_memory"] > REDIS_GROWTH:
        said.append(f"Redis grew by {seen['redis_memory'] >> 20} MiB")
    return said


def verdict(world, baseline, seen, report, found, attacks):
    """The row of the table; in it "failures", and "late", what else is only late."""
    said = list(seen["dead"])
    said += [line for line in seen["reports"]][:3]
    said += [f"{text} ({times} times)" if times > 1 else text for text, times in seen["found"].items()]
    machine = p99_of(report).get("control", 0.0) if report else 0.0
    said += bounds(world, seen, sum(one.get("names", 0) for one in found.values()), machine)
    row = {"attacks": attacks, "p99": 0.0, "limit": 0.0, "stream": "", "newcomer_ms": seen["newcomer"] * 1000,
           "memory": {broker.name: seen["peak"].get(f"{broker.name} all", 0) for broker in world.brokers},
           "redis_ms": seen["redis_wait"] * 1000, "redis_bytes": seen["redis_memory"], "logs": seen["logs"], "seconds": seen["seconds"], "stretch": seen["stretch"],
           "counts": {name: one["counts"] for name, one in found.items()}}
    if report is None:
        said.append("the bystanders' own process ended")
    else:
        said += ledgers(report)
        row["late"], (row["stream"], row["p99"], row["limit"]) = late(report, baseline, seen["stretch"])
        row["control"] = machine
        if machine > BUSY_MS and said:
            said.append(f"the machine is too busy for a siege: an echo without a broker took {machine:.0f} ms")
    for name, one in found.items():
        said += [f"{name}: {text}" + (f" ({times} times)" if times > 1 else "") for text, times in one["failures"].items()]
    row.setdefault("late", [])
    row["failures"] = said
    return row
