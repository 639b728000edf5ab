/** The columns of a table: title, what it sorts by, and what a cell holds. */

import type { Figure, Row, Workload } from '../payload';
import { bytesText, openSpeedup, significant, type Key } from '../rows';
import { h, hidden, typeset, type Child } from './dom';
import { bar, changeScale, speedScale, whisker, type Scale } from './pictures';

export interface Column {
  readonly id: string;
  readonly title: string;
  /** Where figures end at the same place in all rows. */
  readonly right: boolean;
  /** Pixels that the column asks for where rows are of one height. */
  readonly width: number;
  readonly shown: boolean;
  readonly key: Key;
  /** The order that a first click gives: what is best on top. */
  readonly largestFirst: boolean;
  readonly cell: (row: Row) => readonly Child[];
  /** What the colours of its pictures stand for: a class and a word each. */
  readonly legend?: readonly (readonly [string, string])[];
}

const HALVES = [['nbopt-OfRuntime', 'runtime'], ['nbopt-OfTechnique', 'technique']] as const;

export function columnsOf(workload: Workload): Column[] {
  const measured = workload.rows.filter(row => !row.failed);
  const [changes, speeds] = [changeScale(measured), speedScale(measured)];
  const good = measured.every(row => row.greaterIsBetter);
  const metric = workload.metric;
  const columns: Column[] = [
    words('recipe', 'recipe', 190, row => row.label, row => [name(row, workload)]),
    words('runtime', 'runtime', 120, row => row.runtime, row => [row.runtime]),
    words('precision', 'realised precision', 130, row => row.precision, row => [row.precision])
  ];
  if (metric !== '') {
    columns.push(
      figure('quality', metric + (workload.points ? ' %' : ''), 80, good, row => row.numbers['quality'], row => written(row.figures['quality'])),
      { ...figure('change', workload.points ? 'change, pt' : 'change', 150, good, row => row.numbers['quality_delta'], row => change(row, changes)), right: false }
    );
  } else {
    columns.push(
      figure('agreement', 'agreement', 90, true, row => row.numbers['agreement'], row => number(row, 'agreement', percent)),
      figure('max_error', 'max error', 90, false, row => row.numbers['max_error'], row => number(row, 'max_error', significant))
    );
  }
  columns.push(
    figure('size', `size, ${workload.sizeUnit}`, 70, false, row => row.numbers['size_bytes'], row => written(row.figures['size'])),
    figure('latency', 'latency, ms', 80, false, row => row.numbers['latency_ms'], row => written(row.figures['latency'])),
    { ...figure('speedup', 'speedup', 180, true, row => (openSpeedup(row) ? undefined : row.numbers['speedup']), row => speedup(row, workload, speeds)), right: false, legend: HALVES },
    words('verdict', 'verdict', 230, row => row.verdict, row => verdict(row)),
    more('memory', 'peak memory', false, 'peak_memory_bytes', bytesText),
    more('deflated', 'deflated', false, 'deflated_bytes', bytesText),
    more('parameters', 'parameters', false, 'params', value => value.toLocaleString('en')),
    more('throughput', 'rows/s', true, 'throughput', significant),
    more('p90', 'p90, ms', false, 'latency_p90_ms', significant),
    more('cpu', 'CPU, ms', false, 'cpu_ms', significant),
    more('training', 'training, s', false, 'train_seconds', significant),
    more('epochs', 'epochs', false, 'epochs', String),
    more('cost', 'cost, USD', false, 'cost_usd', value => value.toFixed(2))
  );
  // What no row has would be an empty column to offer.
  return columns.filter(column => column.shown || measured.some(row => column.key(row) !== null));
}

function words(id: string, title: string, width: number, key: (row: Row) => string, cell: (row: Row) => readonly Child[]): Column {
  return { id, title, width, cell, key: row => key(row) || null, right: false, shown: true, largestFirst: false };
}

function figure(
  id: string,
  title: string,
  width: number,
  largestFirst: boolean,
  key: (row: Row) => number | undefined,
  cell: (row: Row) => readonly Child[]
): Column {
  return { id, title, width, largestFirst, cell, key: row => key(row) ?? null, right: true, shown: true };
}

function more(id: string, title: string, largestFirst: boolean, field: string, write: (value: number) => string): Column {
  const column = figure(id, title, 90, largestFirst, row => row.numbers[field], row => number(row, field, write));
  return { ...column, shown: false };
}

function number(row: Row, field: string, write: (value: number) => string): readonly Child[] {
  const value = row.numbers[field];
  return value === undefined ? [] : [typeset(write(value))];
}

function percent(value: number): string {
  return `${Math.floor(value * 10000 + 1e-6) / 100}%`;
}

function name(row: Row, workload: Workload): Child {
  const best = row.name === workload.best && row.name !== workload.baseline;
  return h('span', { class: best ? 'nbopt-Best' : 'nbopt-Name', title: row.sentence || row.name }, row.label);
}

function written(value: Figure | undefined): readonly Child[] {
  if (value === undefined) {
    return [];
  }
  const bounds: Record<string, string> = value.bounds === '' ? {} : { title: typeset(`${value.value} ${value.bounds}, 95%`) };
  return [h('span', bounds, typeset(value.value))];
}

function change(row: Row, scale: Scale): readonly Child[] {
  const value = row.figures['change'];
  if (value === undefined) {
    return [];
  }
  if (value.value === 'identical') {
    return [h('span', { class: 'nbopt-Muted' }, 'identical')];
  }
  return pictured(value, value.value, whisker(row, scale), 'nbopt-ChangeFigure');
}

function speedup(row: Row, workload: Workload, scale: Scale): readonly Child[] {
  const value = row.figures['speedup'];
  if (value === undefined) {
    return [];
  }
  if (row.name === workload.baseline) {
    return [h('span', { class: 'nbopt-SpeedFigure' }, typeset('1x'))];
  }
  const [runtime, technique] = [row.figures['runtime_share'], row.figures['technique_share']];
  const halves = runtime && technique ? `: runtime ${runtime.value}x, technique ${technique.value}x` : '';
  return pictured(value, `${value.value}x`, bar(row, scale), 'nbopt-SpeedFigure', halves);
}

/** A figure before its picture; the bounds are in its title, and read out. */
function pictured(value: Figure, shown: string, picture: SVGElement | null, kind: string, more: string = ''): readonly Child[] {
  const bounds = value.bounds === '' ? '' : ` ${value.bounds}`;
  const box = h('span', { class: 'nbopt-Pictured', title: typeset(`${shown}${bounds}${more}`) });
  box.append(h('span', { class: kind }, typeset(shown)));
  if (bounds !== '' || more !== '') {
    box.append(hidden(typeset(`${bounds}${more}`)));
  }
  if (picture !== null) {
    box.append(picture);
  }
  return [box];
}

function verdict(row: Row): readonly Child[] {
  const marks = row.notes.map(note => ` [${note}]`).join('');
  if (row.verdict === '' || row.verdict === '-') {
    return [h('span', { class: 'nbopt-Muted' }, `\u2014${marks}`)];
  }
  return [h('span', { class: `nbopt-Verdict nbopt-tone-${row.tone}`, title: row.reason }, row.verdict), marks];
}
