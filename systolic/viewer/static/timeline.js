// The picture of a program's timeline: a lane per unit, one for what the array did, and how full memories are.

const CAUSE_COLORS = {
  active: "activation", weight_stall: "sum", weight_shift: "weight", raw_stall: "wait", input_stall: "control",
  accumulator_stall: "high", other_stall: "edge",
};

/** Return the picture of a description of kind "timeline". */
function timelinePicture(description, { root, bar, go, say }) {
  const total = description.first_cycle + description.cycles;
  const first = description.first_cycle;
  const lanes = description.lanes.map(({ unit, start, end, complete, instruction }) => ({
    unit, start: decode(start, "float64"), end: decode(end, "float64"), complete: decode(complete, "float64"),
    instruction: decode(instruction, "int32"),
  }));
  const causes = { start: decode(description.causes.start, "float64"), end: decode(description.causes.end, "float64"), cause: decode(description.causes.cause, "uint8") };
  const memories = description.memories.map((memory) => ({ ...memory, cycle: decode(memory.cycle, "float64"), used: decode(memory.used, "float64") }));
  const state = { from: first, to: total, cycle: first, lane: 0, event: 0, chosen: false, colors: {} };

  const canvas = element("canvas", {
    tabindex: 0, role: "application", "aria-label":
      "Timeline. Up and down arrows choose a unit, left and right arrows its events, plus and minus zoom.",
  });
  const tip = element("div", { class: "tip", hidden: true });
  const key = element("div", { class: "key" });
  const stage = element("div", { class: "stage" }, canvas, tip, key);
  const now = element("section", { "aria-label": "This cycle" });
  const chosen = element("section", { "aria-label": "Chosen event" });
  const counts = element("section", { "aria-label": "Cycles by cause" });
  const side = element("div", { class: "side" }, now, chosen, counts);
  const button = (label, face, act) => element("button", { type: "button", "aria-label": label, title: label, click: act }, face);
  bar.append(button("Zoom in (+)", "+", () => zoom(0.5)), button("Zoom out (−)", "−", () => zoom(2)), button("Whole program (0)", "all", () => zoom(Infinity)));

  const NAME = 118;
  const LANE = 34;
  const CURVE = 46;

  /** Return the first event of a lane that ends after a cycle. */
  function after(lane, cycle) {
    let low = 0;
    let high = lane.end.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lane.end[middle] <= cycle) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  const running = (lane, cycle) => {
    const i = after(lane, cycle);
    return i < lane.end.length && lane.start[i] <= cycle ? i : -1;
  };

  function used(memory, cycle) {
    let low = 0;
    let high = memory.cycle.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (memory.cycle[middle] <= cycle) low = middle + 1;
      else high = middle;
    }
    return low ? memory.used[low - 1] : 0;
  }

  const line = (lane, i) => `${lane.unit}, cycles ${text(lane.start[i])} to ${text(lane.end[i])}` +
    `${lane.complete[i] > lane.end[i] ? `, complete at ${text(lane.complete[i])}` : ""}: ${description.texts[lane.instruction[i]]}`;

  function zoom(factor, around = state.cycle) {
    const wide = Math.max(20, Math.min(description.cycles, (state.to - state.from) * factor));
    const part = Math.max(0, Math.min(1, (around - state.from) / (state.to - state.from)));
    const from = factor === Infinity ? first : Math.max(first, Math.min(total - wide, around - part * wide));
    [state.from, state.to] = factor === Infinity ? [first, total] : [from, from + wide];
    draw();
  }

  function show(cycle, playing) {
    state.cycle = cycle;
    const wide = state.to - state.from;
    if (cycle < state.from || cycle > state.to) {
      state.from = Math.max(first, Math.min(total - wide, cycle - wide * 0.1));
      state.to = state.from + wide;
    }
    draw();
    describe(playing);
  }

  function describe(playing) {
    const lines = lanes.map((lane) => [lane, running(lane, state.cycle)]).filter(([, i]) => i >= 0);
    const at = causeAt(state.cycle);
    const words = at ? `The array: ${at.replaceAll("_", " ")}.` : "The program is over.";
    now.replaceChildren(element("h2", {}, "This cycle"), element("p", {}, words),
      ...lines.map(([lane, i]) => element("p", {}, element("b", {}, lane.unit), ` ${description.texts[lane.instruction[i]]}`)),
      ...memories.map((memory) => element("p", { class: "control" },
        `${memory.memory}: ${text(used(memory, state.cycle))}${memory.limit === null ? "" : ` of ${text(memory.limit)}`} ${memory.unit}`)));
    const lane = lanes[state.lane];
    chosen.replaceChildren(element("h2", {}, "Chosen event"), state.chosen && lane.end.length
      ? element("p", {}, line(lane, state.event))
      : element("p", {}, "Click an event, or choose one with the arrow keys."));
    if (!playing) say(`Cycle ${state.cycle}. ${words} ${lines.map(([l]) => l.unit).join(", ")}`);
  }

  function causeAt(cycle) {
    const i = after(causes, cycle);
    return i < causes.end.length ? description.cause_names[causes.cause[i]] : null;
  }

  function restyle() {
    const style = getComputedStyle(root);
    for (const name of ["paper", "panel", "ink", "muted", "edge", "strong", "activation", "weight", "sum", "control", "mark", "wait", "high"]) {
      state.colors[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }

  const font = (size, weight = 400) => `${weight} ${size}px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif`;

  function draw() {
    const width = Math.max(320, stage.clientWidth);
    const height = 26 + (lanes.length + 1) * LANE + memories.length * CURVE + 12;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    }
    const g = canvas.getContext("2d");
    const { colors } = state;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.textBaseline = "middle";
    const plot = width - NAME - 12;
    const scale = plot / (state.to - state.from);
    const x = (cycle) => NAME + (Math.max(state.from, Math.min(state.to, cycle)) - state.from) * scale;
    g.font = font(12);
    g.fillStyle = colors.muted;
    for (const tick of ticks(plot / 90)) {
      g.textAlign = "center";
      g.fillText(text(tick), Math.max(NAME + 12, Math.min(width - 24, x(tick))), 9);
      g.fillStyle = colors.edge;
      g.fillRect(x(tick), 18, 1, height - 24);
      g.fillStyle = colors.muted;
    }
    const bars = (lane, y, color) => {
      // Events that are narrower than a pixel share one.
      let reached = -1;
      for (let i = after(lane, state.from); i < lane.end.length && lane.start[i] < state.to; i++) {
        const [left, right] = [x(lane.start[i]), x(lane.end[i])];
        if (right < reached) continue;
        g.fillStyle = color(i);
        g.fillRect(left, y + 5, Math.max(1, right - left - (right - left > 4 ? 1 : 0)), LANE - 12);
        reached = Math.max(left + 0.5, right);
      }
    };
    const label = (words, y, high) => {
      g.fillStyle = colors.ink;
      g.textAlign = "right";
      g.font = font(12);
      g.fillText(words, NAME - 8, y + high / 2 - 1);
    };
    let y = 22;
    label("the array", y, LANE);
    bars(causes, y, (i) => colors[CAUSE_COLORS[description.cause_names[causes.cause[i]]]]);
    y += LANE;
    lanes.forEach((lane, number) => {
      label(lane.unit, y, LANE);
      bars(lane, y, (i) => (state.chosen && number === state.lane && i === state.event ? colors.mark : colors.strong));
      y += LANE;
    });
    for (const memory of memories) {
      label(memory.memory, y, CURVE);
      const most = memory.most || 1;
      g.beginPath();
      g.moveTo(NAME, y + CURVE - 8);
      let i = Math.max(0, lastStep(memory, state.from));
      let last = -1;
      let peak = 0;
      for (; i < memory.cycle.length && memory.cycle[i] < state.to; i++) {
        const at = Math.floor(x(memory.cycle[i]));
        // Of the steps in a pixel the highest is drawn.
        peak = at === last ? Math.max(peak, memory.used[i]) : memory.used[i];
        const high = (peak / most) * (CURVE - 14);
        const until = Math.floor(x(i + 1 < memory.cycle.length ? memory.cycle[i + 1] : total));
        g.lineTo(at, y + CURVE - 8 - high);
        g.lineTo(Math.max(at, until), y + CURVE - 8 - high);
        last = at;
      }
      g.lineTo(x(state.to), y + CURVE - 8);
      g.closePath();
      g.globalAlpha = 0.55;
      g.fillStyle = colors.weight;
      g.fill();
      g.globalAlpha = 1;
      y += CURVE;
    }
    g.fillStyle = colors.mark;
    g.fillRect(x(state.cycle) - 1, 16, 2, height - 22);
    key.replaceChildren(...description.cause_names.map((name, i) => {
      const swatch = element("span", { style: `display: inline-block; width: 12px; height: 12px; background: var(--${CAUSE_COLORS[name]})` });
      return element("span", {}, swatch, ` ${name.replaceAll("_", " ")}: ${text(description.totals[i])}`);
    }), element("span", {}, "Keys: space plays, comma and period step, plus and minus zoom, arrows choose an event"));
  }

  const lastStep = (memory, cycle) => {
    let i = 0;
    while (i + 1 < memory.cycle.length && memory.cycle[i + 1] <= cycle) i++;
    return i;
  };

  function ticks(most) {
    const rough = (state.to - state.from) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(1, [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough));
    const found = [];
    for (let tick = Math.ceil(state.from / step) * step; tick <= state.to; tick += step) found.push(tick);
    return found;
  }

  function listCounts() {
    const rows = description.cause_names.map((name, i) => element("tr", {},
      element("th", { scope: "row" }, name.replaceAll("_", " ")), element("td", {}, text(description.totals[i])),
      element("td", {}, `${((100 * description.totals[i]) / Math.max(1, total)).toFixed(1)}%`)));
    counts.replaceChildren(element("h2", {}, "Cycles of the array"), element("table", {}, ...rows));
  }

  function place(event) {
    const bounds = canvas.getBoundingClientRect();
    const zoomed = bounds.width / parseFloat(canvas.style.width);
    const [px, py] = [(event.clientX - bounds.left) / zoomed, (event.clientY - bounds.top) / zoomed];
    const plot = parseFloat(canvas.style.width) - NAME - 12;
    const cycle = state.from + ((px - NAME) / plot) * (state.to - state.from);
    return { px, cycle: Math.floor(cycle), lane: Math.floor((py - 22) / LANE) - 1, near: (4 / plot) * (state.to - state.from) };
  }

  /** Return the event at a place of a lane, or one so near that a pixel hides it. */
  function eventAt({ cycle, lane, near }) {
    if (lane < 0 || lane >= lanes.length) return -1;
    const i = after(lanes[lane], cycle - near);
    return i < lanes[lane].end.length && lanes[lane].start[i] <= cycle + near ? i : -1;
  }

  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    const i = eventAt(at);
    let words = "";
    if (at.px >= NAME && at.lane === -1) words = `The array, cycle ${text(at.cycle)}: ${(causeAt(at.cycle) ?? "done").replaceAll("_", " ")}`;
    else if (at.px >= NAME && i >= 0) words = line(lanes[at.lane], i);
    tip.hidden = !words;
    tip.textContent = words;
    const bounds = stage.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - bounds.left + 14, bounds.width - 310))}px`;
    tip.style.top = `${event.clientY - bounds.top + 18}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const at = place(event);
    if (at.px < NAME) return;
    const i = eventAt(at);
    if (i >= 0) [state.lane, state.event, state.chosen] = [at.lane, i, true];
    go(at.cycle);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY) && !event.shiftKey) return;
    event.preventDefault();
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, place(event).cycle);
    else pan(((event.deltaX || event.deltaY) / 600) * (state.to - state.from));
  }, { passive: false });

  function pan(by) {
    const wide = state.to - state.from;
    state.from = Math.max(first, Math.min(total - wide, state.from + by));
    state.to = state.from + wide;
    draw();
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const lane = lanes[state.lane];
    const acts = {
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => zoom(Infinity),
      ArrowUp: () => choose(state.lane - 1, null), ArrowDown: () => choose(state.lane + 1, null),
      ArrowLeft: () => choose(state.lane, state.chosen ? state.event - 1 : after(lane, state.cycle)),
      ArrowRight: () => choose(state.lane, state.chosen ? state.event + 1 : after(lane, state.cycle)),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });

  function choose(lane, event) {
    state.lane = Math.max(0, Math.min(lanes.length - 1, lane));
    const { end, start } = lanes[state.lane];
    state.event = Math.max(0, Math.min(end.length - 1, event ?? after(lanes[state.lane], state.cycle)));
    state.chosen = end.length > 0;
    if (!state.chosen) {
      describe(false);
      return;
    }
    go(start[state.event]);
    say(line(lanes[state.lane], state.event));
  }

  listCounts();
  return {
    element: element("div", { class: "body" }, stage, side), show, restyle,
    when: (cycle, last) => `cycle ${text(cycle)} of ${text(last)}`,
    // A step is a pixel or so: a program has many cycles.
    unit: () => Math.max(1, Math.round((state.to - state.from) / 400)),
  };
}
