// The array, clocked in JavaScript: registers from their first values and the values on the ports.
//
// Cycles count clock edges since reset. "At cycle t" means: t edges are done, the last one is the edge of
// cycle t - 1. Arrays of PEs are flat, row by row.

const ARRAYS = {
  bool: Uint8Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, float32: Float32Array, float64: Float64Array,
};

/** Return a typed array from the base64 text of its bytes (little-endian). */
function decode(text, type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new ARRAYS[type](bytes.buffer);
}

/** Return bits, the first in the lowest bit of a byte, as a Uint8Array of 0 and 1. */
function unpack(bytes, count) {
  const bits = new Uint8Array(count);
  for (let i = 0; i < count; i++) bits[i] = (bytes[i >> 3] >> (i & 7)) & 1;
  return bits;
}

/** Return the addition of a format, (sum, a, b) -> sum + a * b, and that of two sums. */
function additions({ type, bits, overflow }) {
  if (type === "float32") {
    // Rounding the double sum gives the same as rounding the exact one. A product has at most 22 bits, a sum 24:
    // where 53 bits do not hold both, the smaller is below 2^-28 of the larger, which float32 holds, or which
    // is beyond its range; both ways give the larger. Adding 0 makes +0 of -0.
    return [(s, a, b) => Math.fround(s + a * b) + 0, (s, t) => Math.fround(s + t) + 0];
  }
  if (overflow === "saturate") {
    const high = 2 ** (bits - 1) - 1;
    const low = -(2 ** (bits - 1));
    const clamp = (value) => (value > high ? high : value < low ? low : value);
    return [(s, a, b) => clamp(s + a * b), (s, t) => clamp(s + t)];
  }
  if (bits === 32) {
    return [(s, a, b) => (s + Math.imul(a, b)) | 0, (s, t) => (s + t) | 0];
  }
  const spare = 32 - bits;
  return [
    (s, a, b) => ((s + Math.imul(a, b)) << spare) >> spare,
    (s, t) => ((s + t) << spare) >> spare,
  ];
}

// Registers that one value passes through, by kind of value.
const KINDS = {
  moving: { activation: ["activation"], weight: ["weight", "next_weight", "weight_pass"], sum: ["psum"] },
  held: { activation: ["activation"], weight: ["weight"], sum: ["acc", "out", "out_pass"] },
};

const STAY = ["shift", "start", "lines", "leaves", "m", "mStop", "k", "kStop", "n", "nStop", "group", "output",
  "adds"];

// Bytes of states that are kept, to go back from.
const KEPT_BYTES = 64 << 20;

/** An array and its past: `seek` goes to any cycle. */
class ArrayModel {
  constructor(description) {
    const d = description;
    this.description = d;
    this.rows = d.rows;
    this.cols = d.cols;
    this.first = d.first_cycle;
    this.last = d.first_cycle + d.cycles;
    this.held = d.held;
    this.exchanged = d.exchanged;
    this.kinds = d.held ? KINDS.held : KINDS.moving;
    [this.add, this.addSums] = additions(d.sum);
    this.stays = d.folds.map((fold) => Object.fromEntries(STAY.map((name, i) => [name, fold[i]])));
    this.changes = new Map(Object.entries(d.changes).map(([cycle, list]) => [Number(cycle), list]));
    this.ports = {};
    for (const { name, side, type } of d.ports) {
      const size = side === "west" ? d.rows : d.cols;
      const stream = d.streams[name];
      const at = stream ? decode(stream.at, "int32") : [];
      // Of each edge, which line of values it takes; -1: zeros.
      const lines = new Int32Array(d.cycles).fill(-1);
      at.forEach((edge, line) => { lines[edge] = line; });
      const packed = stream ? decode(stream.data, type === "bool" ? "uint8" : type) : [];
      this.ports[name] = { size, lines, values: type === "bool" ? unpack(packed, at.length * size) : packed };
    }
    this.longest = this.stays.reduce((most, stay) => Math.max(most, stay.lines), d.rows);
    this.reset();
  }

