// Calls, their frames and results; payloads; requests answered.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, fakeClient, listen, onlineClient, settled } from "./lib/fake.mjs";

const payloads = [
  ["text", "hi", { text: "hi" }],
  ["an empty text", "", { text: "" }],
  ["nothing", undefined, {}],
  ["bytes", new Uint8Array([0, 255, 16]), { binary: "AP8Q" }],
  ["no bytes", new ArrayBuffer(0), { binary: "" }],
  ["part of a buffer", new Uint8Array([1, 2, 3, 4]).subarray(1, 3), { binary: "AgM=" }],
  ["another view", new DataView(new ArrayBuffer(3)), { binary: "AAAA" }],
  ["Node's buffer", Buffer.from("abc"), { binary: "YWJj" }],
  ["an object", { n: 7 }, { data: { n: 7 } }],
  ["a list", [1, "a", null], { data: [1, "a", null] }],
  ["null", null, { data: null }],
  ["a number", 1.5, { data: 1.5 }],
  ["false", false, { data: false }],
  ["a wrapped string", { json: "a" }, { data: "a" }],
  ["a wrapped null", { json: null }, { data: null }],
  ["a wrapped wrapper", { json: { json: 1 } }, { data: { json: 1 } }],
  ["more than the wrapper", { json: 1, more: 2 }, { data: { json: 1, more: 2 } }],
  ["what serialises itself", new Date(0), { data: "1970-01-01T00:00:00.000Z" }],
];
for (const [name, payload, fields] of payloads)
  test(`payload: ${name}`, async (t) => {
    const { client, socket } = onlineClient(t);
    const sent = client.send("user:amy", payload);
    const { id, ...frame } = await socket.answer("send", { receipt: "delivered" });
    assert.ok(Number.isInteger(id) && id > 0);
    assert.deepEqual(frame, { cmd: "send", to: "user:amy", ...fields });
    assert.deepEqual(await sent, { receipt: "delivered" });
  });

function nested(levels) {
  let value = 0;
  for (let i = 0; i < levels; i++) value = [value];
  return value;
}

const circle = {};
circle.circle = circle;
const unusable = [
  ["a function", () => {}],
  ["a symbol", Symbol("s")],
  ["nothing, wrapped", { json: undefined }],
  ["a circle", circle],
  ["a big integer", 1n],
  ["half a surrogate pair", "a\ud800"],
  ["half a surrogate pair inside", { a: ["\udfff"] }],
  ["U+0000 in a name", { "a\0": 1 }],
  ["too many levels", nested(32)],
];
for (const [name, payload] of unusable)
  test(`no payload: ${name}`, async (t) => {
    const { client, socket } = onlineClient(t);
    for (const call of [client.send("user:a", payload), client.request("user:a", payload)])
      await assert.rejects(call, { name: "bad_request", code: 400, retry: false });
    assert.deepEqual(socket.frames, []);
  });

test("payloads that look like trouble and are none", async (t) => {
  const { client, socket } = onlineClient(t);
  const values = [
    "\\ud800",
    "a\0b",
    '"\\u0000":',
    "[".repeat(100),
    { a: "\0", b: '\\u0000":' },
    nested(31),
    "🙂",
  ];
  for (const value of values) {
    client.send("user:a", { json: value }).catch(() => {});
    assert.deepEqual((await socket.answer("send", {})).data, value);
  }
});

test("integers beyond 64 bits are written as floats", async (t) => {
  const { client, socket } = onlineClient(t);
  const texts = [];
  socket.send = (text) => texts.push(text);
  client
    .send("user:a", [1e20, -1e20, 2 ** 63, -(2 ** 63), 2 ** 62, "12345678901234567890", 1e21, 0.1])
    .catch(() => {});
  assert.match(
    texts[0],
    /"data":\[1e\+20,-1e\+20,9\.223372036854776e\+18,-9\.223372036854776e\+18,4611686018427388000,"12345678901234567890",1e\+21,0\.1\]/,
  );
});

test("what arrives, of each kind", (t) => {
  const { client, socket } = onlineClient(t);
  const heard = listen(client, "message");
  const frame = { push: "message", to: "user:bob", from: "session:amy", time: 5 };
  const base = { to: "user:bob", from: "session:amy", time: 5, epoch: undefined, offset: undefined };
  socket.push({ ...frame, text: "hi" }, { ...frame, binary: "AP8Q" }, { ...frame, data: null }, frame);
  assert.deepEqual(heard, [
    { ...base, kind: "text", payload: "hi" },
    { ...base, kind: "binary", payload: new Uint8Array([0, 255, 16]) },
    { ...base, kind: "data", payload: null },
    { ...base, kind: "text", payload: "" },
  ]);
});

