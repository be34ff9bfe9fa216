// This module keeps the page up to date: it asks for the numbers of a span and shows them.

import { at, make, number, put, setPool } from "/ui/dom.js";
import { frontier, models, speed, traffic } from "/ui/charts.js";
import { forget, list } from "/ui/reasons.js";
import * as say from "/ui/format.js";

const EVERY_MS = 2000;
let shown = null;
let isAsking = false;

async function get(path) {
  const reply = await fetch(path, { headers: { accept: "application/json" } });
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.error?.message ?? `status ${reply.status}`);
  return body;
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

async function look() {
  if (isAsking) return;
  isAsking = true;
  try {
    const data = await get(`/ui/data?span=${chosen("span")}`);
    show(data);
    await list(get, chosen("kind"), false);
    at("trouble").hidden = true;
    document.body.dataset.ready = data.span.name;
  } catch (error) {
    at("trouble").textContent = `The numbers below are old: ${error.message}`;
    at("trouble").hidden = false;
  } finally {
    isAsking = false;
  }
}

function show(data) {
  shown = data;
  setPool(data.gateway.candidates);
  state(data);
  tiles(data);
  traffic(data);
  models(data);
  frontier(data);
  speed(data);
  breakers(data);
  force(data);
  at("traffic-note").textContent = data.totals.requests ? say.rate(data.totals.requests / (data.span.until_s - data.span.since_s)) : "";
}

function state(data) {
  const { ledger_failure: failure, is_shared: isShared, running, waiting, fingerprint } = data.gateway;
  const isAlone = isShared && data.whose !== "all hosts";
  const whose = !isShared ? "" : isAlone ? "PostgreSQL is away, so this host alone is shown \u00b7 " : "all hosts \u00b7 ";
  const text = failure ? `the ledger cannot be written: ${failure}` : `${whose}${running} running${waiting ? `, ${waiting} waiting` : ""}${isShared ? " here" : ""} \u00b7 ${fingerprint ? `deployment ${fingerprint}` : "no deployment: clients name their model"}`;
  at("state").dataset.good = String(!failure && !isAlone);
  if (at("state").textContent !== text) at("state").textContent = text;
}

function tile(name, value, ...below) {
  return make("div", { class: "tile" }, make("h2", { text: name }), make("p", { class: "value" }, value), make("p", { class: "note" }, ...below));
}

function tiles(data) {
  const { totals, saving, speeds, feedback } = data;
  const failedShare = totals.requests ? totals.failed / totals.requests : null;
  const found = [
    tile("Requests", number("totals.requests", totals.requests, say.count(totals.requests)),
      make("span", { class: "keep" }, number("totals.failed", totals.failed, say.count(totals.failed)),
        ` failed${failedShare ? ` (${say.share(failedShare)})` : ""}`), ", ",
      ...(totals.lost ? [make("span", { class: "keep" }, number("totals.lost", totals.lost, say.count(totals.lost)), " lost"), ", "] : []),
      make("span", { class: "keep" }, number("totals.fell_back", totals.fell_back, say.count(totals.fell_back)), " fell back")),
    tile("Spend", number("totals.usd", totals.usd, say.usd(totals.usd)), ...spendNotes(totals)),
    savingTile(saving),
    tile("Answer, median", number("speeds.latency_s.p50", speeds.latency_s.p50, say.seconds(speeds.latency_s.p50)), ...tail("latency_s", speeds)),
    tile("First byte, median", number("speeds.first_byte_s.p50", speeds.first_byte_s.p50, say.seconds(speeds.first_byte_s.p50)), ...tail("first_byte_s", speeds)),
    tile("To decide, median", number("speeds.decision_s.p50", speeds.decision_s.p50, say.seconds(speeds.decision_s.p50)), ...tail("decision_s", speeds)),
  ];
  if (feedback.scores) {
    found.push(tile("Feedback", number("feedback.mean", feedback.mean, say.quality(feedback.mean)),
      "mean of ", number("feedback.scores", feedback.scores, say.count(feedback.scores)), feedback.scores === 1 ? " score" : " scores"));
  }
  put(at("tiles"), ...found);
}

