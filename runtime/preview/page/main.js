// Puts the page together: what arrives is shown, what is touched is sent.

import { Chart } from "./charts.js";
import { Link } from "./link.js";
import { Picture } from "./picture.js";

const STALE_MS = 3000;
const LENGTH = 240; // samples in a chart, as many as the server keeps
// The three that matter first: what came, what was given up, what was too slow. Name -> what is shown, and its tooltip.
const COUNTERS = {
  captured: ["captured", "Frames that came from the camera"],
  dropped: ["dropped for newer", "Frames given up before they were restored, because a newer one was there"],
  late: ["late", "Frames that took longer than the deadline"],
  dropped_at_sink: ["dropped at the sink", "Restored frames that the sink was too slow to write"],
  passed: ["sharp, passed on", "Frames that were sharp already and were passed on as they came"],
  lost: ["damaged", "Frames that could not be decoded"],
  stalls: ["stalls", "Times the camera gave no frame for too long"],
  reconnects: ["reconnects", "Times the camera was opened again"],
};

const at = (id) => document.getElementById(id);
const picture = new Picture({
  stage: at("stage"),
  canvas: at("picture"),
  handle: at("handle"),
  onZoom: (zoom) => { at("zoom").value = `${Math.round(zoom * 100)} %`; },
});
const charts = makeCharts();
let frozen = false;
let held = false; // frozen, and the frame to look at is on the screen
let owed = 0; // pictures that came while frozen, to be acknowledged afterwards
let lastPictureAt = -Infinity;
let connected = false;
let rungNames = [];

const link = new Link({ state: showLink, text: showText, picture: showPicture });

function makeCharts() {
  const make = (id, title, unit, names, colours = ["--accent", "--second"]) => new Chart(at(id), {
    title,
    unit,
    length: LENGTH,
    series: names.map((name, index) => ({ name, colour: colours[index] })),
  });
  return [
    [make("latency", "Latency", "ms", ["p50", "p99"]), (sample) => [sample.p50_ms, sample.p99_ms]],
    [make("fps", "Frames per second", "", [""]), (sample) => [sample.fps]],
    [make("taken", "Rung of the ladder", "", [""]), (sample) => [sample.rung]],
    [make("dropped", "Dropped per second", "", [""]), (sample) => [sample.dropped]],
    [make("temperature", "Temperature", "°C", [""]), (sample) => [sample.temperature_c]],
  ];
}

function showLink(name, text) {
  connected = name === "connected";
  owed = connected ? 0 : owed;
  setStatus(name, text);
}

function setStatus(name, text) {
  const status = at("link");
  if (status.dataset.state !== name || status.textContent !== text) {
    status.dataset.state = name;
    status.textContent = text;
  }
}

async function showPicture(message) {
  if (message.header.still !== frozen) {
    owed += message.header.still ? 0 : 1;
    return;
  }
  await picture.show(message);
  lastPictureAt = performance.now();
  at("waiting").hidden = true;
  const { index, rung, ms, size } = message.header;
  const work = rung === 0 ? "passed on" : `${rungNames[rung - 1]}, ${ms.toFixed(0)} ms`;
  at("frame").textContent = `frame ${index} · ${work} · ${size[1]} × ${size[0]}`;
  at("frame").dataset.index = index;
  if (!message.header.still) {
    link.send({ drawn: true });
  } else if (frozen) {
    held = true;
    setStatus("frozen", "Frozen");
  }
}

function showText({ hello, state, sample }) {
  if (hello) {
    if (hello.size_hw) {
      picture.setRatio(...hello.size_hw);
    }
    at("about").textContent = `${hello.source} · ${hello.model}`;
    document.title = `unblur · ${hello.source}`;
    charts.forEach(([chart]) => chart.clear());
    hello.history.forEach(addSample);
  }
  if (sample) {
    addSample(sample);
  }
  if (hello || sample) {
    charts.forEach(([chart]) => chart.draw());
  }
  rungNames = state.rungs.map(({ name }) => name);
  if (link.settled) { // else the state may be from before a change and would undo it
    showControls(state);
  }
  showCounters(state);
  if (connected) {
    const stale = !frozen && performance.now() - lastPictureAt > STALE_MS && sample?.fps === 0;
    setStatus(stale ? "stale" : held ? "frozen" : "live", stale ? "No frames" : held ? "Frozen" : "Live");
  }
}

function addSample(sample) {
  charts.forEach(([chart, values]) => chart.add(values(sample)));
  if (sample.temperature_c !== null) {
    at("temperature").hidden = false;
  }
}

