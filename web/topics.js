// The list of subscriptions, each with who is present on its topic.
import { text } from "./i18n.js";
import { make } from "./show.js";
import { visibleName } from "./visible.js";

function isPattern(topic) {
  const tokens = topic.split(".");
  return tokens.includes("*") || tokens.at(-1) === ">";
}

// list: the <ul>. on: what happens outside: message(message), presence(event), recovered(recovery), choose(address),
// left(topic) and failed(error).
export function createTopics(list, on) {
  const entries = new Map(); // topic → { subscription, item, people, asking, again }

  // Asked anew at each change, once at a time: more than a thousand are never listed.
  async function showPeople(client, topic, entry) {
    entry.again = entry.asking;
    if (entry.asking) return;
    entry.asking = true;
    try {
      const { count, sessions } = await client.presence(`topic:${topic}`);
      const names = sessions.slice(0, 20).map(({ session }) => {
        const name = make("button", "person", visibleName(session));
        name.type = "button";
        name.addEventListener("click", () => on.choose(`session:${session}`));
        return name;
      });
      entry.people.replaceChildren(...names, ...(count > names.length ? [`+${count - names.length}`] : []));
    } catch {
      entry.people.replaceChildren();
    }
    entry.asking = false;
    if (entry.again) showPeople(client, topic, entry);
  }

  function remove(topic) {
    entries.get(topic)?.item.remove();
    entries.delete(topic);
  }

  function createItem(topic, leave) {
    const name = make("button", "topic", visibleName(topic));
    name.type = "button";
    name.addEventListener("click", () => on.choose(`topic:${topic}`));
    const end = make("button", "quiet unsubscribe", "✕");
    end.type = "button";
    end.title = text("unsubscribe", { topic });
    end.setAttribute("aria-label", end.title);
    end.addEventListener("click", leave);
    const people = make("div", "people");
    const item = make("li", "", make("div", "topic-line", name, end), people);
    item.dataset.topic = topic;
    item.dataset.state = "waiting";
    return { item, people };
  }

  return {
    add(client, topic) {
      if (entries.has(topic)) return;
      const plain = !isPattern(topic);
      const entry = createItem(topic, () => {
        remove(topic);
        entry.subscription.unsubscribe().then(() => on.left(topic));
      });
      entries.set(topic, entry);
      list.append(entry.item);
      entry.subscription = client.subscribe(topic, {
        presence: plain || undefined,
        onMessage: on.message,
        onRecovered(recovery) {
          on.recovered(recovery);
          if (plain) showPeople(client, topic, entry);
        },
        onPresence: plain
          ? (event) => {
              on.presence(event);
              showPeople(client, topic, entry);
            }
          : undefined,
      });
      entry.subscription.ready.then(
        () => {
          entry.item.dataset.state = "subscribed";
          if (plain) showPeople(client, topic, entry);
          on.subscribed(topic);
        },
        (error) => {
          if (entries.get(topic) !== entry) return;
          remove(topic);
          on.failed(error);
        },
      );
    },
    // Without a client there are no subscriptions.
    clear() {
      for (const topic of [...entries.keys()]) remove(topic);
    },
  };
}
