// Small line charts of the last two minutes, in a canvas each.

const HEIGHT = 72;
const ROUND = [1, 1.5, 2, 3, 4, 6, 8, 10]; // a scale ends at one of these times a power of ten

export class Chart {
  #series;
  #unit;
  #length;
  #values;
  #canvas = document.createElement("canvas");
  #numbers = document.createElement("span");

  /** series: [{name, colour}], colour a CSS variable. length: how many values fit. */
  constructor(figure, { title, unit, series, length }) {
    this.#series = series;
    this.#unit = unit;
    this.#length = length;
    this.#values = series.map(() => []);
    const caption = document.createElement("figcaption");
    caption.append(title, this.#numbers);
    this.#canvas.setAttribute("role", "img");
    figure.replaceChildren(caption, this.#canvas);
    new ResizeObserver(() => this.draw()).observe(figure);
  }

  /** Add one value per series, null where it is not known. */
  add(values) {
    this.#values.forEach((kept, index) => {
      kept.push(values[index]);
      kept.splice(0, kept.length - this.#length);
    });
  }

  clear() {
    this.#values = this.#series.map(() => []);
  }

  draw() {
    const numbers = this.#series.flatMap((series, index) => [this.#number(series, index), " "]);
    this.#numbers.replaceChildren(...numbers.slice(0, this.#unit ? undefined : -1), this.#unit);
    this.#canvas.setAttribute("aria-label", this.#numbers.textContent);
    const width = this.#canvas.clientWidth;
    if (width > 0) {
      this.#canvas.width = width * devicePixelRatio;
      this.#canvas.height = HEIGHT * devicePixelRatio;
      const context = this.#canvas.getContext("2d");
      context.scale(devicePixelRatio, devicePixelRatio);
      this.#paint(context, width);
    }
  }

  #number({ name, colour }, index) {
    const number = document.createElement("span");
    number.textContent = `${name} ${written(this.#values[index].at(-1))}`.trim();
    number.style.color = name ? `var(${colour})` : "inherit";
    return number;
  }

  #paint(context, width) {
    const style = getComputedStyle(this.#canvas);
    const top = scaleFor(Math.max(0, ...this.#values.flat().filter((value) => value !== null)));
    const y = (value) => HEIGHT - 1 - (value / top) * (HEIGHT - 14);
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = "bottom";
    context.fillStyle = style.getPropertyValue("--muted");
    context.strokeStyle = style.getPropertyValue("--line");
    for (const value of [0, top]) {
      context.strokeRect(0, Math.round(y(value)) - 0.5, width, 0);
    }
    context.fillText(written(top), 0, y(top) - 1);
    this.#series.forEach(({ colour }, index) => {
      context.strokeStyle = style.getPropertyValue(colour);
      this.#line(context, this.#values[index], width, y);
    });
  }

  #line(context, values, width, y) {
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    let isDown = false;
    values.forEach((value, index) => {
      const x = width - ((values.length - 1 - index) / (this.#length - 1)) * width;
      if (value !== null) {
        isDown ? context.lineTo(x, y(value)) : context.moveTo(x, y(value));
      }
      isDown = value !== null;
    });
    context.stroke();
    context.lineWidth = 1;
  }
}

/** The least round number that is not below `value`. */
function scaleFor(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return power * ROUND.find((step) => step * power >= value);
}

function written(value) {
  if (value === null || value === undefined) {
    return "–";
  }
  return value < 10 && value !== Math.round(value) ? value.toFixed(1) : value.toFixed(0);
}
