// The dashboard: draws what /v1/stream sends. Data becomes text nodes and attributes, never markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const MINUTES = 60;
const WIDTH = 600;
const HEIGHT = 120;

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: "UTC" });
const minuteClock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "UTC" });

const view = { live: null, now: null, measure: "clicks", campaign: null, source: null, isOpen: false };

// Makes an element; strings among the children become text.
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    element.setAttribute(key, String(value));
  }
  element.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return element;
}

function money(micros, currency) {
  if (currency === "XXX") {
    return micros === 0 ? "no price" : whole.format(micros / 1e6);
  }
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(micros / 1e6);
  } catch {
    return `${whole.format(micros / 1e6)} ${currency}`;
  }
}

const rate = (part, all) => (all > 0 ? percent.format(part / all) : "–");

function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

function setState(word, kind) {
  const state = byId("state");
  state.textContent = word;
  state.className = `pill ${kind}`;
}

function showFacts() {
  const { live, now } = view;
  if (!live) return;
  const asOf = live.asOf ? new Date(live.asOf) : null;
  byId("as-of").textContent = asOf ? `${live.asOf.slice(0, 10)} ${clock.format(asOf)} UTC` : "nothing counted yet";
  byId("behind").textContent = asOf && now ? duration((now - asOf) / 1000) : "–";
  byId("p95").textContent = live.ingestP95Ms ? `${whole.format(live.ingestP95Ms)} ms` : "–";
  byId("lag").textContent = whole.format(live.lagRecords);
  if (!view.isOpen) return;
  if (live.stale) setState("stale: the speed layer is behind", "warn");
  else setState("live", "good");
}

function chart(campaign, from) {
  const counts = new Map(campaign.minutes.map((m) => [m.offset, m]));
  const value = (offset) => counts.get(offset)?.[view.measure] ?? 0;
  let peak = 0;
  let total = 0;
  for (let i = 0; i < MINUTES; i += 1) {
    peak = Math.max(peak, value(i));
    total += value(i);
  }
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "bars" });
  const about = `${view.measure} per minute of campaign ${campaign.campaignId} in the last hour: ${whole.format(total)} in all, at most ${whole.format(peak)} in a minute`;
  svg.setAttribute("aria-label", about);
  for (let i = 0; i < MINUTES; i += 1) {
    const minute = counts.get(i);
    if (!minute || value(i) === 0) continue;
    const height = Math.max(2, (value(i) / peak) * (HEIGHT - 4));
    const slot = WIDTH / MINUTES;
    const bar = draw("rect", { class: minute.finality, x: i * slot + 1, y: HEIGHT - height, width: slot - 2, height });
    const at = minuteClock.format(new Date(from.getTime() + i * 60000));
    bar.append(draw("title", {}, `${at} UTC: ${whole.format(value(i))} ${view.measure}, ${minute.finality}`));
    svg.append(bar);
  }
  return { svg, total, peak };
}

function campaignCard(campaign, from, to) {
  const { svg, total, peak } = chart(campaign, from);
  const sum = (name) => campaign.minutes.reduce((all, m) => all + m[name], 0);
  const costs = Object.entries(campaign.costMicros).map(([currency, micros]) => money(micros, currency));
  const facts = `click rate ${rate(sum("clicks"), sum("impressions"))} · ${costs.join(" + ") || "no cost"}`;
  const head = make("div", { class: "card-head" }, make("h3", {}, campaign.campaignId), make("p", {}, make("b", {}, whole.format(total)), ` ${view.measure}`));
  const axis = make("p", { class: "axis", "aria-hidden": "true" }, make("span", {}, minuteClock.format(from)), make("span", {}, `peak ${whole.format(peak)}`), make("span", {}, minuteClock.format(to)));
  return make("article", { class: "card" }, head, svg, axis, make("p", { class: "note" }, facts));
}

function showCampaigns() {
  const { live } = view;
  const from = new Date(live.from);
  const to = new Date(live.to);
  const cards = live.campaigns.map((campaign) => campaignCard(campaign, from, to));
  const empty = view.campaign ? `Nothing was counted for ${view.campaign} in the last hour.` : "Nothing was counted in the last hour.";
  const isEmpty = live.campaigns.every((campaign) => campaign.minutes.length === 0);
  byId("campaigns").replaceChildren(...(isEmpty ? [make("p", { class: "empty" }, empty)] : cards));
}

function showTop() {
  const rows = view.live.top.map((line) => {
    const follow = make("button", { type: "button", class: "link" }, line.campaignId);
    follow.addEventListener("click", () => followCampaign(line.campaignId));
    const cells = [whole.format(line.clicks), whole.format(line.impressions), rate(line.clicks, line.impressions), whole.format(line.conversions), money(line.costMicros, line.currency)];
    const finality = make("td", {}, make("span", { class: `tag ${line.finality}` }, line.finality));
    return make("tr", {}, make("th", { scope: "row" }, follow), ...cells.map((text) => make("td", {}, text)), finality);
  });
  const none = make("tr", {}, make("td", { colspan: "7", class: "empty" }, "No campaign had clicks in the last hour."));
  byId("top").replaceChildren(...(rows.length ? rows : [none]));
}

