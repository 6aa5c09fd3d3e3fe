// The client and real brokers: every promise once, wherever the two ends are connected.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { Gate, Heard, client, placements, unique, urls } from "../lib/broker.mjs";

const timeout = 60000;
const options = { timeout, skip: urls ? false : "SWITCHBOARD_URLS is not set" };

// Runs the test for each placement of its two clients.
function everywhere(name, run) {
  test(name, options, async (t) => {
    for (const [here, there] of placements()) await run(t, here, there);
  });
}

test("who a client is", options, async (t) => {
  const bob = unique("bob");
  const user = await client(t, urls[0], { user: bob });
  assert.equal(user.address, `user:${bob}`);
  assert.ok(user.session.startsWith(`${bob}~`));
  const session = await client(t, urls[0], { session: "a b/+?&#%王" + bob });
  assert.equal(session.address, `session:a b/+?&#%王${bob}`);
  const nobody = await client(t, urls[0]);
  assert.equal(nobody.address, undefined);
  const route = await client(t, `${urls[0]}/websocket/${bob}`);
  assert.equal(route.address, `user:${bob}`);
});

const values = [
  "",
  "text",
  "在吗 🙂\u0000\n\"'\\",
  new Uint8Array(0),
  new Uint8Array([0, 255, 128]),
  new Uint8Array(100000).fill(7),
  { json: "text" },
  { json: null },
  { json: { json: 1 } },
  { n: 7, list: [1.5, -0.1, true, null, { "": "🙂" }], big: 2 ** 53, text: "a\u0000b" },
  1e300,
];

everywhere("payloads of all kinds arrive as they were", async (t, here, there) => {
  const [name, from] = [unique("amy"), unique("bob")];
  const amy = await client(t, there, { session: name });
  const bob = await client(t, here, { session: from });
  const heard = new Heard(amy, "message");
  for (const value of values)
    assert.deepEqual(await bob.send(`session:${name}`, value), { receipt: "delivered" });
  await heard.count(values.length);
  assert.deepEqual(
    heard.payloads,
    values.map((value) => (value?.json !== undefined ? value.json : value)),
  );
  assert.ok(heard.all.every((one) => one.from === `session:${from}` && one.to === `session:${name}`));
  assert.deepEqual(await bob.send(`session:${unique("nobody")}`, "hi"), { receipt: "absent" });
});

test("numbers and depths at the limits end no connection", options, async (t) => {
  const one = await client(t, urls[0], { user: unique("u") });
  const heard = new Heard(one, "message");
  let deep = 1;
  for (let i = 0; i < 31; i++) deep = [deep];
  const numbers = [2 ** 62, -(2 ** 63), 2 ** 63, 1e20, 12345678901234567000, 5e-324, 0.1, 1e21];
  for (const value of [deep, numbers])
    assert.equal((await one.send(one.address, value)).receipt, "delivered");
  await heard.count(2);
  assert.deepEqual(heard.payloads, [deep, numbers]);
});

everywhere("requests", async (t, here, there) => {
  const name = unique("server");
  const server = await client(t, there, { session: name });
  const asker = await client(t, here);
  const to = `session:${name}`;
  const aborted = new Heard();
  server.serve(async ({ payload, from, signal }) => {
    if (payload === "refuse") throw new Error("not today");
    if (payload === "wait")
      return new Promise(() => signal.addEventListener("abort", () => aborted.add(signal.reason)));
    return { answer: payload, from };
  });
  const reply = await asker.request(to, [1, 2]);
  assert.deepEqual(reply.payload, { answer: [1, 2], from: `session:${asker.session}` });
  assert.equal(reply.from, to);
  await assert.rejects(asker.request(to, "refuse"), { name: "refused", text: "not today" });
  const began = Date.now();
  await assert.rejects(asker.request(to, "wait", { timeout: 100 }), { name: "timeout" });
  const took = Date.now() - began;
  assert.ok(took >= 90, `it took ${took} ms`);
  assert.equal((await aborted.count(1))[0].name, "gone");
  await assert.rejects(asker.request(`session:${unique("x")}`, "?"), { name: "absent", retry: true });
  const waiting = asker.request(to, "wait");
  const other = asker.request(to, "here?");
  await other;
  server.close();
  await assert.rejects(waiting, { name: "gone" });
});

