/** Runs of several notebooks as one list, and picked ones of them as one comparison. */

import { isRefusal, read, type Part, type Payload, type Row, type Workload } from './payload';
import { significant } from './rows';

/** A run, where it was found, and what it was measured for. */
export interface Found {
  readonly notebook: string;
  readonly workload: Workload;
  readonly row: Row;
}

const UNITS: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };

/** Return the runs in a notebook's payloads, each once: a later output knows a run as well as an earlier one. */
export function found(notebook: string, payloads: Iterable<unknown>): Found[] {
  const byId = new Map<string, Found>();
  for (const data of payloads) {
    const payload = read(data);
    if (isRefusal(payload)) {
      continue;
    }
    for (const workload of payload.workloads) {
      for (const row of workload.rows) {
        byId.set(row.id || `${workload.key} ${row.name}`, { notebook, workload, row });
      }
    }
  }
  return [...byId.values()];
}

/** Return picked runs as a comparison: one table for each workload, whatever notebooks its runs come from. */
export function together(picked: readonly Found[]): Payload {
  const grouped = new Map<string, Found[]>();
  for (const each of picked) {
    const key = `${each.workload.key} ${each.workload.name}`;
    grouped.set(key, [...(grouped.get(key) ?? []), each]);
  }
  return { workloads: [...grouped.values()].map(one), leftOut: [] };
}

function one(runs: readonly Found[]): Workload {
  const first = (runs[0] as Found).workload;
  const notebooks = new Set(runs.map(each => each.notebook));
  const several = notebooks.size > 1;
  const rows = runs.map(({ notebook, workload, row }) => ({
    ...row,
    name: several ? `${notebook}: ${row.name}` : row.name,
    label: several ? `${row.label} (${notebook})` : row.label,
    // Footnotes are numbered by the table that they came from.
    notes: [],
    figures: { ...row.figures, ...sized(row, workload.sizeUnit, first.sizeUnit) }
  }));
  const notes = several ? ['Each speedup is against the baseline of its own notebook.'] : [];
  const strong: Part[] = [
    { kind: 'words', text: `${runs.length} ${runs.length === 1 ? 'run' : 'runs'} of ` },
    { kind: 'name', text: first.name || 'a workload' },
    { kind: 'aside', text: several ? ` from ${notebooks.size} notebooks` : ` from ${[...notebooks].join('')}` }
  ];
  const conditions = [...new Set(runs.map(each => each.workload.conditions))].join(' \u2014 ');
  // Another runtime's untouched model has figures of its own: it is compared with as any run.
  const at = runs.findIndex(({ workload, row }) => row.name === workload.baseline);
  const baseline = rows[at]?.name ?? null;
  return { ...first, strong, second: [], conditions, notes, next: '', best: null, baseline, differing: '', rows };
}

function sized(row: Row, from: string, to: string): Record<string, { value: string; bounds: string }> {
  const bytes = row.numbers['size_bytes'];
  return from === to || bytes === undefined ? {} : { size: { value: significant(bytes / (UNITS[to] ?? 1e6)), bounds: '' } };
}