function showCounters({ counters, histogram, device, viewers }) {
  const byRung = Object.entries(histogram).filter(([name]) => rungNames.includes(name));
  const rows = [
    ...Object.entries(COUNTERS).map(([name, [text, tip]]) => [text, counters[name], tip]),
    ...byRung.map(([name, frames]) => [`by ${name}`, frames, `Frames restored by ${name}`]),
    ["watching", viewers, "Pages that show this camera"],
    ["device", device, "What runs the network"],
  ];
  const box = at("counters");
  const key = rows.map(([text]) => text).join();
  if (box.dataset.key !== key) { // else the nodes stay, and with them the tooltip that is shown
    box.dataset.key = key;
    box.replaceChildren(...rows.map(([text, value, tip]) => {
      const [row, term, detail] = ["div", "dt", "dd"].map((name) => document.createElement(name));
      row.title = tip;
      term.textContent = text;
      row.append(term, detail);
      row.classList.toggle("wide", typeof value === "string");
      return row;
    }));
  }
  rows.forEach(([, value], index) => {
    const text = typeof value === "number" ? value.toLocaleString("en").replaceAll(",", "\u2009") : value;
    box.children[index].lastChild.textContent = text;
  });
}

function showControls({ highest_rung, deadline_ms, gate, strength, precision, precisions, opening, error, rungs }) {
  const choices = rungs.map(({ name, ms, db }, index) => ({
    value: index + 1,
    text: name,
    note: db === null ? `${ms.toFixed(0)} ms` : `${ms.toFixed(0)} ms, ${db.toFixed(2)} dB`,
  }));
  const chosen = Math.min(highest_rung ?? rungs.length, rungs.length);
  offer("rungs", choices, chosen, (value) => ({ highest_rung: value === rungs.length ? null : value }));
  offer("precision", precisions.map((value) => ({ value, text: value })), opening ?? precision,
        (value) => ({ precision: value }));
  at("timed").checked = deadline_ms !== null;
  at("deadline").disabled = deadline_ms === null;
  if (deadline_ms !== null && document.activeElement !== at("deadline")) {
    at("deadline").value = Number(deadline_ms.toFixed(1));
  }
  at("gate").checked = gate;
  if (document.activeElement !== at("strength")) {
    at("strength").value = strength;
  }
  at("share").value = `${Math.round(at("strength").value * 100)} %`;
  const notice = opening ? `Opening ${opening}; the loop stands still meanwhile` : error ?? "";
  if (at("notice").textContent !== notice) {
    at("notice").textContent = notice;
  }
}

/** Radio buttons; made anew only when what they offer changes, so that the focus stays. */
function offer(id, choices, chosen, message) {
  const box = at(id);
  const key = JSON.stringify(choices);
  if (box.dataset.key !== key) {
    box.dataset.key = key;
    box.replaceChildren(...choices.map(({ value, text, note }) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: id, value });
      input.addEventListener("change", () => link.change(message(value)));
      const face = document.createElement("span");
      const small = document.createElement("small");
      small.textContent = note ?? "";
      face.append(text, ...(note ? [small] : []));
      label.append(input, face);
      return label;
    }));
  }
  for (const input of box.querySelectorAll("input")) {
    input.checked = input.value === String(chosen);
  }
}

at("freeze").addEventListener("click", () => {
  frozen = !frozen;
  held = false;
  at("freeze").setAttribute("aria-pressed", frozen);
  if (frozen) {
    link.send({ still: true });
  } else {
    for (; owed > 0; owed -= 1) {
      link.send({ drawn: true });
    }
  }
});
at("in").addEventListener("click", () => picture.zoomIn());
at("out").addEventListener("click", () => picture.zoomOut());
at("fit").addEventListener("click", () => picture.fit());
at("timed").addEventListener("change", () => {
  at("deadline").disabled = !at("timed").checked;
  at("deadline").value ||= 33;
  sendDeadline();
});
at("deadline").addEventListener("change", sendDeadline);
at("gate").addEventListener("change", () => link.change({ gate: at("gate").checked }));
at("strength").addEventListener("input", () => {
  at("share").value = `${Math.round(at("strength").value * 100)} %`;
  link.change({ strength: at("strength").valueAsNumber });
});

function sendDeadline() {
  if (!at("timed").checked) {
    link.change({ deadline_ms: null });
  } else if (at("deadline").checkValidity()) {
    link.change({ deadline_ms: at("deadline").valueAsNumber });
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(([chart]) => chart.draw()));
history.replaceState(null, "", location.pathname); // the token is in the cookie now and need not stay in view
