// This module lists decisions, and opens one of them to its reasons.

import { at, make, number, put, swatch } from "/ui/dom.js";
import * as say from "/ui/format.js";

const rows = new Map();
let next = null;

export async function list(get, kind, more) {
  const query = new URLSearchParams({ kind });
  if (more && next) {
    query.set("before", next.time_s);
    query.set("id", next.id);
  }
  const page = await get(`/ui/decisions?${query}`);
  if (!more) show(page.decisions);
  else at("decisions").append(...page.decisions.map((one) => row(one)));
  if (more || rows.size <= page.decisions.length) next = page.next;
  at("older").hidden = next === null;
  at("none").hidden = rows.size > 0;
  return page;
}

export function forget() {
  rows.clear();
  next = null;
  at("decisions").replaceChildren();
}

// Rows that are there stay the same elements, so that the focus stays where it is.
function show(decisions) {
  const body = at("decisions");
  let before = body.firstChild;
  for (const one of decisions) {
    const element = row(one);
    if (element === before) before = before.nextSibling;
    else body.insertBefore(element, before);
  }
}

function row(one) {
  const id = one.decision_id;
  const known = rows.get(id);
  const state = `${one.status} ${one.is_lost}`;
  if (known && known.dataset.state === state) return known;
  const element = known ?? make("tr", { "data-id": id });
  element.dataset.state = state;
  const name = one.served ?? (one.status === null ? one.chosen : null) ?? "nobody";
  put(element,
    make("td", { class: "when" }, make("time", { datetime: new Date(one.time_s * 1000).toISOString(), text: say.clock(one.time_s, isOld(one.time_s)) })),
    make("td", { class: "who" }, make("button", { class: "open", on: { click: () => open(id) } },
      swatch(one.served ?? ""), make("span", { text: name }), make("span", { class: "unseen", text: ", open the reasons" }))),
    make("td", { class: "why" }, one.rule ? make("span", { class: "chip", text: one.rule }) : null, make("span", { text: one.reason ?? one.error ?? "" })),
    make("td", { class: "num cost", text: say.usd(one.usd) }),
    make("td", { class: "num took", text: say.seconds(one.latency_s) }),
    make("td", { class: "end" }, ending(one)));
  rows.set(id, element);
  return element;
}

function isOld(time) {
  return Date.now() / 1000 - time > 43200;
}

function ending(one) {
  if (one.is_lost) return make("span", { class: "chip bad", text: "lost", title: "the gateway died before the end" });
  if (one.status === null) return make("span", { class: "chip running", text: "running" });
  const isBad = one.status >= 400 || one.error !== null;
  const text = isBad ? `${one.status} ${(one.error ?? "").replaceAll("_", " ")}` : one.attempts > 1 ? `after ${one.attempts} calls` : "served";
  return make("span", { class: isBad ? "chip bad" : one.attempts > 1 ? "chip warn" : "plain", text });
}

