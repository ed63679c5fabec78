// Shows status.json every few seconds. Names come from a bucket that others write to: they are only ever set as text.
"use strict";

const EVERY_MS = 5000;
const ROWS_SHOWN = 50;
const HEIGHT = 176, LEFT = 68, RIGHT = 8, TOP = 8, BOTTOM = 22;

const byId = (id) => document.getElementById(id);
const say = (id, text) => { byId(id).textContent = text; };

function scaled(number, units, base) {
  let unit = 0;
  while (number >= base && unit + 1 < units.length) { number /= base; unit += 1; }
  const digits = unit === 0 || number >= 100 ? 0 : 1;
  return number.toFixed(digits) + units[unit];
}
const bytes = (number) => scaled(number, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
const count = (number) => number < 100000 ? Math.round(number).toLocaleString("en") : scaled(number, ["", " k", " M", " G"], 1000);
const perSecond = (number) => number < 10 ? String(Math.round(number * 10) / 10) + "/s" : count(number) + "/s";
const millis = (number) => number < 10 ? number.toFixed(1) + " ms" : number < 1000 ? number.toFixed(0) + " ms" : (number / 1000).toFixed(1) + " s";
const dollars = (number) => "$" + (number < 0.01 ? number.toFixed(4) : number.toFixed(2));
const total = (counts) => Object.values(counts).reduce((sum, one) => sum + one, 0);

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  let rest = Math.floor(seconds);
  const shown = [];
  for (const [length, unit] of parts) {
    if (rest >= length && shown.length < 2) { shown.push(Math.floor(rest / length) + unit); rest %= length; }
    else if (shown.length > 0) break;
  }
  return shown.join(" ") || "0s";
}

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A value at or above the largest one that is easy to read: 1, 2 or 5 times a power of the base.
function ceiling(most, base) {
  if (!(most > 0)) return 1;
  let step = Math.pow(base, Math.floor(Math.log(most) / Math.log(base)));
  const factors = base === 10 ? [1, 2, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  return step * (factors.find((factor) => step * factor >= most) || base);
}

function path(values, ago, span, most, width) {
  let text = "", pen = false;
  values.forEach((value, index) => {
    if (value === null) { pen = false; return; }
    const x = LEFT + (width - LEFT - RIGHT) * (1 - ago[index] / span);
    const y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(value / most, 1));
    text += (pen ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1) + (pen ? "" : "h0.01");
    pen = true;
  });
  return text;
}

