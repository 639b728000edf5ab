/** Small pictures in cells: an interval around zero, and a speedup split in two. Their figures stand beside them. */

import type { Row } from '../payload';
import { openSpeedup } from '../rows';
import { s } from './dom';

const HEIGHT = 14;
const WHISKER = 84;
const BAR = 100;
const NEAREST = 0.001;
const LOST = 0.05;

export class Scale {
  constructor(
    readonly low: number,
    readonly high: number,
    readonly width: number
  ) {}

  /** The pixel of a value, kept inside the picture. */
  at(value: number): number {
    const share = (Math.min(Math.max(value, this.low), this.high) - this.low) / (this.high - this.low || 1);
    return Math.round((4 + share * (this.width - 8)) * 10) / 10;
  }
}

/** The scale of changes of quality: what the table needs, but no further than a lost model goes. */
export function changeScale(rows: readonly Row[]): Scale {
  let [low, high, limit] = [0, 0, 0];
  for (const row of rows) {
    for (const name of ['quality_delta', 'quality_delta_low', 'quality_delta_high']) {
      low = Math.min(low, row.numbers[name] ?? 0);
      high = Math.max(high, row.numbers[name] ?? 0);
    }
    limit = Math.max(limit, row.bounded ? LOST : 2 * LOST * Math.abs(row.numbers['quality'] ?? 0));
  }
  if (rows.some(row => row.bounded)) {
    [low, high] = [Math.min(low, -NEAREST), Math.max(high, NEAREST)];
  }
  [low, high] = [Math.max(low, -(limit || LOST)), Math.min(high, limit || LOST)];
  const margin = (high - low) * 0.06 || 1e-9;
  return new Scale(low - margin, high + margin, WHISKER);
}

/** The scale of speedups, in logarithms: there runtime and technique add up. */
export function speedScale(rows: readonly Row[]): Scale {
  let [low, high] = [0, Math.log(2)];
  for (const row of rows) {
    for (const name of ['speedup', 'speedup_runtime']) {
      const value = row.numbers[name];
      if (value !== undefined && value > 0) {
        low = Math.min(low, Math.log(value));
        high = Math.max(high, Math.log(value));
      }
    }
  }
  return new Scale(low, high, BAR);
}

export function whisker(row: Row, scale: Scale): SVGElement | null {
  const { quality_delta: value, quality_delta_low: low, quality_delta_high: high } = row.numbers;
  if (value === undefined || low === undefined || high === undefined) {
    return null;
  }
  const [middle, zero] = [HEIGHT / 2, scale.at(0)];
  const picture = image(scale.width, `nbopt-tone-${row.qualityTone}`);
  picture.append(
    s('path', { class: 'nbopt-Track', d: `M${zero} 0V${HEIGHT}` }),
    s('path', { class: 'nbopt-Whisker', d: `M${scale.at(low)} ${middle}H${scale.at(high)}` })
  );
  if (value >= scale.low && value <= scale.high) {
    picture.append(s('circle', { class: 'nbopt-Fill', cx: scale.at(value), cy: middle, r: 3.2 }));
  } else {
    // Off the picture: an arrow at the edge.
    const [edge, back] = value < scale.low ? [1, 8] : [scale.width - 1, scale.width - 8];
    picture.append(s('path', { class: 'nbopt-Fill', d: `M${edge} ${middle}L${back} 2V12Z` }));
  }
  return picture;
}

/**
 * A speedup as a bar from 1, what the runtime gave lighter than what the technique gave. One that nothing supports has
 * no bar: it would be seen as a speedup.
 */
export function bar(row: Row, scale: Scale): SVGElement | null {
  const { speedup: whole, speedup_runtime: runtime, speedup_low: low, speedup_high: high } = row.numbers;
  if (whole === undefined || whole <= 0 || openSpeedup(row)) {
    return null;
  }
  // Where the untouched model does not run, nobody knows whose gain it is: the interval alone is drawn.
  const [start, end] = [scale.at(0), scale.at(runtime === undefined ? 0 : Math.log(whole))];
  const split = runtime !== undefined && runtime > 0 ? scale.at(Math.log(runtime)) : start;
  const picture = image(scale.width, '');
  picture.append(s('path', { class: 'nbopt-Track', d: `M${start} 0V${HEIGHT}` }), stretch(start, split, 'nbopt-OfRuntime', 2, 10));
  // What takes back a part of the runtime's gain is drawn over it, in the lower half.
  const back = (end - split) * (split - start) < 0;
  picture.append(stretch(split, end, 'nbopt-OfTechnique', back ? 7 : 2, back ? 5 : 10));
  if (low !== undefined && (high === undefined || high > low)) {
    // A side that is open reaches to the edge.
    const left = low > 0 ? scale.at(Math.log(low)) : 0;
    const right = high === undefined ? scale.width : scale.at(Math.log(high));
    if (right - left >= 2) {
      picture.append(s('path', { class: 'nbopt-Bounds', d: `M${left} ${HEIGHT / 2}H${right}` }));
    }
  }
  return picture;
}

function image(width: number, tone: string): SVGSVGElement {
  return s('svg', { class: `nbopt-Picture ${tone}`, width, height: HEIGHT, 'aria-hidden': 'true' });
}

function stretch(start: number, end: number, kind: string, y: number, height: number): SVGElement {
  return s('rect', { class: kind, x: Math.min(start, end), y, width: Math.abs(end - start), height });
}
