// A bounded log: the newest entries at the bottom, followed by the view unless the reader scrolled up.
import { locale, text } from "./i18n.js";
import { visibleText } from "./visible.js";

const maxEntries = 1000;
const maxCharacters = 20000; // of one entry, or a thousand large messages would bring the page down
const nearBottom = 24; // pixels

const clock = new Intl.DateTimeFormat(locale, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

function child(parent, name, className, content) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = content;
  parent.append(element);
  return element;
}

// list is the <ol>, frame the element around it that scrolls.
export function createLog(list, frame) {
  let scrollPending = false;
  let follow = true; // decided by the first entry of a frame
  let stuck = true; // the reader is at the bottom

  function atBottom() {
    return frame.scrollHeight - frame.scrollTop - frame.clientHeight < nearBottom;
  }

  // What is at the bottom stays there when the frame becomes smaller, or visible.
  frame.addEventListener("scroll", () => (stuck = atBottom()));
  new ResizeObserver(() => {
    if (stuck) frame.scrollTop = frame.scrollHeight;
  }).observe(frame);

  // Once a frame, however many entries came: asking for heights at each would lay the page out at each.
  function scrollSoon() {
    scrollPending = true;
    requestAnimationFrame(() => {
      scrollPending = false;
      if (follow) frame.scrollTop = frame.scrollHeight;
    });
  }

  return {
    // direction: in, out, info or error. Both texts are shown as they are, never as markup,
    // and what they hide is shown, too. Returns what changes the note.
    add(direction, content, note = "") {
      if (!scrollPending) follow = atBottom();
      if (direction === "out") follow = true;
      const now = new Date();
      const entry = document.createElement("li");
      entry.className = "entry";
      entry.dataset.direction = direction;
      child(entry, "time", "time", clock.format(now)).dateTime = now.toISOString();
      child(entry, "span", "hidden-label", text(direction));
      const body = document.createElement("div");
      body.className = "body";
      child(body, "span", "text", visibleText(content.slice(0, maxCharacters))).dir = "auto";
      if (content.length > maxCharacters)
        note = text("shortened", { characters: content.length.toLocaleString(locale) });
      let noted = null;
      const setNote = (content) => {
        if (!content && !noted) return;
        noted ??= child(body, "span", "note", "");
        noted.textContent = visibleText(content);
      };
      setNote(note);
      entry.append(body);
      list.append(entry);
      while (list.childElementCount > maxEntries) list.firstElementChild.remove();
      if (!scrollPending) scrollSoon();
      return setNote;
    },
    clear() {
      list.replaceChildren();
    },
  };
}
