// The picture of an array: PEs with their registers between what enters and what leaves, or a heat map.

// More rows or columns than this are drawn as a heat map alone.
const MOST_BOXES = 16;


const SYMBOLS = { shift: "▼", swap: "◆", drain: "▼" };

/** Return the picture of a description of kind "array". */
function arrayPicture(description, { root, bar, go, say }) {
  const model = new ArrayModel(description);
  const { rows, cols } = model;
  const byRole = Object.fromEntries(description.registers.map((register) => [register.role, register.name]));
  const control = description.registers.filter(({ role }) => role === "control").map(({ name }) => name);
  const types = Object.fromEntries(description.registers.map(({ name, type }) => [name, type]));
  const small = Math.max(rows, cols) <= MOST_BOXES;
  // Values that are drawn on their way in, and out.
  const AHEAD = cols > 8 ? 3 : 5;
  const state = {
    pe: [0, 0], hover: null, register: small ? "" : byRole.sum, followed: null, colors: {}, geometry: null, cycle: 0,
  };

  const groups = model.stays.some(({ group }) => group);

  // Elements

  const canvas = element("canvas", {
    tabindex: 0, role: "application", "aria-label":
      `${rows} by ${cols} array of processing elements. Arrow keys choose one, Enter follows its sum, A its activation, W its weight.`,
  });
  const tip = element("div", { class: "tip", hidden: true });
  const key = element("div", { class: "key" });
  const rules = element("details", {}, element("summary", {}, "What happens at an edge, everywhere at once"),
    element("ol", {}, ...description.rules.map((rule) => element("li", {}, rule.replaceAll("`", "")))));
  const stage = element("div", { class: "stage" }, canvas, tip, key, rules);
  const peTitle = element("h2", {});
  const sentence = element("p", { class: "sentence" });
  const registers = element("table", { class: "registers" });
  const following = element("section", { "aria-label": "Followed value", hidden: true });
  const outputs = element("section", { "aria-label": "Outputs" });
  const now = element("section", { "aria-label": "This cycle" });
  const side = element("div", { class: "side" }, now,
    element("section", { "aria-label": "Chosen processing element" }, peTitle, sentence, registers), following, outputs);
  const view = element("select", {
    "aria-label": "What to draw", change: () => { state.register = view.value; show(state.cycle, false, true); },
  });
  if (small) view.append(element("option", { value: "" }, "all registers"));
  for (const { name } of description.registers) {
    view.append(element("option", { value: name, selected: name === state.register }, `heat map: ${name}`));
  }
  bar.append(view);
  const unfollow = element("button", { type: "button", title: "Stop following (Esc)", click: () => follow(null) }, "Stop following");

  // Words

  function product(r, c) {
    const done = model.product(r, c);
    if (done.cycle < model.first) return "No clock edge has been done yet.";
    const factors = `${text(done.activation)} × ${text(done.weight)}`;
    if (done.streams === null || done.stays === null) {
      return `Adds ${factors} = ${text(done.activation * done.weight)}, which belongs to no product; sum ${text(done.sum)}.`;
    }
    const [x, w] = description.exchanged ? [done.stays, done.streams] : [done.streams, done.stays];
    const [a, b] = description.exchanged ? [done.weight, done.activation] : [done.activation, done.weight];
    return `${x} × ${w} = ${text(a)} × ${text(b)} = ${text(a * b)}. Sum so far ${text(done.sum)}: ` +
      `${done.k} of ${done.ofK} product${done.ofK === 1 ? "" : "s"} of ${done.output}` +
      `${model.stays.length > 1 ? `, fold ${done.fold}` : ""}${groups ? `, group ${model.stays[done.fold].group}` : ""}.`;
  }

  function phase() {
    const cycle = model.cycle;
    if (cycle === model.first) return `${capital(moment(cycle))}, where this begins.`;
    const time = cycle - 1;
    const parts = [];
    model.stays.forEach((stay, i) => {
      const label = model.stays.length > 1 ? ` of fold ${i}` : "";
      const drain = rows + cols - 2;
      if (stay.shift !== null && !model.held && stay.shift <= time && time < stay.shift + rows) parts.push(`${description.exchanged ? "activations" : "weights"}${label} enter (beat ${time - stay.shift + 1} of ${rows})`);
      if (stay.start <= time && time < stay.start + stay.lines) parts.push(`line ${time - stay.start + 1} of ${stay.lines}${label} streams in`);
      else if (!model.held && stay.start + stay.lines <= time && time < stay.start + stay.lines + drain) parts.push(`sums${label} drain`);
      if (model.held && stay.leaves <= time && time < stay.leaves + rows + drain) parts.push(`sums${label} drain`);
    });
    const edge = capital(moment(cycle));
    return parts.length ? `${edge}, at the first PE: ${parts.join("; ")}.` : `${edge}: nothing enters.`;
  }

  // Following a value

  function follow(target) {
    state.followed = target;
    following.hidden = !target;
    if (target) {
      const { value, name } = target;
      const { kind } = value;
      const path = model.journey(value);
      if (!path.length) {
        follow(null);
        return;
      }
      const where = new Map();
      for (const place of path) where.set(place.cycle, [...(where.get(place.cycle) ?? []), place]);
      state.followed = { ...value, path, where, name };
      const [begin, finish] = [path[0], path.at(-1)];
      const jump = (to, label) => element("button", { type: "button", click: () => go(to) }, label);
      following.replaceChildren(
        element("h2", {}, "Following ", element("span", { class: kind }, name)),
        element("p", {}, `In PE (${begin.row}, ${begin.col}) ${moment(begin.cycle)}, to PE (${finish.row}, ` +
          `${finish.col}) ${moment(finish.cycle)}.`),
        element("p", { class: "here" }),
        element("div", { class: "bar" }, jump(begin.cycle, "Where it begins"), jump(finish.cycle, "Where it ends"), unfollow),
      );
      say(`Following ${name}.`);
    }
    show(state.cycle, false, true);
  }

  /** Follow the value in a register of PE (r, c). */
  function followIn(register, r, c) {
    const value = model.valueIn(register, r, c);
    follow(value && { value, name: nameOf(value.kind, register, r, c) });
  }

  const isFollowed = (value) => state.followed && ["kind", "index", "number"].every((part) => value[part] === state.followed[part]);

  function nameOf(kind, register, r, c) {
    const time = model.cycle - 1 - r - c;
    if (kind === "activation") return model.streamName(time, r) ?? "an activation";
    if (kind === "weight") {
      if (register === "weight") return model.weightName(time, r, c) ?? "a weight";
      return "a weight on its way";
    }
    if (register === byRole.shadow || register === byRole.pass) return "a sum on its way out";
    const done = model.product(r, c);
    return done.output === null ? "a sum" : `the sum of ${done.output}`;
  }

  // Drawing

  function restyle() {
    const style = getComputedStyle(root);
    for (const name of ["paper", "panel", "ink", "muted", "edge", "strong", "activation", "weight", "sum", "control", "mark", "low", "middle", "high"]) {
      state.colors[name] = style.getPropertyValue(`--${name}`).trim();
    }
    state.scale = ["low", "middle", "high"].map((name) => channels(state.colors[name]));
  }

  function show(cycle, playing, force = false) {
    state.cycle = cycle;
    model.seek(cycle);
    draw();
    // Words only as fast as one can read, but for small arrays.
    if (!playing || small || force || cycle % 8 === 0) describe(playing);
  }

  function describe(playing) {
    const [r, c] = state.pe;
    const i = r * cols + c;
    now.replaceChildren(element("h2", {}, "This cycle"), element("p", {}, phase()));
    peTitle.textContent = `PE (${r}, ${c})`;
    sentence.textContent = product(r, c);
    const focused = registers.contains(document.activeElement) ? document.activeElement.dataset.register : null;
    registers.replaceChildren(...description.registers.map(({ name }) => {
      const kind = model.kindOf(name);
      const cell = element("td", {});
      if (kind) {
        cell.append(element("button", {
          type: "button", "data-register": name, "aria-label": `Follow the value in ${name}`,
          click: () => followIn(name, r, c),
        }, "follow"));
      }
      return element("tr", {}, element("th", { scope: "row" }, name),
        element("td", { class: kind ?? "control" }, text(model.registers[name][i])), cell);
    }));
    if (focused) registers.querySelector(`[data-register="${focused}"]`)?.focus();
    if (state.followed) {
      const here = state.followed.where.get(model.cycle);
      following.querySelector(".here").textContent = here
        ? `Now in ${here.map((place) => `${place.register} of PE (${place.row}, ${place.col})`).join(" and ")}.`
        : model.cycle < state.followed.path[0].cycle ? "Not yet in the array." : "It has left the array, or was replaced.";
    }
    listOutputs();
    if (!playing) say(`${capital(moment(model.cycle))}. PE ${r}, ${c}: ${sentence.textContent}`);
  }

  function listOutputs() {
    const heading = element("h2", {}, "Outputs, as the accumulators hold them");
    const tables = [];
    for (let i = model.outputs.length - 1; i >= 0 && tables.length < 2; i--) {
      if (!model.outputs[i].length || (!model.written[i].includes(1) && i > 0)) continue;
      tables.push(outputTable(i));
    }
    outputs.hidden = !model.outputs.length;
    outputs.replaceChildren(heading, ...tables);
  }

  function outputTable(number) {
    const [lines, width] = description.outputs[number];
    const [values, written] = [model.outputs[number], model.written[number]];
    const label = model.outputs.length > 1 ? `Output ${number}, ` : "";
    const shown = [Math.min(lines, MOST_BOXES), Math.min(width, MOST_BOXES)];
    const heads = Array.from({ length: shown[1] }, (_, n) => element("th", { scope: "col" }, `n ${n}`));
    const table = element("table", {}, element("thead", {}, element("tr", {}, element("td", {}), ...heads)));
    // The rows around what was written last.
    const latest = Math.floor(written.lastIndexOf(1) / width);
    const from = Math.max(0, Math.min(lines - shown[0], latest - shown[0] / 2));
    for (let m = from; m < from + shown[0]; m++) {
      const line = element("tr", {}, element("th", { scope: "row" }, `m ${m}`));
      for (let n = 0; n < shown[1]; n++) {
        const at = m * width + n;
        line.append(written[at] ? element("td", {}, text(values[at])) : element("td", { class: "empty" }, "·"));
      }
      table.append(line);
    }
    const all = shown[0] === lines && shown[1] === width;
    return element("div", {}, element("p", {}, `${label}${lines} × ${width}${all ? "" : ", shown in part"}`),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${label}values` }, table));
  }

  /** Fit the canvas to its place, and return its context. */
  function prepare(width, height) {
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) {
      [canvas.width, canvas.height] = size;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.textBaseline = "middle";
    return context;
  }

  function draw() {
    if (state.register) drawHeat();
    else drawBoxes();
  }

  const font = (size, weight = 400) => `${weight} ${size}px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif`;

  function drawBoxes() {
    const width = Math.max(300, stage.clientWidth);
    const token = Math.max(30, Math.min(42, width / 26));
    const left = 24 + AHEAD * token;
    const cell = Math.max(46, Math.min(118, (width - left - 16) / cols));
    const tall = Math.max(46, Math.min(cell, 92));
    const top = 34 + AHEAD * 17;
    const below = 30 + AHEAD * 17;
    const height = top + rows * tall + below;
    const wide = left + cols * cell + 16;
    const g = prepare(Math.max(wide, Math.min(width, wide)), height);
    const box = { x: left, y: top, cell, tall };
    state.geometry = { ...box, heat: false, token };
    const { colors } = state;
    g.font = font(12);
    g.fillStyle = colors.muted;
    g.textAlign = "left";
    const [west, north] = description.exchanged ? ["weights", "activations"] : ["activations", "weights"];
    g.fillText(`${west} in →`, 4, top - 14);
    g.fillText(`${north} in ↓${description.held ? "" : " (next tile)"}`, left + cell * cols - Math.min(150, cell * cols), 10);
    g.fillText(`${description.leaves} leaves ↓`, 4, top + rows * tall + 16);

    const most = longest();
    const sizes = {
      pair: Math.min(14, (cell - 10) / (most.pair * 0.6)),
      sum: Math.min(19, (cell - 12) / (most.sum * 0.68)),
      small: Math.min(11, (cell - 10) / (most.small * 0.62)),
    };
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) drawPe(g, box, r, c, sizes);
    drawStreams(g, box, token);
    drawLeaving(g, box);
    drawTrail(g, box);
    drawKey();
  }

  function longest() {
    const length = (name) => {
      let most = 1;
      for (const value of model.registers[name]) most = Math.max(most, brief(value).length);
      return most;
    };
    return {
      pair: length(byRole["west operand"]) + length(byRole["north operand"]) + 3,
      sum: Math.max(3, length(byRole.sum)),
      small: length(byRole.shadow) + length(byRole.pass) + 4,
    };
  }

  const marked = (register, r, c) =>
    state.followed?.where.get(model.cycle)?.some((p) => p.register === register && p.row === r && p.col === c);

  function drawPe(g, { x, y, cell, tall }, r, c, sizes) {
    const i = r * cols + c;
    const { colors } = state;
    const values = model.registers;
    const [px, py] = [x + c * cell + 2, y + r * tall + 2];
    const [w, h] = [cell - 4, tall - 4];
    const time = model.cycle - 1 - r - c;
    const busy = model.cycle > model.first && model.streaming(time) !== null;
    const chosen = state.pe[0] === r && state.pe[1] === c;
    const hovered = state.hover && state.hover[0] === r && state.hover[1] === c;
    g.beginPath();
    g.roundRect(px, py, w, h, 7);
    g.fillStyle = colors.panel;
    g.fill();
    if (busy) {
      g.globalAlpha = 0.13;
      g.fillStyle = colors.activation;
      g.fill();
      g.globalAlpha = 1;
    }
    g.lineWidth = chosen || hovered ? 2.5 : 1.2;
    g.strokeStyle = chosen ? colors.ink : hovered ? colors.strong : colors.edge;
    g.stroke();
    const write = (words, size, at, color, mark, weight = 400) => {
      g.font = font(size, weight);
      g.textAlign = "center";
      if (mark) {
        const wide = g.measureText(words).width + 8;
        g.fillStyle = colors.mark;
        g.beginPath();
        g.roundRect(at[0] - wide / 2, at[1] - size * 0.72, wide, size * 1.44, 4);
        g.fill();
        g.fillStyle = colors.paper;
      } else g.fillStyle = color;
      g.fillText(words, ...at);
      return g.measureText(words).width;
    };
    const [a, b] = [byRole["west operand"], byRole["north operand"]];
    const [first, second] = [brief(values[a][i]), brief(values[b][i])];
    g.font = font(sizes.pair);
    const widths = [first, " × ", second].map((words) => g.measureText(words).width);
    const begin = px + w / 2 - (widths[0] + widths[1] + widths[2]) / 2;
    const line = py + h * 0.2;
    write(first, sizes.pair, [begin + widths[0] / 2, line], colors.activation, marked(a, r, c));
    write(" × ", sizes.pair, [begin + widths[0] + widths[1] / 2, line], colors.muted, false);
    write(second, sizes.pair, [begin + widths[0] + widths[1] + widths[2] / 2, line], colors.weight, marked(b, r, c));
    write(brief(values[byRole.sum][i]), sizes.sum, [px + w / 2, py + h * 0.51], colors.sum, marked(byRole.sum, r, c), 600);
    const kind = description.held ? colors.sum : colors.weight;
    write(brief(values[byRole.shadow][i]), sizes.small, [px + w * 0.27, py + h * 0.83], kind, marked(byRole.shadow, r, c));
    write(brief(values[byRole.pass][i]), sizes.small, [px + w * 0.73, py + h * 0.83], colors.muted, marked(byRole.pass, r, c));
    g.strokeStyle = colors.edge;
    g.lineWidth = 1;
    g.setLineDash([3, 3]);
    g.beginPath();
    g.moveTo(px + 5, py + h * 0.69);
    g.lineTo(px + w - 5, py + h * 0.69);
    g.stroke();
    g.setLineDash([]);
    const marks = control.filter((name) => values[name][i]).map((name) => SYMBOLS[name]).join("");
    if (marks) write(marks, Math.min(11, cell / 6), [px + w / 2, py + h * 0.83], colors.control, false);
    if (description.changes[model.cycle - 1]?.some((change) => change[1] === i)) {
      write("changed", 10, [px + w / 2, py + 4], colors.mark, false, 600);
    }
  }

  /** Draw what stands before the ports: what the next edges take. */
  function drawStreams(g, { x, y, cell, tall }, token) {
    const { colors } = state;
    const [west, north] = [byRole["west operand"], "weight"];
    g.textAlign = "center";
    for (let ahead = 0; ahead < AHEAD; ahead++) {
      const cycle = model.cycle + ahead;
      for (let r = 0; r < rows; r++) {
        const at = [x - 14 - (ahead + 0.5) * token, y + (r + 0.5) * tall];
        const value = model.port(west, cycle, r);
        const name = model.streamName(cycle - r, r);
        const marks = control.filter((port) => model.port(port, cycle, r)).map((port) => SYMBOLS[port]).join("");
        const followed = isFollowed(model.entering("activation", r, cycle));
        drawToken(g, at, name || value ? brief(value) : "", Math.min(12, token / 3), colors.activation, followed, token - 4);
        if (marks) {
          g.font = font(10);
          g.fillStyle = colors.control;
          g.fillText(marks, at[0], at[1] + 15);
        }
      }
      for (let c = 0; c < cols; c++) {
        const value = model.port(north, cycle, c);
        const name = model.northName(cycle - c, c);
        const at = [x + (c + 0.5) * cell, y - 12 - (ahead + 0.5) * 17];
        const followed = isFollowed(model.entering("weight", c, cycle));
        drawToken(g, at, name || value ? brief(value) : "", 12, colors.weight, followed, Math.min(cell - 8, 60));
      }
    }
  }

  function drawToken(g, [x, y], words, size, color, followed, wide) {
    const { colors } = state;
    if (!words) {
      g.fillStyle = colors.edge;
      g.beginPath();
      g.arc(x, y, 1.6, 0, 7);
      g.fill();
      return;
    }
    g.beginPath();
    g.roundRect(x - wide / 2, y - 8, wide, 16, 4);
    g.fillStyle = followed ? colors.mark : colors.panel;
    g.fill();
    g.strokeStyle = color;
    g.lineWidth = 1;
    g.stroke();
    g.font = font(size);
    const needed = g.measureText(words).width;
    if (needed > wide - 4) g.font = font((size * (wide - 4)) / needed);
    g.fillStyle = followed ? colors.paper : color;
    g.fillText(words, x, y + 0.5);
  }

  /** Draw the sums that stand in the bottom row, or have left it, and belong to an output. */
  function drawLeaving(g, { x, y, cell, tall }) {
    const { colors } = state;
    const bottom = y + rows * tall;
    g.textAlign = "center";
    for (let c = 0; c < cols; c++) {
      for (let past = 0; past < AHEAD; past++) {
        // The sum that stood there after the edge of this cycle.
        const cycle = model.cycle - 1 - past;
        const at = [x + (c + 0.5) * cell, bottom + 12 + (past + 0.5) * 17];
        const found = leavingAt(cycle, c);
        drawToken(g, at, found ? brief(found.value) : "", 12, colors.sum, false, Math.min(cell - 8, 84));
      }
    }
  }

  function leavingAt(cycle, c) {
    for (let s = model.stays.length - 1; s >= 0; s--) {
      const stay = model.stays[s];
      const line = cycle - stay.leaves - (rows - 1) - c;
      if (line < 0 || line >= (model.held ? rows : stay.lines)) continue;
      const [m, n] = model.place(stay, line, c, rows);
      if (m < stay.m || m >= stay.mStop || n < stay.n || n >= stay.nStop) return null;
      const history = leavingHistory();
      return { value: history[(cycle - model.first) * cols + c], name: `y[${m}, ${n}]` };
    }
    return null;
  }

  // The bottom row of all cycles: made once.
  let history = null;
  function leavingHistory() {
    if (history) return history;
    const other = new ArrayModel(description);
    other.every = Infinity;
    history = new ARRAYS[description.sum.type]((description.cycles + 1) * cols);
    while (other.cycle < other.last) {
      other.step();
      const bottom = other.registers[description.leaves].subarray((rows - 1) * cols);
      history.set(bottom, (other.cycle - 1 - other.first) * cols);
    }
    return history;
  }

  function drawTrail(g, { x, y, cell, tall }) {
    if (!state.followed) return;
    g.strokeStyle = state.colors.mark;
    g.lineWidth = 2;
    g.globalAlpha = 0.45;
    g.setLineDash([6, 4]);
    g.beginPath();
    for (const [i, place] of state.followed.path.entries()) {
      const at = [x + (place.col + 0.5) * cell, y + (place.row + 0.67) * tall];
      if (i) g.lineTo(...at);
      else g.moveTo(...at);
    }
    g.stroke();
    g.setLineDash([]);
    g.globalAlpha = 1;
  }

  function drawKey() {
    const parts = [["activation", "activation"], ["weight", "weight"], ["sum", byRole.sum]].map(([kind, name]) =>
      element("span", {}, element("b", { class: kind }, name)));
    const line = element("span", {}, `${byRole["west operand"]} × ${byRole["north operand"]}, ${byRole.sum}; below the line ${byRole.shadow} and ${byRole.pass}`);
    const marks = control.map((name) => element("span", {}, element("b", { class: "control" }, SYMBOLS[name]), ` ${name}`));
    key.replaceChildren(...parts, line, ...marks, element("span", {}, "Keys: space plays, comma and period step, arrows choose a PE, A, W and Enter follow"));
  }

  // Heat map

  const pixels = document.createElement("canvas");
  [pixels.width, pixels.height] = [cols, rows];
  const image = new ImageData(cols, rows);
  const table = new Uint32Array(513);

  function drawHeat() {
    const width = Math.max(300, stage.clientWidth);
    const cell = Math.max(1, Math.min(40, (width - 60) / cols, 640 / rows));
    const [left, top] = [44, 20];
    const g = prepare(width, top + rows * cell + 30);
    const values = model.registers[state.register];
    const [middle, span] = scaleOf(values);
    for (let i = 0; i <= 512; i++) table[i] = colorAt(i / 256 - 1);
    const data = new Uint32Array(image.data.buffer);
    const factor = 256 / span;
    for (let i = 0; i < values.length; i++) {
      const at = (values[i] - middle) * factor + 256;
      data[i] = table[at > 512 ? 512 : at < 0 ? 0 : at === at ? at | 0 : 256];
    }
    pixels.getContext("2d").putImageData(image, 0, 0);
    g.imageSmoothingEnabled = false;
    g.drawImage(pixels, left, top, cols * cell, rows * cell);
    state.geometry = { x: left, y: top, cell, tall: cell, heat: true };
    const { colors } = state;
    g.strokeStyle = colors.edge;
    g.lineWidth = 1;
    g.strokeRect(left - 0.5, top - 0.5, cols * cell + 1, rows * cell + 1);
    const frame = (r, c, color) => {
      const side = Math.max(cell, 6);
      g.strokeStyle = color;
      g.lineWidth = 2;
      g.strokeRect(left + (c + 0.5) * cell - side / 2 - 1, top + (r + 0.5) * cell - side / 2 - 1, side + 2, side + 2);
    };
    frame(...state.pe, colors.ink);
    for (const place of state.followed?.where.get(model.cycle) ?? []) frame(place.row, place.col, colors.mark);
    g.fillStyle = colors.muted;
    g.font = font(12);
    g.textAlign = "center";
    for (let tick = 0; tick < 4; tick++) {
      const [c, r] = [Math.floor((tick * (cols - 1)) / 3), Math.floor((tick * (rows - 1)) / 3)];
      g.fillText(String(c), left + (c + 0.5) * cell, 10);
      g.textAlign = "right";
      g.fillText(String(r), left - 6, top + (r + 0.5) * cell);
      g.textAlign = "center";
    }
    // The scale
    const y = top + rows * cell + 10;
    for (let i = 0; i < 120; i++) {
      g.fillStyle = hex(table[Math.floor((i / 119) * 512)]);
      g.fillRect(left + 60 + i, y, 1.5, 10);
    }
    g.fillStyle = colors.muted;
    g.textAlign = "right";
    g.fillText(text(middle - span), left + 54, y + 5);
    g.textAlign = "left";
    g.fillText(text(middle + span), left + 188, y + 5);
    key.replaceChildren(element("span", {}, `${state.register}, a pixel or square for each PE; rows downwards, columns to the right. Keys: space plays, comma and period step, arrows choose a PE, A, W and Enter follow`));
  }

  /** Return the value in the middle of the scale, and how far it reaches: a power of two. */
  function scaleOf(values) {
    if (types[state.register] === "bool") return [0, 1];
    let most = 0;
    for (let i = 0; i < values.length; i++) {
      const size = values[i] < 0 ? -values[i] : values[i];
      if (size > most && size < Infinity) most = size;
    }
    return [0, most ? 2 ** Math.ceil(Math.log2(most)) : 1];
  }

  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

  function colorAt(where) {
    const [low, middle, high] = state.scale;
    const end = where < 0 ? low : high;
    // Small values are seen as well: the root of the size.
    const part = Math.sqrt(Math.abs(where));
    const [r, g, b] = middle.map((value, i) => Math.round(value + (end[i] - value) * part));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  }

  const hex = (pixel) => `rgb(${pixel & 255}, ${(pixel >> 8) & 255}, ${(pixel >> 16) & 255})`;

  // Pointer and keys

  /** Return where the pointer is in the picture. */
  function pointAt(event) {
    const bounds = canvas.getBoundingClientRect();
    const zoom = bounds.width / parseFloat(canvas.style.width); // CSS may have made it narrower
    return [(event.clientX - bounds.left) / zoom, (event.clientY - bounds.top) / zoom];
  }

  /** Return the PE under the pointer, and where in it, from 0 to 1: [row, column, across, down]; or null. */
  function peAt(event) {
    const { x, y, cell, tall } = state.geometry;
    const [px, py] = pointAt(event);
    const [across, down] = [(px - x) / cell, (py - y) / tall];
    const [r, c] = [Math.floor(down), Math.floor(across)];
    return r < 0 || r >= rows || c < 0 || c >= cols ? null : [r, c, across - c, down - r];
  }

  /** Return the value outside the array under the pointer: { words, and what follows it }, or null. */
  function passingAt(event) {
    const { x, y, cell, tall, heat, token } = state.geometry;
    if (heat) return null;
    const [px, py] = pointAt(event);
    const [r, c] = [Math.floor((py - y) / tall), Math.floor((px - x) / cell)];
    const west = Math.floor((x - 14 - px) / token);
    const north = Math.floor((y - 12 - py) / 17);
    const south = Math.floor((py - y - rows * tall - 12) / 17);
    const enters = (ahead) => (ahead ? `enters the array ${ahead + 1} edges from now` : "enters the array with the next edge");
    if (r >= 0 && r < rows && west >= 0 && west < AHEAD) {
      const cycle = model.cycle + west;
      const name = model.streamName(cycle - r, r);
      const words = `${name} = ${text(model.port(byRole["west operand"], cycle, r))} ${enters(west)}`;
      return name && { words, name, value: model.entering("activation", r, cycle) };
    }
    if (c < 0 || c >= cols) return null;
    if (north >= 0 && north < AHEAD) {
      const cycle = model.cycle + north;
      const name = model.northName(cycle - c, c);
      return name && { words: `${name} = ${text(model.port("weight", cycle, c))} ${enters(north)}`, name, value: model.entering("weight", c, cycle) };
    }
    const left = south >= 0 && south < AHEAD && leavingAt(model.cycle - 1 - south, c);
    if (!left) return null;
    return { words: `${text(left.value)} ${south ? `left the array ${south} edge${south === 1 ? "" : "s"} ago` : "stands in the bottom row"}: a sum of ${left.name}` };
  }

  canvas.addEventListener("pointermove", (event) => {
    const at = peAt(event);
    const passing = at ? null : passingAt(event);
    state.hover = at;
    tip.hidden = !at && !passing;
    canvas.style.cursor = at || passing?.value ? "pointer" : "";
    if (!tip.hidden) {
      tip.textContent = passing ? `${passing.words}.` : `PE (${at[0]}, ${at[1]}): ${product(at[0], at[1])}` +
        (state.register ? ` ${state.register} ${text(model.registers[state.register][at[0] * cols + at[1]])}.` : "");
      const bounds = stage.getBoundingClientRect();
      const [left, top] = [event.clientX - bounds.left, event.clientY - bounds.top];
      tip.style.left = `${Math.max(0, Math.min(left + 14, bounds.width - 310))}px`;
      tip.style.top = `${top + 18}px`;
    }
    draw();
  });
  canvas.addEventListener("pointerleave", () => {
    state.hover = null;
    tip.hidden = true;
    draw();
  });
  canvas.addEventListener("click", (event) => {
    const at = peAt(event);
    if (!at) {
      const passing = passingAt(event);
      if (passing?.value) follow(passing);
      return;
    }
    const [r, c, across, down] = at;
    state.pe = [r, c];
    if (state.geometry.heat) {
      show(state.cycle, false, true);
      return;
    }
    // The number under the pointer.
    const register = down < 0.35 ? byRole[across < 0.5 ? "west operand" : "north operand"]
      : down < 0.68 ? byRole.sum : byRole[across < 0.5 ? "shadow" : "pass"];
    followIn(register, r, c);
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const follows = { Enter: byRole.sum, a: byRole["west operand"], w: byRole["north operand"] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [r, c] = state.pe;
    if (moves[event.key]) {
      const [down, right] = moves[event.key];
      state.pe = [Math.max(0, Math.min(rows - 1, r + down)), Math.max(0, Math.min(cols - 1, c + right))];
      show(state.cycle, false, true);
    } else if (follows[event.key]) followIn(follows[event.key], r, c);
    else if (event.key === "Escape") follow(null);
    else return;
    event.preventDefault();
  });

  return {
    element: element("div", { class: "body" }, stage, side), show, restyle, model, follow,
    when: (cycle, last) => `${moment(cycle)} (the last is ${text(last - 1)})`,
    get followed() { return state.followed; },
  };
}
