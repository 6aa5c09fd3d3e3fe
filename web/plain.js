// The plain client: one WebSocket without subprotocol, on one of the configured endpoints or any path.
import { text } from "./i18n.js";
import { createLog } from "./log.js";
import { describeBinary, explainClose, fitHeight, isFriendlyClose } from "./show.js";
import { visibleName } from "./visible.js";

const segment = encodeURIComponent;

// fields: ids of the inputs an endpoint needs; path: from their values to a path on this host.
const endpoints = {
  user: { hint: "hintUser", fields: ["uid"], path: (uid) => `/websocket/${segment(uid)}` },
  session: {
    hint: "hintSession",
    fields: ["relation", "code"],
    path: (relation, code) => `/websocket/${segment(relation)}/${segment(code)}`,
  },
  topic: {
    hint: "hintTopic",
    fields: ["topic"],
    path: (topic) => `/topics/${segment(topic)}`,
  },
  custom: { hint: "hintCustom", fields: ["path"], path: customPath },
};

// Browsers fold dot segments, percent-encoded ones too, and half a surrogate pair has no encoding at all.
function isSegment(value) {
  return value !== "." && value !== ".." && !/\p{Surrogate}/u.test(value);
}

function customPath(path) {
  return (path.startsWith("/") ? path : `/${path}`).replaceAll("#", "%23");
}

export function start(panel, parameters) {
  const get = (id) => panel.querySelector(`#${id}`);
  const endpoint = get("endpoint");
  const message = get("message");
  const log = createLog(get("log"), get("log-frame"));
  let socket = null; // the current one, from connect to its close event
  let url = "";

  function showState(state) {
    const labels = { closed: "stateClosed", connecting: "stateConnecting", open: "stateOpen" };
    const focused = document.activeElement;
    get("state").dataset.state = state;
    get("state").textContent = text(labels[state]);
    get("connect").disabled = state !== "closed";
    get("disconnect").disabled = state === "closed";
    get("send").disabled = state !== "open";
    // A button that was just disabled would swallow the keyboard: hand the focus on.
    if (focused?.disabled) (state === "closed" ? get("connect") : message).focus();
  }

  function showEndpoint() {
    const { hint, fields, path } = endpoints[endpoint.value];
    for (const label of panel.querySelectorAll("[data-endpoint]")) {
      label.hidden = label.dataset.endpoint !== endpoint.value;
      label.querySelector("input").disabled = label.hidden;
    }
    get("hint").textContent = text(hint);

    const values = fields.map((id) => get(id).value);
    const link = new URLSearchParams({ endpoint: endpoint.value });
    let valid = true;
    for (const [i, id] of fields.entries()) {
      const usable = isSegment(values[i]);
      get(id).setCustomValidity(usable ? "" : text("badSegment"));
      valid &&= usable;
      link.set(id, values[i]);
    }
    const scheme = window.location.protocol === "https:" ? "wss:" : "ws:";
    url = valid ? `${scheme}//${window.location.host}${path(...values)}` : "";
    get("url").textContent = url;
    get("again").href = `#${link}`;
  }

  function prefill() {
    if (Object.hasOwn(endpoints, parameters.get("endpoint"))) endpoint.value = parameters.get("endpoint");
    for (const { fields } of Object.values(endpoints))
      for (const id of fields) if (parameters.has(id)) get(id).value = parameters.get(id);
  }

  function connect() {
    let wasOpen = false;
    const mine = new WebSocket(url);
    mine.binaryType = "arraybuffer";
    socket = mine;
    log.add("info", text("connecting", { url }));
    showState("connecting");

    mine.addEventListener("open", () => {
      wasOpen = true;
      log.add("info", text("opened"));
      showState("open");
      message.focus();
    });
    mine.addEventListener("message", ({ data }) => {
      if (typeof data === "string") return log.add("in", data, data ? "" : text("emptyText"));
      const { content, note } = describeBinary(new Uint8Array(data));
      log.add("in", content, note);
    });
    mine.addEventListener("error", () => log.add("error", text("failed")));
    mine.addEventListener("close", ({ code, reason }) => {
      socket = null;
      const direction = isFriendlyClose(code) ? "info" : "error";
      log.add(direction, `${text("closed")} ${code} ${visibleName(reason)}`.trimEnd(), explainClose(code, wasOpen));
      showState("closed");
    });
  }

  function send() {
    if (socket?.readyState !== WebSocket.OPEN) return;
    socket.send(message.value);
    log.add("out", message.value, message.value ? "" : text("emptyText"));
    message.value = "";
    fitHeight(message);
    message.focus();
  }

  endpoint.addEventListener("change", showEndpoint);
  get("connection").addEventListener("input", showEndpoint);
  get("connection").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!socket) connect();
  });
  get("disconnect").addEventListener("click", () => socket?.close(1000));
  get("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  get("clear").addEventListener("click", () => log.clear());
  message.addEventListener("input", () => fitHeight(message));
  message.addEventListener("keydown", (event) => {
    // An input method's Enter chooses a word; it must not send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  window.addEventListener("pagehide", () => socket?.close(1000, "page closed"));

  prefill();
  showEndpoint();
  showState("closed");
}
