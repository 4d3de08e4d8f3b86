// One small note beside the pointer.

import { el } from "./dom.js";

const box = () => document.getElementById("tip");

export function tip(x, y, lines) {
  const node = box();
  node.replaceChildren(...lines.map((text, index) => el("p", { class: index ? "quiet" : "mono", dir: "auto", text })));
  node.hidden = false;
  const left = Math.min(window.innerWidth - node.offsetWidth - 12, Math.max(12, x + 14));
  const top = y + 16 + node.offsetHeight > window.innerHeight ? y - node.offsetHeight - 14 : y + 16;
  node.style.left = `${left}px`;
  node.style.top = `${Math.max(8, top)}px`;
}

export function hideTip() {
  box().hidden = true;
}
