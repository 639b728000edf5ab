import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isRefusal, read, type Payload, type Row, type Workload } from '../src/payload';

// From build/test/, where this runs.
const ROOT = join(__dirname, '..', '..', '..');

/** What nbopt's own tests hold to be the payload of their comparison. */
export const SAMPLE: Record<string, unknown> = json('tests/render/payload.json');
export const SCHEMA: Record<string, unknown> = json('nbopt/render/schema/comparison.v1.json');

export function json(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(ROOT, path), 'utf8')) as Record<string, unknown>;
}

export function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

export function payload(data: unknown = SAMPLE): Payload {
  const known = read(data);
  if (isRefusal(known)) {
    throw new Error(known.why);
  }
  return known;
}

export function workload(data: unknown = SAMPLE): Workload {
  const [first] = payload(data).workloads;
  if (first === undefined) {
    throw new Error('no workload');
  }
  return first;
}

export function row(name: string): Row {
  const found = workload().rows.find(each => each.name === name);
  if (found === undefined) {
    throw new Error(name);
  }
  return found;
}

export function names(rows: readonly Row[]): string[] {
  return rows.map(each => each.name);
}
