// Subscriptions, positions and recovery.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, fakeClient, listen, onlineClient, settled } from "./lib/fake.mjs";

let count = 0;

function message(topic, offset, text = `m${++count}`) {
  const stored = offset && { epoch: "e", offset };
  return { push: "message", to: `topic:${topic}`, from: "session:amy", time: 5, ...stored, text };
}

function collector() {
  const texts = [];
  return { texts, onMessage: ({ payload }) => texts.push(payload) };
}

// Loses the connection and has the next one say hello; returns its socket.
async function reconnect(clock, WebSocket, extra) {
  WebSocket.last.end(1006);
  await clock.pass(500);
  WebSocket.last.open(extra);
  return WebSocket.last;
}

test("a subscription's life", async (t) => {
  const { client, socket } = onlineClient(t);
  const { texts, onMessage } = collector();
  const subscription = client.subscribe("t", { onMessage, presence: true, recover: false });
  assert.deepEqual([subscription.topic, subscription.active], ["t", true]);
  const { id, ...frame } = await socket.answer("subscribe", { topic: "t" });
  assert.deepEqual(frame, { cmd: "subscribe", topic: "t", presence: true });
  assert.deepEqual(await subscription.ready, { topic: "t" });
  socket.push(message("t", null, "a"), message("other", null, "b"));
  const gone = subscription.unsubscribe();
  socket.push(message("t", null, "c"));
  await socket.answer("unsubscribe", {});
  await gone;
  assert.deepEqual(texts, ["a"]);
  assert.deepEqual([subscription.active, subscription.error], [false, null]);
  await subscription.unsubscribe();
  assert.deepEqual(socket.frames, []);
});

test("the messages of topics are not the session's", async (t) => {
  const { client, socket } = onlineClient(t);
  const heard = listen(client, "message");
  socket.push(message("nobody's"));
  assert.deepEqual(heard, []);
  const other = onlineClient(t, {}, { address: "topic:t" });
  const own = listen(other.client, "message");
  other.socket.push(message("t", null, "mine"), { ...message("x"), to: "session:bob~c1" });
  assert.equal(own.length, 2);
});

test("messages in the same breath as the reply", async (t) => {
  const { client, socket } = onlineClient(t);
  const { texts, onMessage } = collector();
  client.subscribe("t", { onMessage, since: "all", recover: false });
  const { id, since } = await socket.take("subscribe");
  assert.deepEqual(since, {});
  socket.push(
    { id, ok: { topic: "t", recovered: true, epoch: "e", offset: "2" } },
    message("t", "1", "a"),
    message("t", "2", "b"),
  );
  assert.deepEqual(texts, ["a", "b"]);
});

test("iteration", async (t) => {
  const { client, socket } = onlineClient(t);
  const subscription = client.subscribe("t", { recover: false });
  await socket.answer("subscribe", { topic: "t" });
  socket.push(message("t", null, "a"), message("t", null, "b"));
  const seen = [];
  const loop = (async () => {
    for await (const { payload } of subscription) {
      seen.push(payload);
      if (payload === "c") break;
    }
  })();
  await settled();
  assert.deepEqual(seen, ["a", "b"]);
  socket.push(message("t", null, "c"), message("t", null, "d"));
  await socket.answer("unsubscribe", {});
  await loop;
  assert.deepEqual(seen, ["a", "b", "c"]);
  assert.equal(subscription.active, false);
});

test("an iteration ends with its subscription", async (t) => {
  const { client, socket } = onlineClient(t);
  const good = client.subscribe("t", { recover: false });
  const loop = (async () => {
    for await (const one of good) assert.fail(one);
  })();
  await socket.answer("subscribe", { topic: "t" });
  good.unsubscribe();
  await loop;
  const refused = client.subscribe("u", { recover: false });
  await socket.answer("unsubscribe", {});
  await socket.fail("subscribe", "forbidden", 403);
  await assert.rejects(refused.ready, { name: "forbidden" });
  await assert.rejects(refused[Symbol.asyncIterator]().next(), { name: "forbidden" });
  assert.equal(refused.error.name, "forbidden");
});

