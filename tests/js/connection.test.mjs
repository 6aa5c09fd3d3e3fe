// Connecting, reconnecting and ending.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, SwitchboardError, connect } from "../../client/js/switchboard.js";
import { FakeClock, fakeClient, fakeWebSockets, hello, listen, onlineClient, settled } from "./lib/fake.mjs";

const urls = [
  ["ws://host:8000", {}, "ws://host:8000/connect"],
  ["https://host/", {}, "wss://host/connect"],
  ["ws://host", { user: "a b+&王" }, "ws://host/connect?user=a%20b%2B%26%E7%8E%8B"],
  ["ws://host/connect?x=a+b&session=old", { session: "new" }, "ws://host/connect?x=a+b&session=new"],
  ["ws://host/websocket/bob#part", {}, "ws://host/websocket/bob"],
  ["ws://host", { since: "all" }, "ws://host/connect?since="],
  ["ws://host", { since: { epoch: "e 1", offset: "5-0" } }, "ws://host/connect?since=e%201%3A5-0"],
];
for (const [given, options, wanted] of urls)
  test(`the URL ${given} with ${JSON.stringify(options)}`, (t) => {
    const { socket } = fakeClient(t, options, given);
    assert.equal(socket.url, wanted);
    assert.deepEqual(socket.protocols, ["switchboard.json.v1"]);
  });

test("what can't be used is thrown at once", () => {
  const WebSocket = fakeWebSockets();
  assert.throws(() => connect("ftp://host", { WebSocket }), TypeError);
  assert.throws(() => connect("no url", { WebSocket }), TypeError);
  assert.throws(() => connect("ws://host", { WebSocket, user: "a", session: "b" }), TypeError);
  if (!globalThis.WebSocket) assert.throws(() => connect("ws://host"), /WebSocket/);
  assert.equal(WebSocket.all.length, 0);
});

test("it is online at hello", async (t) => {
  const { client, socket } = fakeClient(t);
  const states = listen(client, "state");
  assert.equal(client.state, "connecting");
  assert.ok(client instanceof Client);
  socket.open();
  assert.deepEqual(await client.ready, hello);
  assert.equal(client.session, "bob~c1");
  assert.equal(client.address, "user:bob");
  assert.deepEqual(states, [{ state: "online", previous: "connecting", hello }]);
});