everywhere("200 requests at once each get their own answer", async (t, here, there) => {
  const name = unique("server");
  const server = await client(t, there, { session: name });
  const asker = await client(t, here);
  server.serve(({ payload }) => payload * 2);
  const replies = await Promise.all(
    Array.from({ length: 200 }, (_, i) => asker.request(`session:${name}`, i, { timeout: 20000 })),
  );
  assert.deepEqual(
    replies.map(({ payload }) => payload),
    Array.from({ length: 200 }, (_, i) => i * 2),
  );
});

everywhere("topics and patterns", async (t, here, there) => {
  const root = unique("root");
  const listener = await client(t, there);
  const publisher = await client(t, here);
  const names = [`${root}.eu`, `${root}.*`, `${root}.>`, `${root}.us`];
  const heard = names.map(() => new Heard());
  const all = names.map((name, i) => listener.subscribe(name, { onMessage: heard[i].add }));
  await Promise.all(all.map(({ ready }) => ready));
  for (const [topic, text] of [
    ["eu", "1"],
    ["us", "2"],
    ["eu.x", "3"],
  ])
    assert.equal(
      (await publisher.publish(`${root}.${topic}`, text, { store: text === "1" })).receipt,
      "delivered",
    );
  await Promise.all([heard[0].count(1), heard[1].count(2), heard[2].count(3), heard[3].count(1)]);
  await all[2].unsubscribe();
  await publisher.publish(`${root}.eu`, "4");
  await Promise.all([heard[0].count(2), heard[1].count(3)]);
  await listener.ping();
  assert.deepEqual(
    heard.map(({ payloads }) => payloads),
    [["1", "4"], ["1", "2", "4"], ["1", "2", "3"], ["2"]],
  );
});

everywhere("iterating a topic from its beginning", async (t, here, there) => {
  const topic = unique("topic");
  const publisher = await client(t, here);
  for (const i of [1, 2, 3]) await publisher.publish(topic, i, { store: true });
  const reader = await client(t, there);
  const subscription = reader.subscribe(topic, { since: "all" });
  const { offset } = await subscription.ready;
  const seen = [];
  for await (const { payload } of subscription) {
    seen.push(payload);
    if (payload === 3) await publisher.publish(topic, 4, { store: true });
    if (payload === 4) break;
  }
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.notEqual(subscription.position.offset, offset);
  assert.equal(subscription.active, false);
});

everywhere("history", async (t, here, there) => {
  const topic = unique("topic");
  const [writer, reader] = [await client(t, here, { session: unique("w") }), await client(t, there)];
  assert.deepEqual(await reader.history(`topic:${topic}`), {
    epoch: undefined,
    offset: undefined,
    messages: [],
  });
  const receipts = [];
  for (const value of ["a", new Uint8Array([1]), { c: 1 }])
    receipts.push(await writer.publish(topic, value, { store: true }));
  assert.deepEqual(
    receipts.map(({ receipt }) => receipt),
    ["stored", "stored", "stored"],
  );
  const { epoch, offset, messages } = await reader.history(`topic:${topic}`);
  assert.deepEqual(
    messages.map(({ payload }) => payload),
    ["a", new Uint8Array([1]), { c: 1 }],
  );
  assert.equal(messages[0].from, writer.address);
  assert.deepEqual({ epoch, offset }, { epoch: receipts[2].epoch, offset: receipts[2].offset });
  const newest = await reader.history(`topic:${topic}`, { limit: 1, reverse: true });
  assert.deepEqual(newest.messages, [messages[2]]);
  const later = await reader.history(`topic:${topic}`, { since: receipts[0].offset });
  assert.deepEqual(later.messages, messages.slice(1));
});

everywhere("the same key delivers once", async (t, here, there) => {
  const name = unique("amy");
  const amy = await client(t, there, { session: name });
  const heard = new Heard(amy, "message");
  const sender = await client(t, here);
  const key = unique("key");
  const first = await sender.send(`session:${name}`, "once", { key });
  assert.deepEqual(await sender.send(`session:${name}`, "once", { key }), first);
  await sender.send(`session:${name}`, "end");
  await heard.until((all) => all.at(-1)?.payload === "end");
  assert.deepEqual(heard.payloads, ["once", "end"]);
});

