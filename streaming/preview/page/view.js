// The picture: the frame, its masks in their colours, and what is under the pointer.

const FILL = 0.42, FILL_HOT = 0.66;

/** Label map of h*w pixels from zlib'ed runs: n uint16 values, then n uint32 lengths. */
async function inflate(bytes, pixels) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const runs = await new Response(stream).arrayBuffer();
  const n = runs.byteLength / 6;
  const values = new Uint16Array(runs, 0, n);
  const lengths = new Uint32Array(runs.slice(2 * n));
  const labels = new Uint16Array(pixels);
  let at = 0;
  for (let i = 0; i < n; i++) labels.fill(values[i], at, at += lengths[i]);
  return labels;
}

/** Canvas pixel, alpha in [0, 1]. */
function rgba(colour, alpha) {
  const rgb = parseInt(colour.slice(1), 16);
  return ((alpha * 255) << 24 | (rgb & 255) << 16 | (rgb & 0xff00) | rgb >> 16) >>> 0;
}

/** Whether dark letters are readable on it. */
function bright(colour) {
  const rgb = parseInt(colour.slice(1), 16);
  return 0.3 * (rgb >> 16) + 0.59 * (rgb >> 8 & 255) + 0.11 * (rgb & 255) > 110;
}

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.tint = document.createElement("canvas");
    this.masks = true;
    this.hot = null; // id under the pointer
    this.frame = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Show one message. */
  async take({ state, labels, jpeg }) {
    const [h, w] = state.view;
    const [bitmap, map] = await Promise.all([
      createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })),
      inflate(labels, h * w),
    ]);
    this.bitmap?.close();
    Object.assign(this, { bitmap, map, h, w, frame: state.frame });
    this.ids = new Map(state.frame.objects.map(item => [item.label, item]));
    this.canvas.closest("main").style.setProperty("--ratio", w / h);
    this.measure(state.frame);
    this.draw();
  }

  /** Captured frames per second: ages count frames of the camera, also those the engine skipped. */
  measure({ index, t_capture_ms: at }) {
    if (!this.first || index < this.first.index) this.first = { index, at };
    const seconds = (at - this.first.at) / 1000;
    if (seconds > 1) this.rate = (index - this.first.index) / seconds;
  }

  /** Forget the picture, e.g. of another source. */
  clear() {
    this.frame = this.first = this.rate = null;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Frame pixels and the object under a pointer event. */
  at(event) {
    if (!this.frame) return null;
    const place = this.canvas.getBoundingClientRect();
    const u = (event.clientX - place.left) / place.width, v = (event.clientY - place.top) / place.height;
    if (u < 0 || v < 0 || u >= 1 || v >= 1) return null;
    const [height, width] = this.frame.size;
    const label = this.map[Math.floor(v * this.h) * this.w + Math.floor(u * this.w)];
    return { x: Math.floor(u * width), y: Math.floor(v * height), object: this.ids.get(label) || null };
  }

  /** Cut an object out of the picture into a square canvas, with some room around it. */
  cut(object, canvas) {
    const [height, width] = this.frame.size;
    const [x0, y0, x1, y1] = object.box;
    const side = Math.min(1.15 * Math.max(x1 - x0, y1 - y0, 8), Math.max(width, height));
    const left = Math.max(0, Math.min(width - side, (x0 + x1 - side) / 2));
    const top = Math.max(0, Math.min(height - side, (y0 + y1 - side) / 2));
    const scale = this.w / width;
    const context = canvas.getContext("2d", { alpha: false });
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.bitmap, left * scale, top * scale, side * scale, side * scale, 0, 0, canvas.width, canvas.height);
  }

  draw() {
    if (!this.frame) return;
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(this.canvas.clientWidth * dense), height = Math.round(width * this.h / this.w);
    if (!width) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(this.bitmap, 0, 0, width, height);
    if (!this.masks) return;
    this.paint();
    this.context.drawImage(this.tint, 0, 0, width, height);
    for (const object of this.frame.objects) this.name(object, dense, width / this.frame.size[1]);
  }

  /** Masks and outlines at the size of the label map; enlarging smooths both. */
  paint() {
    const { map, w, h, tint } = this;
    if (tint.width !== w || tint.height !== h) Object.assign(tint, { width: w, height: h });
    const image = new ImageData(w, h), pixels = new Uint32Array(image.data.buffer);
    const fill = new Uint32Array(65536), edge = new Uint32Array(65536);
    for (const item of this.frame.objects) {
      fill[item.label] = rgba(item.colour, item.id === this.hot ? FILL_HOT : FILL);
      edge[item.label] = item.followed ? 0xffffffff : rgba(item.colour, 1);
    }
    for (let y = 0, i = 0; y < h; y++) {
      for (let x = 0; x < w; x++, i++) {
        const label = map[i];
        if (!label) continue;
        const inside = (!x || map[i - 1] === label) && (x === w - 1 || map[i + 1] === label)
          && (!y || map[i - w] === label) && (y === h - 1 || map[i + w] === label);
        pixels[i] = inside ? fill[label] : edge[label];
      }
    }
    tint.getContext("2d").putImageData(image, 0, 0);
  }

  /** The id at the upper left of an object. */
  name(object, dense, scale) {
    const { context, canvas } = this;
    const text = (object.followed ? "● " : "") + object.id;
    context.font = `600 ${12 * dense}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 10 * dense, height = 18 * dense;
    const x = Math.max(0, Math.min(canvas.width - width, object.box[0] * scale));
    const y = Math.max(0, Math.min(canvas.height - height, object.box[1] * scale));
    context.fillStyle = object.followed ? "#fff" : object.colour;
    context.beginPath();
    context.roundRect(x, y, width, height, 5 * dense);
    context.fill();
    context.fillStyle = object.followed || bright(object.colour) ? "#0b0d11" : "#fff";
    context.textBaseline = "middle";
    context.fillText(text, x + 5 * dense, y + height / 2 + dense / 2);
  }
}