test("the delays double up to 20 s, and are between half and the whole", async (t) => {
  const clock = new FakeClock(t);
  const random = t.mock.method(Math, "random", () => 0);
  const { client, WebSocket } = fakeClient(t);
  const states = listen(client, "state");
  const delays = () => states.filter(({ state }) => state === "down").map(({ delay }) => delay);
  for (let i = 0; i < 8; i++) {
    WebSocket.last.end(1006);
    await clock.pass(delays().at(-1));
  }
  assert.deepEqual(delays(), [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
  random.mock.mockImplementation(() => 0.999999);
  WebSocket.last.end(1006);
  assert.equal(Math.round(delays().at(-1)), 20000);
  await clock.pass(20000);
  WebSocket.last.open();
  WebSocket.last.end(1006);
  assert.equal(Math.round(delays().at(-1)), 500);
});

test("a disconnect push says how long to wait the first time", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  const states = listen(client, "state");
  const notices = listen(client, "disconnect");
  const notice = {
    push: "disconnect",
    code: 1012,
    name: "restart",
    text: "again",
    reconnect: true,
    delay: 1830,
  };
  socket.push(notice);
  assert.deepEqual(notices, [notice]);
  socket.end(1012);
  assert.deepEqual(states.at(-1), {
    state: "down",
    previous: "online",
    code: 1012,
    reason: "again",
    delay: 1830,
  });
  await clock.pass(1829);
  assert.equal(WebSocket.all.length, 1);
  await clock.pass(1);
  assert.equal(WebSocket.all.length, 2);
  WebSocket.last.end(1006);
  assert.ok(states.at(-1).delay <= 500);
});

for (const [code, state] of [
  [1000, "down"],
  [1001, "down"],
  [1002, "stopped"],
  [1005, "down"],
  [1006, "down"],
  [1007, "stopped"],
  [1009, "stopped"],
  [1011, "down"],
  [1012, "down"],
  [1013, "down"],
  [4000, "down"],
  [4001, "down"],
  [4008, "down"],
  [4499, "down"],
  [4500, "stopped"],
  [4501, "stopped"],
  [4502, "stopped"],
  [4999, "stopped"],
])
  test(`after close code ${code} it is ${state}`, async (t) => {
    const clock = new FakeClock(t);
    const { client, WebSocket, socket } = onlineClient(t);
    socket.end(code, "why");
    assert.equal(client.state, state);
    await clock.pass(500);
    assert.equal(WebSocket.all.length, state === "down" ? 2 : 1);
    assert.equal(clock.pending > 0, state === "down");
    if (state === "stopped")
      await assert.rejects(client.ready, { name: "offline", code: 901, retry: false, text: /why/ });
  });

test("a disconnect push can say that there is no use in coming back", (t) => {
  const { client, socket } = onlineClient(t);
  socket.push({ push: "disconnect", code: 4001, name: "x", text: "go", reconnect: false });
  socket.end(4001);
  assert.equal(client.state, "stopped");
});

test("without reconnect a loss is the end", (t) => {
  const { client, socket } = onlineClient(t, { reconnect: false });
  socket.end(1006);
  assert.equal(client.state, "stopped");
});

test("a connection that never says hello is given up", async (t) => {
  const clock = new FakeClock(t);
  const { client, socket } = fakeClient(t, { connectTimeout: 3000 });
  await clock.pass(2999);
  assert.equal(client.state, "connecting");
  await clock.pass(1);
  assert.equal(client.state, "down");
  assert.equal(socket.readyState, 2);
});

test("a silent connection is asked, and given up when it doesn't answer", async (t) => {
  const clock = new FakeClock(t);
  const { client, socket } = onlineClient(t);
  await clock.pass(25000);
  await socket.answer("ping", { time: 1 });
  await clock.pass(10000 + 24999);
  assert.equal(socket.frames.length, 0);
  socket.push({ push: "news to come" });
  await clock.pass(1 + 25000 - 1);
  assert.equal(socket.frames.length, 0);
  await clock.pass(1);
  await socket.take("ping");
  await clock.pass(10000);
  assert.equal(client.state, "down");
  socket.open(); // too late
  assert.equal(client.state, "down");
});

test("heartbeat: 0 and a server without pings ask nothing", async (t) => {
  const clock = new FakeClock(t);
  const one = onlineClient(t, { heartbeat: 0 });
  const other = onlineClient(t, {}, { ping_interval: 0 });
  await clock.pass(100000);
  assert.deepEqual([one.socket.frames, other.socket.frames], [[], []]);
});

test("ready is a new promise after a loss", async (t) => {
  const clock = new FakeClock(t);
  const { client, WebSocket, socket } = onlineClient(t);
  socket.end(1006);
  let again = null;
  client.ready.then((said) => (again = said));
  await clock.pass(500);
  assert.equal(again, null);
  WebSocket.last.open({ conn: "c2" });
  await settled();
  assert.equal(again.conn, "c2");
});

test("close() ends all that waits, and leaves no timer", async (t) => {
  const clock = new FakeClock(t);
  const { client, socket } = onlineClient(t);
  const waiting = [client.ping(), client.send("user:a", "hi"), client.subscribe("t").ready];
  const iteration = client.subscribe("u")[Symbol.asyncIterator]().next();
  await settled();
  const closed = client.close();
  for (const one of [...waiting, client.ready, client.ping(), client.subscribe("t").ready])
    await assert.rejects(one, { name: "cancelled", code: 904, retry: false });
  assert.deepEqual(await iteration, { value: undefined, done: true });
  assert.deepEqual(socket.closedWith, { code: 1000, reason: "" });
  assert.equal(client.close(), closed);
  socket.end(1000);
  await closed;
  assert.equal(client.state, "stopped");
  assert.equal(clock.pending, 0);
});

test("close() doesn't wait for ever", async (t) => {
  const clock = new FakeClock(t);
  const { client, socket } = onlineClient(t);
  socket.terminate = () => (socket.terminated = true);
  const closed = client.close();
  await clock.pass(2000);
  await closed;
  assert.ok(socket.terminated);
});

test("close() while down leaves no timer", async (t) => {
  const clock = new FakeClock(t);
  const { client, socket } = onlineClient(t);
  socket.end(1006);
  await client.close();
  assert.equal(clock.pending, 0);
});

for (const data of ["no frame", "[1]", "null", new ArrayBuffer(2)])
  test(`what is no frame ends it: ${JSON.stringify(data)}`, (t) => {
    const { client, socket } = onlineClient(t);
    socket.raw(data);
    assert.equal(client.state, "stopped");
    assert.equal(socket.closedWith.code, 4500);
  });

test("several frames in a message, empty lines, unknown pushes and replies", async (t) => {
  const { client, socket } = onlineClient(t);
  const messages = listen(client, "message");
  const one = { push: "message", to: "user:bob", time: 1, text: "a", later: "unknown" };
  socket.raw(
    `\n${JSON.stringify(one)}\r\n\n{"push":"unheard of"}\n{"id":99,"ok":{}}\n${JSON.stringify(one)}\n`,
  );
  assert.deepEqual(
    messages.map(({ payload }) => payload),
    ["a", "a"],
  );
});

test("a constructor that throws is the end", async (t) => {
  class Refusing {
    constructor() {
      throw new Error("policy");
    }
  }
  const client = connect("ws://host", { WebSocket: Refusing });
  await assert.rejects(client.ready, { name: "offline", text: /policy/ });
  assert.equal(client.state, "stopped");
});

test("errors are errors", () => {
  const error = new SwitchboardError("absent", "nobody");
  assert.ok(error instanceof Error);
  assert.deepEqual(
    [error.name, error.code, error.text, error.message, error.retry],
    ["absent", 404, "nobody", "nobody", true],
  );
});