test("all commands and their results", async (t) => {
  const { client, socket } = onlineClient(t);
  const check = async (call, cmd, fields, ok, result = ok) => {
    const { id, ...frame } = await socket.answer(cmd, ok);
    assert.deepEqual(frame, { cmd, ...fields });
    assert.deepEqual(await call, result);
  };
  await check(
    client.publish("t", { n: 7 }, { store: true, ttl: 5, key: "k" }),
    "publish",
    { topic: "t", data: { n: 7 }, store: true, ttl: 5, key: "k" },
    { receipt: "stored", epoch: "e", offset: "1-1" },
  );
  await check(
    client.history("topic:t", { since: "1-0", limit: 3, reverse: true }),
    "history",
    { address: "topic:t", since: "1-0", limit: 3, reverse: true },
    {
      epoch: "e",
      offset: "1-1",
      messages: [{ to: "topic:t", time: 1, epoch: "e", offset: "1-1", binary: "AA==" }],
    },
    {
      epoch: "e",
      offset: "1-1",
      messages: [
        {
          to: "topic:t",
          from: undefined,
          time: 1,
          epoch: "e",
          offset: "1-1",
          kind: "binary",
          payload: new Uint8Array(1),
        },
      ],
    },
  );
  const presence = { online: true, count: 1, sessions: [{ session: "bob~1", user: "bob" }] };
  await check(client.presence("user:bob"), "presence", { address: "user:bob" }, presence);
  await check(client.online(), "online", {}, { count: 3 }, 3);
  const ping = client.ping();
  await socket.answer("ping", { time: 9 });
  assert.equal((await ping).time, 9);
  assert.ok((await ping).roundTrip >= 0);
  await check(
    client.request("session:a", "ready?"),
    "request",
    { to: "session:a", text: "ready?", timeout: 5000 },
    { from: "session:a", data: [1] },
    { from: "session:a", kind: "data", payload: [1] },
  );
});

test("an error of the server's is the promise's", async (t) => {
  const { client, socket } = onlineClient(t);
  const call = client.request("session:a");
  await socket.fail("request", "absent", 404, true);
  await assert.rejects(call, {
    name: "absent",
    code: 404,
    text: "it is absent",
    message: "it is absent",
    retry: true,
  });
});

test("replies in any order find their calls", async (t) => {
  const { client, socket } = onlineClient(t);
  const calls = [client.online(), client.online(), client.online()];
  const ids = socket.frames.map(({ id }) => id);
  socket.push(...ids.map((id, i) => ({ id, ok: { count: i } })).reverse());
  assert.deepEqual(await Promise.all(calls), [0, 1, 2]);
});

test("calls wait for hello, and are sent in order", async (t) => {
  const { client, socket } = fakeClient(t);
  for (const text of ["a", "b", "c"]) client.send("user:a", text).catch(() => {});
  assert.deepEqual(socket.frames, []);
  socket.open();
  assert.deepEqual(
    socket.frames.map(({ text }) => text),
    ["a", "b", "c"],
  );
});

test("the queue is bounded by number and size", async (t) => {
  const { client, socket } = fakeClient(t, { maxQueue: 2, maxQueueBytes: 2000 });
  const first = client.send("user:a", "x".repeat(1000));
  await assert.rejects(client.send("user:a", "é".repeat(500)), {
    name: "queue_full",
    code: 903,
    retry: true,
  });
  const second = client.online();
  await assert.rejects(client.online(), { name: "queue_full" });
  socket.open();
  await socket.answer("send", { receipt: "absent" });
  await socket.answer("online", { count: 1 });
  assert.deepEqual(await Promise.all([first, second]), [{ receipt: "absent" }, 1]);
});

test("what isn't read fast enough by the server is bounded, too", async (t) => {
  const { client, socket } = onlineClient(t, { maxQueueBytes: 2000 });
  socket.bufferedAmount = 2001;
  await assert.rejects(client.online(), { name: "queue_full" });
});

test("what is larger than a message may be is not sent", async (t) => {
  const { client, socket } = onlineClient(t, {}, { limits: { message: 100 } });
  await assert.rejects(client.send("user:a", "é".repeat(40)), { name: "too_large", code: 413 });
  assert.deepEqual(socket.frames, []);
  client.send("user:a", "x".repeat(40)).catch(() => {});
  assert.equal(socket.frames.length, 1);
});

test("deadlines", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = fakeClient(t, { timeout: 1000 });
  const queued = client.online();
  const patient = client.request("user:a", "?", { timeout: 5000 });
  await clock.pass(1000);
  await assert.rejects(queued, { name: "offline", code: 901, retry: true });
  socket.open();
  assert.equal((await socket.take("request")).timeout, 4000);
  const sent = client.online();
  await clock.pass(1000);
  await assert.rejects(sent, { name: "timeout", code: 504, retry: true });
  await clock.pass(3999);
  let over = false;
  patient.catch(() => (over = true));
  await settled();
  assert.equal(over, false);
  await clock.pass(1);
  await assert.rejects(patient, { name: "timeout" });
  for (const timeout of [0, -1, NaN, Infinity, "x"])
    await assert.rejects(client.online({ timeout }), { name: "bad_request" });
});

