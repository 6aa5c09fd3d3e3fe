// A client of Switchboard for browsers and Node: the face switchboard.json.v1 of docs/protocol.md.
// The types, and what each call promises, are in switchboard.d.ts; how to begin is in README.md.
//
// A call is a frame that waits for its reply. It is queued while there is no connection, sent in order when there is,
// and settled once: by its reply, its deadline, the loss of the connection or the end of the client. A call that can
// be repeated without harm is queued again instead of being lost.
//
// A subscription is a wish that outlives connections. reconcile() makes the server's side follow the wish, one command
// a topic at a time, so that no order between replies is needed.

const subprotocol = "switchboard.json.v1";
const maxDepth = 32; // levels of a frame, itself included
const firstDelay = 500; // milliseconds
const lastDelay = 20000;
const graceTime = 1000; // how much longer than its deadline an answered call may take to travel
const lingerTime = 2000; // for the closing handshake
const recentOffsets = 512; // remembered to drop what comes twice
const maxCopies = 256; // messages of which more copies are to come, for overlapping subscriptions
const maxRefusal = 1000; // characters

/* ---- errors ---- */

export const errors = Object.freeze({
  bad_request: 400,
  unauthorized: 401,
  forbidden: 403,
  absent: 404,
  unknown_command: 405,
  conflict: 409,
  gone: 410,
  too_large: 413,
  refused: 422,
  limit: 429,
  internal: 500,
  unavailable: 503,
  timeout: 504,
  no_memory: 507,
  offline: 901,
  lost: 902,
  queue_full: 903,
  cancelled: 904,
});

const retryable = new Set(
  "absent gone limit internal unavailable timeout no_memory offline lost queue_full".split(" "),
);

export class SwitchboardError extends Error {
  constructor(name, text, { code = errors[name] ?? 0, retry = retryable.has(name) } = {}) {
    super(text);
    this.name = name;
    this.code = code;
    this.retry = retry;
  }

  get text() {
    return this.message;
  }
}

function errorFrom({ code, name, text, retry }) {
  return new SwitchboardError(String(name), String(text ?? name), { code, retry: Boolean(retry) });
}

/* ---- payloads ---- */

function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000)
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// { json: value } and nothing else: for values that would be taken for text or bytes otherwise.
function isJsonWrapper(value) {
  if (typeof value !== "object" || value === null) return false;
  const keys = Object.keys(value);
  return keys.length === 1 && keys[0] === "json";
}

function payloadFields(value) {
  if (value === undefined) return {};
  if (typeof value === "string") return { text: value };
  if (value instanceof ArrayBuffer) return { binary: toBase64(new Uint8Array(value)) };
  if (ArrayBuffer.isView(value))
    return { binary: toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
  const data = isJsonWrapper(value) ? value.json : value;
  if (data === undefined || typeof data === "function" || typeof data === "symbol")
    throw new SwitchboardError("bad_request", "the payload is no JSON value");
  return { data };
}

function payloadOf(frame) {
  if ("data" in frame) return { kind: "data", payload: frame.data };
  if ("binary" in frame) return { kind: "binary", payload: fromBase64(frame.binary) };
  return { kind: "text", payload: frame.text ?? "" };
}

function messageOf(frame) {
  const { to, from, time, epoch, offset } = frame;
  return { to, from, time, epoch, offset, ...payloadOf(frame) };
}

/* ---- frames ---- */

// The server would end the connection for good at what its JSON parser can't read, so that is refused here: halves of
// surrogate pairs, NUL in names of members, and nesting too deep.
function checkFrame(text) {
  if (text.includes("\\u"))
    for (const { 1: escape, index } of text.matchAll(/\\(u[0-9a-f]{4}|.)/g)) {
      if (/^ud[89a-f]/.test(escape))
        throw new SwitchboardError("bad_request", "a text holds half of a surrogate pair");
      const inName = /(?:[^"\\]|\\.)*":/y;
      inName.lastIndex = index;
      if (escape === "u0000" && inName.test(text))
        throw new SwitchboardError("bad_request", "the name of a member holds U+0000");
    }
  let depth = 0;
  for (const { 0: token } of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    if (depth > maxDepth) throw new SwitchboardError("bad_request", `nested deeper than ${maxDepth} levels`);
  }
}

// Integers beyond 64 bits are valid JSON, but only as floats can they be read on the other side.
function floatLargeIntegers(text) {
  if (!/\d{19}/.test(text)) return text;
  return text.replace(/"(?:[^"\\]|\\.)*"|-?\d{19,}(?![\d.e])/g, (token) => {
    if (token[0] === '"') return token;
    const whole = BigInt(token);
    return BigInt.asIntN(64, whole) === whole ? token : Number(token).toExponential();
  });
}

