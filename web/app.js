// The page's start: language first, then each panel. A panel is a <section> of index.html and a module that
// exports start(element, parameters).
import { translate } from "./i18n.js";
import { start as startPlain } from "./plain.js";
import { start as startStructured } from "./structured.js";

const panels = { plain: startPlain, structured: startStructured };

// A link can prefill the page, by query or by hash; the hash wins, because it never leaves the browser.
function linkParameters(location) {
  const parameters = new URLSearchParams(location.search);
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) parameters.set(key, value);
  return parameters;
}

function showPanel(chosen) {
  for (const name of Object.keys(panels)) {
    const tab = document.getElementById(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === chosen));
    tab.tabIndex = name === chosen ? 0 : -1;
    document.getElementById(name).hidden = name !== chosen;
  }
}

// As every tab list: the arrows go from tab to tab.
function onTabKey(event) {
  const names = Object.keys(panels);
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
  if (!step) return;
  const now = names.findIndex((name) => document.activeElement.id === `tab-${name}`);
  const next = Number.isFinite(step)
    ? (now + step + names.length) % names.length
    : step < 0
      ? 0
      : names.length - 1;
  event.preventDefault();
  showPanel(names[next]);
  document.getElementById(`tab-${names[next]}`).focus();
}

translate(document);
const parameters = linkParameters(window.location);
for (const [name, start] of Object.entries(panels)) {
  start(document.getElementById(name), parameters);
  document.getElementById(`tab-${name}`).addEventListener("click", () => showPanel(name));
}
document.getElementById("tabs").addEventListener("keydown", onTabKey);
showPanel(Object.hasOwn(panels, parameters.get("tab")) ? parameters.get("tab") : "plain");
