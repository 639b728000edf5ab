/** What two rows differ in: recipe, figures, layers, conditions. Words in, words out; nothing is judged here. */

import { bag, list, number, oneLine, type Figure, type Row } from './payload';
import { bytesText, significant } from './rows';

export interface Difference {
  readonly what: string;
  readonly a: string;
  readonly b: string;
  readonly differs: boolean;
}

export interface Section {
  readonly title: string;
  readonly rows: readonly Difference[];
  /** How many more there are than are listed. */
  readonly more: number;
}

const MOST_LAYERS = 200;

/** What is told of a run beside the table's own figures: name in the schema, title, how its number is written. */
const FURTHER: readonly (readonly [string, string, (value: number) => string])[] = [
  ['deflated_bytes', 'deflated', bytesText],
  ['params', 'parameters', value => value.toLocaleString('en')],
  ['nonzero_params', 'parameters not zero', value => value.toLocaleString('en')],
  ['latency_p90_ms', 'latency p90', value => `${significant(value)} ms`],
  ['latency_p99_ms', 'latency p99', value => `${significant(value)} ms`],
  ['cpu_ms', 'CPU time', value => `${significant(value)} ms`],
  ['throughput', 'throughput', value => `${significant(value)} rows/s`],
  ['load_ms', 'load', value => `${significant(value)} ms`],
  ['first_inference_ms', 'first inference', value => `${significant(value)} ms`],
  ['agreement', 'same prediction as the baseline', value => `${Math.floor(value * 10000 + 1e-6) / 100}% of rows`],
  ['max_error', 'largest output error', value => significant(value)],
  ['train_seconds', 'training', value => `${significant(value)} s`],
  ['search_seconds', 'search', value => `${significant(value)} s`],
  ['epochs', 'epochs', value => String(value)],
  ['seed', 'seed', value => String(value)],
  ['cost_usd', 'cost', value => `${value.toFixed(2)} USD`]
];

export function diff(a: Row, b: Row, sizeUnit: string): Section[] {
  return [
    recipe(a, b),
    { title: 'Figures', rows: figures(a, b, sizeUnit), more: 0 },
    layers(a, b),
    { title: 'Conditions', rows: conditions(a, b), more: 0 }
  ].filter(section => section.rows.length > 0);
}

function recipe(a: Row, b: Row): Section {
  const rows = [told('runtime', a.runtime, b.runtime), told('precision', a.precision, b.precision)];
  const steps = [stepsOf(a.recipe), stepsOf(b.recipe)] as const;
  for (let index = 0; index < Math.max(steps[0].length, steps[1].length); index += 1) {
    rows.push(told(`step ${index + 1}`, steps[0][index] ?? '', steps[1][index] ?? ''));
  }
  rows.push(told('verdict', a.failed ? `failed: ${a.reason}` : a.verdict, b.failed ? `failed: ${b.reason}` : b.verdict));
  return { title: 'Recipe', rows: rows.filter(each => each.a !== '' || each.b !== ''), more: 0 };
}

function stepsOf(text: string): string[] {
  return text === '' ? [] : text.split(' | ');
}

function figures(a: Row, b: Row, sizeUnit: string): Difference[] {
  const named: [string, string, string][] = [
    ['quality', 'quality', ''],
    ['change', 'change of quality', ''],
    ['size', 'size', ` ${sizeUnit}`],
    ['latency', 'latency', ' ms'],
    ['speedup', 'speedup', 'x'],
    ['runtime_share', 'of it the runtime', 'x'],
    ['technique_share', 'of it the technique', 'x'],
    ['memory', 'peak memory', '']
  ];
  const rows = named.map(([name, title, unit]) => told(title, withUnit(a.figures[name], unit), withUnit(b.figures[name], unit)));
  for (const [name, title, write] of FURTHER) {
    const [first, second] = [a.numbers[name], b.numbers[name]];
    rows.push(told(title, first === undefined ? '' : write(first), second === undefined ? '' : write(second)));
  }
  return rows.filter(each => each.a !== '' || each.b !== '');
}

function withUnit(written: Figure | undefined, unit: string): string {
  if (written === undefined || written.value === '') {
    return '';
  }
  return `${written.value}${/\d$/.test(written.value) ? unit : ''}${written.bounds ? ` ${written.bounds}` : ''}`;
}

/** Layers by name; those that differ, then how many are alike. */
function layers(a: Row, b: Row): Section {
  const [first, second] = [layersOf(a), layersOf(b)];
  const differing: Difference[] = [];
  let alike = 0;
  for (const name of new Set([...first.keys(), ...second.keys()])) {
    const row = told(name, first.get(name) ?? 'not there', second.get(name) ?? 'not there');
    if (row.differs) {
      differing.push(row);
    } else {
      alike += 1;
    }
  }
  const rows = differing.slice(0, MOST_LAYERS);
  if (alike > 0) {
    const words = `${alike} ${alike === 1 ? 'layer is' : 'layers are'} alike`;
    rows.push({ what: 'others', a: words, b: words, differs: false });
  }
  return { title: 'Layers', rows, more: differing.length - Math.min(differing.length, MOST_LAYERS) };
}

function layersOf(row: Row): Map<string, string> {
  const found = new Map<string, string>();
  for (const each of list(bag(row.raw()['audit'])?.['layers'])) {
    const layer = bag(each);
    if (layer === null) {
      continue;
    }
    const words = [word(layer['kind']), shape(layer['weight_shape']), word(layer['weight_dtype'])];
    const runs = word(layer['compute_dtype']);
    if (runs !== '' && runs !== words[2]) {
      words.push(`runs in ${runs}`);
    }
    const zeros = number(layer['zeros']);
    const elements = number(layer['weights']) ?? 0;
    if (zeros !== null && zeros > 0 && elements > 0) {
      words.push(`${significant((100 * zeros) / elements, 2)}% zeros`);
    }
    const name = word(layer['name']) || `layer ${found.size + 1}`;
    found.set(found.has(name) ? `${name} (${found.size + 1})` : name, words.filter(Boolean).join(' · '));
  }
  return found;
}

function shape(value: unknown): string {
  return list(value).filter(each => number(each) !== null).join('×');
}

function word(value: unknown): string {
  return typeof value === 'string' ? oneLine(value, 200) : '';
}

function conditions(a: Row, b: Row): Difference[] {
  const [first, second] = [a.environment(), b.environment()];
  const names = [...new Set([...Object.keys(first), ...Object.keys(second)])].slice(0, 100);
  const rows = names.map(name => told(oneLine(name, 60), value(first[name]), value(second[name])));
  return [told('measured', when(a), when(b)), ...rows].filter(each => each.differs && (each.a !== '' || each.b !== ''));
}

function when(row: Row): string {
  const created = row.raw()['created'];
  return typeof created === 'string' ? oneLine(created.slice(0, 19).replace('T', ' '), 30) : '';
}

function value(of: unknown): string {
  if (of === undefined || of === null) {
    return '';
  }
  return oneLine(typeof of === 'object' ? JSON.stringify(of).slice(0, 400) : String(of), 300);
}

function told(what: string, a: string, b: string): Difference {
  return { what, a, b, differs: a !== b };
}

