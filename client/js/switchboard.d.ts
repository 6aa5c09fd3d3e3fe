// The types of switchboard.js, and what each of its calls promises. Durations are milliseconds; times are milliseconds
// since 1970-01-01 UTC. The protocol behind it is docs/protocol.md.

/* ---- payloads ---- */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/**
 * What can be sent:
 *
 * - a string is sent as text, `undefined` as the empty text;
 * - an ArrayBuffer or a view of one (Uint8Array, Buffer, …) is sent as binary;
 * - `{ json: value }`, with this one member, sends `value` as JSON: for strings, and for objects of that very form;
 * - anything else is sent as JSON, as JSON.stringify() has it.
 */
export type Payload =
  | undefined
  | string
  | ArrayBuffer
  | ArrayBufferView
  | { json: unknown }
  | object
  | number
  | boolean
  | null;

/** What arrives, in the kind in which it was sent. */
export type Received =
  | { kind: "text"; payload: string }
  | { kind: "binary"; payload: Uint8Array }
  | { kind: "data"; payload: Json };

/** A place in an address's history. Offsets are compared for equality only. */
export interface StoredAt {
  epoch: string;
  offset: string;
}

/** Where a reader stands: after a stored message, or, when empty, before the first. */
export type Position = StoredAt | { epoch?: undefined; offset?: undefined };

export type Message = Received & {
  /** The address it was sent to. */
  to: string;
  /** The sender's address; undefined when it is no session. */
  from?: string;
  time: number;
  /** Both only when it is stored. */
  epoch?: string;
  offset?: string;
};

/* ---- errors ---- */

/** The broker's errors below 900, this client's above. */
export interface Errors {
  readonly bad_request: 400;
  readonly unauthorized: 401;
  readonly forbidden: 403;
  readonly absent: 404;
  readonly unknown_command: 405;
  readonly conflict: 409;
  readonly gone: 410;
  readonly too_large: 413;
  readonly refused: 422;
  readonly limit: 429;
  readonly internal: 500;
  readonly unavailable: 503;
  readonly timeout: 504;
  readonly no_memory: 507;
  /** There was no connection before the deadline, or none will be: it was never sent. */
  readonly offline: 901;
  /** It was sent, but the connection was lost before the answer: it may have happened. */
  readonly lost: 902;
  /** Too much waits to be sent already: it was not taken. */
  readonly queue_full: 903;
  /** The client was closed, or the subscription ended. */
  readonly cancelled: 904;
}

export const errors: Errors;
export type ErrorName = keyof Errors;

export class SwitchboardError extends Error {
  constructor(name: ErrorName, text: string, options?: { code?: number; retry?: boolean });
  /** One of ErrorName; a newer broker may have others. */
  name: ErrorName | (string & {});
  code: number;
  /** For people; the same as `message`. */
  readonly text: string;
  /** Whether the same can succeed later. */
  retry: boolean;
}

/* ---- connecting ---- */

/** The part of the browser's WebSocket that is needed; the package `ws` has it too. */
export interface WebSocketLike {
  readonly bufferedAmount: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  terminate?(): void;
  addEventListener(type: any, listener: (event: any) => void): void;
}

export interface ClientOptions {
  /** Needed where the runtime has none, as in Node before 22: that of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  /** Joins the sessions of this user (`/connect?user=`). */
  user?: string;
  /** Holds this name alone (`/connect?session=`). */
  session?: string;
  /** Recover first what was sent to the own address after this; "all": everything kept. */
  since?: Position | "all";
  /** After an interruption, recover what was stored for the own address meanwhile. Default: true. */
  recover?: boolean;
  /** Connect again after a loss. Default: true. */
  reconnect?: boolean;
  /** For calls without one of their own, from the call to the reply. Default: 10000. */
  timeout?: number;
  /** From the first packet to the server's hello. Default: 10000. */
  connectTimeout?: number;
  /** After how long a silence the connection is checked; 0: never. Default: the server's ping interval. */
  heartbeat?: number;
  /** How many calls may wait for a connection. Default: 1000. */
  maxQueue?: number;
  /** How many bytes may wait to be sent, with and without a connection. Default: 8 MiB. */
  maxQueueBytes?: number;
}

