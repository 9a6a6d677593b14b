"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("report-data").textContent);
  const slider = byId("threshold");
  if (!slider) return;
  const number = byId("threshold-number");
  const ascending = (a, b) => a - b;
  const sorted = data.scores.slice().sort(ascending);
  const pick = (target) => data.scores.filter((_, i) => data.targets[i] === target).sort(ascending);
  const positives = pick(1), negatives = pick(0);
  const low = sorted[0], high = sorted[sorted.length - 1], range = high - low || 1;
  const above = high + range * 1e-6; // a threshold that flags nothing
  const cards = Array.from(document.querySelectorAll(".card"), (node) => {
    const i = Number(node.dataset.position);
    return { node, score: data.scores[i], target: data.targets[i], file: node.dataset.file, status: node.querySelector(".status") };
  });
  const kinds = {
    all: () => true,
    healthy: (card) => card.target === 0,
    anomalous: (card) => card.target === 1,
    missed: (card) => card.target === 1 && card.score < threshold,
    alarms: (card) => card.target === 0 && card.score >= threshold,
  };
  const orders = {
    high: (a, b) => b.score - a.score,
    low: (a, b) => a.score - b.score,
    near: (a, b) => Math.abs(a.score - threshold) - Math.abs(b.score - threshold),
    file: (a, b) => a.file.localeCompare(b.file, undefined, { numeric: true }),
  };
  const wholeNote = byId("gallery-note").textContent;
  let threshold = data.threshold, filter = "all", order = "high";

  const firstAtLeast = (values, limit) => {
    let left = 0, right = values.length;
    while (left < right) {
      const middle = (left + right) >> 1;
      if (values[middle] < limit) left = middle + 1; else right = middle;
    }
    return left;
  };
  const percent = (part, whole) => (whole ? (100 * part / whole).toFixed(1) + " %" : "–");
  const short = (value) => String(Number(value.toPrecision(5)));
  const put = (id, text) => { const node = byId(id); if (node) node.textContent = text; };
  const place = (id, x, y) => {
    const node = byId(id);
    if (!node) return;
    node.style.left = 100 * x + "%";
    if (y !== undefined) node.style.bottom = 100 * y + "%";
  };

  const showCounts = () => {
    const missed = firstAtLeast(positives, threshold), trueNegatives = firstAtLeast(negatives, threshold);
    const hits = positives.length - missed, alarms = negatives.length - trueNegatives;
    const flagged = sorted.length - firstAtLeast(sorted, threshold);
    put("tp", hits); put("fn", missed); put("fp", alarms); put("tn", trueNegatives);
    put("sensitivity", percent(hits, positives.length));
    put("specificity", percent(trueNegatives, negatives.length));
    put("precision", percent(hits, hits + alarms));
    put("flagged", flagged + " of " + sorted.length + " flagged");
    const sensitivity = positives.length ? hits / positives.length : 0;
    place("point-roc", negatives.length ? alarms / negatives.length : 0, sensitivity);
    place("point-pr", sensitivity, hits + alarms ? hits / (hits + alarms) : 1);
    const position = Math.min(1, Math.max(0, (threshold - low) / range));
    place("histogram-line", position);
    const line = byId("histogram-line");
    if (line) line.classList.toggle("right", position > 0.75);
  };

  const showCards = () => {
    for (const card of cards) {
      const flagged = card.score >= threshold, missed = kinds.missed(card), alarm = kinds.alarms(card);
      card.node.classList.toggle("flagged", flagged);
      card.node.classList.toggle("missed", missed);
      card.node.classList.toggle("alarm", alarm);
      card.status.textContent = missed ? "missed" : alarm ? "false alarm" : flagged ? "flagged" : "not flagged";
      card.node.hidden = !kinds[filter](card);
    }
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
      button.querySelector(".count").textContent = cards.filter(kinds[button.dataset.filter]).length;
    }
    const visible = cards.filter((card) => !card.node.hidden).length;
    put("gallery-note", filter === "all" ? wholeNote : visible + " of the " + cards.length + " images with a picture, by the filter above.");
    byId("nothing").hidden = visible > 0;
  };

  const sortCards = () => {
    cards.sort(orders[order]);
    byId("cards").append(...cards.map((card) => card.node));
  };

  const setThreshold = (value, source) => {
    threshold = value;
    if (source !== slider) slider.value = value > high ? 1000 : Math.min(999, Math.round(1000 * (value - low) / range));
    if (source !== number) number.value = short(value);
    number.style.width = Math.max(9, String(number.value).length + 5) + "ch"; // the browser's own arrows take some of it
    slider.setAttribute("aria-valuetext", "score " + short(value));
    document.documentElement.dataset.threshold = String(value);
    showCounts();
    showCards();
    if (order === "near") sortCards();
  };

  slider.addEventListener("input", () => {
    const position = Number(slider.value);
    setThreshold(position >= 1000 ? above : low + range * position / 1000, slider);
  });
  number.addEventListener("input", () => {
    const value = number.valueAsNumber;
    if (Number.isFinite(value)) setThreshold(value, number);
  });
  byId("lower").addEventListener("click", () => {
    const i = firstAtLeast(sorted, threshold) - 1;
    if (i >= 0) setThreshold(sorted[i]);
  });
  byId("higher").addEventListener("click", () => {
    const next = sorted.slice(firstAtLeast(sorted, threshold)).find((score) => score > threshold);
    setThreshold(next === undefined ? above : next);
  });
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => { filter = button.dataset.filter; showCards(); });
  }
  byId("sort").addEventListener("change", (event) => { order = event.target.value; sortCards(); });

  const viewer = byId("viewer");
  let current = null;
  const show = (card) => {
    current = card;
    byId("viewer-file").textContent = card.file;
    const parts = [card.node.querySelector(".patient"), card.node.querySelector(".chip"), card.status].filter(Boolean);
    byId("viewer-about").textContent = ["score " + short(card.score), ...parts.map((node) => node.textContent)].join("  ·  ");
    const shots = Array.from(card.node.querySelectorAll(".shot"), (shot) => shot.cloneNode(true));
    byId("viewer-shots").replaceChildren(...shots);
    if (!viewer.open) viewer.showModal();
  };
  const move = (by) => {
    const visible = cards.filter((card) => !card.node.hidden);
    const i = visible.indexOf(current) + by;
    if (visible[i]) show(visible[i]);
  };
  for (const card of cards) card.node.querySelector(".open").addEventListener("click", () => show(card));
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
  viewer.addEventListener("close", () => { if (current) current.node.querySelector(".open").focus(); });

  sortCards();
  setThreshold(threshold);
})();
