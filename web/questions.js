// Requests to this window: each a card with a field for the answer, until somebody answers or nobody waits any more.
import { text } from "./i18n.js";
import { describe, make } from "./show.js";
import { visibleText } from "./visible.js";

// region: where the cards are. Returns a handler for Client.serve(). on: answered(request, answer), refused(request) and
// abandoned(request).
export function createQuestions(region, on) {
  // The oldest card has the names by which scripts find it.
  function nameFirst() {
    for (const [i, card] of [...region.children].entries()) {
      card.querySelector("input").id = i === 0 ? "s-answer" : "";
      card.querySelector("button[type=submit]").id = i === 0 ? "s-reply" : "";
      card.querySelector("button[type=button]").id = i === 0 ? "s-refuse" : "";
    }
  }

  function createCard(request) {
    const { content, note } = describe(request);
    const answer = make("input", "");
    answer.placeholder = text("answerHint");
    answer.setAttribute("aria-label", text("answer"));
    answer.autocomplete = "off";
    answer.enterKeyHint = "send";
    const reply = make("button", "primary", text("reply"));
    reply.type = "submit";
    const refuse = make("button", "", text("refuse"));
    refuse.type = "button";
    const title = make("p", "from", text("question", { from: request.from ?? text("operator") }));
    const body = make("p", "text", visibleText(content) || text("emptyText"));
    body.dir = "auto";
    const card = make("form", "question", title, body);
    if (note) card.append(make("p", "note", note));
    card.append(make("div", "row", answer, reply, refuse));
    // How long the asker waits.
    const rest = make("div", "rest");
    rest.style.animationDuration = `${request.timeout}ms`;
    card.append(rest);
    return { card, answer, refuse };
  }

  return (request) =>
    new Promise((resolve, reject) => {
      const { card, answer, refuse } = createCard(request);
      const end = () => {
        const focused = card.contains(document.activeElement);
        card.remove();
        nameFirst();
        if (focused) region.querySelector("input")?.focus();
      };
      card.addEventListener("submit", (event) => {
        event.preventDefault();
        end();
        on.answered(request, answer.value);
        resolve(answer.value);
      });
      refuse.addEventListener("click", () => {
        end();
        on.refused(request);
        reject(new Error(answer.value || text("refusedBy")));
      });
      request.signal.addEventListener("abort", () => {
        if (!card.isConnected) return;
        end();
        on.abandoned(request);
        reject(request.signal.reason);
      });
      region.append(card);
      nameFirst();
    });
}
