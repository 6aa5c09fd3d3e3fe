// tests/fixtures/frames.json: frames that clients and server in all languages read alike.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { listen, onlineClient, settled } from "./lib/fake.mjs";

const fixtures = JSON.parse(readFileSync(new URL("../fixtures/frames.json", import.meta.url), "utf8"));
const readable = [...fixtures.commands, ...fixtures.pushes, ...fixtures.answers].filter(
  ({ about }) => !about.includes("2^53"),
);

// As much of MessagePack as the frames use, with bytes as base64: the way the fixtures write what both faces mean.
function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const number = (method, width) => {
    at += width;
    return Number(view[method](at - width));
  };
  const text = (length) => {
    at += length;
    return Buffer.from(bytes.subarray(at - length, at)).toString("utf8");
  };
  const binary = (length) => {
    at += length;
    return Buffer.from(bytes.subarray(at - length, at)).toString("base64");
  };
  const list = (length) => Array.from({ length }, () => value());
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
  const types = {
    0xc0: () => null, 0xc2: () => false, 0xc3: () => true,
    0xc4: () => binary(number("getUint8", 1)), 0xc5: () => binary(number("getUint16", 2)),
    0xc6: () => binary(number("getUint32", 4)),
    0xca: () => number("getFloat32", 4), 0xcb: () => number("getFloat64", 8),
    0xcc: () => number("getUint8", 1), 0xcd: () => number("getUint16", 2),
    0xce: () => number("getUint32", 4), 0xcf: () => number("getBigUint64", 8),
    0xd0: () => number("getInt8", 1), 0xd1: () => number("getInt16", 2),
    0xd2: () => number("getInt32", 4), 0xd3: () => number("getBigInt64", 8),
    0xd9: () => text(number("getUint8", 1)), 0xda: () => text(number("getUint16", 2)),
    0xdb: () => text(number("getUint32", 4)),
    0xdc: () => list(number("getUint16", 2)), 0xdd: () => list(number("getUint32", 4)),
    0xde: () => map(number("getUint16", 2)), 0xdf: () => map(number("getUint32", 4)),
  };
  function value() {
    const type = view.getUint8(at++);
    if (type < 0x80) return type;
    if (type < 0x90) return map(type & 15);
    if (type < 0xa0) return list(type & 15);
    if (type < 0xc0) return text(type & 31);
    if (type >= 0xe0) return type - 256;
    return types[type]();
  }
  const frame = value();
  assert.equal(at, bytes.length);
  return frame;
}

test("every frame means the same in both faces", () => {
  assert.ok(readable.length > 40);
  for (const { about, frame, json, msgpack } of readable) {
    if (json !== undefined) assert.deepEqual(JSON.parse(json), frame, about);
    if (msgpack !== undefined) assert.deepEqual(decode(Buffer.from(msgpack, "hex")), frame, about);
  }
});

test("the client takes every push", async (t) => {
  const { client, socket } = onlineClient(t);
  const heard = listen(client, "message");
  const pushes = fixtures.pushes.filter(({ frame }) => frame.push !== "hello" && frame.push !== "disconnect");
  for (const { json } of pushes) socket.raw(json);
  await settled();
  assert.equal(heard.length, pushes.filter(({ frame }) => frame.push === "message").length);
  assert.equal(client.state, "online");
});
