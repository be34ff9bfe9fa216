// This module draws: bars over time, a frontier, and ranges on a logarithmic scale.

import { at, draw, hue, make, number, put, swatch } from "/ui/dom.js";
import * as say from "/ui/format.js";

const NOBODY = "not served";

// Pictures are drawn at the width that they have, so that their words are as large as all others.
function widthOf(id) {
  return Math.max(260, at(id).clientWidth);
}

export function traffic(data) {
  const { counts, slots } = data.timeline;
  if (!data.totals.requests) {
    put(at("traffic"), make("p", { class: "empty", text: "No request in this span." }));
    return;
  }
  const names = [...data.models.map((model) => model.name), ""].filter((name) => counts[name]);
  const sums = Array.from({ length: slots }, (_, slot) => names.reduce((sum, name) => sum + counts[name][slot], 0));
  const most = Math.max(1, ...sums);
  const width = widthOf("traffic");
  const floor = Math.min(236, Math.max(130, width / 3));
  const height = floor + 24;
  const step = width / slots;
  const length = (data.span.until_s - data.span.since_s) / slots;
  const bars = sums.map((sum, slot) => {
    let y = floor;
    const column = draw("g", { class: "slot", "data-slot": slot });
    column.append(draw("rect", { class: "reach", x: slot * step, y: 0, width: step, height: floor }));
    for (const name of names) {
      const part = (counts[name][slot] / most) * (floor - 14);
      if (!part) continue;
      y -= part;
      column.append(draw("rect", {
        "data-hue": hue(name), x: (slot * step + 0.8).toFixed(2), y: y.toFixed(2), width: (step - 1.6).toFixed(2),
        height: Math.max(0.5, part).toFixed(2), rx: 1,
      }));
    }
    return column;
  });
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": trafficInWords(data, sums) },
    draw("line", { class: "rule", x1: 0, x2: width, y1: 14, y2: 14 }),
    draw("line", { class: "rule", x1: 0, x2: width, y1: (floor + 14) / 2, y2: (floor + 14) / 2 }),
    draw("text", { class: "tick", x: 0, y: 9, text: `at most ${say.count(most)} in ${say.seconds(length)}` }),
    ...bars,
    draw("line", { class: "base", x1: 0, x2: width, y1: floor, y2: floor }),
    draw("text", { class: "tick", x: 0, y: floor + 18, text: say.clock(data.span.since_s, length > 60) }),
    draw("text", { class: "tick", x: width, y: floor + 18, "text-anchor": "end", text: "now" }));
  const hint = make("p", { class: "hint", "aria-hidden": "true" });
  picture.addEventListener("pointermove", (event) => {
    const column = event.target.closest(".slot");
    hint.textContent = column ? slotInWords(data, names, Number(column.dataset.slot), length) : "";
  });
  picture.addEventListener("pointerleave", () => { hint.textContent = ""; });
  put(at("traffic"), picture, hint);
}

function trafficInWords(data, sums) {
  const parts = data.models.slice(0, 6).map((model) => `${model.name} ${say.count(model.requests)}`);
  const most = Math.max(...sums);
  return `${say.count(data.totals.requests)} requests in ${sums.length} slots, at most ${say.count(most)} in one. ` + parts.join(", ");
}

function slotInWords(data, names, slot, length) {
  const begin = data.span.since_s + slot * length;
  const parts = names.filter((name) => data.timeline.counts[name][slot])
    .map((name) => `${name || NOBODY} ${say.count(data.timeline.counts[name][slot])}`);
  return `${say.clock(begin, length > 60)} \u00b7 ${parts.join(" \u00b7 ") || "none"}`;
}

export function models(data) {
  const speeds = Object.fromEntries(data.speeds.models.map((model) => [model.name, model.latency_s]));
  const most = Math.max(1, ...data.models.map((model) => model.requests));
  if (!data.totals.requests) {
    put(at("models"));
    return;
  }
  const rows = data.models.map((model) => make("tr", {},
    make("th", { scope: "row" }, swatch(model.name), model.name),
    make("td", { class: "num" }, number(`models.${model.name}.requests`, model.requests, say.count(model.requests)),
      make("meter", { min: 0, max: most, value: model.requests, "aria-hidden": "true", tabindex: "-1" })),
    make("td", { class: "num" }, number(`models.${model.name}.usd`, model.usd, say.usd(model.usd))),
    make("td", { class: "num" }, number(`models.${model.name}.p50`, speeds[model.name]?.p50, say.seconds(speeds[model.name]?.p50)))));
  const left = data.totals.unserved;
  if (left) {
    rows.push(make("tr", { class: "rest" },
      make("th", { scope: "row" }, swatch(""), NOBODY),
      make("td", { class: "num" }, number("totals.unserved", left, say.count(left))), make("td"), make("td")));
  }
  const head = ["Model", "Requests", "Spend", "Median"];
  put(at("models"), make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((text, place) => make("th", { scope: "col", class: place ? "num" : null, text })))),
    make("tbody", {}, ...rows)));
}

