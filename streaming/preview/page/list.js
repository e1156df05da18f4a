// The objects as cards, in an order that does not jump: followed ones first, then by age of acquaintance.

const LINGER_MS = 1500; // a card outlives a flicker
const YOUNGEST = 2; // frames; what is gone in the next one gets no card

const TARGET = ["M12 3v4M12 17v4M3 12h4M17 12h4", "M12 6.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11z"];

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export class List {
  /** @param toggle called with an object whose card was pressed; @param point called with the id hovered, or null. */
  constructor(root, toggle, point) {
    Object.assign(this, { root, toggle, point });
    this.cards = new Map();
  }

  clear() {
    this.cards.clear();
    this.root.replaceChildren();
  }

  /** Show what `view` shows. */
  take(view) {
    const now = performance.now();
    for (const object of view.frame.objects) {
      if (!object.followed && object.age < YOUNGEST) continue;
      const card = this.cards.get(object.id) || this.add(object.id);
      card.seen = now;
      card.object = object;
      this.fill(card, view);
    }
    for (const { id, colour } of view.frame.followed) {
      const card = this.cards.get(id) || this.add(id);
      if (card.seen === now) continue;
      card.object = { ...card.object, id, colour, followed: true };
      this.describe(card, "out of sight");
      card.lost = now;
    }
    for (const [id, card] of this.cards) {
      card.button.classList.toggle("gone", card.seen !== now);
      if (card.lost !== now && !(now - card.seen < LINGER_MS)) {
        card.item.remove();
        this.cards.delete(id);
      }
    }
    const order = [...this.cards.values()].sort(
      (a, b) => b.object.followed - a.object.followed || a.object.id - b.object.id);
    order.forEach((card, place) => {
      if (this.root.children[place] !== card.item) this.root.insertBefore(card.item, this.root.children[place] || null);
    });
  }

  hot(id) {
    for (const [own, card] of this.cards) card.button.classList.toggle("hot", own === id);
  }

  add(id) {
    const picture = Object.assign(document.createElement("canvas"), { width: 116, height: 116 });
    picture.setAttribute("aria-hidden", "true");
    const name = element("span", "name", `#${id}`), facts = element("small"), bar = element("i");
    const icon = svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" });
    for (const d of TARGET) icon.append(svg("path", { d }));
    icon.append(svg("circle", { class: "dot", cx: 12, cy: 12, r: 2.6 }));
    const button = element("button", "card", picture, element("span", "", name, facts, element("span", "meter", bar)), icon);
    button.type = "button";
    const card = { item: element("li", "", button), button, picture, facts, bar };
    button.addEventListener("click", () => this.toggle(card.object));
    button.addEventListener("pointerenter", () => this.point(id));
    button.addEventListener("pointerleave", () => this.point(null));
    this.cards.set(id, card);
    return card;
  }

  fill(card, view) {
    const { picture, bar, object } = card;
    view.cut(object, picture);
    const [h, w] = view.frame.size;
    const age = object.age / view.rate;
    const known = view.rate ? `${age.toFixed(age < 10 ? 1 : 0)} s` : `${object.age} frames`;
    const share = (100 * object.area / (h * w)).toFixed(1);
    this.describe(card, `${known} · ${share} % · novelty ${object.novelty.toFixed(2)}`);
    bar.style.setProperty("--novelty", object.novelty);
  }

  describe({ button, facts, object }, text) {
    button.style.setProperty("--colour", object.colour);
    button.setAttribute("aria-pressed", object.followed);
    button.setAttribute("aria-label", `Object ${object.id}, ${text}, ${object.followed ? "followed, press to let go" : "press to follow"}`);
    facts.textContent = text;
  }
}