function spendNotes(totals) {
  const tokens = [number("totals.input_tokens", totals.input_tokens, say.count(totals.input_tokens)), " in, ",
    number("totals.output_tokens", totals.output_tokens, say.count(totals.output_tokens)), " out"];
  if (totals.replayed_usd) return ["and ", number("totals.replayed_usd", totals.replayed_usd, say.usd(totals.replayed_usd)), " worth of recordings"];
  if (totals.unpriced) return [number("totals.unpriced", totals.unpriced, say.count(totals.unpriced)), " of unknown price"];
  return [...tokens, " tokens"];
}

function savingTile(saving) {
  if (!saving || saving.share === null) {
    return tile("Saving", number("saving.share", null, say.UNKNOWN), saving ? "no request to compare yet" : "nothing was calibrated");
  }
  return tile(saving.share < 0 ? "Extra spend" : "Saving",
    number("saving.share", saving.share, say.share(Math.abs(saving.share)), { class: saving.share < 0 ? "worse" : "better" }),
    "expected: ", number("saving.usd", saving.usd, say.usd(saving.usd)), " instead of ",
    number("saving.single_usd", saving.single_usd, say.usd(saving.single_usd)), " by ", saving.single, " alone");
}

function tail(name, speeds) {
  if (!speeds[name].count) return ["none yet"];
  const part = (key, percent) => make("span", { class: "keep" }, `${percent}\u202f% within `,
    number(`speeds.${name}.${key}`, speeds[name][key], say.seconds(speeds[name][key])));
  return [part("p90", 90), ", ", part("p99", 99)];
}

const STATES = { closed: ["good", "healthy"], half_open: ["warn", "probed"], open: ["bad", "rests"] };

function breakers(data) {
  const resting = data.breakers.filter((one) => one.state !== "closed").length;
  at("upstream-note").textContent = resting ? `${resting} of ${data.breakers.length} rest` : `all ${data.breakers.length} are healthy`;
  const inOrder = [...data.breakers].sort((a, b) => (a.state === "closed") - (b.state === "closed"));
  put(at("breakers"), ...inOrder.map((one) => {
    const [look, word] = STATES[one.state] ?? ["warn", one.state];
    const wait = one.state === "open" ? ` for ${say.seconds(one.wait_s)}` : "";
    return make("li", { "data-state": one.state }, make("span", { class: "name", text: one.model }), make("span", { class: "at", text: one.provider }),
      make("span", { class: `chip ${look}`, text: word + wait }));
  }));
}

function force(data) {
  const blocks = [["Dials", data.dials, "dial"], ["Rules", data.rules, "rule"], ["Errors", data.errors, "error"]];
  put(at("force"), ...blocks.filter(([, rows]) => rows.length).map(([title, rows, key]) => make("section", {}, make("h3", { text: title }),
    make("ul", { class: "counts" }, ...rows.map((row) => make("li", {}, make("span", { text: row.name.replaceAll("_", " ") }),
      number(`${key}.${row.name}`, row.requests, say.count(row.requests))))))));
  if (!at("force").childElementCount) put(at("force"), make("p", { class: "empty", text: "Nothing was decided in this span." }));
}

for (const input of document.querySelectorAll('input[name="span"]')) {
  input.addEventListener("change", () => { delete document.body.dataset.ready; look(); });
}
for (const input of document.querySelectorAll('input[name="kind"]')) {
  input.addEventListener("change", () => { forget(); look(); });
}
at("older").addEventListener("click", () => list(get, chosen("kind"), true));
at("reasons").addEventListener("click", (event) => { if (event.target === at("reasons")) at("reasons").close(); });
window.addEventListener("resize", () => { if (shown) show(shown); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
setInterval(() => { if (at("live").checked && !document.hidden) look(); }, EVERY_MS);
look();
window.turnout = () => shown;
