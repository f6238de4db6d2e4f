/** Everything that runs by itself on this page runs on one of these clocks, so nothing is left running. */

import { wantsStillness } from "./dom.js";

export class Clock {
  /** Clocks that tick now. A closed view must not leave one here. */
  static running = new Set();

  /**
   * @param {() => void} tick called every `delay` milliseconds while the clock runs
   * @param {number} delay
   * @param {(running: boolean) => void} onchange told about every start and stop
   */
  constructor(tick, delay, onchange = () => {}) {
    Object.assign(this, { tick, delay, onchange, timer: null });
  }

  get isRunning() {
    return this.timer !== null;
  }

  start() {
    if (this.isRunning) return;
    this.timer = setInterval(this.tick, this.delay);
    Clock.running.add(this);
    this.onchange(true);
  }

  /** Start, unless the reader asked for less motion: then a view waits for its play button. */
  startUnlessStill() {
    if (!wantsStillness()) this.start();
  }

  stop() {
    if (!this.isRunning) return;
    clearInterval(this.timer);
    this.timer = null;
    Clock.running.delete(this);
    this.onchange(false);
  }

  toggle() {
    if (this.isRunning) this.stop();
    else this.start();
  }
}