  /** Go back to the first cycle, and forget the states that were kept. */
  reset() {
    const { description: d, rows, cols } = this;
    this.registers = {};
    for (const { name, type } of d.registers) {
      this.registers[name] = d.initial[name] ? decode(d.initial[name], type) : new ARRAYS[type](rows * cols);
    }
    this.initial = Object.fromEntries(Object.entries(this.registers).map(([name, values]) => [name, values.slice()]));
    this.outputs = d.outputs.map(([lines, width]) => new ARRAYS[d.sum.type](lines * width));
    this.written = d.outputs.map(([lines, width]) => new Uint8Array(lines * width));
    this.cycle = this.first;
    this.kept = new Map();
    this.every = 1;
    this.keep();
  }

  /** Return the value on a port at the edge of a cycle. */
  port(name, cycle, index) {
    const { lines, values, size } = this.ports[name];
    const line = lines[cycle - this.first] ?? -1; // behind the last edge there is nothing
    return line < 0 ? 0 : values[line * size + index];
  }

  /** Do one clock edge. */
  step() {
    const t = this.cycle;
    this.collect();
    if (this.held) this.stepHeld(t);
    else this.stepMoving(t);
    for (const [register, index, value] of this.changes.get(t) ?? []) this.registers[register][index] = value;
    this.cycle = t + 1;
    this.keep();
  }

  /** Weight and input stationary: sums move. From the last PE to the first, so that neighbors still hold old values. */
  stepMoving(t) {
    const { rows, cols, add } = this;
    const { weight, next_weight: next, weight_pass: pass, activation, psum, shift, swap } = this.registers;
    for (let r = rows - 1; r >= 0; r--) {
      for (let c = cols - 1; c >= 0; c--) {
        const i = r * cols + c;
        const a = c ? activation[i - 1] : this.port("activation", t, r);
        const shifts = c ? shift[i - 1] : this.port("shift", t, r);
        const swaps = c ? swap[i - 1] : this.port("swap", t, r);
        const above = r ? psum[i - cols] : this.port("psum", t, c);
        if (swaps) weight[i] = next[i];
        if (shifts) {
          pass[i] = next[i];
          next[i] = r ? pass[i - cols] : this.port("weight", t, c);
        }
        psum[i] = add(above, a, weight[i]);
        activation[i] = a;
        shift[i] = shifts;
        swap[i] = swaps;
      }
    }
  }

  /** Output stationary: sums stay. */
  stepHeld(t) {
    const { rows, cols, add } = this;
    const { activation, weight, acc, out, out_pass: pass, swap, drain } = this.registers;
    for (let r = rows - 1; r >= 0; r--) {
      for (let c = cols - 1; c >= 0; c--) {
        const i = r * cols + c;
        const a = c ? activation[i - 1] : this.port("activation", t, r);
        const swaps = c ? swap[i - 1] : this.port("swap", t, r);
        const drains = c ? drain[i - 1] : this.port("drain", t, r);
        const w = r ? weight[i - cols] : this.port("weight", t, c);
        const arriving = r ? pass[i - cols] : this.port("out", t, c);
        if (drains) pass[i] = out[i];
        if (swaps) {
          out[i] = acc[i];
          acc[i] = add(0, a, w);
        } else {
          acc[i] = add(acc[i], a, w);
          if (drains) out[i] = arriving;
        }
        activation[i] = a;
        weight[i] = w;
        swap[i] = swaps;
        drain[i] = drains;
      }
    }
  }

  /** Put sums at the bottom into the outputs: those of the edge before, as the accumulators take them now. */
  collect() {
    const { rows, cols, stays } = this;
    if (!this.outputs.length) return;
    const leaving = this.registers[this.description.leaves];
    for (let s = stays.length - 1; s >= 0; s--) {
      const stay = stays[s];
      const count = this.held ? rows : stay.lines;
      // Of column 0; the others follow.
      const line = this.cycle - 1 - stay.leaves - (rows - 1);
      if (line - (cols - 1) >= this.longest) break; // those before left earlier
      if (line < 0 || line - (cols - 1) >= count || !this.description.outputs[stay.output]) continue;
      const width = this.description.outputs[stay.output][1];
      const values = this.outputs[stay.output];
      for (let c = 0; c < cols; c++) {
        const [m, n] = this.place(stay, line - c, c, rows);
        if (m < stay.m || m >= stay.mStop || n < stay.n || n >= stay.nStop || line - c < 0 || line - c >= count) continue;
        const at = m * width + n;
        const value = leaving[(rows - 1) * cols + c];
        values[at] = stay.adds ? this.addSums(values[at], value) : value;
        this.written[stay.output][at] = 1;
      }
    }
  }

