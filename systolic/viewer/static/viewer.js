// The page around a picture: title, buttons, keys. A picture is `arrayPicture` or `timelinePicture`.

/** Return a new element. Attributes that are functions listen to the event of that name. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Return a number with commas between thousands and a real minus; floats in so many digits. */
function text(value, digits = 6) {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0"; // 0 times a negative number is -0
  const size = Math.abs(value);
  const far = !Number.isInteger(value) && (size < 1e-4 || size >= 1e9);
  const short = Number.isInteger(value) ? value : Number(value.toPrecision(digits));
  const words = far ? short.toExponential() : short.toLocaleString("en-US", { maximumFractionDigits: 12 });
  return words.replaceAll("-", "−");
}

/** Return in words when so many clock edges are done, as systolic._text.moment does. */
const moment = (edges) => (edges ? `after the edge of cycle ${text(edges - 1)}` : "before the first edge");

const capital = (words) => words[0].toUpperCase() + words.slice(1);

/** Return a number as there is room for it in a picture. */
const brief = (value) => text(value, 3);

const SPEEDS = [1, 2, 5, 10, 30, 60];

/** Show a description in an element; returns { go, stop, picture }. */
function open(root, description, { page = false, changed = () => {}, cycle = null } = {}) {
  root.classList.add("systolic-viewer");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab would insert a cell for the key A
  root.replaceChildren();
  const first = description.first_cycle;
  const last = first + description.cycles;
  const state = { cycle: first, timer: null, speed: description.kind === "array" ? 2 : 30, shown: -1 };

  const live = element("div", { class: "hidden", role: "status", "aria-live": "polite" });
  const button = (label, face, act, key) =>
    element("button", { type: "button", "aria-label": label, title: `${label} (${key})`, click: act }, face);
  const play = element("button", { type: "button", class: "play", title: "Play or pause (space)", click: () => toggle() });
  const back = button("Step back", "←", () => go(state.cycle - unit()), ",");
  const on = button("Step forward", "→", () => go(state.cycle + unit()), ".");
  const home = button("To the first cycle", "⇤", () => go(first), "Home");
  const end = button("To the last cycle", "⇥", () => go(last), "End");
  const slider = element("input", {
    type: "range", min: first, max: last, step: 1, "aria-label": "Cycle", input: () => go(Number(slider.value)),
  });
  const time = element("span", { class: "time" });
  const speed = element("select", { "aria-label": "Cycles per second", change: () => retime(Number(speed.value)) });
  for (const each of SPEEDS) speed.append(element("option", { value: each, selected: each === state.speed }, `${each} / s`));

  const bar = element("div", { class: "bar", role: "group", "aria-label": "Time" }, home, back, play, on, end, slider, time, speed);
  root.append(
    element("h1", {}, description.title),
    element("p", { class: "about" }, description.about),
    ...description.notes.map((note) => element("p", { class: "note" }, note)),
    bar,
  );
  const make = description.kind === "array" ? arrayPicture : timelinePicture;
  const picture = make(description, { root, bar, go: (to) => go(to), say: (words) => { live.textContent = words; } });
  root.append(picture.element, live);

  // Cycles of a step: all of a long timeline take too many.
  function unit() {
    return picture.unit ? picture.unit() : 1;
  }

  function go(to) {
    state.cycle = Math.max(first, Math.min(last, Math.round(to)));
    if (state.cycle === last) pause();
    render();
  }

  function render() {
    const { cycle } = state;
    slider.value = cycle;
    const when = picture.when(cycle, last);
    slider.setAttribute("aria-valuetext", when);
    time.textContent = when;
    back.disabled = home.disabled = cycle === first;
    on.disabled = end.disabled = cycle === last;
    picture.show(cycle, state.timer !== null);
    if (state.shown !== cycle) changed(cycle);
    state.shown = cycle;
    root.dataset.cycle = cycle;
  }

  function pause() {
    cancelAnimationFrame(state.timer);
    state.timer = null;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  }

  function toggle() {
    if (state.timer !== null) {
      pause();
      render();
      return;
    }
    if (state.cycle === last) go(first);
    play.textContent = "❚❚ Pause";
    play.setAttribute("aria-pressed", "true");
    let since = null;
    let done = 0;
    const frame = (now) => {
      since ??= now;
      state.timer = requestAnimationFrame(frame);
      const due = Math.floor(((now - since) / 1000) * state.speed);
      if (due > done) {
        const by = (due - done) * unit();
        done = due;
        go(state.cycle + by);
      }
    };
    state.timer = requestAnimationFrame(frame);
  }

  function retime(to) {
    state.speed = to;
    if (state.timer !== null) {
      pause();
      toggle();
    }
  }

  const keys = { " ": toggle, ",": () => go(state.cycle - unit()), ".": () => go(state.cycle + unit()), Home: () => go(first), End: () => go(last) };
  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const tag = event.target.tagName;
    // A button takes the space bar itself, a slider Home and End, a list all of them.
    if (tag === "SELECT" || (event.key === " " && ["BUTTON", "SUMMARY"].includes(tag))) return;
    if (tag === "INPUT" && event.key !== " " && event.key !== "," && event.key !== ".") return;
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
  const listener = page ? document : root;
  listener.addEventListener("keydown", pressed);

  const redraw = () => { picture.restyle(); render(); };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  const sizes = new ResizeObserver(redraw);
  sizes.observe(root);

  pause();
  picture.restyle();
  go(cycle ?? first);

  function stop() {
    pause();
    sizes.disconnect();
    dark.removeEventListener("change", redraw);
    listener.removeEventListener("keydown", pressed);
  }
  return { go, stop, picture };
}

/** Show a widget's description, as anywidget calls it. */
function render({ model, el }) {
  const view = open(el, model.get("description"), {
    cycle: model.get("cycle"),
    changed: (cycle) => {
      if (model.get("cycle") === cycle) return;
      model.set("cycle", cycle);
      model.save_changes();
    },
  });
  const follow = () => { if (Number(el.dataset.cycle) !== model.get("cycle")) view.go(model.get("cycle")); };
  model.on("change:cycle", follow);
  return () => {
    model.off("change:cycle", follow);
    view.stop();
  };
}

export default { render };