test("what is not iterated is bounded", async (t) => {
  const { client, socket } = onlineClient(t);
  const subscription = client.subscribe("t", { recover: false, buffer: 2 });
  await socket.answer("subscribe", { topic: "t" });
  for (let i = 0; i < 5; i++) socket.push(message("t"));
  const iterator = subscription[Symbol.asyncIterator]();
  await assert.rejects(iterator.next(), { name: "queue_full" });
  socket.push(message("t", null, "again"));
  assert.equal((await iterator.next()).value.payload, "again");
});

test("a topic is recovered from where its history stood at first", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  const recoveries = listen(client, "recovered");
  const { texts, onMessage } = collector();
  const told = [];
  const subscription = client.subscribe("t", { onMessage, onRecovered: (one) => told.push(one) });
  const asked = await socket.answer("history", { epoch: "e", offset: "7", messages: [{ offset: "7" }] });
  assert.deepEqual([asked.address, asked.limit, asked.reverse], ["topic:t", 1, true]);
  const first = await socket.answer("subscribe", { topic: "t", recovered: true, epoch: "e", offset: "7" });
  assert.deepEqual(first.since, { epoch: "e", offset: "7" });
  assert.deepEqual(await subscription.ready, { topic: "t" });
  assert.deepEqual(recoveries, []);

  const second = await reconnect(clock, WebSocket);
  const again = await second.take("subscribe");
  assert.deepEqual(again.since, { epoch: "e", offset: "7" });
  second.push(
    { id: again.id, ok: { topic: "t", recovered: true, epoch: "e", offset: "8" } },
    message("t", "8", "missed"),
  );
  const recovery = { address: "topic:t", recovered: true, epoch: "e", offset: "8" };
  assert.deepEqual([recoveries, told], [[recovery], [recovery]]);

  second.push(message("t", null, "not stored"), message("t", "9", "live"));
  assert.deepEqual(subscription.position, { epoch: "e", offset: "9" });
  const third = await reconnect(clock, WebSocket);
  assert.deepEqual((await third.answer("subscribe", { topic: "t", recovered: false })).since, {
    epoch: "e",
    offset: "9",
  });
  assert.equal(told.at(-1).recovered, false);
  assert.deepEqual(subscription.position, {});
  assert.deepEqual(texts, ["missed", "not stored", "live"]);
});

test("an empty history is recovered from its beginning", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  client.subscribe("t", collector());
  await socket.answer("history", { messages: [] });
  assert.deepEqual((await socket.answer("subscribe", { topic: "t", recovered: true })).since, {});
  const second = await reconnect(clock, WebSocket);
  assert.deepEqual((await second.take("subscribe")).since, {});
});

test("a history that may not be read is no obstacle", async (t) => {
  const { client, socket } = onlineClient(t);
  const subscription = client.subscribe("t", collector());
  await socket.fail("history", "forbidden", 403);
  assert.equal("since" in (await socket.answer("subscribe", { topic: "t" })), false);
  await subscription.ready;
});

test("patterns and recover: false come back without recovery", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  client.subscribe("t.*", collector());
  client.subscribe("u", { ...collector(), recover: false, since: { epoch: "e", offset: "1" } });
  assert.equal("since" in (await socket.answer("subscribe", { topic: "t.*" })), false);
  assert.deepEqual((await socket.answer("subscribe", { topic: "u", recovered: true })).since, {
    epoch: "e",
    offset: "1",
  });
  socket.push(message("t.a", "1"), message("u", "2"));
  const second = await reconnect(clock, WebSocket);
  for (let i = 0; i < 2; i++) assert.equal("since" in (await second.answer("subscribe", {})), false);
});

