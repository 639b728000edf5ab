/**
 * The payload of a comparison, read from what may be anything: another version, cut in half, or written to do harm.
 *
 * The schema is nbopt/render/schema/comparison.v1.json. What a reader does not know it ignores, and what is not of the
 * kind that the schema names is as good as missing: nothing here throws, and nothing is believed.
 */

export const VERSION = 1;
export const MIME = `application/vnd.nbopt.comparison.v${VERSION}+json`;

/** Beyond these a page would be slow, whoever wrote it; nbopt itself stays far below. */
export const MOST_ROWS = 20000;
const LONGEST_TEXT = 2000;
const MOST_PARTS = 60;

export type Tone = 'good' | 'mixed' | 'bad' | 'plain' | 'muted';
const TONES: readonly string[] = ['good', 'mixed', 'bad', 'plain', 'muted'];

export interface Part {
  readonly text: string;
  readonly kind: 'words' | 'aside' | 'name';
}

/** A figure as text: the estimate, and its bounds in brackets. */
export interface Figure {
  readonly value: string;
  readonly bounds: string;
}

export interface Row {
  /** Unique in its payload. */
  readonly name: string;
  readonly id: string;
  readonly label: string;
  readonly recipe: string;
  readonly runtime: string;
  readonly precision: string;
  readonly sentence: string;
  readonly verdict: string;
  readonly tone: Tone;
  readonly qualityTone: Tone;
  readonly failed: boolean;
  readonly baseline: boolean;
  readonly reason: string;
  readonly notes: readonly number[];
  readonly figures: Readonly<Record<string, Figure>>;
  /** Numbers of the run by the schema's names; only what is finite. */
  readonly numbers: Readonly<Record<string, number>>;
  readonly greaterIsBetter: boolean;
  readonly bounded: boolean;
  /** The run as it came, and what it was measured under, for those who compare two. */
  readonly raw: () => Readonly<Record<string, unknown>>;
  readonly environment: () => Readonly<Record<string, unknown>>;
}

export interface Workload {
  readonly name: string;
  readonly key: string;
  readonly baseline: string | null;
  readonly best: string | null;
  readonly strong: readonly Part[];
  readonly second: readonly Part[];
  readonly conditions: string;
  readonly metric: string;
  readonly points: boolean;
  readonly sizeUnit: string;
  readonly next: string;
  readonly notes: readonly string[];
  readonly differing: string;
  readonly rows: readonly Row[];
}

export interface Payload {
  readonly workloads: readonly Workload[];
  readonly leftOut: readonly string[];
}

export interface Refusal {
  /** Why the payload is not shown, in a few words. */
  readonly why: string;
}

type Bag = Readonly<Record<string, unknown>>;

export function isRefusal(read: Payload | Refusal): read is Refusal {
  return 'why' in read;
}

/** Read a payload, or a `.nbopt.json` file that holds one. */
export function read(data: unknown): Payload | Refusal {
  const body = bag(data);
  if (body === null) {
    return { why: 'it is no comparison of nbopt' };
  }
  if (body['format'] === 'nbopt.comparison') {
    return body['view'] === undefined
      ? { why: 'it has no view: cmp.save("name.nbopt.json") writes one' }
      : read(body['view']);
  }
  if (body['version'] === undefined) {
    return { why: 'it is no comparison of nbopt' };
  }
  if (body['version'] !== VERSION) {
    return { why: `its version is ${oneLine(String(body['version']), 40)}, and this extension reads ${VERSION}` };
  }
  if (!Array.isArray(body['workloads']) || !Array.isArray(body['runs'])) {
    return { why: 'it has no list of workloads and runs' };
  }
  const shared = bag(body['shared']) ?? {};
  const runs = new Map<string, Bag>();
  for (const each of body['runs'].slice(0, MOST_ROWS)) {
    const run = bag(each);
    if (run !== null && typeof run['name'] === 'string' && !runs.has(run['name'])) {
      runs.set(run['name'], run);
    }
  }
  const leftOut = texts(body['left_out']);
  if (body['runs'].length > MOST_ROWS) {
    leftOut.push(`${body['runs'].length - MOST_ROWS} runs beyond ${MOST_ROWS}`);
  }
  const workloads = body['workloads']
    .slice(0, MOST_ROWS)
    .map(each => workload(bag(each) ?? {}, runs, shared))
    .filter(each => each.rows.length > 0);
  return { workloads, leftOut };
}

