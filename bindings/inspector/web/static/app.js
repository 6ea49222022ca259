// What a page of `amberdb ui` does beyond links and forms: shortcuts, the shortcuts' dialog, copying,
// the stream of changes, charts and the map. All of it is optional: pages work without a script.
//
// Text of the database is put into the page as text (textContent), or comes as HTML that the server
// has escaped.
"use strict";

(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // -- keyboard -----------------------------------------------------------------------------

  let pending = "";
  let chosen = -1;

  const isTyping = (target) =>
    target.closest("input, textarea, select, [contenteditable]") !== null;

  function choose(step) {
    const rows = all("[data-href]");
    if (rows.length === 0) return;
    rows.forEach((row) => row.classList.remove("chosen"));
    chosen = Math.min(Math.max(chosen + step, 0), rows.length - 1);
    rows[chosen].classList.add("chosen");
    rows[chosen].scrollIntoView({ block: "nearest" });
    rows[chosen].querySelector("a")?.focus({ preventScroll: true });
  }

  function follow(keys) {
    const link = document.querySelector(`[data-key="${keys}"]`);
    if (link) link.click();
    return link !== null;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const open = document.querySelector("dialog[open]");
    if (open) return;
    if (event.key === "Escape") {
      all("details.menu[open]").forEach((menu) => menu.removeAttribute("open"));
      if (isTyping(event.target)) event.target.blur();
      return;
    }
    if (isTyping(event.target)) return;
    const keys = pending ? `${pending} ${event.key}` : event.key;
    pending = "";
    if (keys === "g") pending = "g";
    else if (keys === "?") document.getElementById("shortcuts").showModal();
    else if (keys === "/") document.querySelector("[data-focus]")?.focus();
    else if (keys === "j") choose(1);
    else if (keys === "k") choose(-1);
    else if (keys === "p") history.back();
    else if (!follow(keys)) return;
    event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-shortcuts]")) {
      document.getElementById("shortcuts").showModal();
      return;
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const text = document.querySelector(copy.dataset.copy).textContent;
      navigator.clipboard?.writeText(text).then(() => copy.classList.add("chip-good"));
      return;
    }
    all("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.removeAttribute("open");
    });
  });

  // -- changes ------------------------------------------------------------------------------

  const ROWS_MAX = 500;
  let source = null;

  function stopLive() {
    source?.close();
    source = null;
  }

  function startLive(table) {
    const state = document.querySelector("[data-live-state]");
    const words = state.querySelector("[data-text-live]");
    const toggle = document.querySelector("[data-live-toggle]");
    const body = table.tBodies[0];
    let url = table.dataset.live;

    function show(name) {
      state.classList.toggle("is-live", name === "live");
      state.classList.toggle("is-lost", name === "lost");
      words.textContent = words.dataset[`text${name[0].toUpperCase()}${name.slice(1)}`];
      toggle.textContent = source ? toggle.dataset.textPause : toggle.dataset.textResume;
    }

    function connect() {
      source = new EventSource(url);
      source.onopen = () => show("live");
      source.onerror = () => show("lost");
      source.addEventListener("problem", () => { stopLive(); show("lost"); });
      source.onmessage = (event) => {
        url = `${table.dataset.live.split("?")[0]}?since=${event.lastEventId}`;
        const rows = document.createElement("tbody");
        rows.innerHTML = event.data; // rows of the server, escaped there
        const fresh = [...rows.rows];
        fresh.forEach((row) => row.classList.add("fresh"));
        body.prepend(...fresh);
        while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
        document.querySelector("[data-live-empty]")?.remove();
      };
    }

    toggle.onclick = () => {
      if (source) { stopLive(); show("paused"); } else connect();
    };
    stopLive();
    connect();
  }

  // -- charts -------------------------------------------------------------------------------

  const POWERS = Array.from({ length: 45 }, (_, power) => 2 ** power);
  const clock = (time) => new Date(time * 1000).toISOString().slice(11, 16); // UTC
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

  function shown(value, unit) {
    if (value == null) return "\u2013";
    if (unit === "bytes") {
      let power = 0;
      while (value >= 1024 && power < UNITS.length - 1) { value /= 1024; power += 1; }
      return `${value.toFixed(power ? 1 : 0)} ${UNITS[power]}`;
    }
    if (unit === "ms") return `${value.toLocaleString("en", { maximumFractionDigits: 2 })} ms`;
    return value.toLocaleString("en");
  }

  const values = (line) => line.filter((value) => value != null).length;

  function drawChart(box) {
    const { unit } = box.dataset;
    const times = JSON.parse(box.dataset.times);
    const series = JSON.parse(box.dataset.series);
    const names = JSON.parse(box.dataset.names);
    const strokes = [colour("--gem"), colour("--code-number")];
    const axis = {
      stroke: colour("--muted"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
      font: "12px system-ui",
    };
    const chart = new uPlot(
      {
        width: box.clientWidth,
        height: 220,
        cursor: { y: false },
        scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, space: 60, values: (_, ticks) => ticks.map(clock) },
          {
            ...axis,
            size: 74,
            incrs: unit === "bytes" ? POWERS : undefined,
            values: (_, ticks) => ticks.map((tick) => shown(tick, unit)),
          },
        ],
        series: [
          { label: box.dataset.time, value: (_, time) => (time == null ? "\u2013" : clock(time)) },
          ...names.map((label, number) => ({
            label,
            stroke: strokes[number],
            width: 2,
            fill: number === 0 ? `${strokes[0]}22` : undefined,
            spanGaps: unit === "bytes", // files keep their size while nobody writes
            points: { show: times.length < 20 || values(series[number]) < 20, size: 5 },
            value: (_, value) => shown(value, unit),
          })),
        ],
      },
      [times, ...series],
      box,
    );
    new ResizeObserver(() => {
      if (box.isConnected) chart.setSize({ width: box.clientWidth, height: 220 });
    }).observe(box);
  }

  // -- map ----------------------------------------------------------------------------------

  const COLOURS = ["#d97706", "#2f6fb3", "#3c8d5a", "#a8478f", "#7d6b52", "#c0493e", "#4b8f95", "#8a7bc8"];
  const NEAR = 14;
  const LISTED = 200;

  async function drawMap(section) {
    const note = section.querySelector("[data-map-note]");
    let answer;
    try {
      const response = await fetch(section.dataset.map);
      answer = await response.json();
      if (!response.ok) throw new Error(answer.problem);
    } catch (error) {
      note.textContent = `${section.dataset.failed} ${error.message ?? ""}`;
      return;
    }
    note.textContent = answer.note;
    const canvas = section.querySelector("canvas");
    const tip = section.querySelector(".map-tip");
    const groups = [...new Set(answer.points.map((point) => point.group))].sort();
    const colourOf = (group) => COLOURS[groups.indexOf(group) % COLOURS.length];
    let placed = [];

    function paint() {
      const ratio = window.devicePixelRatio || 1;
      const { clientWidth: width, clientHeight: height } = canvas;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.globalAlpha = answer.points.length > 1000 ? 0.55 : 0.8;
      const radius = answer.points.length > 1000 ? 3 : 5;
      const margin = 20;
      placed = answer.points.map((point) => ({
        point,
        x: margin + ((point.x + 1) / 2) * (width - 2 * margin),
        y: margin + ((1 - point.y) / 2) * (height - 2 * margin),
      }));
      for (const { point, x, y } of placed) {
        pen.fillStyle = colourOf(point.group);
        pen.beginPath();
        pen.arc(x, y, radius, 0, 2 * Math.PI);
        pen.fill();
      }
    }

    function nearest(event) {
      const { left, top } = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - left, event.clientY - top];
      let best = null;
      let least = NEAR ** 2;
      for (const each of placed) {
        const distance = (each.x - x) ** 2 + (each.y - y) ** 2;
        if (distance < least) [best, least] = [each, distance];
      }
      return best;
    }

    canvas.onmousemove = (event) => {
      const found = nearest(event);
      tip.hidden = found === null;
      canvas.style.cursor = found ? "pointer" : "crosshair";
      if (!found) return;
      tip.textContent = `${found.point.id}: ${found.point.label}`;
      tip.style.left = `${Math.min(found.x + 12, canvas.clientWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(found.y + 12, canvas.clientHeight - tip.offsetHeight - 8)}px`;
    };
    canvas.onmouseleave = () => { tip.hidden = true; };
    canvas.onclick = (event) => {
      const found = nearest(event);
      if (found) location.assign(found.point.href);
    };

    if (groups.length > 1) {
      section.querySelector("[data-map-legend]").replaceChildren(
        ...groups.slice(0, 40).map((group) => {
          const item = document.createElement("li");
          const dot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
          dot.setAttribute("width", "10");
          dot.setAttribute("height", "10");
          const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
          for (const [name, value] of [["cx", 5], ["cy", 5], ["r", 5], ["fill", colourOf(group)]]) {
            circle.setAttribute(name, value);
          }
          dot.append(circle);
          item.append(dot, group || "\u2013");
          return item;
        }),
      );
    }
    section.querySelector("[data-map-list]").replaceChildren(
      ...answer.points.slice(0, LISTED).map((point) => {
        const item = document.createElement("li");
        const link = document.createElement("a");
        link.href = point.href;
        link.textContent = point.id;
        item.append(link, ` ${point.label}`);
        return item;
      }),
    );
    new ResizeObserver(() => { if (canvas.isConnected) paint(); }).observe(canvas);
    section.dataset.ready = "";
  }

  // -- every page, also one that htmx has put in ---------------------------------------------

  function begin() {
    chosen = -1;
    const live = document.querySelector("[data-live]");
    if (live) { if (!live.dataset.begun) { live.dataset.begun = "1"; startLive(live); } } else stopLive();
    all(".chart:not([data-begun])").forEach((box) => { box.dataset.begun = "1"; drawChart(box); });
    all("[data-map]:not([data-begun])").forEach((box) => { box.dataset.begun = "1"; drawMap(box); });
  }

  document.addEventListener("htmx:afterSettle", begin);
  begin();
})();