export function frontier(data) {
  const curve = data.curve;
  at("promise").textContent = curve ? curve.dial.promise : "";
  if (!curve) {
    put(at("curve"), make("p", { class: "empty", text: data.gateway.fingerprint
      ? "Nothing was calibrated with costs, so there is no curve to show."
      : "Without a deployment nobody is chosen, so there is no curve to show." }));
    return;
  }
  const dial = curve.dial.usd_per_1k === null ? [] : [curve.dial];
  const all = [...curve.router, ...curve.singles, ...dial];
  const width = widthOf("curve");
  const right = width - 14;
  const x = scale(all.map((point) => point.usd_per_1k).filter((value) => value > 0), 52, right);
  const y = linear(all.map((point) => point.quality), 212, 18);
  const place = (point) => [x(point.usd_per_1k), y(point.quality)];
  const line = curve.router.map((point) => place(point).map((v) => v.toFixed(1)).join(",")).join(" L");
  const picture = draw("svg", { viewBox: `0 0 ${width} 252`, role: "img", "aria-label": curveInWords(curve) },
    ...y.ticks.flatMap((value) => [
      draw("line", { class: "rule", x1: 52, x2: right, y1: y(value), y2: y(value) }),
      draw("text", { class: "tick", x: 44, y: y(value) + 4, "text-anchor": "end", text: say.share(value) })]),
    ...x.ticks.map((value) => draw("text", { class: "tick", x: x(value), y: 230, "text-anchor": "middle", text: say.roundUsd(value) })),
    draw("text", { class: "tick", x: right, y: 248, "text-anchor": "end", text: "USD per 1,000 requests" }),
    draw("path", { class: "frontier", d: "M" + line }));
  const taken = curve.router.map(place).map(([px, py]) => ({ x1: px - 5, x2: px + 5, y: py, half: 5 }));
  taken.push(...curve.singles.map(place).map(([px, py]) => ({ x1: px - 6, x2: px + 6, y: py, half: 6 })));
  const served = new Set(data.models.map((model) => model.name));
  const weight = (one) => (one.name === curve.best ? 0 : served.has(one.name) ? 1 : isBeaten(one, curve.singles) ? 3 : 2);
  // Who matters most gets a label first; where there is no room, the point's title says the name.
  for (const single of [...curve.singles].sort((a, b) => weight(a) - weight(b))) {
    const texts = single.name === curve.best ? [`${single.name} (best single)`, single.name] : [single.name];
    texts.find((text) => label(picture, taken, width, ...place(single), text));
  }
  for (const single of curve.singles) {
    const [cx, cy] = place(single);
    picture.append(draw("circle", { class: "single", "data-hue": hue(single.name), cx, cy, r: single.name === curve.best ? 5.5 : 4.5 },
      draw("title", { text: `${single.name}: ${say.share(single.quality)} at ${say.usd(single.usd_per_1k)}` })));
  }
  for (const point of dial) {
    const [cx, cy] = place(point);
    picture.append(draw("path", { class: "cross", d: `M52,${cy}H${cx}V212` }),
      draw("circle", { class: "halo", cx, cy, r: 12 }), draw("circle", { class: "dial", cx, cy, r: 6 },
        draw("title", { text: curve.dial.text })));
  }
  put(at("curve"), picture, make("figcaption", {}, make("span", { class: "key dial" }), "the dial: ",
    make("b", { text: curve.dial.text }), " \u2192 ",
    number("dial.quality", curve.dial.quality, say.share(curve.dial.quality)), " at ",
    number("dial.usd_per_1k", curve.dial.usd_per_1k, say.usd(curve.dial.usd_per_1k)),
    curve.dial.router_decides ? "" : ", by a single model: the guard keeps the router out"));
}

// Whether another model is better and not dearer, or cheaper and not worse.
function isBeaten(one, singles) {
  return singles.some((other) => other.quality >= one.quality && other.usd_per_1k <= one.usd_per_1k
    && (other.quality > one.quality || other.usd_per_1k < one.usd_per_1k));
}