/** What the server said first. */
export interface Hello {
  /** Others reach this session at "session:" + this. */
  session: string;
  conn: string;
  /** What the URL gave it; undefined for anonymous sessions. */
  address?: string;
  instance: string;
  version: string;
  time: number;
  ping_interval: number;
  ping_timeout: number;
  limits: { message: number; name: number; subscriptions: number; requests: number; timeout: number };
  recovered?: boolean;
  epoch?: string;
  offset?: string;
}

/**
 * - `connecting`: a connection is being made
 * - `online`: what is sent to this session from now on reaches it
 * - `down`: no connection, another is made after `delay`
 * - `stopped`: nothing happens any more. By close(), by the server (a close code of 4500 and above, for one), or by a
 *   loss without `reconnect`.
 */
export type State = "connecting" | "online" | "down" | "stopped";

export interface StateChange {
  state: State;
  previous: State;
  /** With `online`. */
  hello?: Hello;
  /** With `down` and `stopped`: the WebSocket's close code (1006: lost without one; 0: none could be made). */
  code?: number;
  /** With `down` and `stopped`: for people. */
  reason?: string;
  /** With `down`. */
  delay?: number;
}

/** How a subscription, or the own address, came through an interruption. */
export interface Recovery {
  address: string;
  /** False: messages may be missing. */
  recovered: boolean;
  /** The newest stored message at that point; undefined when there is none. */
  epoch?: string;
  offset?: string;
}

export interface PresenceEvent {
  type: "join" | "leave";
  topic: string;
  session: string;
  user?: string;
}

/** The server says that it will close the connection. */
export interface DisconnectNotice {
  code: number;
  name: string;
  text: string;
  reconnect: boolean;
  delay?: number;
}

export interface ClientEvents {
  state: StateChange;
  /** To the own address, or to this session by its name. */
  message: Message;
  recovered: Recovery;
  /** Of all topics subscribed to with `events` or `onPresence`. */
  presence: PresenceEvent;
  disconnect: DisconnectNotice;
  /** What no promise could tell: a subscription ended by itself, an answer was not taken. */
  error: SwitchboardError;
}

export class SwitchboardEvent<Type extends keyof ClientEvents = keyof ClientEvents> extends Event {
  constructor(type: Type, detail: ClientEvents[Type]);
  readonly type: Type;
  readonly detail: ClientEvents[Type];
}

/** The same as `new Client(url, options)`. */
export function connect(url: string | URL, options?: ClientOptions): Client;

/**
 * Connects at once and stays connected until close(). Every promise it returns is rejected with a SwitchboardError, or
 * with the reason of a `signal` that was aborted. Calls made while there is no connection wait for one until their deadline, in order. When the
 * connection is lost under a call, it is repeated if that can do no harm (history(), presence(), online(), ping(), and
 * what is sent with a `key`), else it ends as `lost`.
 */
export class Client extends EventTarget {
  /**
   * url: ws:, wss:, http: or https:, in browsers relative to the page too. Any route will do; without a path /connect is
   * meant. Throws a TypeError when the URL or the options are unusable.
   */
  constructor(url: string | URL, options?: ClientOptions);

  readonly state: State;
  /** Fulfilled when online; after an interruption it is a new promise. Rejected when the client stopped. */
  readonly ready: Promise<Hello>;
  /** Of the connection, or of the last one; null before the first. */
  readonly hello: Hello | null;
  readonly session: string | undefined;
  readonly address: string | undefined;
  /** Where it stands in the own address's history, for a `since` in another life; undefined when unknown. */
  readonly position: Position | undefined;