// A command without its id, which is put in front when it is sent.
function encodeCommand(cmd, fields) {
  let text;
  try {
    text = JSON.stringify({ cmd, ...fields });
  } catch (error) {
    throw new SwitchboardError("bad_request", `the payload is no JSON value: ${error.message}`);
  }
  if ("data" in fields) text = floatLargeIntegers(text);
  checkFrame(text);
  return text;
}

function utf8Length(text) {
  return /^[\0-\x7f]*$/.test(text) ? text.length : new TextEncoder().encode(text).length;
}

/* ---- topics ---- */

function isPattern(topic) {
  const tokens = topic.split(".");
  return tokens.includes("*") || tokens.at(-1) === ">";
}

function matches(pattern, topic) {
  const wanted = pattern.split(".");
  const tokens = topic.split(".");
  if (wanted.at(-1) === ">") {
    wanted.pop();
    if (!tokens[wanted.length]) return false; // it stands for something
    tokens.length = wanted.length;
  }
  return wanted.length === tokens.length && wanted.every((token, i) => (token === "*" ? tokens[i] !== "" : token === tokens[i]));
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {}); // whoever awaits it gets the error; nobody has to
  return made;
}

// A callback's exception is its author's: it surfaces as any uncaught one, and ends nothing here.
function guarded(callback, ...values) {
  try {
    callback?.(...values);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

// Where in an address's history its reader stands.
class Position {
  #recent = new Set();
  value; // { epoch, offset }; {} before the first stored message; undefined when unknown

  // False for what was handled before.
  enter({ epoch, offset }) {
    if (offset === undefined) return true;
    const mark = `${epoch}:${offset}`;
    if (this.#recent.has(mark)) return false;
    this.#recent.add(mark);
    if (this.#recent.size > recentOffsets) this.#recent.delete(this.#recent.values().next().value);
    return true;
  }

  leave({ epoch, offset }) {
    if (offset !== undefined) this.value = { epoch, offset };
  }

  // What a recovery said: without anything stored, all that comes is new.
  recovered({ offset }) {
    if (offset === undefined) this.value = {};
  }
}

function startingPosition(since) {
  return since === "all" ? {} : since;
}

function jittered(tries) {
  const whole = Math.min(firstDelay * 2 ** tries, lastDelay);
  return whole / 2 + (Math.random() * whole) / 2;
}

// One subscribe(): its callbacks, or what waits to be iterated.
class Feed {
  #buffer = [];
  #readers = [];
  #overflowed = false;
  confirmed = deferred();
  position = new Position();
  asked = false; // the server knows of it, or is about to
  settled = false; // it was confirmed once
  ended = false;
  error = null;

  constructor(topic, options) {
    this.topic = topic;
    this.options = options;
    this.pattern = isPattern(topic);
    this.recovers = (options.recover ?? true) && !this.pattern;
    this.position.value = startingPosition(options.since);
  }

  deliver(message) {
    const tracked = !this.pattern;
    if (this.ended || (tracked && !this.position.enter(message))) return;
    if (this.options.onMessage) guarded(this.options.onMessage, message);
    else if (this.#readers.length) this.#readers.shift().resolve({ value: message, done: false });
    else if (!this.#overflowed) this.#keep(message);
    if (tracked) this.position.leave(message);
  }

  #keep(message) {
    this.#buffer.push(message);
    if (this.#buffer.length <= (this.options.buffer ?? 10000)) return;
    this.#buffer = [];
    this.#overflowed = true;
  }

  next() {
    if (this.#overflowed) {
      this.#overflowed = false;
      return Promise.reject(new SwitchboardError("queue_full", "messages were not read fast enough"));
    }
    if (this.#buffer.length) return Promise.resolve({ value: this.#buffer.shift(), done: false });
    if (this.error) return Promise.reject(this.error);
    if (this.ended) return Promise.resolve({ value: undefined, done: true });
    const reader = deferred();
    this.#readers.push(reader);
    return reader.promise;
  }

  // error: null when it was meant to end.
  end(error) {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    this.confirmed.reject(error ?? new SwitchboardError("cancelled", "the subscription ended"));
    for (const reader of this.#readers.splice(0))
      if (error) reader.reject(error);
      else reader.resolve({ value: undefined, done: true });
  }
}

export class Subscription {
  #feed;
  #leave;

  constructor(feed, leave) {
    this.#feed = feed;
    this.#leave = leave;
  }

  get topic() {
    return this.#feed.topic;
  }

  get ready() {
    return this.#feed.confirmed.promise;
  }

  get active() {
    return !this.#feed.ended;
  }

  get error() {
    return this.#feed.error;
  }

  get position() {
    return this.#feed.position.value;
  }

  unsubscribe() {
    return this.#leave();
  }

  [Symbol.asyncIterator]() {
    return {
      next: () => this.#feed.next(),
      return: async () => {
        await this.#leave();
        return { value: undefined, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}

/* ---- the client ---- */

export class SwitchboardEvent extends Event {
  constructor(type, detail) {
    super(type);
    this.detail = detail;
  }
}

// Whether connecting again can end otherwise. 1005 and 1006 stand for ends without a code.
const passingCloses = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014]);

function isFinal(code) {
  return !passingCloses.has(code) && !(code >= 4000 && code <= 4499);
}

function shortened(text) {
  return text.slice(0, maxRefusal).replace(/\p{Surrogate}/gu, "\ufffd");
}

// Closes a socket in good order, and doesn't wait for ever.
function sayGoodbye(socket, code, reason) {
  return new Promise((resolve) => {
    const linger = setTimeout(() => {
      socket.terminate?.();
      resolve();
    }, lingerTime);
    socket.addEventListener("close", () => {
      clearTimeout(linger);
      resolve();
    });
    socket.close(code, reason);
  });
}

// Not by searchParams, which would rewrite the others in the manner of forms: "+" is no blank here.
function setParameter(target, name, value) {
  const others = target.search.slice(1).split("&");
  const kept = others.filter((one) => one !== "" && one.split("=")[0] !== name);
  target.search = [...kept, `${name}=${encodeURIComponent(value)}`].join("&");
}

function targetOf(url, { user, session }) {
  const target = new URL(url, globalThis.location?.href);
  target.protocol = target.protocol.replace(/^http/, "ws");
  if (target.protocol !== "ws:" && target.protocol !== "wss:")
    throw new TypeError(`not a ws: or wss: URL: ${target.href}`);
  if (user !== undefined && session !== undefined) throw new TypeError("either user or session, not both");
  if (target.pathname === "/") target.pathname = "/connect";
  target.hash = "";
  if (user !== undefined) setParameter(target, "user", user);
  if (session !== undefined) setParameter(target, "session", session);
  return target;
}

export class Client extends EventTarget {
  #options;
  #target;
  #state = "connecting";
  #ready = deferred();
  #hello = null;
  #socket = null;
  #problem = ""; // what the socket's error event said
  #notice = null; // the disconnect push of this connection
  #tries = 0; // since the last hello
  #timer = null; // of the connection attempt, or until the next
  #heartbeat = null;
  #heard = false; // anything, since the heartbeat looked last
  #end = null; // the error of calls once stopped
  #closing = null; // the promise of close()

  #lastId = 0;
  #sent = new Map(); // id → call that waits for its reply
  #queue = new Map(); // id → call that waits for a connection, in order
  #queueBytes = 0;

  #slots = new Map(); // topic → slot, see subscribe()
  #patterns = new Set(); // the slots of patterns
  #copies = new Map(); // frame → how many of its copies came
  #own = new Position(); // of the address that the URL gave
  #handler = null;
  #serving = new Map(); // request → AbortController

  constructor(url, options = {}) {
    super();
    this.#options = {
      WebSocket: globalThis.WebSocket,
      timeout: 10000,
      connectTimeout: 10000,
      maxQueue: 1000,
      maxQueueBytes: 8 << 20,
      reconnect: true,
      recover: true,
      ...options,
    };
    this.#options.WebSocket ??= globalThis.WebSocket;
    if (!this.#options.WebSocket) throw new TypeError("there is no WebSocket here: give one as an option");
    this.#target = targetOf(url, this.#options);
    this.#own.value = startingPosition(this.#options.since);
    this.#open();
  }

  get state() {
    return this.#state;
  }

  get ready() {
    return this.#ready.promise;
  }

  get hello() {
    return this.#hello;
  }

  get session() {
    return this.#hello?.session;
  }

  get address() {
    return this.#hello?.address;
  }

  get position() {
    return this.#own.value;
  }

  on(type, listener) {
    const heard = (event) => listener(event.detail, event);
    this.addEventListener(type, heard);
    return () => this.removeEventListener(type, heard);
  }

  #emit(type, detail) {
    this.dispatchEvent(new SwitchboardEvent(type, detail));
  }

  #enter(state, detail) {
    const previous = this.#state;
    this.#state = state;
    this.#emit("state", { state, previous, ...detail });
  }

  /* ---- the connection ---- */

  #url() {
    const target = new URL(this.#target);
    const since = this.#options.recover || !this.#hello ? this.#own.value : undefined;
    if (since)
      setParameter(target, "since", since.offset === undefined ? "" : `${since.epoch}:${since.offset}`);
    return target.href;
  }

  #open() {
    let socket;
    this.#notice = null;
    this.#problem = "";
    try {
      socket = new this.#options.WebSocket(this.#url(), [subprotocol]);
    } catch (error) {
      // A page's security policy, for one; it will say the same the next time.
      queueMicrotask(() => this.#stop({ code: 0, reason: `no connection can be made: ${error.message}` }));
      return;
    }
    const current = (act) => (event) => this.#socket === socket && act(event);
    socket.addEventListener(
      "message",
      current(({ data }) => this.#receive(socket, data)),
    );
    socket.addEventListener(
      "error",
      current(({ message = "" }) => (this.#problem = message)),
    );
    socket.addEventListener(
      "close",
      current(({ code, reason }) => this.#lose(code, reason)),
    );
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#abandon(1006, "no answer in time"), this.#options.connectTimeout);
    if (this.#state !== "connecting") this.#enter("connecting");
  }

  // Gives up a connection that does not answer: its closing handshake may never end.
  #abandon(code, reason) {
    const socket = this.#socket;
    this.#lose(code, reason);
    if (socket.terminate) socket.terminate();
    else socket.close();
  }

  #detach() {
    clearTimeout(this.#timer);
    clearTimeout(this.#heartbeat);
    this.#timer = this.#heartbeat = this.#socket = null;
    this.#copies.clear();
    const serving = [...this.#serving.values()];
    this.#serving.clear();
    for (const slot of this.#slots.values()) this.#unsettleSlot(slot);
    if (this.#state === "online") this.#ready = deferred();
    return serving;
  }

  #lose(code, reason) {
    const notice = this.#notice;
    const why = reason || notice?.text || this.#problem;
    if (!this.#options.reconnect || notice?.reconnect === false || isFinal(code)) {
      this.#stop({ code, reason: why });
      return;
    }
    const serving = this.#detach();
    const sent = [...this.#sent.values()];
    const again = sent.filter((call) => call.repeatable);
    const queued = [...this.#queue.values()];
    this.#sent.clear();
    this.#queue.clear();
    this.#queueBytes = 0;
    for (const call of [...again, ...queued]) this.#enqueue(call);
    const error = new SwitchboardError("lost", "the connection was lost before the reply came");
    for (const call of sent) if (!call.repeatable) this.#settle(call, error);

    const delay = Number.isFinite(notice?.delay) ? Math.max(0, notice.delay) : jittered(this.#tries++);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#enter("down", { code, reason: why, delay });
    for (const controller of serving) controller.abort(error);
  }

  // The end: by close(), which gives an error for all, or by what the server said.
  #stop({ code, reason, error }) {
    if (this.#end) return;
    const text = `disconnected for good: ${reason || "no reason given"} (${code})`;
    const lost = error ?? new SwitchboardError("lost", text, { retry: false });
    this.#end = error ?? new SwitchboardError("offline", text, { retry: false });
    const serving = this.#detach();
    const sent = [...this.#sent.values()];
    const queued = [...this.#queue.values()];
    const slots = [...this.#slots.values()];
    for (const map of [this.#sent, this.#queue, this.#slots, this.#patterns]) map.clear();
    this.#ready.reject(this.#end);
    for (const call of sent) this.#settle(call, lost);
    for (const call of queued) this.#settle(call, this.#end);
    for (const { wanted } of slots) wanted?.end(error ? null : this.#end);
    this.#enter("stopped", { code, reason });
    for (const controller of serving) controller.abort(lost);
  }

  close() {
    if (this.#closing) return this.#closing;
    const socket = this.#socket;
    this.#closing = socket ? sayGoodbye(socket, 1000, "") : Promise.resolve();
    const error = new SwitchboardError("cancelled", "the client was closed");
    this.#stop({ code: 1000, reason: "closed by this client", error });
    return this.#closing;
  }

  /* ---- what the server says ---- */

  #receive(socket, data) {
    this.#heard = true;
    const frames = typeof data === "string" ? data.split("\n") : [""];
    for (const text of frames) {
      if (this.#socket !== socket) return; // a callback ended it
      if (text.trim() === "" && typeof data === "string") continue;
      let frame = null;
      try {
        frame = JSON.parse(text);
      } catch {
        // Told below.
      }
      if (typeof frame !== "object" || frame === null || Array.isArray(frame)) {
        sayGoodbye(socket, 4500, "bad_frame");
        this.#stop({ code: 4500, reason: "the server sent what is no frame" });
        return;
      }
      if (frame.push !== undefined) this.#onPush(frame, text);
      else this.#onReply(frame);
    }
  }

  #onReply({ id, ok, error }) {
    const call = this.#sent.get(id);
    if (!call) return;
    this.#sent.delete(id);
    if (error) this.#settle(call, errorFrom(error));
    else this.#settle(call, null, call.done(ok ?? {}));
  }

  #onPush(frame, text) {
    switch (frame.push) {
      case "hello":
        return this.#onHello(frame);
      case "message":
        return this.#onMessage(messageOf(frame), text);
      case "request":
        return this.#onRequest(frame);
      case "cancel":
        return this.#onCancel(frame.request);
      case "join":
      case "leave":
        return this.#onPresence(frame);
      case "recovered":
        return this.#onRecovered(frame);
      case "disconnect":
        this.#notice = frame;
        return this.#emit("disconnect", frame);
    }
  }

  #onHello(hello) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#tries = 0;
    this.#hello = hello;
    this.#beat();
    this.#ready.resolve(hello);
    this.#enter("online", { hello });
    if (this.#state !== "online") return;
    if (hello.recovered !== undefined) this.#onRecovered(hello);
    else this.#findOwnPosition(hello);
    for (const slot of this.#slots.values()) this.#follow(slot);
    const queued = [...this.#queue.values()];
    this.#queue.clear();
    this.#queueBytes = 0;
    for (const call of queued) this.#transmit(call);
  }

  // Where the own address's history stood when the session came online, so that a first interruption loses nothing.
  // What is younger than that arrives by itself.
  #findOwnPosition({ address, time: online }) {
    if (!this.#options.recover || !address || this.#own.value) return;
    const done = ({ messages }) => {
      const before = messages.find(({ time }) => time < online);
      if (!this.#own.value && before) this.#own.leave(before);
      if (!this.#own.value && messages.length === 0) this.#own.value = {};
    };
    this.#call("history", { address, limit: 16, reverse: true }, { done }).catch(() => {
      // Then recovery begins with the first stored message that comes.
    });
  }

  #onRecovered({ address, recovered, epoch, offset }) {
    const feed = address.startsWith("topic:") && this.#slots.get(address.slice(6))?.wanted;
    const recovery = { address, recovered, epoch, offset };
    if (address === this.#hello.address) this.#own.recovered(recovery);
    if (feed) {
      feed.position.recovered(recovery);
      guarded(feed.options.onRecovered, recovery);
    }
    this.#emit("recovered", recovery);
  }

  #onMessage(message, text) {
    const feeds = this.#receivers(message.to);
    let feed = feeds[0];
    if (feeds.length > 1) {
      // Each subscription that matches has a copy sent, and copies don't say whose they are. They are all the same: the
      // first is the first one's.
      const copy = this.#copies.get(text) ?? 0;
      feed = feeds[copy % feeds.length];
      if (copy + 1 < feeds.length) this.#copies.set(text, copy + 1);
      else this.#copies.delete(text);
      if (this.#copies.size > maxCopies) this.#copies.delete(this.#copies.keys().next().value);
    }
    if (feed) feed.deliver(message);
    else if (feed === null) this.#deliverOwn(message);
  }

  // null stands for the session itself. What a subscription that just ended still gets is nobody's.
  #receivers(to) {
    const found = [];
    if (!to.startsWith("topic:")) return [null];
    const topic = to.slice(6);
    const awaits = (slot) => slot.wanted && (slot.wanted.asked || slot.held);
    const exact = this.#slots.get(topic);
    if (exact && !this.#patterns.has(exact) && awaits(exact)) found.push(exact.wanted);
    for (const slot of this.#patterns)
      if (awaits(slot) && matches(slot.topic, topic)) found.push(slot.wanted);
    if (to === this.#hello.address) found.push(null);
    return found;
  }

  #deliverOwn(message) {
    const tracked = message.to === this.#hello.address;
    if (tracked && !this.#own.enter(message)) return;
    this.#emit("message", message);
    if (tracked) this.#own.leave(message);
  }

  #onPresence({ push: type, topic, session, user }) {
    const event = { type, topic, session, user };
    const feed = this.#slots.get(topic)?.wanted;
    if (feed) guarded(feed.options.onPresence, event);
    this.#emit("presence", event);
  }

  // A connection can be dead without anybody noticing, and a browser hides the server's pings: after a silence as long as
  // between two of them, one is sent from here.
  #beat() {
    const period = this.#options.heartbeat ?? this.#hello.ping_interval;
    const patience = this.#hello.ping_timeout || 10000;
    if (!period) return;
    this.#heard = false;
    this.#heartbeat = setTimeout(() => {
      if (this.#heard) return this.#beat();
      this.#call("ping", {}, { timeout: patience }).catch(() => {});
      this.#heartbeat = setTimeout(() => {
        if (this.#heard) this.#beat();
        else this.#abandon(4001, "ping_timeout");
      }, patience);
    }, period);
  }

  /* ---- calls ---- */

  // done turns the ok of the reply into the result; it is run before the next frame is looked at.
  #call(cmd, fields, { timeout = this.#options.timeout, repeatable, asks, signal, done = (ok) => ok } = {}) {
    let text;
    try {
      if (this.#end) throw this.#end;
      signal?.throwIfAborted();
      if (!(timeout >= 1 && timeout < 2 ** 31))
        throw new SwitchboardError("bad_request", "timeout is out of range");
      text = encodeCommand(cmd, fields);
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const call = { id: ++this.#lastId, text, done, repeatable, asks, resolve, reject, signal };
      call.bytes = utf8Length(text);
      call.deadline = performance.now() + timeout;
      call.timer = setTimeout(() => this.#expire(call), timeout);
      call.onAbort = () => this.#settle(call, signal.reason);
      signal?.addEventListener("abort", call.onAbort);
      if (this.#state === "online") this.#transmit(call);
      else this.#enqueue(call, true);
    });
  }

  #enqueue(call, bounded = false) {
    const { maxQueue, maxQueueBytes } = this.#options;
    if (bounded && (this.#queue.size >= maxQueue || this.#queueBytes + call.bytes > maxQueueBytes))
      return this.#settle(
        call,
        new SwitchboardError("queue_full", "too much waits for a connection already"),
      );
    this.#queue.set(call.id, call);
    this.#queueBytes += call.bytes;
  }

  #transmit(call) {
    const left = Math.max(1, Math.ceil(call.deadline - performance.now()));
    const begin = call.asks ? `{"id":${call.id},"timeout":${left},` : `{"id":${call.id},`;
    if (call.bytes + begin.length - 1 > (this.#hello.limits?.message ?? Infinity))
      return this.#settle(call, new SwitchboardError("too_large", "larger than a message may be"));
    if (this.#socket.bufferedAmount > this.#options.maxQueueBytes)
      return this.#settle(call, new SwitchboardError("queue_full", "too much waits to be sent already"));
    if (call.asks) {
      // The server tells when the time is up; that takes a moment to arrive.
      clearTimeout(call.timer);
      call.timer = setTimeout(() => this.#expire(call), left + graceTime);
    }
    this.#sent.set(call.id, call);
    this.#socket.send(begin + call.text.slice(1));
  }

  #expire(call) {
    const sent = this.#sent.has(call.id);
    const [name, what] = sent ? ["timeout", "no answer"] : ["offline", "no connection"];
    this.#settle(call, new SwitchboardError(name, `${what} before the deadline`));
  }

  #settle(call, error, value) {
    clearTimeout(call.timer);
    call.signal?.removeEventListener("abort", call.onAbort);
    this.#sent.delete(call.id);
    if (this.#queue.delete(call.id)) this.#queueBytes -= call.bytes;
    if (error) call.reject(error);
    else call.resolve(value);
  }

  #post(cmd, target, payload, { store, ttl, key, timeout } = {}) {
    let fields;
    try {
      fields = payloadFields(payload);
    } catch (error) {
      return Promise.reject(error);
    }
    const repeatable = key !== undefined;
    return this.#call(cmd, { ...target, store, ttl, key, ...fields }, { timeout, repeatable });
  }

  send(to, payload, options) {
    return this.#post("send", { to }, payload, options);
  }

  publish(topic, payload, options) {
    return this.#post("publish", { topic }, payload, options);
  }

  request(to, payload, { timeout = 5000, signal } = {}) {
    let fields;
    try {
      fields = payloadFields(payload);
    } catch (error) {
      return Promise.reject(error);
    }
    const done = (ok) => ({ from: ok.from, ...payloadOf(ok) });
    return this.#call("request", { to, ...fields }, { timeout, signal, done, asks: true });
  }

  history(address, { since, limit, reverse, timeout } = {}) {
    const done = ({ epoch, offset, messages }) => ({ epoch, offset, messages: messages.map(messageOf) });
    return this.#call("history", { address, since, limit, reverse }, { timeout, repeatable: true, done });
  }

  presence(address, { timeout } = {}) {
    return this.#call("presence", { address }, { timeout, repeatable: true });
  }

  online({ timeout } = {}) {
    return this.#call("online", {}, { timeout, repeatable: true, done: ({ count }) => count });
  }

  ping({ timeout } = {}) {
    const began = performance.now();
    const done = ({ time }) => ({ time, roundTrip: performance.now() - began });
    return this.#call("ping", {}, { timeout, repeatable: true, done });
  }

  /* ---- answering requests ---- */

  serve(handler) {
    this.#handler = handler;
  }

  #onRequest(frame) {
    const { request: id, timeout } = frame;
    const controller = new AbortController();
    this.#serving.set(id, controller);
    const request = { ...messageOf(frame), id, timeout, signal: controller.signal };
    this.#answer(request, this.#handler).catch((error) => this.#emit("error", error));
  }

  async #answer(request, handler) {
    const answers = (fields) => this.#call("reply", { request: request.id, ...fields });
    const refusal = (error) => ({ refuse: shortened(String(error?.message || error || "refused")) });
    let fields;
    try {
      if (!handler) throw new Error("this session answers no requests");
      fields = payloadFields(await handler(request));
    } catch (error) {
      fields = refusal(error);
    }
    if (!this.#serving.delete(request.id)) return; // nobody waits any more
    try {
      await answers(fields);
    } catch (error) {
      if (error.name === "gone" || error.code > 900) return;
      // The answer itself was at fault: the asker should know.
      if (!("refuse" in fields)) await answers(refusal(error)).catch(() => {});
      throw error;
    }
  }

  #onCancel(id) {
    const controller = this.#serving.get(id);
    this.#serving.delete(id);
    controller?.abort(new SwitchboardError("gone", "nobody waits for the answer any more"));
  }

  /* ---- subscriptions ---- */

  // A slot is what this client has to do with a topic: the feed that is wanted, and the one that the server holds. They
  // differ while commands are under way, and as long as there is no connection.
  subscribe(topic, options = {}) {
    const feed = new Feed(String(topic), options);
    const subscription = new Subscription(feed, () => this.#leave(feed));
    try {
      if (this.#end) throw this.#end;
      encodeCommand("subscribe", { topic: feed.topic });
    } catch (error) {
      feed.end(error);
      return subscription;
    }
    let slot = this.#slots.get(feed.topic);
    if (!slot) {
      slot = { topic: feed.topic, wanted: null, held: null, running: null, timer: null, tries: 0 };
      this.#slots.set(feed.topic, slot);
      if (feed.pattern) this.#patterns.add(slot);
    }
    slot.wanted?.end(null);
    slot.wanted = feed;
    this.#follow(slot);
    return subscription;
  }

  async #leave(feed) {
    feed.end(null);
    const slot = this.#slots.get(feed.topic);
    if (slot?.wanted !== feed) return;
    slot.wanted = null;
    await this.#follow(slot);
  }

  #unsettleSlot(slot) {
    clearTimeout(slot.timer);
    slot.held = null;
    if (slot.wanted) slot.wanted.asked = false;
  }

  // Resolves when there is nothing more to do for now; never rejects.
  #follow(slot) {
    clearTimeout(slot.timer);
    slot.running ??= this.#reconcile(slot).finally(() => {
      slot.running = null;
      if (slot.wanted || slot.held || this.#slots.get(slot.topic) !== slot) return;
      this.#slots.delete(slot.topic);
      this.#patterns.delete(slot);
    });
    return slot.running;
  }

  async #reconcile(slot) {
    while (this.#state === "online" && slot.wanted !== slot.held) {
      const feed = slot.wanted;
      const socket = this.#socket;
      try {
        if (feed) await this.#enlist(slot, feed);
        else await this.#call("unsubscribe", { topic: slot.topic }, { done: () => (slot.held = null) });
      } catch (error) {
        if (this.#socket !== socket) continue; // the next connection begins anew
        if (this.#dropWish(slot, feed, error)) continue;
        slot.timer = setTimeout(() => this.#follow(slot), jittered(slot.tries++));
        return;
      }
    }
  }

  // False when the same should be tried again later.
  #dropWish(slot, feed, error) {
    if (slot.wanted !== feed) return true;
    if (error.retry && (!feed || feed.settled)) return false;
    if (!feed) {
      slot.held = null;
      return true;
    }
    slot.wanted = null;
    feed.end(error);
    if (feed.settled) this.#emit("error", error);
    return true;
  }

  async #enlist(slot, feed) {
    const { topic, position, options } = feed;
    if (feed.recovers && !position.value) {
      const start = await this.#findPosition(topic);
      if (slot.wanted !== feed) return;
      position.value ??= start;
    }
    const since = feed.recovers || !feed.settled ? position.value : undefined;
    const events = options.events ?? (options.onPresence ? true : undefined);
    const done = (ok) => this.#onEnlisted(slot, feed, ok);
    feed.asked = true;
    await this.#call("subscribe", { topic, since, presence: options.presence, events }, { done });
  }

  // Where a topic's history ends now; undefined when that isn't to be known. To subscribe since there loses nothing.
  async #findPosition(topic) {
    try {
      const { epoch, offset } = await this.#call("history", {
        address: `topic:${topic}`,
        limit: 1,
        reverse: true,
      });
      return offset === undefined ? {} : { epoch, offset };
    } catch (error) {
      if (error.retry) throw error;
      return undefined;
    }
  }

  #onEnlisted(slot, feed, { recovered, epoch, offset }) {
    const again = feed.settled;
    slot.held = feed;
    slot.tries = 0;
    feed.settled = true;
    const asked = again || feed.options.since !== undefined;
    const result = asked ? { recovered, epoch, offset } : {};
    feed.confirmed.resolve({ topic: feed.topic, ...result });
    if (recovered === undefined) return;
    if (again) this.#onRecovered({ address: `topic:${feed.topic}`, recovered, epoch, offset });
    else feed.position.recovered({ offset });
  }
}

export function connect(url, options) {
  return new Client(url, options);
}