test("a stored message that comes twice is dropped", async (t) => {
  const { client, socket } = onlineClient(t);
  const { texts, onMessage } = collector();
  client.subscribe("t", { onMessage, since: "all" });
  await socket.answer("subscribe", { topic: "t", recovered: true });
  socket.push(message("t", "1", "a"), message("t", "1", "a"), message("t", "2", "b"), message("t", "1", "a"));
  socket.push(message("t", null, "x"), message("t", null, "x"));
  socket.push({ ...message("t", "1", "new epoch"), epoch: "f" });
  assert.deepEqual(texts, ["a", "b", "x", "x", "new epoch"]);
});

test("each of the subscriptions that match gets one copy", async (t) => {
  const { client, socket } = onlineClient(t);
  const all = ["o.eu", "o.*", "o.>"].map((topic) => {
    const { texts, onMessage } = collector();
    client.subscribe(topic, { onMessage, recover: false });
    return texts;
  });
  for (let i = 0; i < 3; i++) await socket.answer("subscribe", {});
  const [a, b] = [message("o.eu", null, "a"), message("o.eu", "1", "b")];
  const deep = message("o.eu.x", null, "deep");
  socket.push(a, a, b, a, b, b, deep, message("o", null, "none"), message("p.eu", null, "none"));
  assert.deepEqual(all, [
    ["a", "b"],
    ["a", "b"],
    ["a", "b", "deep"],
  ]);
  socket.push(a, a, a, a, a, a);
  assert.deepEqual(
    all.map((texts) => texts.length),
    [4, 4, 5],
  );
});

test("what changes while commands are under way", async (t) => {
  const { client, socket } = onlineClient(t);
  const first = client.subscribe("t", { recover: false });
  const second = client.subscribe("t", { recover: false, events: true });
  await assert.rejects(first.ready, { name: "cancelled" });
  await socket.answer("subscribe", { topic: "t" });
  assert.equal((await socket.answer("subscribe", { topic: "t" })).events, true);
  await second.ready;
  second.unsubscribe();
  const third = client.subscribe("t", { recover: false });
  const gone = third.unsubscribe();
  await socket.answer("unsubscribe", {});
  await gone;
  assert.deepEqual(socket.frames, []);
  const fourth = client.subscribe("t", { recover: false });
  await socket.answer("subscribe", { topic: "t" });
  await fourth.ready;
});

test("subscribing while offline, and leaving again", async (t) => {
  const { client, socket } = fakeClient(t);
  const kept = client.subscribe("kept", { recover: false });
  await client.subscribe("left", { recover: false }).unsubscribe();
  socket.open();
  await socket.answer("subscribe", { topic: "kept" });
  await kept.ready;
  assert.deepEqual(socket.frames, []);
});

test("a subscription that can't be renewed yet is tried again; one that must not be ends", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  const errors = listen(client, "error");
  const subscription = client.subscribe("t", { recover: false });
  await socket.answer("subscribe", { topic: "t" });
  const second = await reconnect(clock, WebSocket);
  await second.fail("subscribe", "unavailable", 503, true);
  assert.equal(subscription.active, true);
  await clock.pass(500);
  await second.answer("subscribe", { topic: "t" });
  const third = await reconnect(clock, WebSocket);
  await third.fail("subscribe", "forbidden", 403);
  assert.equal(subscription.active, false);
  assert.deepEqual(
    errors.map(({ name }) => name),
    ["forbidden"],
  );
});

test("a first subscription fails as it is told", async (t) => {
  const { client, socket } = onlineClient(t);
  const subscription = client.subscribe("t", { recover: false });
  await socket.fail("subscribe", "limit", 429, true);
  await assert.rejects(subscription.ready, { name: "limit", retry: true });
  await assert.rejects(client.subscribe("half \ud800").ready, { name: "bad_request" });
});

