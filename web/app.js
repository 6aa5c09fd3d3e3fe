// The page's start: language first, then each panel. A panel is a <section> of index.html and a module that
// exports start(element, parameters).
import { translate } from "./i18n.js";
import { start as startPlain } from "./plain.js";

// A link can prefill the page, by query or by hash; the hash wins, because it never leaves the browser.
function linkParameters(location) {
  const parameters = new URLSearchParams(location.search);
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) parameters.set(key, value);
  return parameters;
}

translate(document);
startPlain(document.getElementById("plain"), linkParameters(window.location));
