// The picture: before left of the line, restored right of it, zoomed and moved about by pointer and keys.

const MOST_ZOOM = 16;
const ZOOM_STEP = 1.5;
const PAN_PX = 40;

export class Picture {
  #stage;
  #canvas;
  #handle;
  #pair = null; // {before, after}: ImageBitmaps of the same size
  #asked = 0; // pairs that were to be shown
  #shown = 0; // the latest of them that was
  #share = 0.5; // of the stage that lies left of the line
  #zoom = 1; // 1 fits the stage
  #centre = { x: 0.5, y: 0.5 }; // what of the picture is in the middle of the stage
  #pointers = new Map();
  #dragsLine = false;
  #due = false;
  #afterDraw = [];
  #onZoom;

  constructor({ stage, canvas, handle, onZoom }) {
    this.#stage = stage;
    this.#canvas = canvas;
    this.#handle = handle;
    this.#onZoom = onZoom;
    new ResizeObserver(() => this.#draw()).observe(stage);
    this.#listen();
    this.#moveLine(this.#share);
  }

  /** Show a pair of JPEGs; resolves once it, or a later pair, is on the screen, so not while the tab is hidden. */
  async show({ header, before, after }) {
    const number = ++this.#asked;
    const [left, right] = await Promise.all([createImageBitmap(before), createImageBitmap(after)]);
    if (number < this.#shown) {
      return; // a later one was decoded sooner
    }
    this.#shown = number;
    this.#pair?.before.close();
    this.#pair?.after.close();
    this.#pair = { before: left, after: right };
    this.setRatio(...header.size);
    await new Promise((drawn) => {
      this.#afterDraw.push(drawn);
      this.#later();
    });
  }

  /** Give the stage the shape of frames of that size. */
  setRatio(height, width) {
    this.#stage.style.setProperty("--ratio", width / height);
  }

  zoomBy(factor, at = { x: 0.5, y: 0.5 }) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.#zoom * factor));
    const shift = 1 / this.#zoom - 1 / zoom; // what lies under `at` stays there
    this.#zoom = zoom;
    this.#stage.toggleAttribute("data-zoomed", zoom > 1);
    this.#moveTo(this.#centre.x + (at.x - 0.5) * shift, this.#centre.y + (at.y - 0.5) * shift);
    this.#onZoom(zoom);
  }

  zoomIn() {
    this.zoomBy(ZOOM_STEP);
  }

  zoomOut() {
    this.zoomBy(1 / ZOOM_STEP);
  }

  fit() {
    this.zoomBy(1 / this.#zoom);
  }

  #moveTo(x, y) {
    const half = 0.5 / this.#zoom;
    const inside = (value) => Math.min(1 - half, Math.max(half, value));
    this.#centre = { x: inside(x), y: inside(y) };
    this.#later();
  }

  #moveLine(share) {
    this.#share = Math.min(1, Math.max(0, share));
    const percent = Math.round(this.#share * 100);
    this.#stage.style.setProperty("--share", this.#share);
    this.#handle.setAttribute("aria-valuenow", percent);
    this.#handle.setAttribute("aria-valuetext", `${percent} % before, ${100 - percent} % restored`);
    this.#later();
  }

  #later() {
    if (!this.#due) {
      this.#due = true;
      requestAnimationFrame(() => this.#draw());
    }
  }

  #draw() {
    this.#due = false;
    const { clientWidth, clientHeight } = this.#stage;
    const scale = devicePixelRatio;
    const width = Math.round(clientWidth * scale);
    const height = Math.round(clientHeight * scale);
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    if (this.#pair !== null) {
      this.#paint(this.#canvas.getContext("2d"), width, height);
    }
    for (const drawn of this.#afterDraw.splice(0)) {
      drawn();
    }
  }

  #paint(context, width, height) {
    const { before, after } = this.#pair;
    const line = Math.round(width * this.#share);
    const left = width / 2 - this.#centre.x * width * this.#zoom;
    const top = height / 2 - this.#centre.y * height * this.#zoom;
    const area = [left, top, width * this.#zoom, height * this.#zoom];
    context.imageSmoothingEnabled = area[2] < 3 * after.width; // close up, show the pixels as they are
    context.imageSmoothingQuality = "high";
    context.drawImage(after, ...area);
    context.save();
    context.beginPath();
    context.rect(0, 0, line, height);
    context.clip();
    context.drawImage(before, ...area);
    context.restore();
  }

  #listen() {
    this.#stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.#stage.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.#stage.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    this.#stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#handle.addEventListener("keydown", (event) => this.#lineKey(event));
    this.#canvas.addEventListener("keydown", (event) => this.#pictureKey(event));
  }

  #press(event) {
    if (event.button !== 0) {
      return;
    }
    this.#stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#place(event));
    this.#dragsLine = event.target === this.#handle || this.#zoom === 1;
    if (this.#dragsLine) {
      this.#moveLine(this.#place(event).x);
      this.#handle.focus({ preventScroll: true, focusVisible: false });
      event.preventDefault(); // keeps the focus there
    }
  }

  #drag(event) {
    const from = this.#pointers.get(event.pointerId);
    if (from === undefined) {
      return;
    }
    const to = this.#place(event);
    this.#pointers.set(event.pointerId, to);
    if (this.#pointers.size === 2) {
      this.#pinch(event.pointerId, from, to);
    } else if (this.#dragsLine) {
      this.#moveLine(to.x);
    } else {
      this.#panBy(from.x - to.x, from.y - to.y);
    }
  }

  #pinch(moved, from, to) {
    const [, fixed] = [...this.#pointers].find(([id]) => id !== moved);
    const spread = (point) => Math.hypot((point.x - fixed.x) * this.#stage.clientWidth,
                                         (point.y - fixed.y) * this.#stage.clientHeight);
    this.#dragsLine = false;
    this.zoomBy(spread(to) / Math.max(1, spread(from)), { x: (fixed.x + to.x) / 2, y: (fixed.y + to.y) / 2 });
  }

  #wheel(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 400), this.#place(event));
  }

  #panBy(x, y) {
    this.#moveTo(this.#centre.x + x / this.#zoom, this.#centre.y + y / this.#zoom);
  }

  /** Where an event is, as shares of the stage. */
  #place(event) {
    const box = this.#stage.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #lineKey(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const targets = {
      ArrowLeft: this.#share - step,
      ArrowDown: this.#share - step,
      ArrowRight: this.#share + step,
      ArrowUp: this.#share + step,
      PageDown: this.#share - 0.1,
      PageUp: this.#share + 0.1,
      Home: 0,
      End: 1,
    };
    if (event.key in targets) {
      event.preventDefault();
      this.#moveLine(targets[event.key]);
    }
  }

  #pictureKey(event) {
    const [x, y] = [PAN_PX / this.#stage.clientWidth, PAN_PX / this.#stage.clientHeight];
    const actions = {
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.zoomOut(),
      0: () => this.fit(),
      ArrowLeft: () => this.#panBy(-x, 0),
      ArrowRight: () => this.#panBy(x, 0),
      ArrowUp: () => this.#panBy(0, -y),
      ArrowDown: () => this.#panBy(0, y),
    };
    if (event.key in actions && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      actions[event.key]();
    }
  }
}
