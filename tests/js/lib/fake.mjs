// A WebSocket whose other end is the test, and a clock that the test moves.

import { connect } from "../../../client/js/switchboard.js";

export const hello = {
  push: "hello",
  session: "bob~c1",
  conn: "c1",
  address: "user:bob",
  instance: "i1",
  version: "0.1.0",
  time: 1000,
  ping_interval: 25000,
  ping_timeout: 10000,
  limits: { message: 1 << 20, name: 255, subscriptions: 256, requests: 256, timeout: 300000 },
};

// Promises that are settled have been seen by whoever awaits them.
export async function settled() {
  for (let i = 0; i < 20; i++) await null;
}

export class FakeClock {
  #now = 0;
  #last = 0;
  #timers = new Map();

  constructor(t) {
    const { setTimeout, clearTimeout } = globalThis;
    t.mock.method(performance, "now", () => this.#now);
    globalThis.setTimeout = (act, delay) => {
      this.#timers.set(++this.#last, { act, at: this.#now + delay });
      return this.#last;
    };
    globalThis.clearTimeout = (id) => this.#timers.delete(id);
    t.after(() => Object.assign(globalThis, { setTimeout, clearTimeout }));
  }

  get pending() {
    return this.#timers.size;
  }

  async pass(duration) {
    const end = this.#now + duration;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = Math.max(this.#now, due[1].at);
      due[1].act();
    }
    this.#now = end;
  }
}

// Each test has a class of its own, whose sockets are in its list.
export function fakeWebSockets() {
  return class FakeWebSocket extends EventTarget {
    static all = [];
    static get last() {
      return this.all.at(-1);
    }

    readyState = 0;
    bufferedAmount = 0;
    frames = [];

    constructor(url, protocols) {
      super();
      this.url = url;
      this.protocols = protocols;
      new.target.all.push(this);
    }

    // What the client does.

    send(text) {
      this.frames.push(JSON.parse(text));
    }

    close(code, reason) {
      this.closedWith = { code, reason };
      this.readyState = 2;
    }

    // What the server does.

    open(extra = {}) {
      this.readyState = 1;
      this.push({ ...hello, ...extra });
    }

    push(...frames) {
      this.raw(frames.map((frame) => JSON.stringify(frame)).join("\n"));
    }

    raw(data) {
      this.dispatchEvent(new MessageEvent("message", { data }));
    }

    end(code, reason = "") {
      this.readyState = 3;
      this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
    }

    // Takes the next command out, which must be this one.
    async take(cmd) {
      await settled();
      const frame = this.frames.shift();
      if (frame?.cmd !== cmd) throw new Error(`expected ${cmd}, got ${JSON.stringify(frame)}`);
      return frame;
    }

    async answer(cmd, ok) {
      const frame = await this.take(cmd);
      this.push({ id: frame.id, ok });
      await settled();
      return frame;
    }

    async fail(cmd, name, code, retry = false) {
      const frame = await this.take(cmd);
      this.push({ id: frame.id, error: { code, name, text: `it is ${name}`, retry } });
      await settled();
      return frame;
    }
  };
}

// A client with its sockets, which is gone after the test. Without recovery, unless asked for, since that asks for history.
export function fakeClient(t, options = {}, url = "ws://host") {
  const WebSocket = fakeWebSockets();
  const client = connect(url, { WebSocket, recover: false, ...options });
  t.after(() => {
    client.close();
    WebSocket.last?.end(1000);
  });
  return { client, WebSocket, socket: WebSocket.last };
}

export function onlineClient(t, options, extra) {
  const made = fakeClient(t, options);
  made.socket.open(extra);
  return made;
}

export function listen(client, type) {
  const heard = [];
  client.on(type, (detail) => heard.push(detail));
  return heard;
}
