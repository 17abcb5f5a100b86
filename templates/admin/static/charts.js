// Charts of the last hours, continued live. A gap in the samples stays a gap.
import { element, listen } from "./page.js";

const EVERY_SECONDS = 5;
const GAP_SECONDS = 20;
const LONGEST_SECONDS = 6 * 3600;
const HEIGHT = 150;

const plain = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const duration = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);

const CHARTS = {
  line: { value: plain, series: [["waiting", "Waiting", "--one", "fill"]] },
  flow: {
    value: plain,
    series: [["joined_per_minute", "Joined", "--one"], ["admitted_per_minute", "Admitted", "--three"],
      ["rate_per_minute", "Rate", "--limit", "limit"]],
  },
  inside: { value: plain, series: [["active", "Active", "--two", "fill"], ["max_active", "Max active", "--limit", "limit"]] },
  shop: { value: duration, series: [["p50_seconds", "p50", "--two"], ["p95_seconds", "p95", "--one"]] },
};
const KEYS = [...new Set(Object.values(CHARTS).flatMap(({ series }) => series.map(([key]) => key)))];

const name = document.getElementById("page").dataset.room;
let span = 3600;
let data = { at: [], ...Object.fromEntries(KEYS.map((key) => [key, []])) };
let charts = [];
let pending = [];

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function colour(variable) { return getComputedStyle(document.documentElement).getPropertyValue(variable).trim(); }

function add(at, sample) {
  const last = data.at.at(-1);
  if (last !== undefined && at - last > GAP_SECONDS) {
    data.at.push(last + 1);
    for (const key of KEYS) data[key].push(null);
  }
  data.at.push(at);
  for (const key of KEYS) data[key].push(sample[key] ?? null);
}

// The newest point follows the feed until its interval is over; then it is fixed and the next one begins.
function follow(at, sample) {
  const [before, last] = data.at.slice(-2);
  if (last !== undefined && at > before && (last - before < EVERY_SECONDS || at <= last)) {
    data.at.pop();
    for (const key of KEYS) data[key].pop();
  }
  if (!data.at.length || at > data.at.at(-1)) add(at, sample);
  while (data.at[0] < at - LONGEST_SECONDS) {
    data.at.shift();
    for (const key of KEYS) data[key].shift();
  }
}

function draw() {
  const end = data.at.at(-1);
  if (end === undefined) return;
  for (const { plot, series } of charts) {
    plot.setData([data.at, ...series.map(([key]) => data[key])], false);
    plot.setScale("x", { min: end - span, max: end });
  }
}

function options(chart, legend, width) {
  const axis = { stroke: colour("--soft"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const outputs = chart.series.map(([, label, variable, kind]) => {
    const key = element("span", undefined, { className: "key" });
    const dash = kind === "limit" ? ' stroke-dasharray="4 3"' : "";
    key.innerHTML = `<svg width="14" height="3" aria-hidden="true"><path d="M0 1.5h14" stroke="${colour(variable)}" stroke-width="3"${dash}/></svg>`;
    key.append(element("span", label), element("span", "–", { className: "value" }));
    legend.append(key);
    return key.lastChild;
  });
  const updateLegend = (plot) => {
    const index = plot.cursor.idx ?? plot.data[0].length - 1;
    outputs.forEach((output, i) => {
      const value = plot.data[i + 1][index];
      output.textContent = value == null ? "–" : chart.value(value);
    });
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "room" }, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { y: { range: (_plot, _low, high) => [0, Math.max(high * 1.12 || 0, 0.001)] } },
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 26, values: (_plot, splits) => splits.map(clock) },
      { ...axis, grid: { stroke: colour("--grid"), width: 1 }, space: 28, size: 52,
        values: (_plot, splits) => splits.map((value) => (value === 0 ? "0" : chart.value(value))) },
    ],
    series: [{}, ...chart.series.map(([, label, variable, kind]) => ({
      label,
      stroke: colour(variable),
      fill: kind === "fill" ? `${colour(variable)}1f` : undefined,
      width: kind === "limit" ? 1.25 : 1.75,
      dash: kind === "limit" ? [5, 4] : undefined,
      points: { show: false },
    }))],
    hooks: { setCursor: [updateLegend], setData: [updateLegend] },
  };
}

function build() {
  for (const { plot } of charts) plot.destroy();
  charts = [...document.querySelectorAll("[data-chart]")].map((figure) => {
    const chart = CHARTS[figure.dataset.chart];
    const box = figure.querySelector(".plot");
    const legend = figure.querySelector(".legend");
    legend.replaceChildren();
    const plot = new uPlot(options(chart, legend, box.clientWidth), [[], ...chart.series.map(() => [])], box);
    return { plot, box, series: chart.series, title: figure.querySelector("b").textContent, value: chart.value };
  });
  draw();
  describe();
}

// Text alternatives for screen readers.
function describe() {
  for (const { box, series, title, value } of charts) {
    const parts = series.map(([key, label]) => {
      const values = data[key].filter((each) => each !== null);
      if (!values.length) return `${label}: no data`;
      return `${label}: now ${value(values.at(-1))}, max ${value(Math.max(...values))}`;
    });
    box.setAttribute("aria-label", `${title}, the last ${span / 60} minutes. ${parts.join(". ")}.`);
  }
}

function flat(room) { return { ...room, ...room.shop }; }

// Samples hold counters. Rates are differences to the newest sample that is a minute old.
function withRates(samples) {
  let from = 0;
  return samples.map((sample, index) => {
    while (sample.at - samples[from].at > 60) from += 1;
    const before = samples[from];
    const minutes = (sample.at - before.at) / 60;
    const rate = (key) => (index === from ? null : Math.max(0, sample[key] - before[key]) / minutes);
    return { ...flat(sample), joined_per_minute: rate("joined"), admitted_per_minute: rate("admitted") };
  });
}

async function load() {
  const path = `/api/v1/rooms/${encodeURIComponent(name)}/history?seconds=${LONGEST_SECONDS}`;
  const answer = await fetch(path, { cache: "no-store" }).catch(() => null);
  if (answer && answer.ok) {
    const { samples } = await answer.json();
    for (const sample of withRates(samples)) add(sample.at, sample);
  }
  for (const [at, sample] of pending) follow(at, sample);
  pending = null;
  draw();
  describe();
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    span = Number(button.dataset.span);
    for (const each of document.querySelectorAll("[data-span]")) each.setAttribute("aria-pressed", String(each === button));
    draw();
    describe();
  });
}

build();
load();
listen(name, (room, _texts, at) => {
  if (pending) pending.push([at, flat(room)]);
  else { follow(at, flat(room)); draw(); }
});
new ResizeObserver(() => {
  for (const { plot, box } of charts) if (box.clientWidth !== plot.width) plot.setSize({ width: box.clientWidth, height: HEIGHT });
}).observe(document.getElementById("charts"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
setInterval(describe, 60_000);