  /** Return (m, n) of the sum that leaves column c on a line of a fold. */
  place(stay, line, c, rows) {
    if (this.held) return [stay.m + rows - 1 - line, stay.n + c];
    return this.exchanged ? [stay.m + c, stay.n + line] : [stay.m + line, stay.n + c];
  }

  /** Go to a cycle, forwards or back. */
  seek(cycle) {
    const target = Math.max(this.first, Math.min(this.last, cycle));
    if (target < this.cycle || target - this.cycle > this.every) {
      let best = this.first;
      for (const at of this.kept.keys()) if (at <= target && at > best) best = at;
      if (target < this.cycle || best > this.cycle) this.restore(best);
    }
    while (this.cycle < target) this.step();
    return this;
  }

  everything() {
    return [...Object.values(this.registers), ...this.outputs, ...this.written];
  }

  keep() {
    if ((this.cycle - this.first) % this.every || this.kept.has(this.cycle)) return;
    const arrays = this.everything();
    const bytes = arrays.reduce((sum, array) => sum + array.byteLength + 200, 0);
    while (this.kept.size > 1 && (this.kept.size + 1) * bytes > KEPT_BYTES) {
      this.every *= 2;
      for (const at of [...this.kept.keys()]) if ((at - this.first) % this.every) this.kept.delete(at);
      if ((this.cycle - this.first) % this.every) return;
    }
    this.kept.set(this.cycle, arrays.map((array) => array.slice()));
  }

  restore(cycle) {
    const saved = this.kept.get(cycle);
    this.everything().forEach((array, i) => array.set(saved[i]));
    this.cycle = cycle;
  }

  // Names

  /** Return the fold that streams at a local time, or null. */
  streaming(time) {
    const stay = this.begun(time);
    return stay && time < stay.start + stay.lines ? stay : null;
  }

