/** Which rows of a table are shown, in which order, and which of them keep within the reader's limits. */

import type { Row } from './payload';

/** What a reader demands; null demands nothing. */
export interface Limits {
  /** Loss of quality at the interval's bound, in the metric's units (a share of the baseline's where it has no bounds). */
  readonly drop: number | null;
  readonly latencyMs: number | null;
  readonly sizeBytes: number | null;
}

export const NO_LIMITS: Limits = { drop: null, latencyMs: null, sizeBytes: null };

export interface Order {
  readonly column: string;
  readonly descending: boolean;
}

/** What a column sorts by: a number of the run, or its words. */
export type Key = (row: Row) => number | string | null;

/**
 * Return the largest loss of quality that a row's interval allows, 0 or more; null where it was not measured.
 *
 * The same as nbopt's `loss_bound`, and for a metric without bounds as a share of the baseline's value.
 */
export function lossBound(row: Row): number | null {
  const bound = row.numbers[row.greaterIsBetter ? 'quality_delta_low' : 'quality_delta_high'];
  if (bound === undefined) {
    return row.baseline && row.numbers['quality_delta'] === undefined && !row.failed ? 0 : null;
  }
  const lost = Math.max(0, row.greaterIsBetter ? -bound : bound);
  if (row.bounded) {
    return lost;
  }
  const before = Math.abs((row.numbers['quality'] ?? 0) - (row.numbers['quality_delta'] ?? 0));
  return before > 0 ? lost / before : null;
}

/** Tell whether nothing supports a row's speedup, or slowdown, as nbopt's `open_speedup` does: the bound towards 1 is open. */
export function openSpeedup(row: Row): boolean {
  const { speedup: value, speedup_low: low, speedup_high: high } = row.numbers;
  if (value === undefined || low === undefined) {
    return false;
  }
  return value >= 1 ? low <= 0 : high === undefined;
}

/** Return how a row breaks the limits, in words; nothing where it keeps within them. */
export function broken(row: Row, limits: Limits): string[] {
  if (row.failed) {
    return ['it failed'];
  }
  const why: string[] = [];
  if (limits.drop !== null) {
    const lost = lossBound(row);
    if (lost === null) {
      why.push('its change of quality was not measured');
    } else if (lost > limits.drop) {
      why.push(`it may lose ${dropText(lost, row.bounded)}`);
    }
  }
  const amounts = [
    [limits.latencyMs, row.numbers['latency_ms'], 'latency', (value: number) => `${significant(value)} ms`],
    [limits.sizeBytes, row.numbers['size_bytes'], 'size', bytesText]
  ] as const;
  for (const [limit, value, name, write] of amounts) {
    if (limit !== null && value === undefined) {
      why.push(`its ${name} was not measured`);
    } else if (limit !== null && value !== undefined && value > limit) {
      why.push(`its ${name} is ${write(value)}`);
    }
  }
  return why;
}

export function demands(limits: Limits): boolean {
  return limits.drop !== null || limits.latencyMs !== null || limits.sizeBytes !== null;
}

/** Return whether a row holds every word of a filter, whatever the case. */
export function matches(row: Row, filter: string): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) {
    return true;
  }
  const said = [row.label, row.name, row.runtime, row.precision, row.verdict, row.failed ? `failed ${row.reason}` : ''];
  const all = said.join(' ').toLowerCase();
  return words.every(word => (word.startsWith('-') && word.length > 1 ? !all.includes(word.slice(1)) : all.includes(word)));
}

/**
 * Return rows in an order: the baseline first, then by the column, what has no such figure after them, what failed last.
 */
export function sorted(rows: readonly Row[], order: Order | null, key: Key, baseline: string | null): Row[] {
  if (order === null) {
    return [...rows];
  }
  // A key is asked once for each row, not once for each comparison.
  const keyed = rows.map((row, index) => ({ row, index, value: key(row), class: standing(row, baseline) }));
  const direction = order.descending ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.class !== b.class) {
      return a.class - b.class;
    }
    if (a.value === null || b.value === null) {
      return a.value === b.value ? a.index - b.index : a.value === null ? 1 : -1;
    }
    const compared =
      typeof a.value === 'number' && typeof b.value === 'number' ? a.value - b.value : COLLATE(String(a.value), String(b.value));
    return compared === 0 ? a.index - b.index : compared * direction;
  });
  return keyed.map(each => each.row);
}

const COLLATE = new Intl.Collator('en', { numeric: true }).compare;

function standing(row: Row, baseline: string | null): number {
  return row.name === baseline ? 0 : row.failed ? 2 : 1;
}

/** Return the different values of a figure, in ascending order: the steps of a slider. */
export function steps(rows: readonly Row[], value: (row: Row) => number | null | undefined): number[] {
  const found = new Set<number>();
  for (const row of rows) {
    const each = row.failed ? null : value(row);
    if (each !== null && each !== undefined) {
      found.add(each);
    }
  }
  return [...found].sort((a, b) => a - b);
}

export function significant(value: number, digits: number = 3): string {
  return value === 0 ? '0' : String(Number(value.toPrecision(digits)));
}

export function bytesText(value: number): string {
  for (const [name, size] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]] as const) {
    if (value >= size / 5) {
      return `${significant(value / size)} ${name}`;
    }
  }
  return `${value} B`;
}

/** A loss in points where the metric lies in [0, 1], else as a share of the baseline's value. */
export function dropText(loss: number, bounded: boolean): string {
  // Rounded up, so that the row whose bound it is still keeps within the words.
  const value = Math.ceil(loss * 10000 - 1e-6) / 100;
  return bounded ? `${value} pt` : `${value}%`;
}
