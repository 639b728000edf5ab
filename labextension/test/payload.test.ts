import assert from 'node:assert/strict';
import { test } from 'node:test';
import Ajv2020 from 'ajv/dist/2020';
import { figure, isRefusal, MOST_ROWS, oneLine, read } from '../src/payload';
import { copy, payload, row, SAMPLE, SCHEMA, workload } from './shared';

test('the sample keeps the schema that the kernel writes by, and is read whole', () => {
  const validate = new Ajv2020({ allErrors: true, strict: false }).compile(SCHEMA);
  assert.ok(validate(SAMPLE), JSON.stringify(validate.errors));
  const known = workload();
  assert.equal(known.rows.length, (SAMPLE['runs'] as unknown[]).length);
  assert.deepEqual([known.baseline, known.best, known.metric, known.sizeUnit], ['baseline/torch', 'quantize/openvino', 'accuracy', 'MB']);
  assert.match(known.strong.map(part => part.text).join(''), /^3\.1x faster \[3\.0, 3\.3\]/);
});

test('a row has its figures as the kernel wrote them, and what all runs have in common', () => {
  const int8 = row('quantize/openvino');
  assert.deepEqual(int8.figures['speedup'], { value: '3.1', bounds: '[3.0, 3.3]' });
  assert.equal(int8.numbers['speedup'], 3.1);
  assert.equal(int8.raw()['workload'], 'fashion-cnn');
  assert.equal(int8.environment()['threads'], 2);
  assert.deepEqual(row('quantize/litert#2').environment(), {});
  assert.ok(row('quantize/litert#2').failed);
});

test('a file is read by its view, and says so where it has none', () => {
  const file = { format: 'nbopt.comparison', version: 1, runs: [] };
  assert.equal(payload({ ...file, view: SAMPLE }).workloads.length, 1);
  assert.match((read(file) as { why: string }).why, /no view/);
});

for (const [name, data] of Object.entries({
  'another version': { ...SAMPLE, version: 2 },
  'no version': { ...SAMPLE, version: undefined },
  'a version that is text': { ...SAMPLE, version: '<img src=x onerror=alert(1)>' },
  nothing: null,
  text: 'comparison',
  'a list': [SAMPLE],
  'runs that are no list': { ...SAMPLE, runs: {} },
  'views in views that end nowhere': { format: 'nbopt.comparison', view: { format: 'nbopt.comparison', view: 3 } }
})) {
  test(`${name} is refused with a reason`, () => {
    const known = read(data);
    assert.ok(isRefusal(known) && known.why.length > 5);
  });
}

test('whatever kind each value is of, reading never throws', () => {
  const odd: unknown[] = [null, 3, 'x', [], {}, [null], { a: [] }, true, '\u202e', -1e999, Number.NaN];
  const spoil = (value: unknown, path: string[], by: unknown): void => {
    const last = path.pop() as string;
    let at = value as Record<string, unknown>;
    for (const step of path) {
      at = at[step] as Record<string, unknown>;
    }
    at[last] = by;
  };
  const paths = [
    ['workloads'], ['workloads', '0'], ['workloads', '0', 'rows'], ['workloads', '0', 'rows', '1'], ['workloads', '0', 'strong'],
    ['workloads', '0', 'rows', '1', 'figures'], ['workloads', '0', 'rows', '1', 'notes'], ['workloads', '0', 'notes'],
    ['runs', '1'], ['runs', '1', 'speedup'], ['runs', '1', 'name'], ['runs', '1', 'audit'], ['shared'], ['left_out'], ['max_drop']
  ];
  for (const path of paths) {
    for (const by of odd) {
      const data = copy(SAMPLE);
      spoil(data, [...path], by);
      const known = read(data);
      assert.ok(isRefusal(known) || known.workloads.every(each => each.rows.length > 0), `${path.join('.')} = ${String(by)}`);
    }
  }
});

test('figures that are not finite are as good as not measured', () => {
  const data = copy(SAMPLE) as { runs: Record<string, unknown>[] };
  const run = data.runs[2] as Record<string, unknown>;
  run['speedup'] = Number.NaN;
  run['size_bytes'] = 'many';
  const int8 = workload(data).rows[2];
  assert.deepEqual([int8?.numbers['speedup'], int8?.numbers['size_bytes']], [undefined, undefined]);
});

test('text is on one line, without control and direction characters, and cut', () => {
  assert.equal(oneLine('a\u202eb\n\tc\u0000'), 'a b c');
  assert.equal(oneLine('x'.repeat(10_000)).length, 2000);
});

test('more rows than any page could hold are cut, and counted', () => {
  const run = (SAMPLE['runs'] as object[])[2];
  const runs = Array.from({ length: MOST_ROWS + 5 }, (_, index) => ({ ...run, name: `r${index}` }));
  const rows = runs.map(each => ({ run: each.name, verdict: '', tone: 'plain' }));
  const known = payload({ ...SAMPLE, runs, workloads: [{ ...(SAMPLE['workloads'] as object[])[0], rows }] });
  assert.equal(known.workloads[0]?.rows.length, MOST_ROWS);
  assert.deepEqual(known.leftOut, [`5 runs beyond ${MOST_ROWS}`]);
});

test('a figure is an estimate and its bounds', () => {
  assert.deepEqual(figure('-0.1 [-0.3, +0.1]'), { value: '-0.1', bounds: '[-0.3, +0.1]' });
  assert.deepEqual(figure('identical'), { value: 'identical', bounds: '' });
});