/** The conditions of a run, with those that it has in common with the others. */
function environmentOf(run: Bag, shared: Bag): Bag {
  return run['environment'] === null ? {} : { ...bag(shared['environment']), ...bag(run['environment']) };
}

function workload(body: Bag, runs: ReadonlyMap<string, Bag>, shared: Bag): Workload {
  const common = numbersOf(shared, {});
  const baseline = text(body['baseline']) || null;
  const rows: Row[] = [];
  const seen = new Set<string>();
  for (const each of list(body['rows']).slice(0, MOST_ROWS)) {
    const said = bag(each) ?? {};
    const name = typeof said['run'] === 'string' ? said['run'] : '';
    const run = runs.get(name);
    if (run !== undefined && !seen.has(name)) {
      seen.add(name);
      rows.push(row(said, run, shared, common));
    }
  }
  return {
    name: text(body['workload']),
    key: text(body['workload_key']),
    baseline,
    best: text(body['best']) || null,
    strong: parts(body['strong']),
    second: parts(body['second']),
    conditions: text(body['conditions']),
    metric: text(body['metric']),
    points: body['points'] === true,
    sizeUnit: text(body['size_unit']) || 'MB',
    next: text(body['next']),
    notes: texts(body['notes']),
    differing: text(body['differing']),
    rows
  };
}

function numbersOf(of: Bag, common: Readonly<Record<string, number>>): Record<string, number> {
  const numbers: Record<string, number> = { ...common };
  for (const name in of) {
    const finite = number(of[name]);
    if (finite !== null) {
      numbers[name] = finite;
    }
  }
  return numbers;
}

function row(said: Bag, own: Bag, shared: Bag, common: Readonly<Record<string, number>>): Row {
  const field = (name: string): unknown => own[name] ?? shared[name];
  const figures: Record<string, Figure> = {};
  const written = bag(said['figures']) ?? {};
  for (const name in written) {
    figures[name] = figure(text(written[name]));
  }
  const toned = tone(said['tone']);
  const recipe = text(own['recipe']);
  return {
    name: text(own['name']),
    id: text(own['id']),
    label: text(own['label']) || recipe || text(own['name']),
    recipe,
    runtime: text(said['runtime']) || text(own['runtime']),
    precision: text(said['precision']),
    sentence: text(said['sentence']),
    verdict: text(said['verdict']),
    tone: toned ?? 'plain',
    qualityTone: tone(said['quality_tone']) ?? 'plain',
    failed: own['status'] === 'failed',
    baseline: recipe === 'baseline',
    reason: text(own['reason']),
    notes: list(said['notes']).filter((each): each is number => Number.isInteger(each)),
    figures,
    numbers: numbersOf(own, common),
    greaterIsBetter: field('greater_is_better') !== false,
    bounded: field('bounded') !== false,
    raw: () => ({ ...shared, ...own }),
    environment: () => environmentOf(own, shared)
  };
}

/** Split "3.1 [3.0, 3.3]" into its estimate and its bounds. */
export function figure(written: string): Figure {
  const at = written.indexOf(' [');
  return at < 0 ? { value: written, bounds: '' } : { value: written.slice(0, at), bounds: written.slice(at + 1) };
}

/** Most text is on one line already, and a table of thousands of rows has tens of thousands of texts. */
const PLAIN = /^[!-~](?: ?[!-~])*$/;

/** Text on one line without control and direction characters, cut. */
export function oneLine(value: string, longest: number = LONGEST_TEXT): string {
  if (value.length <= longest && PLAIN.test(value)) {
    return value;
  }
  const short = value.length > longest ? `${value.slice(0, longest - 1)}…` : value;
  return short.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, ' ').trim();
}

export function bag(value: unknown): Bag | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Bag) : null;
}

export function number(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === 'string' ? oneLine(value) : '';
}

function texts(value: unknown): string[] {
  return list(value)
    .slice(0, 1000)
    .map(text)
    .filter(each => each !== '');
}

function tone(value: unknown): Tone | null {
  return typeof value === 'string' && TONES.includes(value) ? (value as Tone) : null;
}

function parts(value: unknown): Part[] {
  const read: Part[] = [];
  for (const each of list(value).slice(0, MOST_PARTS)) {
    const part = bag(each) ?? {};
    const kind = part['kind'];
    // The spaces around a piece belong to the sentence.
    const words = typeof part['text'] === 'string' ? part['text'].slice(0, LONGEST_TEXT) : '';
    if (words !== '') {
      const flat = words.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
      read.push({ text: flat, kind: kind === 'aside' || kind === 'name' ? kind : 'words' });
    }
  }
  return read;
}