everywhere("presence", async (t, here, there) => {
  const [topic, uid] = [unique("room"), unique("bob")];
  const watcher = await client(t, here);
  const heard = new Heard();
  await watcher.subscribe(topic, { onPresence: heard.add }).ready;
  const bob = await client(t, there, { user: uid });
  const subscription = bob.subscribe(topic, { presence: true });
  await subscription.ready;
  await heard.count(1);
  const present = { online: true, count: 1, sessions: [{ session: bob.session, user: uid }] };
  assert.deepEqual(await watcher.presence(`topic:${topic}`), present);
  assert.deepEqual(await watcher.presence(`user:${uid}`), present);
  assert.equal((await watcher.presence(`session:${bob.session}`)).count, 1);
  assert.ok((await watcher.online()) >= 2);
  await subscription.unsubscribe();
  await heard.count(2);
  assert.deepEqual(
    heard.all.map(({ type, session, user }) => ({ type, session, user })),
    ["join", "leave"].map((type) => ({ type, session: bob.session, user: uid })),
  );
  await bob.close();
  await watcher.subscribe(topic).ready;
  assert.equal((await watcher.presence(`topic:${topic}`)).online, false);
});

everywhere("a replaced client stops", async (t, here, there) => {
  const session = unique("name");
  const first = await client(t, here, { session });
  const states = new Heard(first, "state");
  const second = await client(t, there, { session });
  await states.until((all) => all.at(-1)?.state === "stopped");
  assert.equal(states.all.at(-1).code, 4501);
  assert.equal(second.state, "online");
  await assert.rejects(first.send("user:a", "x"), { name: "offline", retry: false });
});

everywhere(
  "nothing stored is missed or doubled, however often the connection is cut",
  async (t, here, there) => {
    const total = 300;
    const [topic, uid] = [unique("orders"), unique("bob")];
    const gate = await Gate.make(t, here);
    const reader = await client(t, gate.url, { user: uid, heartbeat: 0 });
    const states = new Heard(reader, "state");
    const recoveries = new Heard(reader, "recovered");
    const [fromTopic, own] = [new Heard(), new Heard(reader, "message")];
    await reader.subscribe(topic, { onMessage: fromTopic.add }).ready;
    // An answer to this came after that to the question that asks where the own history stands.
    await reader.ping();

    const writer = await client(t, there);
    const targets = [here, there];
    for (let i = 0; i < total; i++) {
      await Promise.all([
        writer.publish(topic, i, { store: true }),
        writer.send(`user:${uid}`, i, { store: true }),
      ]);
      if (i % 60 === 59) {
        gate.lead(targets[(i / 60) & 1]);
        gate.cut();
        await states.until((all) => all.at(-1)?.state === "down");
        if (i % 120 === 59) await states.until((all) => all.at(-1)?.state === "online");
      }
    }
    const complete = (all) => all.some(({ payload }) => payload === total - 1);
    await Promise.all([fromTopic.until(complete), own.until(complete)]);
    await reader.ping();
    const wanted = Array.from({ length: total }, (_, i) => i);
    assert.deepEqual(fromTopic.payloads, wanted);
    assert.deepEqual(own.payloads, wanted);
    assert.ok(recoveries.all.length >= 2 && recoveries.all.every(({ recovered }) => recovered));
  },
);

test("calls wait for the connection to come back", options, async (t) => {
  const gate = await Gate.make(t, urls[0]);
  const one = await client(t, gate.url);
  const states = new Heard(one, "state");
  gate.cut();
  await states.count(1);
  const calls = [one.ping(), one.online(), one.send(`session:${unique("x")}`, "hi")];
  assert.equal((await Promise.all(calls))[2].receipt, "absent");
});

test("after close() nothing keeps the process alive", options, async () => {
  const program = `
    import { createRequire } from "node:module";
    import { connect } from ${JSON.stringify(new URL("../../../client/js/switchboard.js", import.meta.url))};
    const WebSocket = createRequire(process.cwd() + "/x.js")("ws");
    const clients = [0, 1, 2].map(() => connect(process.argv[1], { WebSocket }));
    for (const one of clients) await one.ready;
    clients[0].request("session:nobody", "?", { timeout: 50000 }).catch(() => {});
    clients[1].subscribe("t");
    const down = connect("ws://127.0.0.1:1", { WebSocket });
    down.on("state", async ({ state }) => {
      if (state !== "down") return;
      await Promise.all([down, ...clients].map((one) => one.close()));
      console.log("closed");
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, urls[0]], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 30000,
  });
  let said = 0;
  child.stdout.on("data", () => (said ||= Date.now()));
  const [code] = await once(child, "close");
  assert.equal(code, 0);
  assert.ok(said && Date.now() - said < 1500);
});