test("a request can be given up by a signal", async (t) => {
  const { client } = onlineClient(t);
  const controller = new AbortController();
  const call = client.request("user:a", "?", { signal: controller.signal });
  const reason = new Error("enough");
  controller.abort(reason);
  await assert.rejects(call, reason);
  await assert.rejects(client.request("user:a", "?", { signal: controller.signal }), reason);
});

test("a loss: what can be repeated is, before what waited; the rest is lost", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  const lost = [client.send("user:a", "1"), client.request("user:a", "2")];
  const kept = [client.publish("t", "3", { key: "k" }), client.online()];
  socket.end(1006);
  for (const call of lost) await assert.rejects(call, { name: "lost", code: 902, retry: true });
  client.send("user:a", "5").catch(() => {});
  await clock.pass(500);
  WebSocket.last.open();
  assert.deepEqual(
    WebSocket.last.frames.map(({ cmd }) => cmd),
    ["publish", "online", "send"],
  );
  await WebSocket.last.answer("publish", { receipt: "delivered" });
  await WebSocket.last.answer("online", { count: 2 });
  assert.deepEqual(await Promise.all(kept), [{ receipt: "delivered" }, 2]);
});

/* ---- answering ---- */

const question = {
  push: "request",
  request: "c.7",
  to: "session:me",
  from: "session:amy",
  time: 5,
  timeout: 5000,
  text: "ready?",
};

for (const [name, handler, fields] of [
  ["a value", () => "yes", { text: "yes" }],
  ["a promise", async () => ({ n: 1 }), { data: { n: 1 } }],
  ["nothing", () => {}, {}],
  [
    "an exception",
    () => {
      throw new Error("not today");
    },
    { refuse: "not today" },
  ],
  [
    "a rejection",
    async () => {
      throw "no";
    },
    { refuse: "no" },
  ],
  [
    "an exception without words",
    () => {
      throw new Error();
    },
    { refuse: "Error" },
  ],
  ["what is no payload", () => () => {}, { refuse: "the payload is no JSON value" }],
  ["nobody", null, { refuse: "this session answers no requests" }],
])
  test(`a request is answered by ${name}`, async (t) => {
    const { client, socket } = onlineClient(t);
    client.serve(handler);
    socket.push(question);
    const { id, ...frame } = await socket.answer("reply", {});
    assert.deepEqual(frame, { cmd: "reply", request: "c.7", ...fields });
    assert.deepEqual(socket.frames, []);
  });

test("what a handler is given", async (t) => {
  const { client, socket } = onlineClient(t);
  let given;
  client.serve((request) => void (given = request));
  socket.push(question);
  await socket.answer("reply", {});
  const { signal, ...rest } = given;
  assert.equal(signal.aborted, false);
  assert.deepEqual(rest, {
    id: "c.7",
    to: "session:me",
    from: "session:amy",
    time: 5,
    timeout: 5000,
    epoch: undefined,
    offset: undefined,
    kind: "text",
    payload: "ready?",
  });
});

test("an answer that can't be sent becomes a refusal", async (t) => {
  const { client, socket } = onlineClient(t, {}, { limits: { message: 200 } });
  const errors = listen(client, "error");
  client.serve(() => "x".repeat(300));
  socket.push(question);
  assert.equal((await socket.answer("reply", {})).refuse, "larger than a message may be");
  assert.equal(errors[0].name, "too_large");
  client.serve(() => "half: \ud800");
  socket.push(question);
  assert.match((await socket.answer("reply", {})).refuse, /surrogate/);
});

test("an answer that came too late is no error", async (t) => {
  const { client, socket } = onlineClient(t);
  const errors = listen(client, "error");
  client.serve(() => "yes");
  socket.push(question);
  await socket.fail("reply", "gone", 410, true);
  assert.deepEqual([errors, socket.frames], [[], []]);
});

for (const [name, end, reason] of [
  ["a cancel push", ({ socket }) => socket.push({ push: "cancel", request: "c.7" }), "gone"],
  ["a loss", ({ socket }) => socket.end(1006), "lost"],
  ["close()", ({ client }) => void client.close(), "cancelled"],
])
  test(`${name} aborts the handler, whose answer goes nowhere`, async (t) => {
    const made = onlineClient(t);
    let finish, signal;
    made.client.serve((request) => {
      signal = request.signal;
      return new Promise((resolve) => (finish = resolve));
    });
    made.socket.push(question);
    end(made);
    assert.equal(signal.reason.name, reason);
    finish("yes");
    await settled();
    assert.deepEqual(made.socket.frames, []);
  });
