"""The account of one stream of numbered messages: each exactly once, in order, at each receiver; and how long it took."""

import time


def percentile(values, part):
    """In the manner of "nearest rank"; 0 for nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


class Ledger:
    """receivers: who gets each message, by name. ordered: those of them who get them in the order sent."""

    def __init__(self, name, receivers, unordered=()):
        self.name = name
        self.number = 0  # of the next message
        self.floor = 0  # what is below was under way when a connection was lost, and may come or not
        self.sent_at = {}
        self.next = dict.fromkeys(receivers, 0)
        self.open = {receiver: set() for receiver in unordered}
        self.begin()

    # ---- the window

    def begin(self):
        self.first = self.number
        self.latencies = []
        self.received = self.lost = self.doubled = self.wrong = 0
        self.notes = []

    def through(self):
        """Whether everything that was sent has arrived."""
        return all(at >= self.number for at in self.next.values()) and not any(self.open.values())

    def report(self):
        missing = sum(max(self.number - at, 0) for at in self.next.values()) + sum(map(len, self.open.values()))
        return {"sent": self.number - self.first, "received": self.received, "lost": self.lost + missing, "doubled": self.doubled,
                "wrong": self.wrong, "notes": self.notes[:3], "latencies": [round(one * 1000, 2) for one in self.latencies]}

    # ---- the messages

    def send(self):
        """The number of a message that goes out now."""
        number = self.number
        self.sent_at[number] = time.perf_counter()
        self.sent_at.pop(number - 5000, None)
        for waiting in self.open.values():
            waiting.add(number)
        self.number += 1
        return number

    def arrive(self, receiver, number, measured=True):
        if number < self.floor:
            return
        if receiver in self.open:
            if number not in self.open[receiver]:
                self.doubled += number < self.number
                return
            self.open[receiver].discard(number)
        else:
            expected = self.next[receiver]
            if number < expected:
                self.doubled += 1
                self.note(f"{receiver} got {number} after {expected - 1}")
                return
            if number > expected:
                self.lost += number - expected
                self.note(f"{receiver} got {number} instead of {expected}")
            self.next[receiver] = number + 1
        self.received += 1
        sent = self.sent_at.get(number)
        if measured and sent and number >= self.first:
            self.latencies.append(time.perf_counter() - sent)

    def mistake(self, text):
        self.wrong += 1
        self.note(text)

    def note(self, text):
        if len(self.notes) < 3:
            self.notes.append(text[:200])

    def forget(self):
        """After a connection was lost, which is counted where it happened: what was under way isn't waited for."""
        self.floor = self.number
        for receiver in self.next:
            self.next[receiver] = self.number
        for waiting in self.open.values():
            waiting.clear()
