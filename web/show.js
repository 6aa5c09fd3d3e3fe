// How things are shown that both panels have: binary messages, the ends of connections, boxes that grow.
import { locale, text } from "./i18n.js";

const shownBytes = 32; // of a binary message
const friendlyCloses = [1000, 1001, 1005, 1012];

export function isFriendlyClose(code) {
  return friendlyCloses.includes(code);
}

export function explainClose(code, wasOpen) {
  if (!wasOpen && code === 1006) return text("closeUnreached");
  const known = text(`close${code}`);
  if (known) return known;
  if (code >= 4000 && code < 4500) return text("closeReconnect");
  return code >= 4500 ? text("closeStop") : "";
}

export function describeBinary(bytes) {
  const head = bytes.subarray(0, shownBytes);
  const hex = Array.from(head, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return {
    content: bytes.length > shownBytes ? `${hex} …` : hex,
    note: text("binary", { bytes: bytes.length.toLocaleString(locale) }),
  };
}

// A text area is as high as its text; the style sheet bounds it.
export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

// An element with a class, and what is in it: elements, or texts, which are never taken for markup.
export function make(name, className, ...content) {
  const element = document.createElement(name);
  element.className = className;
  element.append(...content);
  return element;
}

// A payload as text, and what to say about it.
export function describe({ kind, payload }) {
  if (kind === "binary") return describeBinary(payload);
  if (kind === "data") return { content: JSON.stringify(payload, null, 2), note: "JSON" };
  return { content: payload, note: payload ? "" : text("emptyText") };
}