// lines: [{name, values, kind: one or two, faint}]
function plot(id, lines, ago, show, base, least) {
  const svg = byId(id);
  const width = Math.max(280, svg.clientWidth);
  const most = ceiling(Math.max(least || 0, ...lines.flatMap((line) => line.values.filter((value) => value !== null))), base);
  const span = Math.max(300, Math.ceil((ago[0] || 0) / 300) * 300);
  const drawn = [];
  for (const part of [0, 0.5, 1]) {
    const y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - part);
    drawn.push(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    drawn.push(element("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, show(most * part)));
  }
  for (const [part, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
    const x = LEFT + (width - LEFT - RIGHT) * (1 - part);
    const text = part === 0 ? "now" : "−" + duration(span * part);
    drawn.push(element("text", { x, y: HEIGHT - 5, "text-anchor": anchor }, text));
  }
  for (const line of lines) drawn.push(element("path", { class: line.kind + (line.faint ? " faint" : ""), d: path(line.values, ago, span, most, width) }));
  svg.setAttribute("viewBox", "0 0 " + width + " " + HEIGHT);
  svg.replaceChildren(...drawn);
  const keys = lines.filter((line) => !line.faint).map((line) => {
    const key = document.createElement("span");
    const last = line.values.findLast((value) => value !== null);
    key.className = line.kind;
    key.textContent = line.name + " " + (last === undefined ? "–" : show(last));
    return key;
  });
  document.querySelector('[data-plot="' + id + '"]').replaceChildren(...keys);
}

function rows(id, table) {
  byId(id).replaceChildren(...table.map((cells) => {
    const row = document.createElement("tr");
    for (const [text, kind] of cells) {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (kind) cell.className = kind;
      row.append(cell);
    }
    return row;
  }));
}

function tiles(status) {
  say("dirty", status.dirty_files === 0 ? "nothing" : count(status.dirty_files) + (status.dirty_files === 1 ? " file" : " files"));
  const age = status.oldest_dirty_seconds === null ? "" : ", the oldest since " + duration(status.oldest_dirty_seconds);
  say("dirty-more", status.dirty_files === 0 ? "all is in the bucket" : bytes(status.dirty_bytes) + age + "; " + status.uploading + " on the way");
  say("failed", count(status.failed_files));
  byId("failed").className = "figure" + (status.failed_files > 0 ? " bad" : "");
  say("failed-more", status.conflicts === 0 ? "no conflicts" : count(status.conflicts) + (status.conflicts === 1 ? " conflict" : " conflicts"));
  const part = status.cache_bytes / Math.max(1, status.cache_limit_bytes);
  say("cache", bytes(status.cache_bytes));
  byId("cache-bar").style.width = Math.min(100, part * 100).toFixed(1) + "%";
  say("cache-more", "of " + bytes(status.cache_limit_bytes) + " in " + status.cache_dir);
  say("moved", bytes(status.uploaded_bytes + status.downloaded_bytes));
  say("moved-more", bytes(status.uploaded_bytes) + " up, " + bytes(status.downloaded_bytes) + " down");
  const failures = total(status.request_failures);
  say("requests", count(total(status.requests)));
  say("requests-more", count(status.billed.writes) + " writes, " + count(status.billed.reads) + " reads; " + count(failures) + " failed");
  say("cost", status.cost ? dollars(status.cost.dollars) : "–");
  const month = status.cost && status.cost.dollars_a_month;
  say("cost-more", !status.cost ? "set [prices] in the configuration" : month === null ? "so far, without storage" : dollars(month) + " a month at this rate, without storage");
}

function show({ status, history }) {
  const prefix = status.prefix.replace(/\/$/, "");
  say("source", "s3://" + status.bucket + (prefix ? "/" + prefix : ""));
  document.title = (status.failed_files > 0 || status.degraded ? "⚠ " : "") + byId("source").textContent;
  say("where", status.mountpoint + (status.read_only ? ", read-only" : ", write mode " + status.write_mode) + ", up " + duration(status.uptime_seconds));
  const health = byId("health");
  health.className = "badge " + (status.degraded ? "bad" : "good");
  health.textContent = status.degraded ? "the bucket doesn't answer since " + status.degraded.since : "the bucket answers";
  health.title = status.degraded ? status.degraded.error : "";
  tiles(status);
  const ago = history.seconds_ago;
  plot("throughput", [{ name: "up", values: history.up, kind: "one" }, { name: "down", values: history.down, kind: "two" }], ago, (value) => bytes(value) + "/s", 1024);
  plot("latency", [
    { name: "95 % of reads", values: history.read_95_ms, kind: "two", faint: true }, { name: "95 % of writes", values: history.write_95_ms, kind: "one", faint: true },
    { name: "writes", values: history.write_ms, kind: "one" }, { name: "reads", values: history.read_ms, kind: "two" },
  ], ago, millis, 10);
  plot("rate", [{ name: "all", values: history.requests, kind: "one" }, { name: "failed", values: history.failures, kind: "two" }], ago, perSecond, 10);
  plot("waiting", [{ name: "files", values: history.dirty_files, kind: "one" }], ago, count, 10, 2);
  byId("failures").hidden = status.failed_files === 0;
  rows("failure-rows", status.failed.slice(0, ROWS_SHOWN).map((file) => [[file.path], [file.error], [file.since.replace("T", " ").replace("Z", ""), "moment"]]));
  const more = status.failed_files - Math.min(status.failed.length, ROWS_SHOWN);
  say("failures-more", more > 0 ? "… and " + count(more) + " more" : "");
  rows("operation-rows", Object.entries(status.requests).map(([name, number]) => [[name], [count(number), "number"], [count(status.request_failures[name] || 0), "number"]]));
  say("version", "mediafs " + status.version);
}

async function refresh() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
    show(await answer.json());
  } catch (problem) {
    const health = byId("health");
    health.className = "badge bad";
    health.textContent = "mediafs doesn't answer: " + problem.message;
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