  /** Listens to the event's detail; what it returns ends that. */
  on<Type extends keyof ClientEvents>(
    type: Type,
    listener: (detail: ClientEvents[Type], event: SwitchboardEvent<Type>) => void,
  ): () => void;
  addEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: ((event: SwitchboardEvent<Type>) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;

  /** Sends to "session:NAME", "user:UID" or "topic:NAME". That nobody is there is no error: the receipt says it. */
  send(to: string, payload?: Payload, options?: SendOptions): Promise<Receipt>;
  /** The same to a topic, given by its name alone. */
  publish(topic: string, payload?: Payload, options?: SendOptions): Promise<Receipt>;
  /** Asks a session, or a user: whichever of its sessions answers first. */
  request(to: string, payload?: Payload, options?: RequestOptions): Promise<Reply>;
  /**
   * From now on requests to this session are answered with what the handler returns; when it throws, they are refused
   * with the error's message. null (as at first): all are refused.
   */
  serve(handler: ((request: IncomingRequest) => Payload | void | Promise<Payload | void>) | null): void;
  /**
   * Subscribes to a topic or a pattern ("orders.*", "orders.>"), until it is unsubscribed: after each interruption it is
   * made anew. The same topic again replaces the former subscription.
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  history(address: string, options?: HistoryOptions): Promise<History>;
  presence(address: string, options?: CallOptions): Promise<Presence>;
  /** The number of sessions on all instances. */
  online(options?: CallOptions): Promise<number>;
  /** The server's time, and how long the answer took. */
  ping(options?: CallOptions): Promise<{ time: number; roundTrip: number }>;
  /** Ends everything at once: calls, subscriptions, timers. Fulfilled when the connection is closed. */
  close(): Promise<void>;
}

/* ---- calls ---- */

export interface CallOptions {
  timeout?: number;
}

export interface SendOptions extends CallOptions {
  /** Keep the message in the address's history. */
  store?: boolean;
  /** How long the stored message is worth keeping. */
  ttl?: number;
  /** Idempotency key, 1 to 64 bytes: repeated within 5 minutes by the same user, or without one by a session of the
   * same name, it is not delivered again. */
  key?: string;
}

export interface Receipt {
  /** `absent`: nobody holds the address, and nothing was stored. */
  receipt: "delivered" | "stored" | "absent";
  epoch?: string;
  offset?: string;
}

export interface RequestOptions {
  /** Covers the wait for a connection too. Default: 5000. */
  timeout?: number;
  signal?: AbortSignal;
}

export type Reply = Received & {
  /** The address of the one who answered. */
  from?: string;
};

export type IncomingRequest = Message & {
  id: string;
  /** How long the asker waits, from the request's arrival on. */
  timeout: number;
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal;
};

export interface HistoryOptions extends CallOptions {
  /** An offset: only messages after it (with `reverse`: before it). */
  since?: string;
  /** 1 to 1000. Default: 100. */
  limit?: number;
  /** Newest first. */
  reverse?: boolean;
}

export interface History {
  /** Of the history itself: its epoch and its newest offset; undefined when nothing is stored. */
  epoch?: string;
  offset?: string;
  messages: Message[];
}

export interface Presence {
  online: boolean;
  /** All of them. */
  count: number;
  /** At most 1000 of them. */
  sessions: { session: string; user?: string }[];
}

/* ---- subscriptions ---- */

export interface SubscribeOptions {
  /** Without it, messages wait to be iterated. */
  onMessage?: (message: Message) => void;
  /** join and leave of the topic's presence; not for patterns. */
  onPresence?: (event: PresenceEvent) => void;
  /** After an interruption. */
  onRecovered?: (recovery: Recovery) => void;
  /** Recover first what was stored after this; "all": everything kept. Not for patterns. */
  since?: Position | "all";
  /**
   * After an interruption, recover what was stored meanwhile: in order, and each message once. Costs one query of the history in the
   * beginning. Without effect on patterns. Default: true.
   */
  recover?: boolean;
  /** Appear in the topic's presence; not for patterns. */
  presence?: boolean;
  /** Receive `presence` events. Default: whether there is an `onPresence`. */
  events?: boolean;
  /** How many messages may wait to be iterated, before the iteration ends with `queue_full`. Default: 10000. */
  buffer?: number;
}

export class Subscription implements AsyncIterable<Message> {
  private constructor();
  readonly topic: string;
  /**
   * Fulfilled when the server confirmed it: what is published from now on arrives. `recovered` only with `since`. Rejected
   * when the server refused it, or it ended before.
   */
  readonly ready: Promise<{ topic: string; recovered?: boolean; epoch?: string; offset?: string }>;
  /** False once it was unsubscribed, replaced, refused, or the client ended. */
  readonly active: boolean;
  /** Why it ended, when that was not asked for. */
  readonly error: SwitchboardError | null;
  /** Where it stands in the topic's history, for a `since` in another life; undefined when unknown. */
  readonly position: Position | undefined;
  /** No message comes after this call. Fulfilled when the server knows. */
  unsubscribe(): Promise<void>;
  /** Messages, until it ends; leaving the loop unsubscribes. Not for use with `onMessage`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
}