export async function open(id) {
  const dialog = at("reasons");
  const reply = await fetch(`/ui/decisions/${encodeURIComponent(id)}`, { headers: { accept: "application/json" } });
  if (!reply.ok) return;
  const one = await reply.json();
  at("reasons-title").replaceChildren(swatch(one.served ?? ""), one.served ?? (one.status === null ? one.chosen : null) ?? "Nobody served");
  put(at("reasons-body"), lead(one), course(one), scores(one), facts(one), feedback(one), words(one));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function lead(one) {
  const asked = one.requested_model === one.chosen ? "named by the client" : one.reason;
  return make("p", { class: "lead" }, ending(one), one.rule ? make("span", { class: "chip", text: `rule: ${one.rule}` }) : null,
    make("span", { text: asked ? ` because: ${asked}` : ` ${one.error ?? "refused before it was decided"}` }));
}

// How the time went: deciding, waiting for the first byte, the rest of the answer.
function course(one) {
  if (!one.latency_s) return null;
  const first = one.first_byte_s ?? one.latency_s;
  const decided = Math.min(one.decision_s ?? 0, first);
  const parts = [["decided", decided], ["first byte", first - decided], ["rest", one.latency_s - first]];
  const bar = make("div", { class: "course", role: "img", "aria-label": `${say.seconds(one.latency_s)} in all` });
  for (const [name, length] of parts) {
    const piece = make("span", { class: name.replace(" ", "-") });
    piece.style.flexGrow = String(Math.max(length / one.latency_s, 0.004));
    bar.append(piece);
  }
  return make("div", {}, bar, make("p", { class: "legend" },
    ...parts.filter(([, length]) => length > 0).map(([name, length]) =>
      make("span", {}, make("i", { class: `dot ${name.replace(" ", "-")}` }), `${name} ${say.seconds(length)}`))));
}

function scores(one) {
  if (!one.scores.length) return null;
  const head = ["Candidate", "Expected quality, and what its price takes", "Quality", "Cost", "Score"];
  const body = one.scores.map((row) => make("tr", { class: row.name === one.chosen ? "chosen" : null },
    make("th", { scope: "row" }, swatch(row.name), row.name, row.name === one.chosen ? make("span", { class: "chip good", text: "chosen" }) : null,
      row.name === one.served && one.served !== one.chosen ? make("span", { class: "chip warn", text: "served" }) : null),
    make("td", {}, scoreBar(row)),
    make("td", { class: "num", text: say.quality(row.quality) }),
    make("td", { class: "num", text: say.usd(row.usd) }),
    make("td", { class: "num" }, number(`score.${row.name}`, row.score, say.quality(row.score)))));
  const price = one.price ? `Score is quality minus price times cost; the price is ${say.count(one.price)} quality per USD.` : "The price of money is 0: the best expected quality wins.";
  return make("section", {}, make("h3", { text: "Who might have served" }), make("p", { class: "note", text: price }),
    make("table", { class: "scores" }, make("thead", {}, make("tr", {}, ...head.map((text, place) =>
      make("th", { scope: "col", class: place > 1 ? "num" : null, text })))), make("tbody", {}, ...body)));
}

function scoreBar(row) {
  const bar = make("div", { class: "score", "aria-hidden": "true" });
  if (row.quality === null) return bar;
  const kept = Math.max(0, Math.min(1, row.score ?? row.quality));
  const keptPart = make("span", { class: "kept" });
  const taken = make("span", { class: "taken" });
  keptPart.style.width = `${kept * 100}%`;
  taken.style.width = `${Math.max(0, Math.min(1, row.quality) - kept) * 100}%`;
  bar.append(keptPart, taken);
  return bar;
}

function facts(one) {
  const pairs = [
    ["Asked for", one.requested_model], ["Chosen", one.chosen], ["Served by", one.served], ["Upstream", one.provider],
    ["Dial", one.goal], ["Probability", one.propensity === null ? null : one.propensity.toPrecision(3)],
    ["Tokens in", one.input_tokens === null ? null : say.count(one.input_tokens) + (one.cached_tokens ? ` (${say.count(one.cached_tokens)} cached)` : "")],
    ["Tokens out", one.output_tokens === null ? null : say.count(one.output_tokens) + (one.usage_estimated ? " (estimated)" : "")],
    ["Cost", one.usd === null ? null : say.usd(one.usd) + (one.is_replay ? " (a recording, nobody was charged)" : "")],
    ["Expected cost", one.expected_cost_usd === null ? null : say.usd(one.expected_cost_usd)],
    ["Attempts", one.attempts > 1 ? `${one.attempts}: ${one.faults ?? ""}` : one.faults],
    ["Key", one.key && `${one.key} (${one.tenant})`], ["Sequencer", one.trace && `${one.trace.sequencer}: ${one.trace.calls} calls, ${one.trace.thoughts} thoughts`],
    ["Deployment", one.fingerprint], ["When", say.clock(one.time_s, true)], ["Id", one.decision_id],
  ];
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

function feedback(one) {
  if (!one.feedback.length) return null;
  return make("section", {}, make("h3", { text: "Feedback" }), make("ul", { class: "plain" }, ...one.feedback.map((given) =>
    make("li", { text: `${say.quality(given.score)}${given.source ? ` from ${given.source}` : ""}, ${say.clock(given.time_s, true)}` }))));
}

function words(one) {
  if (!one.text) return null;
  return make("section", {}, make("h3", { text: "What was routed on" }), make("blockquote", { text: one.text }));
}
