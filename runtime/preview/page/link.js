// The WebSocket to the server: comes back by itself, with a growing wait.

const FIRST_WAIT_MS = 500;
const MOST_WAIT_MS = 8000;
const FULL = 4000;

export class Link {
  #socket = null;
  #failures = 0;
  #changes = 0; // sent over this connection
  #taken = 0; // how many of them the server has taken in
  #on;

  /** on: {state(name, text), text(object), picture({header, before, after})} */
  constructor(on) {
    this.#on = on;
    this.#open();
  }

  /** Send one thing, as {drawn: true}; forgotten while there is no connection. */
  send(message) {
    if (this.#isOpen) {
      this.#socket.send(JSON.stringify(message));
    }
  }

  /** Send the new value of a control, as {highest_rung: 3}; forgotten while there is no connection. */
  change(message) {
    this.#changes += this.#isOpen ? 1 : 0;
    this.send(message);
  }

  /** Whether the server knows every change; a state that arrives earlier may be older than one of them. */
  get settled() {
    return this.#taken === this.#changes;
  }

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/live`);
    let opened = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      opened = true;
      this.#changes = this.#taken = 0;
      this.#on.state("connected", "Connected");
    };
    socket.onmessage = ({ data }) => {
      this.#failures = 0;
      if (typeof data === "string") {
        this.#read(JSON.parse(data));
      } else {
        this.#on.picture(unpack(data));
      }
    };
    socket.onclose = ({ code, reason }) => this.#again(code === FULL ? reason : "", opened);
    this.#socket = socket;
  }

  #read(message) {
    if ("taken" in message) {
      this.#taken = message.taken;
    } else {
      this.#on.text(message);
    }
  }

  async #again(reason, opened) {
    this.#on.state(reason ? "full" : "lost", reason || "Reconnecting");
    const wait = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
    this.#failures += 1;
    await new Promise((done) => setTimeout(done, wait));
    if (!opened && (await isLocked())) {
      this.#on.state("locked", "The token has changed: open the address that unblur preview printed");
      return;
    }
    this.#open();
  }
}

/** Whether the server is there but does not let this page in. */
async function isLocked() {
  try {
    return (await fetch("icon.svg")).status === 403;
  } catch {
    return false; // nobody answers: not a verdict
  }
}

/** The inverse of `encode` in preview/viewers.py. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = 4 + length;
  const jpeg = (from, to) => new Blob([buffer.slice(from, to)], { type: "image/jpeg" });
  return {
    header,
    before: jpeg(start, start + header.before),
    after: jpeg(start + header.before, buffer.byteLength),
  };
}