// A label stands where nothing else does: right of its point, left, below or above; else nowhere, which is told.
function label(picture, taken, edge, cx, cy, text) {
  const length = text.length * 7;
  const spots = [[cx + 10, cy], [cx - 10 - length, cy], [cx - length / 2, cy + 17], [cx - length / 2, cy - 16], [cx - 10 - length, cy + 15], [cx + 8, cy + 15]];
  const boxes = spots.map(([x1, y]) => ({ x1, x2: x1 + length, y, half: 6 }));
  const isFree = (box) => box.x1 > 50 && box.x2 < edge && !taken.some((other) =>
    box.x1 < other.x2 && other.x1 < box.x2 && Math.abs(box.y - other.y) < box.half + other.half);
  const box = boxes.find(isFree);
  if (!box) return false;
  taken.push(box);
  picture.append(draw("text", { class: "name", x: box.x1, y: box.y + 4, text }));
  return true;
}

function curveInWords(curve) {
  const singles = curve.singles.map((one) => `${one.name} ${say.share(one.quality)} at ${say.usd(one.usd_per_1k)}`);
  return `The router from ${say.usd(curve.router[0].usd_per_1k)} to ${say.usd(curve.router.at(-1).usd_per_1k)} per 1,000 requests. ` + singles.join(", ");
}

export function speed(data) {
  const rows = data.speeds.models.filter((model) => model.latency_s.count);
  if (!rows.length) {
    put(at("speed"), make("p", { class: "empty", text: "No answer yet in this span." }));
    return;
  }
  const values = rows.flatMap((model) => [model.latency_s.p50, model.latency_s.p99]).filter((value) => value > 0);
  const width = widthOf("speed");
  const left = Math.min(140, Math.max(...rows.map((model) => model.name.length)) * 7 + 14);
  const x = scale(values, left, width - 14);
  const height = rows.length * 32 + 34;
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": rows.map(speedInWords).join("; ") },
    ...x.ticks.flatMap((value) => [
      draw("line", { class: "rule", x1: x(value), x2: x(value), y1: 6, y2: height - 24 }),
      draw("text", { class: "tick", x: x(value), y: height - 8, "text-anchor": "middle", text: roundTime(value) })]));
  rows.forEach((model, place) => {
    const y = place * 32 + 22;
    const { p50, p90, p99 } = model.latency_s;
    const name = model.name.length > 19 ? model.name.slice(0, 18) + "\u2026" : model.name;
    picture.append(draw("g", {}, draw("title", { text: speedInWords(model) }),
      draw("text", { class: "name", x: 0, y: y + 4, text: name }),
      draw("line", { class: "range", "data-hue": hue(model.name), x1: x(p50), x2: x(p99), y1: y, y2: y }),
      draw("circle", { class: "median", "data-hue": hue(model.name), cx: x(p50), cy: y, r: 5 }),
      draw("circle", { class: "ninety", "data-hue": hue(model.name), cx: x(p90), cy: y, r: 4 }),
      draw("line", { class: "last", "data-hue": hue(model.name), x1: x(p99), x2: x(p99), y1: y - 5, y2: y + 5 })));
  });
  put(at("speed"), picture);
}

function roundTime(value) {
  return value < 1 ? Math.round(value * 1e4) / 10 + "\u202fms" : value + "\u202fs";
}

function speedInWords(model) {
  const { p50, p90, p99 } = model.latency_s;
  return `${model.name}: ${say.seconds(p50)}, ${say.seconds(p90)}, ${say.seconds(p99)}`;
}

function linear(values, low, high) {
  let [min, max] = [Math.min(...values), Math.max(...values)];
  const room = (max - min || 0.1) * 0.12;
  [min, max] = [min - room, max + room];
  const to = (value) => low + ((value - min) / (max - min)) * (high - low);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((size) => (max - min) / size <= 5) ?? 1;
  to.ticks = [];
  for (let value = Math.ceil(min / step) * step; value <= max; value += step) to.ticks.push(value);
  return to;
}

// Logarithmic: costs and times differ by factors, not by differences.
function scale(values, left, right) {
  const known = values.length ? values : [1];
  const min = Math.log10(Math.min(...known)) - 0.08;
  const max = Math.log10(Math.max(...known)) + 0.08;
  const span = Math.max(max - min, 0.3);
  const to = (value) => left + ((Math.log10(Math.max(value, 1e-12)) - min) / span) * (right - left);
  const marks = span > 2.2 ? [1] : span > 0.9 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
  const all = [];
  for (let power = Math.floor(min); power <= Math.ceil(min + span); power += 1) {
    for (const mark of marks) {
      const value = mark * 10 ** power;
      if (Math.log10(value) >= min && Math.log10(value) <= min + span) all.push(value);
    }
  }
  const every = Math.ceil(all.length / 6);
  to.ticks = all.filter((_, place) => place % every === 0);
  return to;
}