test("presence", async (t) => {
  const { client, socket } = onlineClient(t);
  const heard = listen(client, "presence");
  const told = [];
  client.subscribe("t", { recover: false, onPresence: (event) => told.push(event) });
  assert.equal((await socket.answer("subscribe", {})).events, true);
  socket.push(
    { push: "join", topic: "t", session: "a~1", user: "a" },
    { push: "leave", topic: "t", session: "b" },
  );
  const events = [
    { type: "join", topic: "t", session: "a~1", user: "a" },
    { type: "leave", topic: "t", session: "b", user: undefined },
  ];
  assert.deepEqual([heard, told], [events, events]);
});

test("the server tells of its own interruptions", async (t) => {
  const { client, socket } = onlineClient(t);
  const heard = listen(client, "recovered");
  const told = [];
  client.subscribe("t", { since: "all", onRecovered: (one) => told.push(one) });
  await socket.answer("subscribe", { topic: "t", recovered: true });
  const ofTopic = { address: "topic:t", recovered: false, epoch: "f", offset: "1" };
  const own = { address: "user:bob", recovered: true, epoch: undefined, offset: undefined };
  socket.push({ push: "recovered", ...ofTopic }, { push: "recovered", ...own });
  assert.deepEqual([heard, told], [[ofTopic, own], [ofTopic]]);
});

/* ---- the own address ---- */

function ownMessage(offset, time = 2000) {
  return { push: "message", to: "user:bob", time, epoch: "e", offset, text: `own ${offset}` };
}

const histories = [
  ["nothing", [], "?since="],
  ["what was there before", [ownMessage("9", 999), ownMessage("8", 998)], "?since=e%3A9"],
  ["what came meanwhile, and before", [ownMessage("9", 1001), ownMessage("8", 998)], "?since=e%3A8"],
  ["what came meanwhile only", [ownMessage("9", 1001)], ""],
];
for (const [name, messages, query] of histories)
  test(`the own address is recovered, when its history held ${name}`, async (t) => {
    const clock = new FakeClock(t);
    const { WebSocket, socket } = onlineClient(t, { recover: true });
    await socket.answer("history", { messages });
    socket.end(1006);
    await clock.pass(500);
    assert.equal(WebSocket.last.url, `ws://host/connect${query}`);
  });

test("the own address is recovered after the last message, and doubles are dropped", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t, { recover: true });
  const messages = listen(client, "message");
  const recoveries = listen(client, "recovered");
  socket.push(ownMessage("3"), {
    push: "message",
    to: "session:bob~c1",
    time: 1,
    epoch: "x",
    offset: "9",
    text: "to me",
  });
  await socket.answer("history", { messages: [ownMessage("2", 1)] });
  assert.deepEqual(client.position, { epoch: "e", offset: "3" });
  const second = await reconnect(clock, WebSocket, { recovered: true, epoch: "e", offset: "4" });
  assert.equal(second.url, "ws://host/connect?since=e%3A3");
  assert.deepEqual(recoveries, [{ address: "user:bob", recovered: true, epoch: "e", offset: "4" }]);
  second.push(ownMessage("3"), ownMessage("4"));
  assert.deepEqual(
    messages.map(({ payload }) => payload),
    ["own 3", "to me", "own 4"],
  );
});

test("anonymous sessions have nothing to recover", async (t) => {
  const { socket } = onlineClient(t, { recover: true }, { address: undefined });
  await settled();
  assert.deepEqual(socket.frames, []);
});

test("a callback that throws ends nothing, and is not silent", async (t) => {
  const { client, socket } = onlineClient(t);
  const later = t.mock.method(globalThis, "queueMicrotask", () => {});
  const seen = [];
  client.subscribe("t", {
    recover: false,
    onMessage({ payload }) {
      seen.push(payload);
      throw new Error("the author's");
    },
  });
  await socket.answer("subscribe", {});
  socket.push(message("t", null, "a"), message("t", null, "b"));
  assert.deepEqual(seen, ["a", "b"]);
  assert.equal(later.mock.callCount(), 2);
  assert.throws(later.mock.calls[0].arguments[0], /the author's/);
});
