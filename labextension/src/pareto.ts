/** The Pareto front as nbopt's `Comparison.pareto` has it, for the axis that a reader picks. */

import type { Row } from './payload';
import { openSpeedup } from './rows';

export interface Axis {
  readonly name: string;
  readonly title: string;
  /** What is to be small. */
  readonly cost: (row: Row) => number | null;
}

export const AXES: readonly Axis[] = [
  {
    name: 'latency',
    title: 'latency, as a share of the baseline’s',
    // Speedups are paired with one baseline, so they compare across rows where bare milliseconds may not. One that
    // nothing supports has no place.
    cost: row => {
      const speedup = openSpeedup(row) ? null : positive(row.numbers['speedup']);
      return speedup === null ? null : 1 / speedup;
    }
  },
  { name: 'size', title: 'size', cost: row => positive(row.numbers['size_bytes']) },
  { name: 'memory', title: 'peak memory', cost: row => positive(row.numbers['peak_memory_bytes']) }
];

export interface Point {
  readonly row: Row;
  readonly cost: number;
  readonly quality: number;
  readonly front: boolean;
}

function positive(value: number | undefined): number | null {
  return value !== undefined && value > 0 ? value : null;
}

/** Return the rows that have both figures; `front` are those that no other beats on both. */
export function points(rows: readonly Row[], axis: Axis): Point[] {
  const found: { row: Row; cost: number; quality: number; good: number }[] = [];
  for (const row of rows) {
    const cost = row.failed ? null : axis.cost(row);
    const quality = row.numbers['quality'];
    if (cost !== null && quality !== undefined) {
      found.push({ row, cost, quality, good: row.greaterIsBetter ? quality : -quality });
    }
  }
  // From the cheapest on, a row is on the front where it is better than all that cost less.
  const front = new Set<Row>();
  const ordered = found.filter(each => !collapsed(each.row)).sort((a, b) => a.cost - b.cost || b.good - a.good);
  let best = -Infinity;
  let bestCost = -Infinity;
  for (const each of ordered) {
    if (each.good > best || (each.good === best && each.cost === bestCost)) {
      front.add(each.row);
      best = each.good;
      bestCost = each.cost;
    }
  }
  return found.map(({ row, cost, quality }) => ({ row, cost, quality, front: front.has(row) }));
}

function collapsed(row: Row): boolean {
  return row.verdict.startsWith('collapsed');
}

/** Return a few round values inside a range, for the marks of an axis. */
export function marks(low: number, high: number, count: number): number[] {
  if (!(high > low)) {
    return [low];
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough) ?? rough;
  const found: number[] = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9 && found.length < 20; at += step) {
    found.push(Number(at.toPrecision(12)));
  }
  return found;
}