function showOutcomes() {
  const { outcomes } = view.live;
  byId("outcomes-section").hidden = !outcomes || Object.keys(outcomes).length === 0;
  if (!outcomes) return;
  const lines = Object.entries(outcomes).sort((a, b) => b[1] - a[1]);
  const all = lines.reduce((sum, [, count]) => sum + count, 0);
  const rows = lines.map(([name, count]) => make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")), make("td", {}, whole.format(count)), make("td", {}, rate(count, all))));
  rows.push(make("tr", { class: "sum" }, make("th", { scope: "row" }, "read from the log"), make("td", {}, whole.format(all)), make("td", {}, rate(all, all))));
  byId("outcomes").replaceChildren(...rows);
}

const STATUS = {
  measured: "drift measured, being corrected",
  overTolerance: "drift over tolerance: nothing was overwritten",
  corrected: "corrected: what is shown is exact",
};

function dayRows(before, after) {
  const then = after?.find((line) => line.currency === before.currency);
  const measures = [["impressions", whole.format], ["clicks", whole.format], ["conversions", whole.format], ["costMicros", (micros) => money(micros, before.currency)]];
  return measures.map(([name, format]) => {
    const [shown, exact] = before[name];
    const off = shown - exact;
    const left = then ? then[name][0] - then[name][1] : null;
    const word = (n) => (n === 0 ? "0" : `${n > 0 ? "+" : "−"}${format(Math.abs(n))}`);
    const label = name === "costMicros" ? "cost" : name;
    return make("tr", {}, make("th", { scope: "row" }, label), make("td", {}, format(shown)), make("td", {}, format(exact)), make("td", { class: off === 0 ? "same" : "off" }, word(off)), make("td", { class: left === 0 ? "same" : "off" }, left === null ? "–" : word(left)));
  });
}

function dayCard(day) {
  const settled = day.settlementVersion ? `settled, version ${day.settlementVersion}` : "not settled yet";
  const badge = make("span", { class: `tag ${day.settlementVersion ? "settled" : "provisional"}` }, settled);
  const card = make("article", { class: "card" }, make("div", { class: "card-head" }, make("h3", {}, day.day), badge));
  card.append(make("p", { class: "note" }, `${STATUS[day.status] || day.status} · ${whole.format(day.campaignHoursDiffering)} campaign hours were off`));
  if (day.bounds) {
    const { windows, insidePpm, medianWidthPpm } = day.bounds;
    const percent = (ppm) => `${(ppm / 10_000).toFixed(1)} %`;
    card.append(make("p", { class: "note" }, `${percent(insidePpm)} of ${whole.format(windows)} campaign hours were within their error bounds (median width ${percent(medianWidthPpm)})`));
  }
  for (const before of day.before) {
    const head = make("tr", {}, ...[before.currency === "XXX" ? "no currency" : before.currency, "shown", "exact", "off before", "off after"].map((text) => make("th", { scope: "col" }, text)));
    card.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...dayRows(before, day.after)))));
  }
  if (day.settlementVersion && view.live.outcomes) {
    card.append(make("p", { class: "note" }, make("a", { href: `/v1/reports/reconcile/${day.day}/files` }, "settlement files"), " · ", make("a", { href: `/v1/drift/${day.day}` }, "full drift report")));
  }
  return card;
}

function showDays() {
  const cards = view.live.days.map(dayCard);
  byId("days").replaceChildren(...(cards.length ? cards : [make("p", { class: "empty" }, "No day has been reconciled yet.")]));
}

function showAll() {
  showFacts();
  if (!view.live) return;
  showCampaigns();
  showTop();
  showOutcomes();
  showDays();
}

function connect() {
  view.source?.close();
  const query = view.campaign ? `?campaign=${encodeURIComponent(view.campaign)}` : "";
  const source = new EventSource(`/v1/stream${query}`);
  view.source = source;
  source.addEventListener("open", () => { view.isOpen = true; showFacts(); });
  source.addEventListener("live", (event) => { view.live = JSON.parse(event.data); showAll(); });
  source.addEventListener("tick", (event) => { view.now = new Date(JSON.parse(event.data).now); showFacts(); });
  source.addEventListener("problem", (event) => {
    const problem = JSON.parse(event.data);
    view.isOpen = false;
    setState(`${problem.detail}: ${problem.fix}`, "bad");
  });
  source.addEventListener("error", () => {
    view.isOpen = false;
    // A refused stream is closed for good, a lost one is opened again by the browser.
    if (source.readyState === EventSource.CLOSED) setState(view.campaign ? "no such campaign, or signed out" : "signed out or full: reload the page", "bad");
    else setState("connection lost, trying again", "warn");
  });
}

function followCampaign(id) {
  view.campaign = id || null;
  byId("campaign").value = id || "";
  connect();
}

byId("measures").addEventListener("change", (event) => { view.measure = event.target.value; showAll(); });
byId("follow").addEventListener("submit", (event) => { event.preventDefault(); followCampaign(byId("campaign").value.trim()); });
byId("follow").addEventListener("reset", () => followCampaign(null));
connect();
