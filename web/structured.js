// The structured client: topics, requests, history and presence, over the client library that other programs use, too.
import { locale, text } from "./i18n.js";
import { createLog } from "./log.js";
import { createQuestions } from "./questions.js";
import { describe, explainClose, fitHeight, isFriendlyClose } from "./show.js";
import { Client, SwitchboardError } from "./switchboard.js";
import { createTopics } from "./topics.js";
import { isVisible, visibleName } from "./visible.js";

const maxAddresses = 50; // offered for completion
const askTimeout = 60000; // a person answers
const shownHistory = 50;

const moment = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "medium" });

function isAddress(value) {
  return /^(topic|user|session):./su.test(value);
}

function parse(value) {
  try {
    return { json: JSON.parse(value) };
  } catch {
    return undefined;
  }
}

function notes(...parts) {
  return parts.filter(Boolean).join(" · ");
}

export function start(panel, parameters) {
  const get = (id) => panel.querySelector(`#s-${id}`);
  const log = createLog(get("log"), get("log-frame"));
  const message = get("payload");
  let client = null;

  /* ---- showing ---- */

  function showState(state) {
    const labels = { closed: "Closed", connecting: "Connecting", open: "Open", waiting: "Waiting" };
    const focused = document.activeElement;
    get("state").dataset.state = state;
    get("state").textContent = text(`state${labels[state]}`);
    get("connect").disabled = state !== "closed";
    for (const id of ["user", "session"]) get(id).disabled = state !== "closed";
    for (const id of ["disconnect", "subscribe", "send", "publish", "request", "history", "presence"])
      get(id).disabled = state === "closed";
    get("who").hidden = state === "closed" || !client?.session;
    get("you").textContent = client?.session ? visibleName(`session:${client.session}`) : "";
    // A button that was just disabled would swallow the keyboard: hand the focus on.
    if (focused?.disabled && panel.contains(focused))
      (state === "closed" ? get("connect") : get("topic")).focus();
  }

  function showError(error, note = "") {
    const known = text(`error_${error.name}`);
    log.add("error", known ?? text("error_other"), notes(note, visibleName(error.text ?? error.message ?? "")));
  }

  function offer(address) {
    const offered = get("addresses");
    // One that looks like another is not offered.
    if (!address || !isVisible(address) || [...offered.options].some(({ value }) => value === address)) return;
    const option = document.createElement("option");
    option.value = address;
    offered.prepend(option);
    if (offered.options.length > maxAddresses) offered.lastElementChild.remove();
  }

  function showMessage(one, note = "") {
    const { content, note: kind } = describe(one);
    const from = text("from", { from: one.from ?? text("operator") });
    offer(one.from);
    log.add("in", content, notes(from, text("toMe", { to: one.to }), kind, note));
  }

  function showRecovery({ address, recovered }) {
    log.add(recovered ? "info" : "error", text(recovered ? "recovered" : "gap", { address }));
  }

  /* ---- the connection ---- */

  const topics = createTopics(get("topics"), {
    message: showMessage,
    presence: ({ type, topic, session }) =>
      log.add("info", text(type === "join" ? "joined" : "left", { topic, session })),
    recovered: showRecovery,
    choose,
    subscribed(topic) {
      offer(`topic:${topic}`);
      log.add("info", text("subscribed", { topic }));
    },
    left: (topic) => log.add("info", text("unsubscribed", { topic })),
    failed: showError,
  });

  const answer = createQuestions(get("questions"), {
    answered: ({ from }, value) =>
      log.add("out", value, notes(text("youAnswered", { from }), value ? "" : text("emptyText"))),
    refused: ({ from }) => log.add("info", text("youRefused", { from })),
    abandoned: (request) => log.add("info", text("nobodyWaits"), describe(request).content),
  });

  function onState({ state, previous, hello, code, reason, delay }) {
    if (state === "connecting")
      showState(get("state").dataset.state === "waiting" ? "waiting" : "connecting");
    if (state === "online") {
      showState("open");
      log.add("info", text("opened"), text("online", { session: hello.session }));
    }
    if (state === "down") {
      const seconds = (delay / 1000).toLocaleString(locale, { maximumFractionDigits: 1 });
      showState("waiting");
      log.add(
        "info",
        text("lost", { code, seconds }),
        notes(explainClose(code, previous === "online"), reason && visibleName(reason)),
      );
    }
    if (state === "stopped") {
      client = null;
      topics.clear();
      showState("closed");
      const said = code === 1000 || !reason ? "" : visibleName(reason);
      log.add(
        isFriendlyClose(code) ? "info" : "error",
        `${text("closed")} ${code} ${said}`.trimEnd(),
        explainClose(code, true),
      );
    }
  }

  function connect() {
    const user = get("user").value;
    const session = get("session").value;
    const mine = new Client(new URL("/connect", window.location.href), {
      ...(session ? { session } : user ? { user } : {}),
    });
    client = mine;
    mine.on("state", onState);
    mine.on("message", (one) => showMessage(one));
    mine.on("recovered", (one) => one.address === mine.address && showRecovery(one));
    mine.on("error", (error) => showError(error));
    mine.serve((request) => {
      offer(request.from);
      return answer(request);
    });
    showState("connecting");
  }

  // A link that opens another window as the same one.
  function showLink() {
    const link = new URLSearchParams({ tab: "structured" });
    for (const id of ["user", "session", "topic", "address"])
      if (get(id).value) link.set(`s-${id}`, get(id).value);
    get("again").href = `#${link}`;
  }

  /* ---- talking ---- */

  function choose(address) {
    get("address").value = address;
    showAddress();
    message.focus();
  }

  // A topic is published to, somebody is sent to or asked.
  function showAddress() {
    const address = get("address").value;
    const isTopic = address.startsWith("topic:");
    get("address").setCustomValidity(isAddress(address) ? "" : text("badAddress"));
    get("send").hidden = isTopic;
    get("request").hidden = isTopic;
    get("publish").hidden = !isTopic;
    showLink();
  }

  function showKind() {
    const wrong = get("kind").value === "json" && !parse(message.value);
    message.setCustomValidity(wrong ? text("badJson") : "");
  }

  function takePayload() {
    const value = message.value;
    const payload = get("kind").value === "json" ? parse(value) : value;
    message.value = "";
    fitHeight(message);
    showKind();
    message.focus();
    return { value, payload };
  }

  function isUsable() {
    showAddress();
    showKind();
    return client && get("composer").reportValidity();
  }

  async function send() {
    if (!isUsable()) return;
    const to = get("address").value;
    const { value, payload } = takePayload();
    const target = text("toMe", { to });
    const note = log.add("out", value, target);
    offer(to);
    try {
      const options = { store: get("store").checked || undefined };
      const { receipt } = to.startsWith("topic:")
        ? await client.publish(to.slice("topic:".length), payload, options)
        : await client.send(to, payload, options);
      note(notes(target, text(receipt)));
    } catch (error) {
      showError(error, target);
    }
  }

  async function ask() {
    if (!isUsable()) return;
    const to = get("address").value;
    const { value, payload } = takePayload();
    const note = log.add("out", value, text("asked", { to }));
    const began = performance.now();
    offer(to);
    try {
      const reply = await client.request(to, payload, { timeout: askTimeout });
      const milliseconds = Math.round(performance.now() - began).toLocaleString(locale);
      const { content, note: kind } = describe(reply);
      note(notes(text("toMe", { to }), text("answered", { milliseconds })));
      log.add("in", content, notes(text("from", { from: reply.from ?? to }), kind));
    } catch (error) {
      note(notes(text("toMe", { to }), text("notAnswered")));
      showError(error, visibleName(to));
    }
  }

  function withAddress(act) {
    return async () => {
      const address = get("address");
      showAddress();
      if (!client || !address.reportValidity()) return;
      try {
        await act(address.value);
      } catch (error) {
        if (!(error instanceof SwitchboardError)) throw error;
        showError(error, visibleName(address.value));
      }
    };
  }

  async function showHistory(address) {
    const { messages } = await client.history(address, { limit: shownHistory, reverse: true });
    log.add("info", text("historyOf", { address, count: messages.length }));
    for (const one of messages.reverse())
      showMessage(one, text("fromHistory", { time: moment.format(one.time) }));
  }

  async function showPresence(address) {
    const { count, sessions } = await client.presence(address);
    for (const { session } of sessions.slice(0, 10)) offer(`session:${session}`);
    log.add(
      "info",
      text("presenceOf", { address, count: count.toLocaleString(locale) }),
      sessions.map(({ session }) => visibleName(session)).join(", "),
    );
  }

  /* ---- start ---- */

  for (const id of ["user", "session", "topic", "address"])
    if (parameters.has(`s-${id}`)) get(id).value = parameters.get(`s-${id}`);
  if (get("session").value) get("user").value = "";
  get("user").addEventListener("input", () => (get("session").value = ""));
  get("session").addEventListener("input", () => (get("user").value = ""));
  panel.addEventListener("input", showLink);
  get("connection").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!client) connect();
  });
  get("disconnect").addEventListener("click", () => client?.close());
  get("subscription").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!client) return;
    topics.add(client, get("topic").value);
    get("topic").value = "";
    showLink();
  });
  get("address").addEventListener("input", showAddress);
  get("kind").addEventListener("change", showKind);
  message.addEventListener("input", () => {
    fitHeight(message);
    showKind();
  });
  message.addEventListener("keydown", (event) => {
    // An input method's Enter chooses a word; it must not send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  get("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  get("request").addEventListener("click", ask);
  get("history").addEventListener("click", withAddress(showHistory));
  get("presence").addEventListener("click", withAddress(showPresence));
  get("clear").addEventListener("click", () => log.clear());
  window.addEventListener("pagehide", () => client?.close());

  showAddress();
  showState("closed");
}
