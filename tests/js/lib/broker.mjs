// What the tests against real brokers have in common. SWITCHBOARD_URLS names the brokers, separated by blanks.

import { once } from "node:events";
import { createRequire } from "node:module";
import net from "node:net";
import { connect } from "../../../client/js/switchboard.js";

// By require, which looks where Debian keeps its modules.
export const WebSocket = createRequire(import.meta.url)("ws");
export const urls = process.env.SWITCHBOARD_URLS?.split(" ");

let names = 0;

// One that no other test of this run uses.
export function unique(stem) {
  return `${stem}-${process.pid}-${++names}`;
}

// Every pair of brokers that two clients can be connected to, themselves included.
export function placements() {
  return urls.flatMap((here) => urls.map((there) => [here, there]));
}

export async function client(t, url, options) {
  const made = connect(url, { WebSocket, ...options });
  t.after(() => made.close());
  await made.ready;
  return made;
}

// What comes to be heard, and a promise that enough of it did.
export class Heard {
  all = [];
  #waiting = [];

  constructor(emitter, type) {
    emitter?.on(type, (detail) => this.add(detail));
  }

  add = (one) => {
    this.all.push(one);
    for (const check of this.#waiting.splice(0)) check();
  };

  get payloads() {
    return this.all.map(({ payload }) => payload);
  }

  async until(condition) {
    while (!condition(this.all)) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.all;
  }

  count(number) {
    return this.until((all) => all.length >= number);
  }
}

// A port in front of a broker, whose connections the test cuts, and which leads elsewhere afterwards when it says so.
export class Gate {
  #server = net.createServer((inner) => this.#pass(inner));
  #open = new Set();
  #target;

  static async make(t, url) {
    const gate = new Gate();
    gate.lead(url);
    gate.#server.listen(0, "127.0.0.1");
    await once(gate.#server, "listening");
    gate.url = `ws://127.0.0.1:${gate.#server.address().port}`;
    t.after(() => {
      gate.cut();
      gate.#server.close();
    });
    return gate;
  }

  lead(url) {
    const { hostname, port } = new URL(url);
    this.#target = { host: hostname, port };
  }

  cut() {
    for (const socket of this.#open) socket.destroy();
  }

  #pass(inner) {
    const outer = net.connect(this.#target);
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ]) {
      this.#open.add(from);
      from.pipe(to);
      from.on("error", () => {});
      from.on("close", () => {
        this.#open.delete(from);
        to.destroy();
      });
    }
  }
}