  /** Return the last fold whose stream has begun at a local time, or null. */
  begun(time) {
    let low = 0;
    let high = this.stays.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.stays[middle].start <= time) low = middle + 1;
      else high = middle;
    }
    return low ? this.stays[low - 1] : null;
  }

  element(matrix, stay, row, col) {
    const rows = matrix === "x" ? [stay.m, stay.mStop] : [stay.k, stay.kStop];
    const cols = matrix === "x" ? [stay.k, stay.kStop] : [stay.n, stay.nStop];
    if (row < rows[0] || row >= rows[1] || col < cols[0] || col >= cols[1]) return null;
    return `${matrix}[${row}, ${col}]`;
  }

  /** Return the name of what streams into row r at a local time, or null. */
  streamName(time, r) {
    const stay = this.streaming(time);
    if (!stay) return null;
    const line = time - stay.start;
    if (this.held) return this.element("x", stay, stay.m + r, stay.k + line);
    if (this.exchanged) return this.element("w", stay, stay.k + r, stay.n + line);
    return this.element("x", stay, stay.m + line, stay.k + r);
  }

  /** Return the name of what stays in PE (r, c), or passes it, at a local time, or null. */
  weightName(time, r, c) {
    const stay = this.begun(time);
    if (!stay) return null;
    if (this.held) return this.element("w", stay, stay.k + time - stay.start, stay.n + c);
    return this.exchanged ? this.element("x", stay, stay.m + c, stay.k + r) : this.element("w", stay, stay.k + r, stay.n + c);
  }

  /** Return the name of what enters column c from the north at a local time, or null. */
  northName(time, c) {
    if (this.held) return this.streaming(time) && this.weightName(time, 0, c);
    const stay = this.stays.find(({ shift }) => shift !== null && shift <= time && time < shift + this.rows);
    if (!stay) return null;
    const k = stay.k + this.rows - 1 - (time - stay.shift);
    return this.exchanged ? this.element("x", stay, stay.m + c, k) : this.element("w", stay, k, stay.n + c);
  }

  /** Return what PE (r, c) did at the last edge. */
  product(r, c) {
    const i = r * this.cols + c;
    const cycle = this.cycle - 1;
    const time = cycle - r - c;
    const { activation, weight } = this.registers;
    const stay = cycle >= this.first ? this.streaming(time) : null;
    const sum = this.registers[this.held ? "acc" : "psum"][i];
    const done = { cycle, fold: stay ? this.stays.indexOf(stay) : null, activation: activation[i], weight: weight[i], sum };
    if (!stay) return { ...done, streams: null, stays: null, output: null, k: 0 };
    const line = time - stay.start;
    const [m, n] = this.held ? [stay.m + r, stay.n + c] : this.place(stay, line, c, this.rows);
    const inside = m < stay.mStop && n < stay.nStop;
    return {
      ...done,
      streams: this.streamName(time, r),
      stays: this.weightName(time, r, c),
      output: inside ? `y[${m}, ${n}]` : null,
      // The products in the sum so far, along k.
      k: Math.min(this.held ? line + 1 : r + 1, stay.kStop - stay.k),
      ofK: stay.kStop - stay.k,
    };
  }

  // Following a value. It is known by its kind, its row (activations) or column, and a number: of those that move
  // every cycle the edge at which they enter, of others what `chain` gives them.

  /** Return the value that enters a row or a column at an edge. */
  entering(kind, index, edge) {
    return { kind, index, number: this.chained(kind) ? 1 + edge - this.first : edge };
  }

  /** Return the value in a register of PE (r, c) now; null if none is known. */
  valueIn(register, r, c) {
    const kind = this.kindOf(register);
    if (!kind) return null;
    if (!this.chained(kind)) {
      const [index, distance] = kind === "activation" ? [r, c] : [c, r];
      return this.entering(kind, index, this.cycle - 1 - distance);
    }
    let number = 0;
    this.chain(c, (cycle, numbers) => { if (cycle === this.cycle) number = numbers[register][r]; });
    return number ? { kind, index: c, number } : null;
  }

  /** Return all places of a value: [{ cycle, register, row, col }], in the order of time. */
  journey({ kind, index, number }) {
    const found = [];
    if (this.chained(kind)) {
      this.chain(index, (cycle, numbers) => {
        for (const register of this.kinds[kind]) {
          numbers[register].forEach((each, row) => {
            if (each === number) found.push({ cycle, register, row, col: index });
          });
        }
      });
      return found;
    }
    const [register] = this.kinds[kind];
    for (let along = 0; along < (kind === "activation" ? this.cols : this.rows); along++) {
      const cycle = number + 1 + along;
      const [row, col] = kind === "activation" ? [index, along] : [along, index];
      if (cycle >= this.first && cycle <= this.last) found.push({ cycle, register, row, col });
    }
    return found;
  }

  /** Return whether values of a kind stay, and move only when control bits say so. */
  chained(kind) {
    return kind === (this.held ? "sum" : "weight");
  }

  /** Number the values that stay in a column, and call visit(cycle, numbers by register) at each cycle. */
  chain(c, visit) {
    const { rows, first } = this;
    const names = this.kinds[this.held ? "sum" : "weight"];
    // What is there at first has numbers below zero.
    const numbers = names.map((_, which) => Int32Array.from({ length: rows }, (_, r) => -1 - which * rows - r));
    const named = Object.fromEntries(names.map((name, i) => [name, numbers[i]]));
    const [held, waiting, passing] = numbers;
    const arrives = (bit, t, r) =>
      t - c >= first ? this.port(bit, t - c, r) : this.initial[bit][r * this.cols + c - 1 - (t - first)];
    visit(first, named);
    for (let t = first; t < this.last; t++) {
      for (let r = rows - 1; r >= 0; r--) {
        const swaps = arrives("swap", t, r);
        if (!this.held) {
          if (swaps) held[r] = waiting[r];
          if (arrives("shift", t, r)) {
            passing[r] = waiting[r];
            waiting[r] = r ? passing[r - 1] : 1 + t - first;
          }
          continue;
        }
        const drains = arrives("drain", t, r);
        if (drains) passing[r] = waiting[r];
        if (swaps) {
          waiting[r] = held[r];
          held[r] = 1 + (t - first) * rows + r;
        } else if (drains) waiting[r] = r ? passing[r - 1] : 0;
      }
      visit(t + 1, named);
    }
  }

  /** Return the kind of value in a register, or undefined of a control bit. */
  kindOf(register) {
    return Object.keys(this.kinds).find((kind) => this.kinds[kind].includes(register));
  }
}
