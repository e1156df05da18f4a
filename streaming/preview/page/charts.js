// Half a minute of timing: what each stage of a frame took, and how old its masks were when published.

const WINDOW_MS = 30000;
const COLOURS = ["#7c8cff", "#3ddc97", "#ffb454", "#ff7aa8", "#4cc9f0", "#b38bff", "#c3d150", "#ff8b5e", "#8fa3b8"];
const NICE = [2, 4, 6, 10, 16, 20, 30, 40, 60, 80, 100, 160, 200, 400, 1000, 2000, 4000, 10000, 20000, 40000, 60000];

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : 0;
}

function ms(value) {
  if (value >= 10000) return `${Math.round(value / 1000)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export class Charts {
  /** @param parts the elements latency, latencyText, legend, age, ageText. */
  constructor(parts) {
    this.parts = parts;
    this.clear();
  }

  clear() {
    this.points = [];
    this.stages = [];
    this.parts.legend.replaceChildren();
    this.labels = [];
  }

  /** Take a message's table: rows of frame, time, age and one value per stage. */
  take({ stages, rows }) {
    for (const name of stages) if (!this.stages.includes(name)) this.stages.push(name);
    for (const [, at, age, ...values] of rows) {
      const times = new Map(stages.map((name, i) => [name, values[i]]));
      this.points.push({ at, age, times, total: values.reduce((sum, value) => sum + value, 0) });
    }
    const newest = this.points.at(-1)?.at ?? 0;
    while (this.points.length && this.points[0].at < newest - WINDOW_MS) this.points.shift();
  }

  draw() {
    const { points, parts } = this;
    if (!points.length) return;
    const totals = points.map(point => point.total), ages = points.map(point => point.age);
    parts.latencyText.textContent = `median ${ms(quantile(totals, 0.5))}, p95 ${ms(quantile(totals, 0.95))}`;
    parts.ageText.textContent = `median ${ms(quantile(ages, 0.5))}, p95 ${ms(quantile(ages, 0.95))}`;
    this.legend();
    this.stack(parts.latency, totals);
    this.line(parts.age, ages);
  }

  legend() {
    this.stages.forEach((name, i) => {
      if (!this.labels[i]) {
        this.labels[i] = document.createElement("li");
        this.labels[i].style.setProperty("--colour", COLOURS[i % COLOURS.length]);
        this.parts.legend.append(this.labels[i]);
      }
      this.labels[i].textContent = `${name} ${quantile(this.points.map(point => point.times.get(name) || 0), 0.5).toFixed(1)} ms`;
    });
  }

  /** Clears a canvas, draws the grid and returns its scales. */
  frame(canvas, values) {
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * dense)) Object.assign(canvas, { width: Math.round(width * dense), height: Math.round(height * dense) });
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    const limit = quantile(values, 0.99) * 1.15;
    const top = NICE.find(step => step >= limit) || limit;
    const newest = this.points.at(-1).at;
    const x = at => width - (newest - at) / WINDOW_MS * width;
    const y = value => height - 4 - Math.min(value / top, 1) * (height - 12);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "bottom";
    for (const share of [0.5, 1]) {
      context.fillStyle = style.getPropertyValue("--line");
      context.fillRect(0, Math.round(y(share * top)), width, 1);
      context.fillStyle = style.getPropertyValue("--dim");
      context.fillText(ms(share * top), 0, Math.round(y(share * top)) + (share === 1 ? 14 : 0));
    }
    return { context, x, y, style };
  }

  stack(canvas, totals) {
    const { context, x, y } = this.frame(canvas, totals);
    const below = new Float64Array(this.points.length);
    context.globalAlpha = 0.85;
    this.stages.forEach((name, i) => {
      context.beginPath();
      this.points.forEach((point, k) => context.lineTo(x(point.at), y(below[k] + (point.times.get(name) || 0))));
      for (let k = this.points.length - 1; k >= 0; k--) context.lineTo(x(this.points[k].at), y(below[k]));
      context.fillStyle = COLOURS[i % COLOURS.length];
      context.fill();
      this.points.forEach((point, k) => { below[k] += point.times.get(name) || 0; });
    });
    context.globalAlpha = 1;
  }

  line(canvas, ages) {
    const { context, x, y, style } = this.frame(canvas, ages);
    context.beginPath();
    this.points.forEach(point => context.lineTo(x(point.at), y(point.age)));
    context.strokeStyle = style.getPropertyValue("--accent");
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    context.stroke();
  }
}
